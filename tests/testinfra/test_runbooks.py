"""What the runbooks have an operator type to check an alert runs on the hosts, as it stands there."""

from __future__ import annotations

import re
import shlex
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.exporters import probe_picture
from tests.kit.deployment import ROOT
from tests.kit.support import Figure
from tests.testinfra.conftest import Inventory

HOSTS = {
    "converter.md": "cdn",
    "delivery.md": "cdn",
    "redis.md": "cdn",
    "hosts.md": "cdn",
    "monitoring.md": "monitoring",
    "mounts.md": "bitrix",
}
"""Where the commands of a page run, as far as it says nothing else beside them."""

OPERATORS = ("pyinfra", "ssh", "make", "python")
"""What is run on the machine that deploys, or from one host to the other."""

MAY_MISS = {
    "systemctl status systemd-timesyncd chrony": "a host has one of the two, or in the lab none",
    "fuser -v /run/mount-guard/resize-cache/below/*/FILE": "no file waits",
    "find /run/mount-guard/resize-cache/below -type f | head": "no file waits",
}
"""Commands that may find that something isn't there."""

COMPLAINTS = re.compile(
    r"command not found|[Ii]nvalid|[Uu]nrecogni[sz]ed|[Uu]sage:|[Uu]nknown|No such file|cannot access"
    r"|could not be found|No help topic|Traceback|bad (?:usage|option|argument)"
)
"""What programs say when they are asked for what they don't have."""


@dataclass(frozen=True)
class Command:
    """One line of a runbook."""

    alert: str
    host: str
    text: str


def commands(page: str) -> list[Command]:
    """All of a page's, in their order, without those that an operator runs elsewhere."""
    found = []
    text = (ROOT / "docs/runbooks" / page).read_text()
    for alert, body in re.findall(r"^## (\w+)\n(.*?)(?=^## |^# |\Z)", text, re.M | re.S):
        check = re.search(r"^### How to check\n(.*?)(?=^### )", body, re.M | re.S)
        if check is None:
            continue
        prose = ""
        for line in check[1].splitlines():
            if not line.startswith("    "):
                prose = line or prose
                continue
            command, _, comment = re.sub(r"\s{2,}# ", "\0", line.strip()).partition("\0")
            # `sftp ... </dev/null # why` has no room for two spaces.
            command, _, after = command.partition(" # ")
            about = f"{prose} {comment} {after}"
            host = HOSTS[page]
            for words, other in (
                ("site's host", "bitrix"),
                ("CDN host", "cdn"),
                ("monitoring host", "monitoring"),
                ("machine that you deploy from", ""),
                ('tls.mode "acme"', "acme"),
            ):
                if words in about:
                    host = other
            if host and not command.startswith(OPERATORS):
                found.append(Command(alert, host, command))
    return found


_RUN = """
answers=$(mktemp -d)
trap 'rm -r "$answers"' EXIT
number=0
for command; do
    number=$((number + 1))
    {
        timeout 20 bash -c "$command" </dev/null >"$answers/$number" 2>&1
        echo "$? $(tail -c 4000 "$answers/$number" | base64 -w 0)" >"$answers/$number.done"
    } &
    [ $((number % 2)) = 1 ] || wait
done
wait
for one in $(seq $number); do cat "$answers/$one.done"; done
"""
# Not in Python, which edges and balancers don't have.


def run_all(host: Host, commands: Iterable[str]) -> list[tuple[int, str]]:
    """Exit status and output of each; 124 when there was no end within 20 s."""
    lines = host.check_output(shlex.join(["bash", "-c", _RUN, "run", *commands])).splitlines()
    parts = (line.partition(" ") for line in lines)
    return [(int(status), b64decode(output).decode(errors="replace")) for status, _, output in parts]


def test_each_page_has_commands_for_its_hosts() -> None:
    pages = sorted(path.name for path in (ROOT / "docs/runbooks").glob("*.md"))
    with_checks = [
        page for page in pages if "### How to check" in (ROOT / "docs/runbooks" / page).read_text()
    ]
    # For what most inventories don't have, for the machine that deploys (drift), or for no alert (releases).
    assert with_checks == sorted([*HOSTS, "backup.md", "drift.md", "edges.md", "releases.md"])
    assert all(commands(page) for page in HOSTS)
    assert set(MAY_MISS) <= {command.text for page in HOSTS for command in commands(page)}


@pytest.mark.parametrize("group", ["bitrix", "cdn", "monitoring"])
def test_the_checks_of_the_runbooks_run_as_they_stand_there(
    group: str, inventory: Inventory, settings: Settings, figure: Figure
) -> None:
    host: Host = inventory.host(group)
    filled = {
        "ADDRESS": f"http://127.0.0.1:{settings.nginx.http_port}"
        + probe_picture(settings).removeprefix(settings.cdn.root),
        "HOST": inventory.data("cdn")["address"],
        "NAME": "ssh" if group != "cdn" else "nginx",
        "PATH": probe_picture(settings),
    }
    skipped: list[tuple[str, str]] = []
    texts: list[tuple[str, str]] = []
    for command in dict.fromkeys(one.text for page in HOSTS for one in commands(page) if one.host == group):
        text = re.sub("|".join(rf"\b{name}\b" for name in filled), lambda m: filled[m[0]], command)
        # An id of something that isn't there, a file that an operator has found.
        (skipped if re.search(r"\b(ID|FILE)\b", text) else texts).append((command, text))
    answers = run_all(host, [text for _, text in texts])
    wrong = [
        f"{command}: exit status {status}: {output.strip()[-300:]}"
        for (command, _), (status, output) in zip(texts, answers, strict=True)
        if command not in MAY_MISS and (status in (124, 126, 127) or (status and COMPLAINTS.search(output)))
    ]
    figure(f"runbooks: {len(texts)} commands run on {group}, {len(skipped)} need what an operator has found")
    assert texts
    assert not wrong, "\n".join(wrong)
