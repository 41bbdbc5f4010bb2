"""When to connect, probe, push, bind and give up: a function of events and time, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto


class State(StrEnum):
    """What a mount is. Only `mounted` lets callers of the real path meet the other host."""

    WAITING = "waiting"
    """Nothing is mounted; the next try is due later."""
    CONNECTING = "connecting"
    """sshfs runs on the private path and hasn't answered yet."""
    PUSHING = "pushing"
    """It answers; the spool is being pushed."""
    FULL = "full"
    """It answers, and has no room: the site goes on writing into its spool."""
    MOUNTED = "mounted"
    """It is bound over the real path."""
    STOPPED = "stopped"


class Action(Enum):
    """What the shell must do, in the given order."""

    CONNECT = auto()
    """Start sshfs on the private path."""
    PROBE = auto()
    """Ask the private path for its free space, in its own process."""
    PUSH = auto()
    """Start pushing the spool."""
    BIND = auto()
    """Lay the private mount over the real path, then let the push go on with what came late."""
    UNBIND = auto()
    """End a push and give the real path back; the private mount stays."""
    DROP = auto()
    """SIGKILL all children, then detach the real and the private path."""
    LEAVE = auto()
    """Detach both paths first, let open files finish for a moment, then end all children."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Attached:
    """sshfs has mounted the private path; it may not be connected yet."""


@dataclass(frozen=True)
class Answered:
    """A probe came back: seconds that it took, and bytes free on the other host."""

    latency: float
    free: int


@dataclass(frozen=True)
class Failed:
    """A probe came back with an error, sshfs ended, or the real path isn't our mount any more."""

    reason: str


@dataclass(frozen=True)
class Pushed:
    """All of the spool is on the other host but what is written just now."""


@dataclass(frozen=True)
class PushFailed:
    """The push ended without that."""

    reason: str


@dataclass(frozen=True)
class Retry:
    """An operator has changed something: try now."""


@dataclass(frozen=True)
class Stop:
    """The service is being stopped."""


Event = Tick | Attached | Answered | Failed | Pushed | PushFailed | Retry | Stop


@dataclass(frozen=True)
class Timing:
    """The settings that matter here; see :class:`host_agent.mount.config.Config`."""

    probe_interval: float
    probe_timeout: float
    connect_timeout: float
    retry_min: float
    retry_max: float
    min_free: int
    spool: bool


@dataclass
class Machine:
    """The supervision of one mount."""

    timing: Timing
    chance: Callable[[], float]
    """Returns numbers from 0 to 1; spreads the tries of many hosts after a common outage."""
    state: State = State.WAITING
    since: float = 0.0
    """When the state was entered."""
    reason: str = ""
    """Why it isn't mounted; empty when all is well."""
    due: float = 0.0
    """When the next try is due, or the next probe."""
    asked: float | None = None
    """When the probe under way was started."""
    failures: int = 0
    """Tries that failed since the mount was last up."""
    reconnects: int = 0
    """Times that a mount which was up was given up."""
    latency: float = 0.0
    free: int = 0
    answered: float | None = None
    """When a probe last came back well."""
    _handlers: dict[type, Callable[..., list[Action]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._handlers = {
            Tick: self._tick,
            Attached: self._attached,
            Answered: self._answered,
            Failed: lambda event, now: self._give_up(event.reason, now),
            Pushed: self._pushed,
            PushFailed: self._push_failed,
            Retry: self._retry,
            Stop: self._stop,
        }

    def step(self, event: Event, now: float) -> list[Action]:
        """Handles one event; returns the actions to take."""
        if self.state is State.STOPPED:
            return []
        return self._handlers[type(event)](event, now)

    def deadline(self) -> float:
        """The time at which a :class:`Tick` matters next."""
        if self.state is State.STOPPED:
            return float("inf")
        if self.state is State.WAITING:
            return self.due
        if self.state is State.CONNECTING:
            return self.since + self.timing.connect_timeout
        return self.due if self.asked is None else self.asked + self._patience()

    def _patience(self) -> float:
        # While it isn't bound no process waits, and a push may fill a slow line for longer than a caller
        # should ever wait; that the network is dead is ssh's to find out.
        timing = self.timing
        return timing.probe_timeout if self.state is State.MOUNTED else timing.connect_timeout

    def _tick(self, _: Tick, now: float) -> list[Action]:
        if now < self.deadline():
            return []
        if self.state is State.WAITING:
            self._enter(State.CONNECTING, now)
            self.asked = None
            return [Action.CONNECT]
        if self.state is State.CONNECTING:
            return self._give_up(f"no answer within {self.timing.connect_timeout:g} s of connecting", now)
        if self.asked is not None:
            return self._give_up(f"no answer for {self._patience():g} s", now)
        self.asked = now
        return [Action.PROBE]

    def _attached(self, _: Attached, now: float) -> list[Action]:
        if self.state is not State.CONNECTING or self.asked is not None:
            return []
        self.asked = now
        return [Action.PROBE]

    def _answered(self, event: Answered, now: float) -> list[Action]:
        if self.state is State.WAITING:
            return []  # the answer of a mount that was given up meanwhile
        self.asked, self.due = None, now + self.timing.probe_interval
        self.latency, self.free, self.answered = event.latency, event.free, now
        short = self.timing.spool and self._short(event.free)
        if self.state is State.MOUNTED and short:
            return [Action.UNBIND, *self._no_room(now)]
        if self.state is State.CONNECTING:
            if short:
                return self._no_room(now)
            return self._push(now) if self.timing.spool else self._bind(now)
        if self.state is State.FULL and not short:
            return self._push(now)
        return []

    def _short(self, free: int) -> bool:
        # Room for twice the limit before the way back, or the mount would come and go with each file.
        return free < self.timing.min_free * (2 if self.state is State.FULL else 1)

    def _no_room(self, now: float) -> list[Action]:
        self._enter(State.FULL, now)
        self.reason = f"the other host has {self.free // 1_000_000} MB left"
        return []

    def _push(self, now: float) -> list[Action]:
        self._enter(State.PUSHING, now)
        return [Action.PUSH]

    def _bind(self, now: float) -> list[Action]:
        self._enter(State.MOUNTED, now)
        self.reason, self.failures = "", 0
        if self.asked is not None:
            self.asked = now
        return [Action.BIND]

    def _pushed(self, _: Pushed, now: float) -> list[Action]:
        return self._bind(now) if self.state is State.PUSHING else []

    def _push_failed(self, event: PushFailed, now: float) -> list[Action]:
        if self.state is not State.PUSHING:
            return []
        # Over sftp a full disk is only "failure"; the probe's numbers tell.
        if self._short(self.free):
            return [Action.UNBIND, *self._no_room(now)]
        return self._give_up(event.reason, now)

    def _retry(self, _: Retry, now: float) -> list[Action]:
        if self.state is State.WAITING:
            self.due, self.failures = now, 0
        return []

    def _stop(self, _: Stop, now: float) -> list[Action]:
        self._enter(State.STOPPED, now)
        return [Action.LEAVE]

    def _give_up(self, reason: str, now: float) -> list[Action]:
        if self.state is State.WAITING:
            return []
        if self.state is State.MOUNTED:
            self.reconnects += 1
        pause = min(self.timing.retry_max, self.timing.retry_min * 2.0 ** min(self.failures, 30))
        self.failures += 1
        self._enter(State.WAITING, now)
        self.reason, self.asked = reason, None
        # A quarter to either side.
        self.due = now + pause * (0.75 + 0.5 * self.chance())
        return [Action.DROP]

    def _enter(self, state: State, now: float) -> None:
        self.state, self.since = state, now
