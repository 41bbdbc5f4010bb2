"""Gets the facts of many operations in one round trip: `prefetch_facts` first, `make_plan` last.

    from bitrix_cdn.engine.prefetch import prefetch_facts, make_plan

    prefetch_facts(host)    # before the deploy's first operation
    ...
    make_plan(host)     # after its last

pyinfra gets each fact when the operation that needs it runs: one round trip a fact, and all hosts wait for
the slowest. This module runs the bodies of the next operations beforehand, each up to the first fact that
isn't cached yet. It gets all these facts in one round trip, and repeats this until no body needs another
fact: as many round trips as the longest chain of facts in one operation. When an operation runs, its facts
come from the cache.

The cache never holds anything that may have changed. Any action on any host other than a fact (a command, an
upload, an operation that acts by other means) empties the cache of all hosts, because one host may change
another. After that, facts are fetched when they are needed, then for two operations at a time, four, and so
on while nothing changes. So a first deploy fetches few facts in vain, and a run with one change is hardly
slower than one without.

A plan (`--dry`, or a run that asks before it starts) is made by `make_plan` when all operations are known;
without that last line it would be empty.

A fact that can be got for several things by one command is a :class:`BatchedFact`: one command then serves a
hundred operations.

Bodies are run as pyinfra itself runs them to detect changes: no command that they yield is executed. A fact
that fails is fetched again when its operation runs, and only that failure counts. Facts with a time limit or
with standard input, and those of a host that isn't connected, are not prefetched.
"""

from __future__ import annotations

import inspect
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from gevent.local import local  # type: ignore[import-untyped]
from pyinfra import logger
from pyinfra.api import FactBase, Host, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host

from bitrix_cdn.engine import patches
from bitrix_cdn.engine.errors import RefusalError

T = TypeVar("T")

_EVERYTHING = 1 << 30


