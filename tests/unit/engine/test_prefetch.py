from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Generator
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pyinfra import logger
from pyinfra.api import FactBase, FileUploadCommand, FunctionCommand, Host, State, StringCommand, operation
from pyinfra.context import host as current

from bitrix_cdn.engine.errors import RefusalError
from bitrix_cdn.engine.prefetch import gathered, gathering_script, make_plan, prefetch_facts, together
from tests.unit.engine.machines import add, changed, execute, host_of, machines, ran

ROOT = Path(__file__).parents[3]


class Content(FactBase[str]):
    """What a file says; fails when there is none."""

    default = str

    def command(self, path: str) -> str:
        return f"cat {path}"


class Seen(FactBase[str]):
    """What a file says; empty: there is none."""

    default = str

    def command(self, path: str) -> str:
        return f"cat {path} 2>/dev/null; true"


@operation()
def says(path: str, content: str, fact: type[FactBase[str]] = Seen) -> Generator[StringCommand, None, None]:
    """Has a file say something."""
    if current.get_fact(fact, path=path) != content:
        yield StringCommand(f"echo {content} > {path}")


@operation()
def copied(source: str, target: str) -> Generator[StringCommand, None, None]:
    """Has a file say what another one says: the second fact depends on the first."""
    content = current.get_fact(Seen, path=source)
    if current.get_fact(Seen, path=target) != content:
        yield StringCommand(f"cp {source} {target}")


@pytest.fixture
def files(tmp_path: Path) -> Callable[[int], list[str]]:
    """Files that each say `here`."""

    def make(count: int) -> list[str]:
        paths = [tmp_path / f"file-{number}" for number in range(count)]
        for path in paths:
            path.write_text("here\n")
        return list(map(str, paths))

    return make


def test_the_facts_of_many_operations_take_one_trip(files: Callable[[int], list[str]]) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        for path in files(50):
            add(state, says, "one", path=path, content="here")
        execute(state)
        assert len(ran(host_of(state))) == 1
        assert changed(state) == [False] * 50


def test_facts_that_depend_on_others_take_a_trip_each(files: Callable[[int], list[str]]) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        paths = files(40)
        for source, target in zip(paths[:20], paths[20:], strict=True):
            add(state, copied, "one", source=source, target=target)
        execute(state)
        assert len(ran(host_of(state))) == 2
        assert changed(state) == [False] * 20


def test_what_an_operation_changed_is_asked_anew(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(a), content="new")
        add(state, copied, "one", source=str(a), target=str(b))
        add(state, says, "one", path=str(b), content="new")
        execute(state)
        assert changed(state) == [True, True, False]
        assert b.read_text() == "new\n"


def test_what_an_operation_asks_after_its_own_command_is_fresh(tmp_path: Path) -> None:
    path, found = str(tmp_path / "a"), []

    @operation()
    def twice() -> Generator[StringCommand, None, None]:
        found.append(current.get_fact(Seen, path=path))
        yield StringCommand(f"echo written > {path}")
        found.append(current.get_fact(Seen, path=path))

    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, twice, "one")
        execute(state)
    assert found[-2:] == ["", "written"]


def test_an_uploaded_file_is_asked_anew(tmp_path: Path) -> None:
    path, found = str(tmp_path / "a"), []

    @operation()
    def uploaded() -> Generator[FileUploadCommand, None, None]:
        found.append(current.get_fact(Seen, path=path))
        yield FileUploadCommand(StringIO("here\n"), path)
        found.append(current.get_fact(Seen, path=path))

    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(tmp_path / "other"), content="")
        add(state, uploaded, "one")
        add(state, says, "one", path=path, content="here")
        execute(state)
        assert changed(state) == [False, True, False]
    assert found[-2:] == ["", "here"]


def test_what_one_host_does_may_change_another(tmp_path: Path) -> None:
    path = str(tmp_path / "shared")
    with machines("one", "two") as state:
        for name in ("one", "two"):
            prefetch_facts(host_of(state, name))
        # Both have been looked at before `one` writes.
        add(state, says, "one", "two", path=str(tmp_path / "other"), content="")
        add(state, says, "one", path=path, content="here")
        # One operation later.
        add(state, says, "two", path=str(tmp_path / "another"), content="")
        add(state, says, "two", path=path, content="here")
        execute(state)
        assert changed(state) == [False, True, False, False, False]


def test_an_answer_that_was_under_way_during_a_change_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    with machines("one", "two") as state:
        one, two = host_of(state), host_of(state, "two")
        prefetch_facts(one)
        answer = one.connector.run_shell_command

        def slow(*args: Any, **kwargs: Any) -> Any:
            answered = answer(*args, **kwargs)
            if not path.exists():
                two.run_shell_command(StringCommand(f"echo here > {path}"))
            return answered

        monkeypatch.setattr(one.connector, "run_shell_command", slow)
        add(state, says, "one", path=str(path), content="here")
        execute(state)
        assert changed(state) == [False]


