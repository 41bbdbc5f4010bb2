"""Settings of the alerts: the service levels, and the receivers of alerts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.settings.types import Memory, Port, Section

Severity = Literal["critical", "warning", "info"]
"""`critical` needs action at once, `warning` in working hours, `info` is worth knowing."""

_FILE, _ENVIRONMENT = "file:", "env:"


def _source(text: str) -> str:
    kind, _, place = text.partition(":")
    if text and (kind not in {"file", "env"} or not place or not place.isprintable()):
        raise ValueError("file:PATH or env:NAME is allowed: where on this machine the secret is, not itself")
    return text


def _url_or_source(text: str) -> str:
    return text if text.startswith(("http://", "https://")) else _source(text)


def _level(share: float) -> float:
    if share not in {0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99}:
        raise ValueError("0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98 or 0.99 is allowed: what is counted by")
    return share


Secret = Annotated[str, AfterValidator(_source)]
"""Where a secret is found on the operator's machine: `file:PATH` or `env:NAME`; never the secret itself."""

SecretUrl = Annotated[str, AfterValidator(_url_or_source)]
"""An address, or where it is found if it is a secret itself."""

Severities = Annotated[list[Severity], Field(max_length=3)]
Address = Annotated[str, Field(pattern=r"^[^@\s'\"\\<>]+@[A-Za-z0-9.-]+$")]


def secret(source: str) -> str:
    """The secret that a setting says the place of, without white space around it; an address as it is.

    :raises PyinfraError: it isn't there; one line that names the place.
    """
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        found = os.environ.get(name, "").strip()
        if not found:
            raise PyinfraError(f"{source}: the environment variable {name} is not set")
    elif source.startswith(_FILE):
        try:
            found = Path(source.removeprefix(_FILE)).expanduser().read_text().strip()
        except (OSError, ValueError) as error:
            raise PyinfraError(f"{source}: {getattr(error, 'strerror', None) or error}") from None
        if not found:
            raise PyinfraError(f"{source}: the file is empty")
    else:
        return source
    if not found.isprintable():
        raise PyinfraError(f"{source}: one line of printable characters is allowed")
    return found


class EmailSettings(Section):
    """Alerts by e-mail."""

    to: list[Address] = Field(default_factory=list)
    """Recipients; empty: no e-mail."""

    sender: Annotated[str, Field(pattern=r"^([^@\s'\"\\<>]+@[A-Za-z0-9.-]+)?$")] = ""
    """The sender's address."""

    smarthost: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+:[0-9]{1,5})?$")] = ""
    """The mail server that sends them, with its port: `smtp.example.com:587`."""

    username: str = ""
    """Account on that server; empty: none is needed."""

    password: Secret = ""
    """That account's password: `file:PATH` or `env:NAME` on the machine that deploys."""

    require_tls: bool = True
    """Refuse to send without STARTTLS (port 465 always uses TLS)."""

    severities: Severities = Field(default=["critical", "warning"])
    """Which alerts."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.to and not (self.sender and self.smarthost):
            raise ValueError("to needs sender and smarthost")
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password need each other")
        return self


class TelegramSettings(Section):
    """Alerts by a Telegram bot."""

    chats: list[int] = Field(default_factory=list)
    """Numbers of the chats that the bot writes to, negative for groups; empty: no Telegram."""

    token: Secret = ""
    """The bot's token: `file:PATH` or `env:NAME` on the machine that deploys."""

    api: Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]+$")] = "https://api.telegram.org"
    """The server of Telegram's bots."""

    proxy: Annotated[str, Field(pattern=r"^((http|https|socks5)://[A-Za-z0-9.:\[\]-]+)?$")] = ""
    """A proxy to that server, such as `socks5://192.0.2.1:1080`; empty: none."""

    severities: Severities = Field(default=["critical", "warning"])
    """Which alerts."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.chats) != bool(self.token):
            raise ValueError("chats and token need each other")
        return self


class WebhookSettings(Section):
    """Alerts as JSON to programs, in Alertmanager's format."""

    urls: list[SecretUrl] = Field(default_factory=list)
    """Addresses that get them: `https://...`, or for an address that is itself a secret `file:PATH` or
    `env:NAME` on the machine that deploys. Empty: none."""

    severities: Severities = Field(default=["critical", "warning", "info"])
    """Which alerts."""


