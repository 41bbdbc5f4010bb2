"""The commands of README and docs: what an operator types, and on which host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.kit.deployment import ROOT

OPERATORS = ("bitrix-cdn", "make", "pyinfra", "pytest", "python", "molecule")
"""What is run on the machine that deploys: tests/unit/docs."""

_PROGRAMS = (
    *OPERATORS,
    *(
        "amtool",
        "apt-cache",
        "apt-get",
        "bash",
        "bitrix-cdn-backup",
        "cat",
        "cd",
        "cdn-host",
        "cp",
        "curl",
        "df",
        "du",
        "echo",
    ),
    *(
        "export",
        "find",
        "findmnt",
        "fuser",
        "grep",
        "haproxy",
        "journalctl",
        "ls",
        "mount-guard",
        "nft",
        "nginx",
    ),
    *("promtool", "restic", "rm", "sed", "ss", "ssh", "sudo", "systemctl", "tail", "timeout"),
    *("touch", "umount", "uptime", "varnishadm", "varnishstat", "webp-converter"),
)

READS = re.compile(
    r"""(?: sudo\ )? (?:
        amtool\ .*\ (?:alert|silence)\ query | amtool\ check-config | apt-cache\ policy
      | bitrix-cdn-backup\ status | cdn-host\ (?:lock\ show|audit\ (?:list|verify)) | cat\ /(?!.*\|)
      | curl\ -s[iIG]*\ (?!.*-X) | curl\ -i\ localhost
      | journalctl\ (?!.*--vacuum) | ls\ | tail\ | uptime | nginx\ -[tT] | nft\ list | findmnt | df\ | ss\ -
      | mount-guard\ status | promtool\ (?:query|check)
      | cdn-host\ redis\ .*(?:info|ping|get|lastsave|dbsize|log)
      | systemctl\ (?:status|is-active|is-failed|list-timers|list-units|--failed|show|cat)
      | varnishadm\ (?:backend.list|ping) | du\ | grep\ | find\ /run | varnishstat\ -1 | timeout\ 3
      | webp-converter\ (?:status|queue|stats|dead\ list|config\ check|cleanup\ --dry-run)
    )""",
    re.VERBOSE,
)
"""What only looks: it is run on the host that it is for, as it stands in the page."""


@dataclass(frozen=True)
class Command:
    """One that stands in a page."""

    page: str
    host: str
    """`cdn`, `bitrix`, `monitoring`, `edge` or `balancer`; empty: the machine that deploys."""

    text: str

    @property
    def only_looks(self) -> bool:
        return bool(self.host and READS.match(self.text))


def pages() -> list[Path]:
    """README and all of docs, but those that are made from something else."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if path.name != "settings.md")


def commands() -> list[Command]:
    """All of them: the lines of blocks, and code amid the text that names a program and what to do."""
    found = []
    for page in pages():
        name = str(page.relative_to(ROOT))
        if name.startswith("docs/ru/"):
            continue  # the same commands: tests/unit/docs/test_russian.py
        # A line that ends in `\` goes on.
        text = re.sub(r"\\\n\s*", "", page.read_text())
        fenced = re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.M | re.S)
        lines = [line.strip() for line in text.splitlines() if re.match(r" {4,11}\S", line)]
        lines += [line for block in fenced for line in block.splitlines()]
        typed = [re.split(r"\s{2,}#|\s#\s", line)[0].strip() for line in lines]
        amid = re.findall(
            r"(?<!`)`([a-z][\w-]+ [^`\n]*(?:\n[^`\n]+)?)`(?!`)", re.sub(r"^ {4}.*$", "", text, flags=re.M)
        )
        program = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:{'|'.join(_PROGRAMS)})(?: |$)")
        all_of_it = (*typed, *(" ".join(code.split()) for code in amid))
        found += [_placed(name, one) for one in all_of_it if program.match(one)]
    return list(dict.fromkeys(found))


_HOSTS = {
    "bitrix": r"runbooks/mounts|docs/site",
    "monitoring": r"monitoring|alerting|dashboards|runbooks/drift",
}


def _placed(page: str, text: str) -> Command:
    if over := re.fullmatch(r"ssh (edge1|EDGE|BALANCER|CDN|cdn|HOST|cdn\.example\.com) ([^-].*)", text):
        where = {"edge1": "edge", "EDGE": "edge", "BALANCER": "balancer"}.get(over[1], "cdn")
        inner = over[2]
        return Command(page, where, inner.strip("'") if inner.startswith("'") else inner)
    program = re.sub(r"^(?:[A-Z_]+=\S+ )*(?:sudo )?(?:\.venv/bin/)?", "", text).split(" ")[0]
    if program in (*OPERATORS, "ssh", "cp", "export", "cd"):
        return Command(page, "", text)
    if re.search(r"/var/www/cdn|webp-converter|varnish", text):
        return Command(page, "cdn", text)
    if "originals-export" in text:
        return Command(page, "bitrix", text)
    for host, pattern in _HOSTS.items():
        if re.search(pattern, page):
            return Command(page, host, text)
    return Command(page, "edge" if "edges" in page else "cdn", text)