def test_a_change_by_other_means_than_commands_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def write(state: State, host: Host) -> bool:
        path.write_text("here\n")
        return True

    @operation()
    def written() -> Generator[FunctionCommand, None, None]:
        yield FunctionCommand(write, (), {})

    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(tmp_path / "other"), content="")
        add(state, written, "one")
        add(state, says, "one", path=str(path), content="here")
        execute(state)
        assert changed(state) == [False, True, False]


def test_a_fact_that_fails_counts_when_its_operation_is_at_its_turn(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(tmp_path / "other"), content="")
        add(state, says, "one", path=path, content="here")
        # Fails as long as there is no such file.
        add(state, says, "one", path=path, content="here", fact=Content)
        execute(state)
        assert not state.failed_hosts
        assert changed(state) == [False, True, False]


def test_a_fact_that_still_fails_then_fails_its_host(tmp_path: Path) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(tmp_path / "missing"), content="here", fact=Content)
        with pytest.raises(Exception, match="No hosts remaining"):
            execute(state)


def test_after_a_change_the_prefetch_window_grows(tmp_path: Path, files: Callable[[int], list[str]]) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(tmp_path / "new"), content="here")
        for path in files(63):
            add(state, says, "one", path=path, content="here")
        execute(state)
        assert changed(state) == [True] + [False] * 63
        # All at once, the change, one by itself, then 2, 4, 8, 16 and 32 at once.
        assert len(ran(host_of(state))) == 8


def test_where_everything_changes_little_is_asked_in_vain(tmp_path: Path) -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        for number in range(30):
            add(state, says, "one", path=str(tmp_path / str(number)), content="here")
        execute(state)
        assert all(changed(state))
        # All at once; then the first answer is used, and each of the others asked; 30 commands.
        assert len(ran(host_of(state))) == 1 + 29 + 30


def test_a_body_that_raises_in_the_prefetch_is_run_at_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "a"

    @operation()
    def demanding() -> Generator[StringCommand, None, None]:
        if current.get_fact(Seen, path=str(path)) != "here":
            raise ValueError("too early")
        yield from ()

    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(path), content="here")
        add(state, demanding, "one")
        execute(state)
        assert changed(state) == [True, False]


def test_what_one_host_refuses_changes_none(tmp_path: Path) -> None:
    path = tmp_path / "a"

    @operation()
    def refusing() -> Generator[StringCommand, None, None]:
        if current.name == "two":
            raise RefusalError("two: put it right")
        yield from ()

    with machines("one", "two") as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(path), content="here")
        add(state, refusing, "two")
        with pytest.raises(RefusalError, match="two: put it right"):
            execute(state)
    assert not path.exists()


def test_facts_that_one_body_wants_together_take_one_trip(files: Callable[[int], list[str]]) -> None:
    @operation()
    def wanting(paths: list[str]) -> Generator[StringCommand, None, None]:
        assert together(*(partial(current.get_fact, Seen, path=path) for path in paths)) == ["old"] * 3
        yield from ()

    paths = files(3)
    for path in paths:
        Path(path).write_text("old\n")
    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, wanting, "one", paths=paths)
        add(state, wanting, "one", paths=paths)
        execute(state)
        assert len(ran(host_of(state))) == 1


