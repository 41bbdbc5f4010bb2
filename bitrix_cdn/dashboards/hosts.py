"""What do the hosts and their services have left?"""

from __future__ import annotations

from bitrix_cdn.dashboards.panels import UP, Board, Options, Query, Unit, at_least, at_most
from bitrix_cdn.dashboards.promql import by, grown, of, rate

# What isn't a disk of this host; asking a mount that hangs is not for an exporter.
DISKS = 'fstype!~"tmpfs|ramfs|devtmpfs|squashfs|fuse.*|nfs.*"'
IDLE = 'mode="idle"'
CARDS = 'device!~"lo|veth.*|docker.*|br-.*"'


def board(options: Options) -> Board:
    board = Board(
        "bitrix-cdn-hosts",
        "CDN: hosts",
        "What do the hosts and their services have left?",
        options=options,
        hosts='up{job="node"}',
    )
    _hosts(board)
    _disks(board)
    _redis(board)
    _monitoring(board)
    return board


def _hosts(board: Board) -> None:
    board.row("Processor, memory, units")
    board.lines(
        "Processor",
        "Share of all cores that is busy. The converter takes what visitors leave it.",
        Query(f"1 - avg by (host) ({rate('node_cpu_seconds_total', IDLE)})", "{{host}}"),
        unit=Unit.SHARE,
        limit=at_most(0.95),
        width=8,
        most=1,
    )
    board.lines(
        "Load",
        "Processes that run or wait for the disk, by core, over five minutes. Above 1 something waits.",
        Query(
            f"{of('node_load5')} / on(host) count by (host) ({of('node_cpu_seconds_total', IDLE)})",
            "{{host}}",
        ),
        unit=Unit.PLAIN,
        limit=at_most(2),
        width=8,
    )
    board.lines(
        "Memory",
        "Share that is taken and can't be had back, as caches can.",
        Query(f"1 - {of('node_memory_MemAvailable_bytes')} / {of('node_memory_MemTotal_bytes')}", "{{host}}"),
        unit=Unit.SHARE,
        limit=at_most(0.95),
        width=8,
        most=1,
    )
    failed = of("node_systemd_unit_state", 'state="failed"')
    board.stat(
        "Failed units",
        "Units of systemd that failed, by host. Which: the table beside it.",
        Query(f"sum by (host) ({failed})", "{{host}}"),
        unit=Unit.PLAIN,
        limit=at_most(1),
        width=8,
    )
    board.stat(
        "Up",
        "How long each host has been up.",
        Query(f"time() - {of('node_boot_time_seconds')}", "{{host}}"),
        unit=Unit.SECONDS,
        width=8,
    )
    board.stat(
        "Drift",
        "Differences between a host and its settings, as the last check found them.",
        Query(f"sum by (host) ({of('drift_differences')})", "{{host}}"),
        unit=Unit.PLAIN,
        limit=at_most(1),
        width=8,
        none="not checked",
    )
    board.table(
        "Failed unit",
        "The units that failed. `systemctl status` on that host says why.",
        f'{failed} == 1 or on() label_replace(vector(0), "name", "none", "", "")',
        unit=Unit.PLAIN,
        labels=["host", "name"],
        width=24,
    )


def _disks(board: Board) -> None:
    board.row("Disks and network")
    board.lines(
        "Free on disks",
        "Share of each file system that is free.",
        Query(
            f"min by (host, mountpoint) ({of('node_filesystem_avail_bytes', DISKS)}"
            f" / {of('node_filesystem_size_bytes', DISKS)})",
            "{{host}} {{mountpoint}}",
        ),
        unit=Unit.SHARE,
        limit=at_least(0.1),
        most=1,
    )
    board.lines(
        "Free inodes",
        "Share of the files that a file system can hold which are still to be had.",
        Query(
            f"min by (host, mountpoint) ({of('node_filesystem_files_free', DISKS)}"
            f" / ({of('node_filesystem_files', DISKS)} > 0))",
            "{{host}} {{mountpoint}}",
        ),
        unit=Unit.SHARE,
        limit=at_least(0.1),
        most=1,
    )
    board.lines(
        "Busy disks",
        "Share of the time in which a disk had something to do.",
        Query(f"max by (host) ({rate('node_disk_io_time_seconds_total')})", "{{host}}"),
        unit=Unit.SHARE,
        width=8,
    )
    board.lines(
        "Received",
        "By the host's network cards.",
        Query(by("host", rate("node_network_receive_bytes_total", CARDS)), "{{host}}"),
        unit=Unit.BYTES_PER_SECOND,
        width=8,
    )
    board.lines(
        "Sent",
        "By the host's network cards.",
        Query(by("host", rate("node_network_transmit_bytes_total", CARDS)), "{{host}}"),
        unit=Unit.BYTES_PER_SECOND,
        width=8,
    )


def _redis(board: Board) -> None:
    board.row("Redis")
    board.stat(
        "Redis",
        "Whether both instances answer: the cache, which may forget, and the queue, which may not.",
        Query(of("redis_up"), "{{redis}}"),
        unit=Unit.PLAIN,
        words=UP,
    )
    board.stat(
        "Evicted from the queue",
        "Keys that the queue lost in the last 24 hours. Never anything but 0: its policy is noeviction.",
        Query(grown("redis_evicted_keys_total", 'redis="queue"'), "keys"),
        unit=Unit.COUNT,
        limit=at_most(1),
        decimals=0,
    )
    board.lines(
        "Memory of Redis",
        "Share of maxmemory. The cache may be full; a full queue refuses jobs until the next scan.",
        Query(f"{of('redis_memory_used_bytes')} / ({of('redis_memory_max_bytes')} > 0)", "{{redis}}"),
        unit=Unit.SHARE,
        limit=at_most(0.9),
        width=8,
    )
    board.lines(
        "Evicted keys",
        "What the cache forgot to make room: many mean that it is too small (redis.cache_maxmemory).",
        Query(rate("redis_evicted_keys_total"), "{{redis}}"),
        unit=Unit.PER_SECOND,
        width=8,
    )
    board.lines(
        "Commands",
        "What the instances were asked.",
        Query(rate("redis_commands_processed_total"), "{{redis}}"),
        unit=Unit.PER_SECOND,
    )
    board.lines(
        "Clients",
        "Connections to the instances.",
        Query(of("redis_connected_clients"), "{{redis}}"),
        unit=Unit.COUNT,
    )


def _monitoring(board: Board) -> None:
    board.row("Monitoring itself")
    board.timeline(
        "Targets",
        "What Prometheus asks, and whether it answers.",
        Query(f"min by (host, job) ({of('up')})", "{{host}} {{job}}"),
        words=UP,
    )
    board.lines(
        "Time to ask",
        "How long the slowest target of each job takes to answer.",
        Query(f"max by (job) ({of('scrape_duration_seconds')})", "{{job}}"),
        unit=Unit.SECONDS,
        width=8,
    )
    board.lines(
        "Series",
        "That Prometheus holds in memory.",
        Query("prometheus_tsdb_head_series", "{{host}}"),
        unit=Unit.COUNT,
        width=8,
    )
    board.lines(
        "Disk of Prometheus",
        "What its blocks take up; the setting for retention by size bounds it.",
        Query("prometheus_tsdb_storage_blocks_bytes", "{{host}}"),
        unit=Unit.BYTES,
        width=8,
    )
