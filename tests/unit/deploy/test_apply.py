"""A plan is applied as it was made, under the hosts' locks, or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bitrix_cdn.cli.main import main
from bitrix_cdn.deploy import apply as applying
from bitrix_cdn.deploy import plan as plans
from bitrix_cdn.deploy.execute import Executed
from bitrix_cdn.deploy.plan import Plan
from bitrix_cdn.fleet import RefusedError
from bitrix_cdn.fleet.results import Step

PLAN = Plan("shop.py", ("b", "a"), "s", {"a": (), "b": ()}, {"a": "1", "b": "2"}, "s4lt", "now", "ann")


class World:
    """What is done, in its order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.now = PLAN
        hosts = {
            name: SimpleNamespace(name=name, connect=lambda name=name: self.done.append(f"connect {name}"))
            for name in ("b", "a", "c")
        }
        self.inventory: Any = SimpleNamespace(
            file="shop.py", hosts=hosts, chosen=list, close=lambda: self.done.append("close")
        )
        monkeypatch.setattr(applying, "keep_others_away", self._lock)
        monkeypatch.setattr(applying, "execute", self._execute)
        monkeypatch.setattr(plans, "make", self._make)

    def _lock(self, remotes: list[Any], what: str) -> None:
        self.done.append(f"lock {' '.join(one.name for one in remotes)} for {what}")

    def _make(self, _: object, limit: tuple[str, ...], salt: str) -> Plan:
        self.done.append(f"plan {' '.join(limit)} with {salt}")
        return self.now

    def _execute(
        self,
        file: str,
        operations: str,
        hosts: list[str],
        step: Any,
        *,
        data: Mapping[str, str],
        holding: Any = (),
    ) -> Executed:
        self.done.append(f"{operations} of {file} on {' '.join(hosts)}, {dict(data)}, {list(holding)}")
        step(Step(1, 1, "nginx", ("a",)))
        return Executed({"a": ("nginx",)}, 1.0, Path("/log"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


BEGIN = ["lock b a for apply", "connect a", "connect b", "plan b a with s4lt"]


def test_a_plan_is_compared_under_the_locks_and_then_done(world: World) -> None:
    done = applying.apply(world.inventory, PLAN, lambda _: None, holding=[7])
    assert done.changed == {"a": ("nginx",)}
    assert world.done == [*BEGIN, f"deploy.py of shop.py on b a, {{'plan': '{PLAN.hash}'}}, [7]"]


def test_what_has_moved_on_is_left_alone(world: World) -> None:
    world.now = dataclasses.replace(PLAN, digests={"a": "1", "b": "other"})
    with pytest.raises(RefusedError, match="b: a deploy would change something else"):
        applying.apply(world.inventory, PLAN, lambda _: None)
    assert world.done == BEGIN


def test_the_command_does_the_same(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bitrix_cdn.fleet.inventory.load", lambda _: world.inventory)
    plans.save(PLAN, tmp_path / "plan")
    assert main(["apply", str(tmp_path / "plan")]) == 0
    assert world.done == [*BEGIN, f"deploy.py of shop.py on b a, {{'plan': '{PLAN.hash}'}}, []", "close"]
    assert capsys.readouterr().out.splitlines()[:2] == ["  1 of 1  a: nginx", "a: 1 changes in 1 s"]