@pytest.mark.parametrize("arguments", [{"_timeout": 5}, {"_env": {"A": "b"}}])
def test_operations_with_arguments_of_pyinfra_get_their_own_answers(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    class Variable(FactBase[str]):
        def command(self) -> str:
            return "echo ${A:-none}"

    @operation()
    def variable(want: str) -> Generator[StringCommand, None, None]:
        if current.get_fact(Variable) != want:
            yield StringCommand("false")

    with machines("one") as state:
        prefetch_facts(host_of(state))
        add(state, variable, "one", want="none")
        add(state, variable, "one", want=arguments.get("_env", {}).get("A", "none"), **arguments)
        execute(state)
        assert changed(state) == [False, False]


def test_a_value_is_its_askers_own(files: Callable[[int], list[str]]) -> None:
    class Lines(FactBase[list[str]]):
        def command(self, path: str) -> str:
            return f"cat {path}"

        def process(self, output: list[str]) -> list[str]:
            return list(output)

    found = []

    @operation()
    def spoiling(path: str, number: int) -> Generator[StringCommand, None, None]:
        value = current.get_fact(Lines, path=path)
        found.append(list(value))
        value.clear()
        yield from ()

    [path] = files(1)
    with machines("one") as state:
        prefetch_facts(host_of(state))
        for number in range(3):
            add(state, spoiling, "one", path=path, number=number)
        execute(state)
        assert len(ran(host_of(state))) == 1
    assert set(map(tuple, found)) == {("here",)}


def test_the_prefetch_connects_to_no_host(
    files: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str | None] = []

    @operation()
    def of_the_other(path: str) -> Generator[StringCommand, None, None]:
        other = current.state.inventory.get_host("two")
        if other.get_fact(Seen, path=path) != "here":
            yield StringCommand("false")

    [path] = files(1)
    with machines("one", "two") as state:
        two = host_of(state, "two")
        two.connected = False
        monkeypatch.setattr(two.connector, "connect", lambda: connected.append(current.executing_op_hash))
        prefetch_facts(host_of(state))
        add(state, says, "one", path=path, content="here")
        add(state, of_the_other, "one", path=path)
        execute(state)
        assert changed(state) == [False, False]
        # By the operation itself, at its turn.
        assert connected == [list(state.ops[host_of(state)])[1]]


def test_a_plan_is_what_pyinfra_finds_by_itself(tmp_path: Path, files: Callable[[int], list[str]]) -> None:
    def planned(*, together: bool) -> tuple[list[bool], int, tuple[int, int]]:
        with machines("one", plan=True) as state:
            host = host_of(state)
            if together:
                prefetch_facts(host)
            for path in files(20):
                add(state, says, "one", path=path, content="here")
            add(state, says, "one", path=str(tmp_path / "missing"), content="here")
            add(state, copied, "one", source=files(1)[0], target=str(tmp_path / "too"))
            if together:
                make_plan(host)
            meta = state.get_meta_for_host(host)
            plan = [bool(data.operation_meta._maybe_is_change) for data in state.ops[host].values()]
            return plan, len(ran(host)), (meta.ops_change, meta.ops_no_change)

    expected = [False] * 20 + [True, True]
    assert planned(together=False) == (expected, 23, (2, 20))
    assert planned(together=True) == (expected, 2, (2, 20))


def test_what_the_plan_found_is_asked_anew_at_execution(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with machines("one", plan=True) as state:
        prefetch_facts(host_of(state))
        add(state, says, "one", path=str(path), content="here")
        make_plan(host_of(state))
        # While the operator reads the plan.
        path.write_text("here\n")
        execute(state)
        assert changed(state) == [False]


def test_a_deploy_after_this_one_is_planned_as_ever(tmp_path: Path) -> None:
    with machines("one", plan=True) as state:
        prefetch_facts(host_of(state))
        assert state.check_for_changes is False
        make_plan(host_of(state))
        assert state.check_for_changes is True


def test_a_run_without_a_plan_makes_none() -> None:
    with machines("one") as state:
        prefetch_facts(host_of(state))
        make_plan(host_of(state))
        assert state.check_for_changes is False
        assert ran(host_of(state)) == []


def test_what_bodies_log_in_the_prefetch_is_not_shown(
    files: Callable[[int], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    @operation()
    def talking(path: str) -> Generator[StringCommand, None, None]:
        logger.warning("before")
        current.get_fact(Seen, path=path)
        logger.warning("after")
        yield from ()

    [path] = files(1)
    with machines("one") as state, caplog.at_level("WARNING", "pyinfra"):
        prefetch_facts(host_of(state))
        add(state, talking, "one", path=path)
        execute(state)
    assert [record.message for record in caplog.records] == ["before", "after"]


@pytest.mark.parametrize(
    "command",
    [
        "printf 'no end'",
        "echo one; echo; echo",
        "true",
        "printf '\\n'",
        "cat; echo read",
        "cd /; pwd; exit 0",
        "echo \"it's\" '$HOME'",
        "set -e; echo a; (exit 0)",
        "echo a\necho b",
    ],
)
def test_a_gathered_output_is_that_of_the_command_by_itself(command: str) -> None:
    def run(script: str) -> list[str]:
        result = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
        return result.stdout.split("\n")[:-1] if result.stdout.endswith("\n") else result.stdout.split("\n")

    alone = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stdout
    lines = run(gathering_script(["echo before", command, "echo after"], "sh", "mark"))
    assert list(gathered(lines, "mark")) == [(0, ["before"]), (1, alone.splitlines()), (2, ["after"])]


@pytest.mark.parametrize("command", ["exit 3", "nonsense here", "echo 'unclosed", "kill $$"])
def test_a_command_that_fails_has_no_output_and_stops_no_other(command: str) -> None:
    script = gathering_script(["echo before", command, "echo after"], "sh", "mark")
    result = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    assert list(gathered(result.stdout.splitlines(), "mark")) == [(0, ["before"]), (2, ["after"])]


def test_the_deploy_makes_the_plan_that_it_puts_off() -> None:
    body = [ast.unparse(one) for one in ast.parse((ROOT / "deploy.py").read_text()).body]
    assert "prefetch_facts(host)" in body
    assert body[-1] == "make_plan(host)"
