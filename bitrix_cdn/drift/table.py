"""Prints a report for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bitrix_cdn.drift.report import HostReport, Report

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def show(report: Report, console: Console) -> None:
    """Prints a line for each host, and below it a table of what differs."""
    for host in report.hosts:
        if host.failed:
            console.print(Text(f"{host.name}: could not be checked: {host.failed}", "bold red"))
        elif not host.differences:
            console.print(Text(f"{host.name}: is as its inventory describes it", "green"))
        else:
            console.print(_table(host))
    differing = [host for host in report.hosts if host.differences]
    failed = [host for host in report.hosts if host.failed]
    count = sum(len(host.differences) for host in differing)
    checked = f"{_count(len(report.hosts), 'host')} in {report.seconds:.1f} s"
    found = f"{_count(count, 'difference')} on {_count(len(differing), 'host')}"
    console.print(f"{checked}: {found}, {_count(len(failed), 'host')} could not be checked")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(host: HostReport) -> Table:
    table = Table(
        title=f"{host.name}: {_count(len(host.differences), 'difference')}",
        title_style="bold yellow",
        title_justify="left",
        show_lines=True,
        expand=True,
    )
    table.add_column("What", overflow="fold", ratio=2)
    table.add_column("How it differs", overflow="fold", ratio=5)
    table.add_column("Found by", overflow="fold", ratio=2)
    for one in host.differences:
        how = Text(one.summary)
        for line in one.diff:
            how.append(f"\n{line}", _COLOURS.get(line[:1], ""))
        table.add_row(Text(one.what), how, Text(one.check))
    return table
