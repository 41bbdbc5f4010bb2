"""Alertmanager, which notifies people."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import deploy
from pyinfra.operations import apt

from bitrix_cdn.engine.accounts import account
from bitrix_cdn.engine.files import File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.services import running
from bitrix_cdn.settings.alerting import AlertmanagerSettings, secret
from roles.topology import BEHIND, reloads

ACCOUNT = "alertmanager"
CONFIG = "/etc/prometheus/alertmanager.yml"
UNIT = "prometheus-alertmanager.service"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/bitrix-cdn.conf"

SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class Inhibition:
    """While an alert like `source` fires, those like `target` aren't told, where labels are `equal`."""

    source: list[str]
    target: list[str]
    equal: list[str]


def _alerts(*names: str) -> str:
    return f'alertname=~"{"|".join(names)}"'


_OF_THE_MOUNTS = ("MountDown", "MountRefused", "MountUnwatched", "SpoolGrowing", "VarnishBackendSick")

INHIBITIONS = (
    # A host that is down takes all that runs on it along,
    Inhibition([_alerts("HostDown")], ['alertname!~"HostDown|Watchdog"'], ["host"]),
    # and what the other one needs of it.
    Inhibition(
        [_alerts("HostDown")], [_alerts(*_OF_THE_MOUNTS, "ShieldUnreachable", "SiteNotAnswering")], []
    ),
    # Why the mount isn't there says more than that it isn't.
    Inhibition([_alerts("MountRefused", "MountFull")], [_alerts("MountDown")], ["host", "mount"]),
    Inhibition(
        [_alerts("MountDown", "MountRefused", "MountUnwatched"), 'mount="originals"'],
        [_alerts("VarnishBackendSick")],
        ["host"],
    ),
    Inhibition([_alerts("VarnishDown")], [_alerts("VarnishBackendSick")], ["host"]),
    # Nothing is converted, whatever it looks like from elsewhere.
    Inhibition(
        [_alerts("ConverterDown")],
        [_alerts("ConverterDegraded", "QueueGrowing", "QueueStuck", "WebpNotServed")],
        ["host"],
    ),
    Inhibition(
        [_alerts("RedisDown"), 'redis="queue"'], [_alerts("ConverterDegraded"), 'part="queue"'], ["host"]
    ),
    Inhibition(
        [_alerts("RedisDown"), 'redis="cache"'], [_alerts("ConverterDegraded"), 'part="cache"'], ["host"]
    ),
    Inhibition(
        [_alerts("DiskLow"), 'severity="critical"'], [_alerts("EvictionCannotFree", "DiskFilling")], ["host"]
    ),
    Inhibition([_alerts("PicturesNotServed")], [_alerts("WebpNotServed")], ["host"]),
    Inhibition([_alerts("NoEdgeLeft")], [_alerts("EdgeDown")], []),
    # A service that systemd gave up is told of by what it was for.
    *(
        Inhibition([_alerts(alert)], [_alerts("ServiceFailed"), f'name=~"{service}"'], ["host"])
        for alert, service in (
            ("ConverterDown", "webp-converter[.]service"),
            ("RedisDown", "redis-server@.*"),
            ("MountDown", "mount-guard@.*"),
            ("VarnishDown", "varnish[.]service"),
            ("PicturesNotServed", "nginx[.]service"),
            ("BackupFailed", "bitrix-cdn-backup.*"),
            ("TargetDown", "(prometheus|mtail).*"),
        )
    ),
)


PACKAGES = ("prometheus-alertmanager",)


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    if not place.among("monitoring"):
        return Footprint()
    port = place.settings.monitoring.alertmanager.port
    ports = (Port(port, "host", "Alertmanager", page=True, gate=("/",), job="alertmanager"),)
    templates = ("/etc/prometheus/alertmanager_templates",)
    data = ("/var/lib/alertmanager",)  # which its package leaves behind
    return Footprint(ports, ("alertmanager",), templates, packages=PACKAGES, data=data)


@deploy("Alertmanager")
def alertmanager(settings: AlertmanagerSettings, language: str) -> None:
    files = {file.path: file for file in configuration(settings, language)}
    unit = files.pop(DROP_IN)
    account(
        name="Create the account alertmanager",
        user=ACCOUNT,
        system=True,
        comment="Bitrix CDN, tells of alerts",
    )
    # Before the package, which starts the service: it never listens where it shouldn't.
    tree(name="Write Alertmanager's systemd sandbox", files=[unit], root="/etc/systemd")
    apt.packages(name="Install Alertmanager", packages=[*PACKAGES], no_recommends=True)
    tree(
        name="Write alertmanager.yml (checked by amtool)",
        files=list(files.values()),
        root="/etc/prometheus",
        # It names what it found, on the same stream as what is wrong with it.
        check=f'said=$(amtool check-config {CONFIG} 2>&1) || {{ echo "$said" | tail -n 5 >&2; false; }}',
    )
    running(
        name="Run Alertmanager",
        unit=UNIT,
        start=[DROP_IN],
        reload=list(files),
        ready=f"amtool --alertmanager.url=http://{BEHIND}:{settings.port} --timeout=2s alert query",
        told=reloads("alertmanager", settings.port),
    )


def configuration(settings: AlertmanagerSettings, language: str = "en") -> list[File]:
    """All of its files.

    :param language: of the messages, `en` or `ru`.
    :raises PyinfraError: a secret isn't where the settings say; no host was touched yet.
    """
    return rendered(
        "alertmanager",
        # Whole, as it holds the secrets.
        owners={CONFIG: ("640", "root", ACCOUNT)},
        account=ACCOUNT,
        alertmanager=settings,
        behind=BEHIND,
        config=CONFIG,
        inhibitions=INHIBITIONS,
        language=language,
        severities=SEVERITIES,
        secrets={
            "password": secret(settings.email.password),
            "token": secret(settings.telegram.token),
            "urls": [secret(url) for url in settings.webhook.urls],
            "watchdog": secret(settings.watchdog.url),
        },
    )