class WatchdogSettings(Section):
    """A dead man's switch: an alert that always fires, for a service elsewhere that notices when it stops.
    Nothing on the monitoring host itself can report that this host is down."""

    url: SecretUrl = ""
    """Address that gets it every `interval_s`: `https://...`, `file:PATH` or `env:NAME`; empty: none."""

    interval_s: Annotated[int, Field(ge=10, le=86_400)] = 60
    """Seconds (10 to 86400) between two posts."""


class AlertmanagerSettings(Section):
    """Alertmanager, on the `monitoring` hosts: which receiver gets which alerts. Listens on loopback only."""

    port: Port = 9093
    """Its port on loopback."""

    external_url: Annotated[str, Field(pattern=r"^(https?://[A-Za-z0-9.:\[\]/_-]+)?$")] = ""
    """The address of a page of yours that lists the active alerts, for the end of messages; empty: messages
    name the command that lists them, as Debian's Alertmanager has no pages."""

    runbooks_url: Annotated[str, Field(pattern=r"^(https?://[A-Za-z0-9.:\[\]/_-]+/)?$")] = ""
    """The beginning of an alert's link to its runbook, such as your repository's
    `https://git.example.com/shop/cdn/blob/main/`; it ends in `/`. Empty: the link is the path in this one."""

    memory_max: Memory = "128mb"
    """Memory limit: beyond it the kernel kills Alertmanager and systemd restarts it."""

    critical_wait_s: Annotated[int, Field(ge=0, le=600)] = 5
    """Seconds (0 to 600) that the first critical alert of a group waits for further ones."""

    warning_wait_s: Annotated[int, Field(ge=0, le=3600)] = 30
    """The same (0 to 3600) for other severities."""

    critical_repeat_h: Annotated[int, Field(ge=1, le=720)] = 4
    """Hours (1 to 720) after which a critical alert that still fires is sent again."""

    warning_repeat_h: Annotated[int, Field(ge=1, le=720)] = 24
    """The same (1 to 720) for other severities."""

    email: EmailSettings = EmailSettings()
    telegram: TelegramSettings = TelegramSettings()
    webhook: WebhookSettings = WebhookSettings()
    watchdog: WatchdogSettings = WatchdogSettings()


class LevelSettings(Section):
    """The service levels. An alert fires when one is missed."""

    availability: Annotated[float, Field(ge=0.95, le=0.9999)] = 0.999
    """Share (0.95 to 0.9999) of requests to the CDN host without a server error (5xx)."""

    fast: Annotated[float, Field(ge=0.95, le=0.999)] = 0.95
    """Share (0.95 to 0.999) of pictures that are sent within 250 ms: at 0.95, the P95 is below that."""

    cache_hit: Annotated[float, Field(ge=0, le=1)] = 0.80
    """Share (0 to 1) of the requests through Varnish that it answers from its memory."""

    conversion_success: Annotated[float, Field(ge=0.5, le=0.9999)] = 0.95
    """Share (0.5 to 0.9999) of pictures that are decided rather than given up."""

    saving: Annotated[float, Field(ge=0, le=0.99)] = 0.30
    """Share (0 to 0.99) of the originals' bytes that their variants save on average."""

    ssim: Annotated[float, AfterValidator(_level)] = 0.95
    """Structural similarity above which a variant must be. Checked only with `converter.encoding.policy`
    `ssim`, and useful only up to its `ssim_target`."""

    publish_s: Annotated[float, Field(ge=0.01, le=60)] = 1.0
    """Seconds (0.01 to 60) from a picture's close-write to its variant, for 99 of 100 pictures that are
    converted at once."""
