from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.mount.machine import (
    Action,
    Answered,
    Attached,
    Event,
    Failed,
    Machine,
    Pushed,
    PushFailed,
    Retry,
    State,
    Stop,
    Tick,
    Timing,
)

ROOM = Answered(0.01, 10_000)
NO_ROOM = Answered(0.01, 999)


def machine(*, spool: bool = True) -> Machine:
    timing = Timing(
        probe_interval=2,
        probe_timeout=3,
        connect_timeout=10,
        retry_min=0.5,
        retry_max=4,
        min_free=1000,
        spool=spool,
    )
    return Machine(timing, lambda: 0.5)


def mounted(*, spool: bool = True) -> Machine:
    """A machine whose mount is up at 1, its next probe due at 3."""
    guard = machine(spool=spool)
    guard.step(Tick(), 0)
    guard.step(Attached(), 0.5)
    guard.step(ROOM, 1)
    if spool:
        guard.step(Pushed(), 1)
    assert guard.state is State.MOUNTED
    return guard


def test_the_way_up_with_a_spool() -> None:
    guard = machine()
    assert guard.step(Tick(), 0) == [Action.CONNECT]
    assert guard.step(Attached(), 0.1) == [Action.PROBE]
    assert guard.step(ROOM, 0.2) == [Action.PUSH]
    assert guard.step(Pushed(), 5) == [Action.BIND]
    assert guard.state is State.MOUNTED


def test_the_way_up_without_one() -> None:
    guard = machine(spool=False)
    guard.step(Tick(), 0)
    guard.step(Attached(), 0.1)
    assert guard.step(NO_ROOM, 0.2) == [Action.BIND]


def test_nothing_is_bound_before_a_probe_came_back() -> None:
    guard = machine(spool=False)
    guard.step(Tick(), 0)
    assert guard.step(Attached(), 1) == [Action.PROBE]
    assert guard.step(Tick(), 9.9) == []
    assert guard.step(Tick(), 10) == [Action.DROP]


def test_probes_go_on_at_their_interval() -> None:
    guard = mounted()
    assert guard.step(Tick(), 2.9) == []
    assert guard.step(Tick(), 3) == [Action.PROBE]
    assert guard.step(Tick(), 4) == []
    guard.step(ROOM, 4.5)
    assert guard.deadline() == 6.5


def test_a_probe_without_an_answer_gives_the_mount_up() -> None:
    guard = mounted()
    guard.step(Tick(), 3)
    assert guard.step(Tick(), 5.9) == []
    assert guard.step(Tick(), 6) == [Action.DROP]
    assert (guard.state, guard.reason, guard.reconnects) == (State.WAITING, "no answer for 3 s", 1)


def test_a_push_that_fills_the_line_is_no_outage() -> None:
    guard = machine()
    guard.step(Tick(), 0)
    guard.step(Attached(), 0)
    guard.step(ROOM, 0)
    assert guard.step(Tick(), 2) == [Action.PROBE]
    assert guard.step(Tick(), 11) == []
    # From here on callers wait.
    assert guard.step(Pushed(), 11) == [Action.BIND]
    assert guard.step(Tick(), 13.9) == []
    assert guard.step(Tick(), 14) == [Action.DROP]


def test_pauses_grow_to_their_limit_and_begin_anew_after_success() -> None:
    guard = machine(spool=False)
    now, pauses = 0.0, []
    for _ in range(6):
        now = guard.deadline()
        assert guard.step(Tick(), now) == [Action.CONNECT]
        guard.step(Failed("no route"), now)
        pauses.append(guard.due - now)
    assert pauses == [0.5, 1, 2, 4, 4, 4]
    guard.step(Tick(), guard.due)
    guard.step(Attached(), now)
    guard.step(ROOM, now)
    guard.step(Failed("killed"), now)
    assert guard.due - now == 0.5


@given(st.floats(0, 1))
def test_a_pause_is_spread_by_a_quarter(chance: float) -> None:
    guard = machine()
    guard.chance = lambda: chance
    guard.step(Tick(), 0)
    guard.step(Failed("away"), 0)
    assert 0.375 <= guard.due <= 0.625


def test_a_full_disk_sends_the_site_below_until_there_is_room_for_twice_the_limit() -> None:
    guard = mounted()
    guard.step(Tick(), 3)
    assert guard.step(NO_ROOM, 3) == [Action.UNBIND]
    assert guard.state is State.FULL
    guard.step(Tick(), 5)
    assert guard.step(Answered(0.01, 1500), 5) == []
    guard.step(Tick(), 7)
    assert guard.step(Answered(0.01, 2000), 7) == [Action.PUSH]


def test_a_push_that_finds_no_room_waits_for_it() -> None:
    guard = machine()
    guard.step(Tick(), 0)
    guard.step(Attached(), 0)
    guard.step(ROOM, 0)
    guard.step(Tick(), 2)
    guard.step(NO_ROOM, 2)
    assert guard.step(PushFailed("failure"), 3) == [Action.UNBIND]
    assert guard.state is State.FULL


def test_a_push_that_fails_otherwise_is_tried_again() -> None:
    guard = machine()
    guard.step(Tick(), 0)
    guard.step(Attached(), 0)
    guard.step(ROOM, 0)
    assert guard.step(PushFailed("killed"), 3) == [Action.DROP]
    assert guard.reconnects == 0


def test_an_operator_can_shorten_a_pause() -> None:
    guard = machine()
    for _ in range(5):
        guard.step(Tick(), guard.deadline())
        guard.step(Failed("away"), 100)
    guard.step(Retry(), 101)
    assert guard.step(Tick(), 101) == [Action.CONNECT]


def test_after_the_stop_nothing_happens() -> None:
    guard = mounted()
    assert guard.step(Stop(), 2) == [Action.LEAVE]
    assert guard.step(Tick(), 100) == []
    assert guard.deadline() == float("inf")


EVENTS: list[Event] = [
    *(Tick(), Attached(), ROOM, NO_ROOM, Failed("x"), Pushed(), PushFailed("y"), Retry()),
]


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.floats(0, 5))), st.booleans())
def test_whatever_happens_the_real_path_is_mounted_only_by_bind_and_only_after_an_answer(
    story: list[tuple[Event, float]], spool: bool
) -> None:
    guard = machine(spool=spool)
    now, proven, bound = 0.0, False, False
    for event, pause in story:
        now += pause
        actions = guard.step(event, now)
        proven = proven or isinstance(event, Answered)
        for action in actions:
            if action is Action.CONNECT:
                proven = False
            if action is Action.BIND:
                assert proven
            bound = action is Action.BIND or (
                bound and action not in (Action.DROP, Action.UNBIND, Action.LEAVE)
            )
        assert bound == (guard.state is State.MOUNTED)
        # There is always a time at which it goes on by itself.
        assert guard.deadline() < now + 20


@pytest.mark.parametrize("event", [ROOM, Failed("late"), Pushed(), PushFailed("late"), Attached()])
def test_what_comes_late_from_a_mount_that_was_given_up_changes_nothing(event: Event) -> None:
    guard = mounted()
    guard.step(Failed("away"), 2)
    before = guard.due
    assert guard.step(event, 2.1) == []
    assert (guard.state, guard.due, guard.reason) == (State.WAITING, before, "away")
