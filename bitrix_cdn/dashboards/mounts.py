"""Do the hosts reach each other's files, and does anything wait in the spool?"""

from __future__ import annotations

from bitrix_cdn.dashboards.panels import FAULT, UP, Board, Options, Query, Unit, at_least, at_most
from bitrix_cdn.dashboards.promql import of, rate

RUNBOOK = "mounts.md"


def board(options: Options) -> Board:
    board = Board(
        "bitrix-cdn-mounts",
        "CDN: mounts",
        "Do the hosts reach each other's files, and does anything wait in the spool?",
        options=options,
        hosts="mount_guard_up",
    )
    _state(board)
    _probes(board)
    _spool(board)
    return board


def _state(board: Board) -> None:
    board.row("State", RUNBOOK)
    board.stat(
        "Mounts",
        "Whether each mount is over its real path.",
        Query(of("mount_guard_up"), "{{host}}: {{mount}}"),
        unit=Unit.PLAIN,
        words=UP,
        width=6,
    )
    board.stat(
        "In the spool",
        "Files written on the site's host while the CDN host was away, that wait to be pushed.",
        Query(f"sum({of('mount_guard_spool_files')})", "files"),
        unit=Unit.COUNT,
        limit=at_most(1000, warning=1),
        width=6,
    )
    board.stat(
        "Given up in a day",
        "Times that a mount which was up was given up, in the last 24 hours.",
        Query(f"sum by (mount) (increase({of('mount_guard_reconnects_total', during='1d')}))", "{{mount}}"),
        unit=Unit.COUNT,
        limit=at_most(10, warning=1),
        decimals=0,
        width=6,
    )
    board.stat(
        "Last good probe",
        "How long ago a probe through the mount came back well. Also grows when the guard itself is gone.",
        Query(f"time() - {of('mount_guard_last_good_probe_timestamp_seconds')}", "{{mount}}"),
        unit=Unit.SECONDS,
        limit=at_most(60, warning=30),
        width=6,
    )
    board.timeline(
        "Up",
        "When each mount was over its real path. While it isn't, the site writes into the spool, and "
        "visitors get originals out of Varnish.",
        Query(of("mount_guard_up"), "{{host}}: {{mount}}"),
        words=UP,
    )
    board.timeline(
        "Full or refused",
        "`full`: no room on the other host. `host_key`: it shows another key. `login`: it doesn't let us in. "
        "`access`: our account can't use its files.",
        Query(f"max by (mount) ({of('mount_guard_full')})", "{{mount}}: full"),
        Query(f"max by (mount, reason) ({of('mount_guard_refused')})", "{{mount}}: {{reason}}"),
        words=FAULT,
    )


def _probes(board: Board) -> None:
    board.row("Probes", RUNBOOK)
    board.lines(
        "Time of a probe",
        "What it took to ask the other host for its free space through the mount. Every access of the site "
        "to a file waits about as long.",
        Query(of("mount_guard_probe_seconds"), "{{host}}: {{mount}}"),
        unit=Unit.SECONDS,
        limit=at_most(1),
    )
    board.lines(
        "Given up, by the hour",
        "Times that a mount which was up was given up.",
        Query(f"increase({of('mount_guard_reconnects_total', during='1h')})", "{{host}}: {{mount}}"),
        unit=Unit.COUNT,
    )


def _spool(board: Board) -> None:
    board.row("Spool and room", RUNBOOK)
    board.lines(
        "Files in the spool",
        "Wait to be pushed to the CDN host.",
        Query(of("mount_guard_spool_files"), "{{host}}: {{mount}}"),
        unit=Unit.COUNT,
        width=8,
    )
    board.lines(
        "Bytes in the spool",
        "What these files take up on the site's own disk.",
        Query(of("mount_guard_spool_bytes"), "{{host}}: {{mount}}"),
        unit=Unit.BYTES,
        width=8,
    )
    board.lines(
        "Room on the other host",
        "Free bytes as the probe saw them. Below mounts.min_free_mb the site writes into the spool.",
        Query(of("mount_guard_free_bytes"), "{{host}}: {{mount}}"),
        unit=Unit.BYTES,
        limit=at_least(1 << 30),
        width=8,
    )
    board.lines(
        "Pushed files",
        "Out of the spool, after an outage.",
        Query(rate("mount_guard_pushed_files_total"), "{{host}}: {{mount}}"),
        unit=Unit.PER_SECOND,
    )
    board.lines(
        "Pushed bytes",
        "The same in bytes.",
        Query(rate("mount_guard_pushed_bytes_total"), "{{host}}: {{mount}}"),
        unit=Unit.BYTES_PER_SECOND,
    )
