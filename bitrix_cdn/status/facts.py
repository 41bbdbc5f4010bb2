"""The state of a host: the checks of docs/runbooks in one script, and the parsing of its output. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from bitrix_cdn.fleet.lock import holder_script
from bitrix_cdn.settings import Settings
from host_agent.lock import parse
from roles.backup import COMMAND as BACKUP
from roles.exporters import visible_name
from roles.mounts import COMMAND as GUARD

_MARK = "== "

ALWAYS = "Watchdog"
"""The alert that always fires, for somebody elsewhere who misses it when it stays away."""

_HITS = "avg(cdn:cache_hit:ratio_rate1h)"


@dataclass(frozen=True)
class Mount:
    """A mount, as its guard sees it."""

    path: str
    state: str
    reason: str
    spooled: int
    """Files that wait for the other host."""


@dataclass(frozen=True)
class HostStatus:
    """What a host says of itself; what it has not is empty or None."""

    name: str
    groups: tuple[str, ...]
    failed: str = ""
    """Why it could not be asked."""
    units: int = 0
    """How many units of the deploy it has."""
    stopped: tuple[str, ...] = ()
    """Those of them that don't run, and any that failed."""
    mounts: tuple[Mount, ...] = ()
    converter: dict[str, str] = field(default_factory=dict)
    """By part, why it isn't well."""
    queue: dict[str, int] = field(default_factory=dict)
    hit_ratio: float | None = None
    """Of the last hour, of all hosts that serve."""
    disk: dict[str, int] = field(default_factory=dict)
    """By mount point, how full it is, in percent."""
    alerts: tuple[str, ...] | None = None
    """That ring now; None: they are not known here."""
    backup: str | None = None
    """When the last one was made, or why it failed; None: no backups are made."""
    backup_failed: bool = False
    release: str = ""
    certificate_days: int | None = None
    held: str = ""
    """Who is at work on it."""

    @property
    def troubles(self) -> list[str]:
        """What needs somebody, in words."""
        if self.failed:
            return [self.failed]
        found = [f"{unit} does not run" for unit in self.stopped]
        found += [f"{one.path} is {one.state}: {one.reason}" for one in self.mounts if one.state != "mounted"]
        found += [f"converter: {part}: {reason}" for part, reason in self.converter.items()]
        found += [f"{path} is {full} % full" for path, full in self.disk.items() if full >= 90]
        found += [f"alert: {one}" for one in self.alerts or ()]
        found += [f"backup: {self.backup}"] if self.backup_failed else []
        days = self.certificate_days
        found += [f"its certificate ends in {days} days"] if days is not None and days < 14 else []
        return found


def script(settings: Settings, groups: Sequence[str]) -> str:
    """A shell script that asks all of it; each answer stands below a line with its name."""
    directories = [settings.cdn.root] if "cdn" in groups else []
    directories += [settings.site.upload] if "bitrix" in groups else []
    wanted = " ".join(map(shlex.quote, ["/", *directories]))
    # By their paths: the `sudo` of an RPM host doesn't look into /usr/local/bin.
    asked = {
        "lock": holder_script(),
        "units": (
            r"systemctl show -p Id -p ActiveState -p Result "
            r"$(ls /var/lib/bitrix-cdn/applied | grep -E '\.(service|timer|socket)$')"
        ),
        "failed": "systemctl list-units --failed --plain --no-legend",
        "disk": f"df -P {wanted}",
        "backup": f"{BACKUP} status",
    }
    if {"bitrix", "cdn"} & set(groups):
        asked["mounts"] = f"{GUARD} status --json"
    if "cdn" in groups:
        asked["converter"] = "webp-converter status --json"
        asked["release"] = "cat /opt/webp-converter/current/release"
    if {"edge", "cdn", "balancer"} & set(groups) and settings.tls.enabled:
        name = visible_name(settings)
        server = f"-servername {shlex.quote(name)} " if name else ""
        asked["certificate"] = (
            f"timeout 5 openssl s_client {server}-connect 127.0.0.1:{settings.tls.port} </dev/null | "
            "openssl x509 -noout -enddate"
        )
    if "monitoring" in groups:
        monitoring = settings.monitoring
        asked["alerts"] = get(
            monitoring.alertmanager.port, "/api/v2/alerts?active=true&silenced=false&inhibited=false"
        )
        asked["hits"] = get(monitoring.prometheus.port, f"/api/v1/query?query={quote(_HITS)}")
    return "\n".join(f"echo; echo '{_MARK}{name}'; {{ {line}; }} 2>/dev/null" for name, line in asked.items())


