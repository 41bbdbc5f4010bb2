"""A rollout that is killed at a step, and started again, finishes."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.kit.edges import Balancer
from tests.kit.rollout import Tree, WhileVisited, traces
from tests.kit.support import Figure, Remote, wait_until

pytestmark = pytest.mark.edges

STEPS = ["before", "drain", "idle", "begin", "deploy", "smoke", "undrain", "back", "watch", "commit"]

# Only one host changes, by one file: what is tried is where a run may end.
ONLY_EDGE1 = """
if host.name == "edge1":
    from bitrix_cdn.engine.files import File, tree

    tree(name="Write a file", files=[File("/etc/bitrix-cdn/rollout-test", "CONTENT\\n")])
"""
FILE = "/etc/bitrix-cdn/rollout-test"

# The record of a step is on the disk when it begins; then comes SIGKILL.
KILLED_AT = """
import os, signal
from bitrix_cdn.rollout import record
enter = record.Record.enter
def killed(self, batch, step):
    batch = list(batch)
    enter(self, batch, step)
    if step == os.environ["KILL_AT"]:
        os.kill(os.getpid(), signal.SIGKILL)
record.Record.enter = killed
"""


def content(remote: Remote) -> str:
    return remote.run("sh", "-c", f"cat {FILE} 2>/dev/null; true").strip()


def finishes(tree: Tree, remotes: dict[str, Remote], balancer: Balancer, text: str) -> None:
    again = tree.run()
    assert again.status == 0, again.output
    assert again.became_of("edge1").startswith("finished")
    assert content(remotes["edge1"]) == text
    assert traces(remotes) == {}
    balancer.wait_for(edge1="UP", edge2="UP")


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step_and_started_again_it_finishes(
    step: str,
    tree: Tree,
    balancer: Balancer,
    remotes: dict[str, Remote],
    figure: Figure,
    visited: WhileVisited,
) -> None:
    text = f"killed at {step} {time.time()}"
    tree.change("deploy.py", "\nsshd(", ONLY_EDGE1.replace("CONTENT", text) + "\nsshd(")
    with visited() as seen:
        killed = tree.run(code=KILLED_AT, KILL_AT=step)
        assert killed.status == -signal.SIGKILL, killed.output
        assert (tree.progress()["batch"], tree.progress()["step"]) == (["edge1"], step)
        assert set(traces(remotes)) == set(remotes)
        finishes(tree, remotes, balancer, text)
    figure(f"rollout killed at {step!r}, started again: {seen.figures()}")
    seen.check()


@pytest.mark.parametrize("whole", [pytest.param(False, marks=pytest.mark.long), True])
def test_killed_while_it_deploys_and_started_again_it_finishes(
    whole: bool,
    tree: Tree,
    balancer: Balancer,
    remotes: dict[str, Remote],
    figure: Figure,
    visited: WhileVisited,
) -> None:
    """With pyinfra at once, as when the operator's machine loses its power; or without, which then goes on
    and is waited for."""
    text = f"killed while deploying {time.time()}"
    tree.change("deploy.py", "\nsshd(", ONLY_EDGE1.replace("CONTENT", text) + "\nsshd(")
    with visited() as seen:
        process = tree.start("--watch", "10")
        wait_until(
            "the deploy",
            lambda: tree.progress().get("step") == "deploy" and process.poll() is None,
            timeout=120,
            interval=0.05,
        )
        wait_until("the file", lambda: content(remotes["edge1"]) == text, timeout=120, interval=0.2)
        (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
        finishes(tree, remotes, balancer, text)
    figure(f"rollout killed while it deploys{', with pyinfra' * whole}, started again: {seen.figures()}")
    seen.check()


@pytest.mark.long
def test_killed_while_it_undoes_it_comes_to_the_same_end(
    tree: Tree, balancer: Balancer, remotes: dict[str, Remote]
) -> None:
    before = content(remotes["edge1"])
    broken = (
        ONLY_EDGE1.replace("CONTENT", "to be undone").replace("Write a file", "Write a file")
        + 'if host.name == "edge1":\n    tree(name="Refuse", files=[File("/etc/x", "x\\n")], check="false")\n'
    )
    tree.change("deploy.py", "\nsshd(", broken + "\nsshd(")
    killed = tree.run(code=KILLED_AT, KILL_AT="undo")
    assert killed.status == -signal.SIGKILL, killed.output
    assert content(remotes["edge1"]) == "to be undone"
    again = tree.run()
    assert again.status == 1, again.output
    assert again.became_of("edge1").startswith("undone")
    assert content(remotes["edge1"]) == before
    assert traces(remotes) == {}
    balancer.wait_for(edge1="UP", edge2="UP")


@pytest.mark.long
def test_interrupted_it_says_what_is_left_and_can_be_taken_back(
    tree: Tree, balancer: Balancer, remotes: dict[str, Remote]
) -> None:
    before, text = content(remotes["edge1"]), f"interrupted {time.time()}"
    tree.change("deploy.py", "\nsshd(", ONLY_EDGE1.replace("CONTENT", text) + "\nsshd(")
    process = tree.start("--watch", "60")
    wait_until("the watch", lambda: tree.progress().get("step") == "smoke", timeout=180, interval=0.1)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted in step 'smoke' of edge1" in output
    assert "rollout undo" in output
    assert set(traces(remotes)) == set(remotes)
    assert content(remotes["edge1"]) == text
    undone = tree.run(command="undo")
    assert undone.status == 0, undone.output
    assert content(remotes["edge1"]) == before
    assert traces(remotes) == {}
    balancer.wait_for(edge1="UP", edge2="UP")
