"""The commands of README and docs run on the host that they are for, as they stand there.

Those of the runbooks' "How to check" are test_runbooks.py's, the operator's own are tests/unit/docs'.
"""

from __future__ import annotations

import json
import re
import shlex

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.exporters import probe_picture
from tests.kit import runbooks
from tests.kit.deployment import Deployment
from tests.kit.documented import READS, Command, commands, pages
from tests.kit.inventory import Inventory
from tests.kit.runbooks import COMPLAINTS
from tests.kit.support import Figure

MAY_MISS = {
    r"/var/lib/prometheus/node-exporter/drift\.prom": "no check was published",
    r"/var/lib/bitrix-cdn/(lock|drain|journal)": "no rollout is under way",
    r"grafana": "its repository can't be reached from everywhere, and it is left out then",
    r"fuser -v": "no file waits",
    r"bitrix-cdn-(backup|drift)": "not every inventory has backups, nor this machine the timer",
    r"shield\.log": "without edges it gets no requests",
    r"/sys/fs/selinux": "Debian has no SELinux",
}
"""What may not be there on a host in order."""

ACTS = {
    r"amtool .*(alert|silence) add|amtool alert add": "tests/unit/alertmanager/test_alertmanager.py",
    r"promtool test rules": "tests/unit/prometheus/test_rules.py",
    r"bitrix-cdn-backup|restic": "tests/e2e/test_backup.py",
    r"webp-converter dead (show|retry|drop)|curl .*/api/dead/": "converter_app/tests/test_api.py",
    r"curl .*-X POST .*/api/(scan|cleanup|convert)": "converter_app/tests/test_api.py",
    r"webp-converter explain": "tests/e2e/test_explain.py",
    r"webp-converter (scan|cleanup|run)": "converter_app/tests/test_cli.py",
    r"curl -X PURGE": "tests/e2e/test_originals.py",
    r"(touch|rm) /var/lib/bitrix-cdn/(drain|lock)": "tests/edges/test_edges.py",
    r"cdn-host journal (begin|undo|commit)": "tests/e2e/test_releases.py",
    r"show stat": "tests/testinfra/test_balancer.py",
    r"rm /etc/apt/keyrings/grafana.gpg": "tests/unit/roles/test_grafana.py",
    r"cdn-host redis .* config set maxmemory-policy": "tests/e2e/test_alerts.py",
    r"systemctl (start|stop|restart|reload|disable|enable|reset-failed)": "tests/testinfra/test_docs.py",
    r"journalctl --vacuum|apt-get (clean|install)|find -printf": "Debian's own, and nothing of ours",
}
"""What changes a host: not run here; the test that has it done otherwise."""

_SKIPPED = r"\b(ID|FILE|UNIT|NAME|PATH)\b|\.\.\."
"""What an operator has found, or knows."""


def unchecked() -> list[Command]:
    """The commands for hosts that test_runbooks.py doesn't run."""
    run = {one.text for page in runbooks.HOSTS for one in runbooks.commands(page)}
    return [one for one in commands() if one.host and one.text not in run]


def test_each_command_is_run_here_or_said_where() -> None:
    left = [
        f"{one.page}: {one.text}"
        for one in unchecked()
        if not one.only_looks and not any(re.search(pattern, one.text) for pattern in ACTS)
    ]
    assert not left, "a command of the docs that no test runs:\n" + "\n".join(left)
    assert sum(one.only_looks for one in unchecked()) > 30