def get(port: int, path: str) -> str:
    """A command that prints what a port of this host answers; every Debian has what it needs."""
    request = shlex.quote(f"GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
    # Not as the format: an address has percent signs.
    inner = f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf %b {request} >&3 && sed '1,/^.$/d' <&3"
    return f"timeout 5 bash -c {shlex.quote(inner)}"


def read(name: str, groups: Sequence[str], printed: str, now: datetime) -> HostStatus:
    """What the script printed, understood."""
    answers = {}
    for section in re.split(rf"^{_MARK}", printed, flags=re.MULTILINE)[1:]:
        key, _, text = section.partition("\n")
        answers[key] = text.strip()
    units = [dict(re.findall(r"^(\w+)=(.*)$", one, re.M)) for one in answers.get("units", "").split("\n\n")]
    units = [one for one in units if "Id" in one]
    stopped = [one["Id"] for one in units if one["ActiveState"] != "active"]
    stopped += re.findall(r"^(\S+\.\w+) ", answers.get("failed", ""), re.M)
    converter = _json(answers.get("converter")) or {}
    parts = {part: one["reason"] for part, one in converter.get("parts", {}).items() if one["status"] != "ok"}
    if "cdn" in groups and not converter:
        parts = {"webp-converter": "says nothing"}
    rows = [line.split() for line in answers.get("disk", "").splitlines()[1:]]
    backup, backup_failed = _backup(_json(answers.get("backup")))
    alerts = _json(answers.get("alerts"))
    return HostStatus(
        name,
        tuple(groups),
        units=len(units),
        stopped=tuple(dict.fromkeys(stopped)),
        mounts=tuple(
            Mount(one["mount_point"], one["state"], one["reason"], one["spool_files"])
            for one in _json(answers.get("mounts")) or ()
        ),
        converter=parts,
        queue=converter.get("queue", {}),
        hit_ratio=_ratio(_json(answers.get("hits"))),
        disk={row[5]: int(row[4].rstrip("%")) for row in rows if len(row) > 5 and row[4] != "-"},
        alerts=_alerts(alerts) if "monitoring" in groups else None,
        backup=backup,
        backup_failed=backup_failed,
        release=answers.get("release", ""),
        certificate_days=_days(answers.get("certificate", ""), now),
        held=str(parse(answers.get("lock", "")) or ""),
    )


def _alerts(answer: Any) -> tuple[str, ...]:
    if answer is None:
        return ("Alertmanager does not answer",)
    names = [
        f"{one['labels']['alertname']}: {one['annotations'].get('summary', '')}".removesuffix(": ")
        for one in answer
        if one["labels"]["alertname"] != ALWAYS
    ]
    return tuple(sorted(set(names)))


def _backup(answer: Any) -> tuple[str | None, bool]:
    if not answer:
        return None, False
    last = answer["backup"]
    if last["error"]:
        return last["error"], True
    if not last["run"]:
        return "none was made yet", False
    return f"{datetime.fromtimestamp(last['run'], UTC):%Y-%m-%d %H:%M} UTC", False


def _ratio(answer: Any) -> float | None:
    try:
        return float(answer["data"]["result"][0]["value"][1])
    except (TypeError, KeyError, IndexError, ValueError):
        return None


def _days(text: str, now: datetime) -> int | None:
    try:
        ends = datetime.strptime(text.removeprefix("notAfter="), "%b %d %H:%M:%S %Y GMT")
    except ValueError:
        return None
    return (ends.replace(tzinfo=UTC) - now).days


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return None
