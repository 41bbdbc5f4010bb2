"""What the runbooks have an operator type to check an alert runs on the hosts, as it stands there."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.exporters import probe_picture
from tests.kit.deployment import ROOT
from tests.kit.inventory import Inventory
from tests.kit.runbooks import COMPLAINTS, HOSTS, commands, run_all
from tests.kit.support import Figure

MAY_MISS = {
    "systemctl status systemd-timesyncd chrony": "a host has one of the two, or in the lab none",
    "fuser -v /run/mount-guard/resize-cache/below/*/FILE": "no file waits",
    "find /run/mount-guard/resize-cache/below -type f | head": "no file waits",
}
"""Commands that may find that something isn't there."""


# Not in Python, which edges and balancers don't have.


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