class BatchedFact(FactBase[T]):
    """A fact that one command can get for several things; called alone it is like any other fact."""

    def together(self, several: Sequence[Mapping[str, Any]]) -> str:
        """The command that asks for all of them.

        :param several: the arguments of `command`, by name, for each.
        """
        raise NotImplementedError

    def parts(self, output: Sequence[str], several: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
        """What `command` would have printed for each, in the same order.

        :raises ValueError: the output isn't what it should be; then each is asked by itself.
        """
        raise NotImplementedError


class _Question(NamedTuple):
    """What a fact has run on a host, and how: as whom, in which directory, with which environment."""

    host: Host
    command: str
    how: str


class _Asking(NamedTuple):
    """A fact that is being asked."""

    fact: type[FactBase[Any]]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def own_arguments(self) -> dict[str, Any]:
        """Those for the fact itself, not for pyinfra."""
        return {key: value for key, value in self.kwargs.items() if not key.startswith("_")}


class _Unknown(BaseException):
    """Ends a body that needs a fact which isn't cached yet. Not an `Exception`: bodies may catch those."""


@dataclass
class _Wanted:
    """The facts that bodies stopped at."""

    questions: dict[_Question, tuple[dict[str, Any], _Asking]] = field(default_factory=dict)
    """Each with the connector's arguments and the fact."""
    in_vain: set[_Question] = field(default_factory=set)
    """Those that got no answer in this way."""


@dataclass
class _Window:
    """For which of a host's operations facts were prefetched, as places in their order."""

    end: int = 0
    size: int = _EVERYTHING


class Prefetch(BaseStateCallback):
    """The cached facts of all hosts of one run; see the module."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[_Question, CommandOutput] = {}
        self._facts: dict[tuple[Any, ...], Any] = {}
        """What facts made of that."""
        self._age = 0
        """How often everything was forgotten."""
        self._windows: dict[Host, _Window] = {}
        self._order: dict[str, int] = {}
        """The place of each operation among all of this run."""
        self._last: dict[Host, str] = {}
        """The operation that a host was last at."""
        self._planning: set[Host] = set()
        self._here = local()
        for host in state.inventory:
            self._listen(host)

    @classmethod
    def of(cls, state: State) -> Prefetch:
        """The one of this run."""
        for handler in state.callback_handlers:
            if isinstance(handler, cls):
                return handler
        prefetch = cls(state)
        state.add_callback_handler(prefetch)  # type: ignore[no-untyped-call]
        return prefetch

    # What is asked and done

    def _listen(self, host: Host) -> None:
        """Learns of all that pyinfra does to a host."""
        patches.host(
            host,
            get_fact=partial(self._get_fact, host),
            run=partial(self._run_shell_command, host),
            change=self._change,
        )

    def _get_fact(
        self, host: Host, original: Callable[..., Any], fact: type[FactBase[Any]], *args: Any, **kwargs: Any
    ) -> Any:
        if self._wanted is not None and not host.connected:
            raise _Unknown  # it would be connected to
        given: Mapping[str, Any] = host.current_op_global_arguments or {}
        how = [given.get(key) for key in CONNECTOR_ARGUMENT_KEYS]
        key = (host, fact, repr((args, sorted(kwargs.items()), how)))
        if key in self._facts:
            return deepcopy(self._facts[key])
        before, age = (self._asking, getattr(self._here, "live", False)), self._age
        self._here.asking, self._here.live = _Asking(fact, args, kwargs), False
        try:
            value = original(fact, *args, **kwargs)
            if not self._here.live and age == self._age:
                self._facts[key] = deepcopy(value)
        finally:
            # A fact may ask others.
            self._here.asking, self._here.live = before[0], before[1] or self._here.live
        return value

    def _change(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._wanted is not None:
            raise _Unknown  # a body that doesn't wait for its turn
        self.forget()
        try:
            return original(*args, **kwargs)
        finally:
            # What was asked meanwhile may be older than the change.
            self.forget()

    def _run_shell_command(
        self,
        host: Host,
        original: Callable[..., tuple[bool, CommandOutput]],
        command: str | StringCommand,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> tuple[bool, CommandOutput]:
        shown = {"print_output": print_output, "print_input": print_input}
        asking = self._asking
        if asking is None:
            changed: tuple[bool, CommandOutput] = self._change(original, command, **shown, **arguments)
            return changed
        text = command if isinstance(command, str) else command.get_raw_value()
        question = _Question(host, text, repr(sorted(arguments.items())))
        if question in self._known:
            return True, self._known[question]
        if self._wanted is not None:
            if _can_be_gathered(arguments) and question not in self._wanted.in_vain:
                self._wanted.questions[question] = arguments, asking
            raise _Unknown
        age = self._age
        status, output = original(command, **shown, **arguments)
        # While the plan is made, nothing changes but by others.
        if status and age == self._age and self._state.current_stage == StateStage.Prepare:
            self._known[question] = output
        else:
            self._here.live = True
        return status, output

    @property
    def _asking(self) -> _Asking | None:
        """The fact that this greenlet asks; None: what it runs is no fact."""
        asking: _Asking | None = getattr(self._here, "asking", None)
        return asking

    @property
    def _wanted(self) -> _Wanted | None:
        """Collects the facts that bodies need while this greenlet prefetches; None: it doesn't."""
        wanted: _Wanted | None = getattr(self._here, "wanted", None)
        return wanted

    def forget(self) -> None:
        """Empties the cache."""
        self._age += 1
        self._known.clear()
        self._facts.clear()
        for window in self._windows.values():
            window.end, window.size = 0, 1

    # Prefetching

    def _begin(self) -> bool:
        """Gets ready for the first operation of all; False: that was done before."""
        if self._windows:
            return False
        # The plan may have waited long for somebody's consent.
        self.forget()
        self._windows = {one: _Window() for one in self._state.inventory}
        self._order = {one: place for place, one in enumerate(_order_of(self._state))}
        return True

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        """Before the first operation: prefetches on all hosts, so that a refusal by one changes none."""
        if not self._begin():
            return

        def prefetch(host: Host) -> RefusalError | None:
            try:
                with ctx_host.use(host):
                    self.gather(host, [one for one in self._order if one in state.ops[host]])
            except RefusalError as error:
                return error
            self._windows[host] = _Window(_EVERYTHING, 2 * _EVERYTHING)
            return None

        running = [state.pool.spawn(prefetch, host) for host in state.inventory.get_active_hosts()]
        for error in [one.get() for one in running]:
            if error:
                raise error

    def operation_host_start(  # type: ignore[override]  # pyinfra calls it on the object
        self, state: State, host: Host, op_hash: str
    ) -> None:
        """Before each operation: gets the facts of the next ones."""
        self._begin()
        for other, last in list(self._last.items()):
            done = state.get_op_data_for_host(other, last).operation_meta
            if done.is_complete():
                del self._last[other]
                # By whatever way it did something.
                if done.executed:
                    self.forget()
        nested = host.current_op_hash is not None or op_hash not in self._order
        if nested or op_hash not in state.ops[host]:
            return
        self._last[host] = op_hash
        window, place = self._windows[host], self._order[op_hash]
        if place < window.end:
            return
        # What only this operation wants is asked by itself.
        if window.size > 1:
            wanted = [one for one, at in self._order.items() if place <= at < place + window.size]
            self.gather(host, [one for one in wanted if one in state.ops[host]])
        window.end = place + window.size
        window.size *= 2

    def gather(self, host: Host, operations: Sequence[str]) -> None:
        """Gets all facts that the bodies of a host's operations need.

        :param operations: their hashes.
        """
        wanted = _Wanted()
        while operations:
            wanted.questions.clear()
            operations = [one for one in operations if not self._runs_through(host, one, wanted)]
            if not wanted.questions:
                return
            age = self._age
            answers = _asked(wanted.questions)
            if age != self._age:
                return
            self._known |= answers
            wanted.in_vain |= wanted.questions.keys() - answers.keys()

    def _runs_through(self, host: Host, op_hash: str, wanted: _Wanted) -> bool:
        """Runs a body; False: it needs a fact that isn't cached yet."""
        commands = self._state.get_op_data_for_host(host, op_hash).command_generator()
        with _silence():
            self._here.wanted = wanted
            try:
                next(commands, None)
            except _Unknown:
                return False
            except RefusalError:
                raise
            except Exception as error:  # whatever it is, it will be said when its turn comes
                logger.debug(f"{host.name}: prefetch: {error!r}")
            finally:
                self._here.wanted = None
                # Closes the body, which may be at its first command.
                getattr(commands, "close", int)()
        return True

    # Plans

    def put_off(self, host: Host) -> None:
        """Puts the plan off until all of a host's operations are known."""
        if self._state.check_for_changes or self._planning:
            self._state.check_for_changes = False
            self._planning.add(host)

    def make_plan(self, host: Host) -> None:
        """Makes the plan that was put off."""
        if host not in self._planning:
            return
        operations = self._state.ops[host]
        self.gather(host, list(operations))
        meta = self._state.get_meta_for_host(host)
        for data in operations.values():
            if data.operation_meta.will_change:
                meta.ops_change += 1
                meta.ops_no_change -= 1
        self._planning.discard(host)
        if not self._planning:
            # For a deploy that comes after this one.
            self._state.check_for_changes = True


def together(*functions: Callable[[], Any]) -> list[Any]:
    """What several functions return; during a prefetch, all their facts take one round trip."""
    values, unknown = [], None
    for function in functions:
        try:
            values.append(function())
        except _Unknown as error:
            unknown = error
    if unknown:
        raise unknown
    return values


def prefetch_facts(host: Host) -> None:
    """Gets the facts of this deploy's operations together; call it before the first operation."""
    host = host.state.inventory.get_host(host.name)  # rather than the one of the context
    Prefetch.of(host.state).put_off(host)
    patches.global_arguments()
    # A deploy may be included by another one.
    for file in (host.state.current_deploy_filename, host.state.current_exec_filename):
        if file is not None:
            patches.deploy(file)


def make_plan(host: Host) -> None:
    """Finds what this deploy would change, where that is asked for; after the last operation."""
    host = host.state.inventory.get_host(host.name)
    Prefetch.of(host.state).make_plan(host)


def _order_of(state: State) -> list[str]:
    order: list[str] = state.get_op_order()  # type: ignore[no-untyped-call]
    return order


def _can_be_gathered(arguments: Mapping[str, Any]) -> bool:
    """Whether a question can be asked together with others."""
    # The script comes by standard input; so does the password that `su` is given.
    own = ("_stdin", "_timeout", "_get_pty", "_su_password")
    plain = not any(arguments.get(name) for name in own)
    return plain and arguments.get("_success_exit_codes") in (None, [0])


def _asked(wanted: Mapping[_Question, tuple[dict[str, Any], _Asking]]) -> dict[_Question, CommandOutput]:
    """Asks all questions, those alike in one trip; returns the answers of those that succeed."""
    alike: dict[tuple[Host, str], list[_Question]] = {}
    for question in wanted:
        alike.setdefault((question.host, question.how), []).append(question)
    answers = {}
    for (host, _), together in alike.items():
        arguments, _ = wanted[together[0]]
        commands = _commands({question: wanted[question][1] for question in together})
        shell = arguments.get("_shell_executable") or "sh"
        mark = secrets.token_hex(8)
        script = gathering_script([text for text, _ in commands], shell, mark)
        try:
            status, output = host.connector.run_shell_command(
                StringCommand("sh"), **{**arguments, "_stdin": script}
            )
            # A partial answer is as good: what is missing is asked by itself.
            for place, lines in gathered(output.stdout_lines, mark) if status else ():
                for question, part in commands[place][1](lines):
                    answers[question] = CommandOutput([OutputLine("stdout", line) for line in part])
        except Exception as error:  # fetched one by one, each says what is wrong
            logger.debug(f"{host.name}: prefetch: {error!r}")
    return answers


_Answers = Callable[[list[str]], Iterable[tuple[_Question, list[str]]]]


def _commands(questions: Mapping[_Question, _Asking]) -> list[tuple[str, _Answers]]:
    """The commands that answer all questions, each with what makes the answers of its output."""
    joint: dict[type[BatchedFact[Any]], dict[_Question, dict[str, Any]]] = {}
    commands: list[tuple[str, _Answers]] = []
    for question, asking in questions.items():
        if issubclass(asking.fact, BatchedFact):
            given = inspect.signature(asking.fact().command).bind(*asking.args, **asking.own_arguments())
            given.apply_defaults()
            joint.setdefault(asking.fact, {})[question] = given.arguments
        else:
            commands.append((question.command, partial(_one_answer, question)))
    for fact, several in joint.items():
        commands.append((fact().together(list(several.values())), partial(_several_answers, fact(), several)))
    return commands


def _one_answer(question: _Question, output: list[str]) -> Iterable[tuple[_Question, list[str]]]:
    return [(question, output)]


def _several_answers(
    fact: BatchedFact[Any], several: Mapping[_Question, Mapping[str, Any]], output: list[str]
) -> Iterable[tuple[_Question, list[str]]]:
    return zip(several, fact.parts(output, list(several.values())), strict=True)


def gathering_script(commands: Sequence[str], shell: str, mark: str) -> str:
    """A shell script that runs commands as if each came by itself.

    :param shell: what runs each of them.
    :param mark: a word that no output has in it; ends the output of each, with its place and exit status.
    """
    return "".join(
        f"{shell} -c {shlex.quote(command)} </dev/null 2>/dev/null; printf '\\n{mark} {place} %d\\n' $?\n"
        for place, command in enumerate(commands)
    )


def gathered(lines: Sequence[str], mark: str) -> Iterator[tuple[int, list[str]]]:
    """The outputs in what a gathering script printed, each with its command's place; none that failed."""
    output: list[str] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word != mark:
            output.append(line)
            continue
        # The mark begins a line; after an output that ended one, there is an empty one between.
        if output and not output[-1]:
            output.pop()
        place, status = map(int, rest.split())
        if status == 0:
            yield place, output
        output = []


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what bodies say until their turn comes. Nothing else runs meanwhile: no body gets to wait."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
