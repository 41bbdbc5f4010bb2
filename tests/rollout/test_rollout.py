"""Hosts change one by one, and no visitor notices: not when it goes well, and not when it doesn't."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.kit.deployment import INVENTORY_OF_EDGES, pyinfra
from tests.kit.edges import Balancer
from tests.kit.hosts import Cdn
from tests.kit.rollout import DAEMON, HEALTH, NGINX, SITE, Tree, WhileVisited, traces
from tests.kit.support import Figure, Remote, wait_until

pytestmark = pytest.mark.edges

EDGES = ("edge1", "edge2")
CONF = "/etc/nginx/nginx.conf"
ALL = f"cat {CONF} /etc/nginx/conf.d/*"


def configuration(remote: Remote) -> str:
    return remote.run("cat", CONF)


def release(remote: Remote) -> str:
    return remote.run("readlink", "/opt/webp-converter/current").strip()


def keep_alive(seconds: int) -> tuple[str, str, str]:
    """A harmless change of nginx's template."""
    return NGINX, "keepalive_timeout 65s", f"keepalive_timeout {seconds}s"


def test_a_new_template_and_a_new_daemon_reach_all_hosts(
    tree: Tree, balancer: Balancer, remotes: dict[str, Remote], figure: Figure, visited: WhileVisited
) -> None:
    before = release(remotes["cdn"])
    tree.change(*keep_alive(64))
    tree.change(DAEMON, '"""', '"""Another release. ')
    with visited() as seen:
        done = tree.run("--canary", "edge2")
    order = ["edge2", "edge1", "cdn"]
    figure(
        f"rollout onto {', '.join(f'{name} {done.seconds_of(name):.0f} s' for name in order)}"
        f" ({done.seconds:.0f} s in all): {seen.figures()}"
    )
    assert done.status == 0, done.output
    seen.check()
    assert re.findall(r"^--> (.*)", done.output, re.MULTILINE) == order
    assert release(remotes["cdn"]) != before
    for name in ("cdn", *EDGES):
        assert "keepalive_timeout 64s" in configuration(remotes[name]), name
    for name in ("bitrix", "balancer"):
        assert done.became_of(name) == "had nothing to change"
    assert traces(remotes) == {}
    assert {balancer.states()[name] for name in EDGES} == {"UP"}

    # A second one finds nothing to do, and needs no drain.
    again = tree.run()
    assert again.status == 0, again.output
    assert {again.became_of(name) for name in remotes} == {"had nothing to change"}


def test_a_template_that_nginx_refuses_stops_at_the_first_host(
    tree: Tree, remotes: dict[str, Remote], figure: Figure, visited: WhileVisited
) -> None:
    before = {name: configuration(remotes[name]) for name in ("cdn", *EDGES)}
    tree.change(NGINX, "keepalive_timeout 65s", "keepalive_timeout nonsense")
    with visited() as seen:
        done = tree.run()
    figure(f"rollout of a template that nginx refuses, stopped after {done.seconds:.0f} s: {seen.figures()}")
    assert done.status == 1, done.output
    seen.check()
    assert "edge1: nginx | Write nginx's configuration (checked by nginx): " in done.output
    assert '"keepalive_timeout" directive invalid value' in done.output
    assert done.became_of("edge1").startswith("undone")
    assert {done.became_of(name) for name in ("edge2", "cdn", "bitrix", "balancer")} == {"not touched"}
    assert {name: configuration(remotes[name]) for name in before} == before
    assert traces(remotes) == {}


def test_a_daemon_that_does_not_get_healthy_stops_at_its_host(
    tree: Tree, cdn: Cdn, remotes: dict[str, Remote], figure: Figure, visited: WhileVisited
) -> None:
    before = release(remotes["cdn"]), configuration(remotes["cdn"])
    # The edges come first, and take it.
    tree.change(*keep_alive(63))
    tree.change(HEALTH, "works = not self._stopping.is_set() and", "works = not parts and")
    with visited() as seen:
        done = tree.run("--batch", "2")
    figure(f"rollout of a daemon that stays ill, stopped after {done.seconds:.0f} s: {seen.figures()}")
    assert done.status == 1, done.output
    seen.check()
    assert "cdn: Converter | Run the converter: " in done.output
    assert done.became_of("cdn").startswith("undone")
    assert (release(remotes["cdn"]), configuration(remotes["cdn"])) == before
    for name in EDGES:
        assert done.became_of(name).startswith("finished, in")
        assert "keepalive_timeout 63s" in configuration(remotes[name])
    assert traces(remotes) == {}
    assert cdn.daemon_ready()


def test_errors_that_only_visitors_see_are_noticed_and_undone(
    tree: Tree, balancer: Balancer, remotes: dict[str, Remote], figure: Figure, visited: WhileVisited
) -> None:
    """The configuration is valid and the host's own picture comes, but many others fail there: the balancer
    asks another host for them, so that visitors see nothing of it."""
    before = remotes["edge1"].run("sh", "-c", ALL)
    options = "if ($request_method = OPTIONS)"
    tree.change(SITE, options, 'if ($request_uri ~ "/edges-[0-9a-f]+-1") {\n    return 503;\n}\n' + options)
    with visited() as seen:
        done = tree.run("--watch", "15")
    figure(f"rollout of a template with 503 for many, stopped after {done.seconds:.0f} s: {seen.figures()}")
    assert done.status == 1, done.output
    seen.check()
    assert "edge1: requests that failed: " in done.output
    assert done.became_of("edge1").startswith("undone")
    assert remotes["edge1"].run("sh", "-c", ALL) == before
    assert traces(remotes) == {}


def test_two_operators_at_once_are_one_too_many(
    tree: Tree, remotes: dict[str, Remote], tmp_path: Path
) -> None:
    tree.change(*keep_alive(62))
    first = tree.start("--watch", "1", SUDO_USER="ann")
    try:
        wait_until("the lock", lambda: len(traces(remotes)) == len(remotes), timeout=60)
        begun = time.monotonic()
        second = tree.run(XDG_STATE_HOME=str(tmp_path), SUDO_USER="bob")
        assert second.status == 4, second.output
        [line] = second.output.splitlines()
        assert line.startswith("rollout: balancer: held by ann on "), line
        assert time.monotonic() - begun < 30
        # The same operator, on the same machine.
        same = tree.run()
        assert same.status == 4
        assert "a rollout of this inventory runs here already" in same.output
        for operations in ("deploy.py", "rollback.py", "rotate_keys.py"):
            plain = pyinfra(
                "-y", operations=operations, inventory=INVENTORY_OF_EDGES, lab=tree.lab, root=tree.path
            )
            assert plain.status != 0, operations
            assert any("held by ann on " in line for line in plain.output.splitlines()), plain.output
            assert "Traceback" not in plain.output
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    # Whoever is dead gives nothing back; it can be taken, and what is half done is taken along.
    held = tree.run(XDG_STATE_HOME=str(tmp_path), SUDO_USER="bob")
    assert held.status == 4
    assert "--break-lock" in held.output
    taken = tree.run("--break-lock", XDG_STATE_HOME=str(tmp_path), SUDO_USER="bob")
    assert taken.status == 0, taken.output
    assert "taken from ann on " in taken.output
    assert traces(remotes) == {}
