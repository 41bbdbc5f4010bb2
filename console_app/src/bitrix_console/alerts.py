"""Alerts: what fired and when, and silences, which Alertmanager on the monitoring host keeps."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Sequence

from bitrix_cdn.fleet import HostError, Inventory
from sqlalchemy import select
from web_kit.audit import Audit
from web_kit.database import Database
from web_kit.errors import RefusedError
from web_kit.roles import Who

from bitrix_console import prometheus
from bitrix_console.models import Fired
from bitrix_console.prometheus import Alert
from bitrix_console.watcher import Told

LONGEST_H = 24 * 30

Send = Callable[[str, str, bytes], str]
"""Sends Alertmanager a request: method, path, body; returns what it answers, and raises HostError."""


class Alerts:
    """The alerts of one inventory."""

    def __init__(
        self, database: Database, audit: Audit, send: Send, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._audit = audit
        self._send = send
        self._clock = clock

    def remember(self, told: Told) -> None:
        """Keeps which alerts fire, and which no longer do; without an answer, nothing changes."""
        firing = told.latest.alerts if told.latest and not told.problem else None
        if firing is None:
            return
        now = {(one.fingerprint, one.since): one for one in firing}
        with self._database.writing() as work:
            for row in work.scalars(select(Fired).where(Fired.ended.is_(None))):
                if (row.fingerprint, row.began) not in now:
                    row.ended = told.at
            for (fingerprint, began), one in now.items():
                row = work.get(Fired, (fingerprint, began)) or Fired(fingerprint=fingerprint, began=began)
                row.ended = None
                row.name, row.severity, row.host = one.name[:128], one.severity[:32], one.host[:255]
                row.summary, row.runbook = one.summary, one.runbook[:128]
                work.add(row)

    def past(self, most: int = 200) -> Sequence[Fired]:
        """Those that no longer fire, the latest first."""
        with self._database.reading() as work:
            query = select(Fired).where(Fired.ended.is_not(None)).order_by(Fired.ended.desc()).limit(most)
            return work.scalars(query).all()

    def silence(self, who: Who, address: str, alert: Alert, reason: str, hours: float) -> str:
        """Keeps an alert quiet; returns the silence's id.

        :raises RefusedError: it has no reason or no end, or Alertmanager refuses it.
        """
        if not reason.strip():
            raise RefusedError(422, "a silence needs a reason")
        if not 0 < hours <= LONGEST_H:
            raise RefusedError(422, "a silence is for at most {hours} hours", hours=LONGEST_H)
        body = prometheus.silence(alert.labels, who.name, reason.strip()[:500], self._clock(), hours)
        answer = self._asked(
            who, address, "alert.silence", alert.name, reason.strip(), "POST", "/api/v2/silences", body
        )
        found = re.search(r'"silenceID"\s*:\s*"([0-9a-f-]+)"', answer)
        return found[1] if found else ""

    def end(self, who: Who, address: str, id: str) -> None:
        """Ends a silence.

        :raises RefusedError: there is no such one.
        """
        if not re.fullmatch(r"[0-9a-f-]{36}", id):
            raise RefusedError(404, "there is no such silence")
        self._asked(who, address, "alert.unsilence", id, "", "DELETE", f"/api/v2/silence/{id}", b"")

    def _asked(
        self, who: Who, address: str, what: str, target: str, detail: str, method: str, path: str, body: bytes
    ) -> str:
        try:
            answer = self._send(method, path, body)
        except HostError as error:
            self._audit.write(who.name, address, what, target, result="failed", detail=f"{detail} ({error})")
            raise RefusedError(502, "Alertmanager refuses it: {why}", why=error) from None
        self._audit.write(who.name, address, what, target, detail=detail)
        return answer


def sender(inventory: Inventory) -> Send:
    """What reaches the Alertmanager of an inventory, over SSH."""

    def send(method: str, path: str, body: bytes) -> str:
        """
        :raises HostError: there is none, or it answers with an error.
        """
        names = inventory.groups.get("monitoring", ())
        if not names:
            raise HostError("there is no monitoring host")
        remote = inventory.hosts[names[0]]
        remote.connect()
        port = inventory.settings.monitoring.alertmanager.port
        head = (
            f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        line = f"exec 3<>/dev/tcp/127.0.0.1/{port} && cat >&3 && cat <&3"
        output = remote.run(
            f"timeout 5 bash -c {shlex.quote(line)}", stdin=head.encode() + body, check=False, silence=30
        )
        status, _, rest = output.text.partition("\n")
        if not re.match(r"HTTP/1\.[01] 2\d\d ", status):
            raise HostError(f"{remote.name}: {status.strip() or output.reason}")
        return rest.replace("\r", "").partition("\n\n")[2]

    return send
