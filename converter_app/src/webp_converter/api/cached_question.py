"""Questions whose answers nobody waits long for.

Each runs in a separate thread, at most one at a time. Whoever asks while it runs waits for the same answer;
what was told last is kept for those whose patience ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import redis

from webp_converter.base import log

Value = TypeVar("Value")


class Told(NamedTuple, Generic[Value]):
    """What is known."""

    value: Value | None
    """None: nothing."""

    problem: str = ""
    """Why the answer could not be renewed; empty: it was."""

    age_s: float = 0
    """How old `value` is; 0 without a problem."""


class Source(Generic[Value]):
    """One such question. Its methods may be called from any thread."""

    def __init__(self, question: Callable[[], Value]) -> None:
        """`question` may raise RedisError."""
        self._question = question
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._value: Value | None = None
        self._told_at = 0.0
        self._problem = ""

    def ask(self) -> Callable[[float], Told[Value]]:
        """Asks; what to call with the seconds to wait for the answer."""
        with self._lock:
            running = self._running
            if running is None:
                running = self._running = threading.Event()
                threading.Thread(target=self._run, args=(running,), name="source", daemon=True).start()

        def answer(patience_s: float) -> Told[Value]:
            done = running.wait(patience_s)
            with self._lock:
                problem = self._problem if done else f"no answer after {patience_s:.1f} s"
                return Told(self._value, problem, time.monotonic() - self._told_at if problem else 0)

        return answer

    def _run(self, running: threading.Event) -> None:
        problem, value = "", None
        try:
            value = self._question()
        except (redis.ConnectionError, redis.TimeoutError):
            problem = "Redis is away"  # health tells more
        except redis.RedisError as error:
            problem = " ".join(f"Redis can't answer: {error}".split())
        except Exception as error:  # whoever waits must not wait for nothing
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            log.error("question failed", reason=problem, traceback=True)
        with self._lock:
            self._problem = problem
            if not problem:
                self._value, self._told_at = value, time.monotonic()
            self._running = None
        running.set()
