"""Runs queries in the background, so that no caller waits long for an answer.

A query runs in a separate thread, at most once at a time. Callers that ask while it runs share its result;
a caller whose time is up gets the previous result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import redis

from webp_converter.base import log

Value = TypeVar("Value")


class QueryResult(NamedTuple, Generic[Value]):
    """The latest value of a query, and why it may be old."""

    value: Value | None
    """None: there has been no answer yet."""

    problem: str = ""
    """Why the value could not be updated; empty: it is current."""

    age_s: float = 0
    """How old `value` is; 0 without a problem."""


class BackgroundQuery(Generic[Value]):
    """A query. Its methods may be called from any thread."""

    def __init__(self, question: Callable[[], Value]) -> None:
        """`question` may raise RedisError."""
        self._question = question
        self._lock = threading.Lock()
        self._running: threading.Event | None = None
        self._value: Value | None = None
        self._updated_at = 0.0
        self._problem = ""

    def ask(self) -> Callable[[float], QueryResult[Value]]:
        """Starts the query, unless it runs already.

        Returns a function that waits at most the given seconds and returns the result.
        """
        with self._lock:
            running = self._running
            if running is None:
                running = self._running = threading.Event()
                threading.Thread(target=self._run, args=(running,), name="source", daemon=True).start()

        def answer(patience_s: float) -> QueryResult[Value]:
            done = running.wait(patience_s)
            with self._lock:
                problem = self._problem if done else f"no answer after {patience_s:.1f} s"
                return QueryResult(
                    self._value, problem, time.monotonic() - self._updated_at if problem else 0
                )

        return answer

    def _run(self, running: threading.Event) -> None:
        problem, value = "", None
        try:
            value = self._question()
        except (redis.ConnectionError, redis.TimeoutError):
            problem = "Redis is away"  # health tells more
        except redis.RedisError as error:
            problem = " ".join(f"Redis can't answer: {error}".split())
        except Exception as error:  # callers are waiting: they must get an answer
            problem = " ".join(f"{type(error).__name__}: {error}".split())
            log.error("query failed", reason=problem, traceback=True)
        with self._lock:
            self._problem = problem
            if not problem:
                self._value, self._updated_at = value, time.monotonic()
            self._running = None
        running.set()