def as_run(one: Command, inventory: Inventory, settings: Settings) -> str | None:
    """What is run for it; None: only an operator can say what."""
    if units := re.fullmatch(
        r"systemctl (?:start|stop|restart|reload|disable|enable|reset-failed)( --now)? (.+)", one.text
    ):
        # Not done, but the units must be there.
        return None if re.search(_SKIPPED, units[2]) else f"systemctl cat {units[2]} >/dev/null"
    if not READS.match(one.text):
        return None
    filled = {
        "https://cdn.example.com": f"http://127.0.0.1:{settings.nginx.http_port}",
        "ADDRESS_OF_THE_CDN_HOST": inventory.data("cdn")["address"],
        "tail -f": "tail -n 1",
        "journalctl ": "journalctl --no-pager -n 5 ",
    }
    if edges := inventory.entries("edge"):
        filled["ADDRESS_OF_THE_EDGE"] = edges[0]["address"]
    text = re.sub(
        r"\bADDRESS\b", f"http://127.0.0.1{probe_picture(settings).removeprefix(settings.cdn.root)}", one.text
    )
    for name, value in filled.items():
        text = text.replace(name, value)
    return None if re.search(_SKIPPED, text) else text


def check(
    group: str, inventory: Inventory, deployment: Deployment, settings: Settings, figure: Figure
) -> None:
    hosts: dict[str, Host] = inventory.of(group)
    if not hosts:
        deployment.lacks(group)
    host = next(iter(hosts.values()))
    texts = {}
    for one in unchecked():
        if one.host == group and (text := as_run(one, inventory, settings)):
            texts[text] = one
    assert texts
    answers = runbooks.run_all(host, texts)
    wrong = [
        f"{one.page}: {text}: exit status {status}: {output.strip()[-300:]}"
        for (text, one), (status, output) in zip(texts.items(), answers, strict=True)
        if not any(re.search(pattern, text) for pattern in MAY_MISS)
        and (status in (124, 126, 127) or (status and (COMPLAINTS.search(output) or "systemctl cat" in text)))
    ]
    figure(f"docs: {len(texts)} commands run on {group}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("group", ["bitrix", "cdn", "monitoring"])
def test_the_commands_of_the_docs_run_on_their_host(
    group: str, inventory: Inventory, deployment: Deployment, settings: Settings, figure: Figure
) -> None:
    check(group, inventory, deployment, settings, figure)


@pytest.mark.edges
@pytest.mark.parametrize("group", ["edge", "balancer"])
def test_so_do_those_for_edges_and_the_balancer(
    group: str, inventory: Inventory, deployment: Deployment, settings: Settings, figure: Figure
) -> None:
    check(group, inventory, deployment, settings, figure)


def test_what_the_docs_ask_says_which_release_runs(cdn: Host) -> None:
    [asked] = [one.text for one in commands() if one.page == "docs/releases.md" and "status" in one.text]
    said = json.loads(cdn.check_output(asked))
    assert said.get("release") == cdn.file("/opt/webp-converter/current/release").content_string.strip()


_GET = """
import json, sys, urllib.request
def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return [answer.status, answer.read().decode(errors="replace")]
    except OSError as error:
        return [0, str(error)]
json.dump({url: get(url) for url in json.loads(sys.argv[1])}, sys.stdout)
"""

# What Debian's packages have in place of an application.
_NO_PAGE = re.compile(
    r"does not (?:include|contain|ship)|not (?:include|available).{0,80}Debian|Debian package", re.S
)


def test_pages_that_the_docs_lead_to_are_there(inventory: Inventory, settings: Settings) -> None:
    own = sorted(
        {
            url.rstrip(".,:;")
            for page in pages()
            for url in re.findall(
                r"http://127\.0\.0\.1:90\d\d[^\s`'\")>|]*|http://127\.0\.0\.1:8088/?(?=[\s`>])",
                page.read_text(),
            )
            # The address of a command, or what one posts to.
            if not re.search(r"(?:url=|query \w+ |curl [^\n]*)" + re.escape(url), page.read_text())
        }
    )
    assert any("/classic/targets" in url for url in own)
    answers = json.loads(
        inventory.host("monitoring").check_output(shlex.join(["python3", "-c", _GET, json.dumps(own)]))
    )
    dead = {
        url: answer for url, (status, answer) in answers.items() if status != 200 or _NO_PAGE.search(answer)
    }
    assert not dead
