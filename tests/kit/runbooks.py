"""The commands of the runbooks' "How to check", and what runs them on a host."""

from __future__ import annotations

import re
import shlex
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass

from testinfra.host import Host

from tests.kit.deployment import ROOT

HOSTS = {
    "converter.md": "cdn",
    "delivery.md": "cdn",
    "redis.md": "cdn",
    "hosts.md": "cdn",
    "monitoring.md": "monitoring",
    "mounts.md": "bitrix",
}
"""Where the commands of a page run, as far as it says nothing else beside them."""


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


def run_all(host: Host, commands: Iterable[str]) -> list[tuple[int, str]]:
    """Exit status and output of each; 124 when there was no end within 20 s."""
    lines = host.check_output(shlex.join(["bash", "-c", _RUN, "run", *commands])).splitlines()
    parts = (line.partition(" ") for line in lines)
    return [(int(status), b64decode(output).decode(errors="replace")) for status, _, output in parts]


OPERATORS = ("pyinfra", "ssh", "make", "python")
"""What is run on the machine that deploys, or from one host to the other."""
