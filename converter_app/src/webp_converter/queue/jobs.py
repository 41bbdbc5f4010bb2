"""The job queue: Redis Streams, one for each priority, shared by all daemons of one consumer group.

One path has one live entry. What is known of it lies in the hash `paths`: `w:<priority>:<entry>` while it
waits, `r:<priority>:<entry>` while somebody works on it, `d:<priority>:<entry>:<event>` when it was asked for
again meanwhile: then it is queued again when that work is finished, so no change is lost to deduplication.
Jobs with a pause before them lie in the sorted set `later`. Each step is one script: a crash leaves the state
before it or after it.

A dead letter is a picture given up: an entry of the stream `dead`, one a path, found by the hash `letters`.
It goes when it is put back or dropped, or when its picture is published after all, or is gone.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import redis

from webp_converter.base.fact import Fact
from webp_converter.base.redis_client import connection
from webp_converter.config import Queue
from webp_converter.variants.store import Identity

GROUP = "converters"

# Modification times before 1970 are negative.
_REST = re.compile(r"(\d+)-(-?\d+)-(\d+)@(inf|[\d.e+]+)", re.ASCII)


class Priority(StrEnum):
    HIGH = "high"
    """A visitor asked."""

    NORMAL = "normal"
    """Just written."""

    LOW = "low"
    """Found by a scan."""


class Rest(NamedTuple):
    """How long one content of an original was seen to be left alone."""

    identity: Identity
    seconds: float
    """Infinite: it is to be converted as it is, whatever it is."""

    def pack(self) -> str:
        """As Redis keeps it."""
        return f"{self.identity}@{self.seconds}"

    @classmethod
    def parse(cls, text: str) -> Rest | None:
        """None where nothing was noted, or not by this version."""
        found = _REST.fullmatch(text)
        return cls(Identity(*map(int, found.groups()[:3])), float(found[4])) if found else None


class Job(NamedTuple):
    """One original to convert."""

    path: bytes
    event_ns: int
    """Wall clock time of the event that asked for it."""

    priority: Priority = Priority.NORMAL
    tries: int = 0
    """Failures of workers so far."""

    rest: Rest | None = None
    """What it was put off for: the rest that the original has had when it is its turn again."""

    entry: str = ""
    """Id of its stream entry; empty when it isn't queued."""


class Done(NamedTuple):
    """A job that is finished, or will be continued."""

    job: Job
    again: Job | None = None
    """The job to queue instead."""

    after_s: float = 0
    """Seconds before `again` is queued."""

    dead: str = ""
    """Why it becomes a dead letter; empty: it doesn't."""

    traceback: str = ""
    """Of the exception that made it one."""

    settled: bool = False
    """Whether a dead letter of the same path, if there is one, is no longer true."""


class LetterSummary(Fact):
    """A picture that was given up."""

    id: str
    path: str
    reason: str
    tries: int
    given_up_at: float
    """Unix time."""

    consumer: str
    """The daemon that gave it up."""


class Letter(LetterSummary):
    """A picture that was given up, with all that is known of why."""

    traceback: str
    """Empty where a worker ended without one."""

    asked_at: float
    """Unix time of the event that the picture was to be converted for."""

    command: str = ""
    """The shell command that has it tried again; empty: it was not asked for."""

    def summary(self) -> LetterSummary:
        """The letter without what is shown only for a single one."""
        return LetterSummary(**self.model_dump(include=set(LetterSummary.model_fields)))


class Waiting(Fact):
    """One priority of the queue."""

    length: int
    """Jobs waiting or under way."""

    under_way: int
    oldest_s: float | None
    """Age of the oldest job in seconds."""


class Running(Fact):
    """A job under way."""

    path: str
    priority: str
    consumer: str
    idle_s: float
    """Seconds since the daemon took it, or last showed a sign of life for it."""


class Consumer(Fact):
    """A daemon that takes jobs from the queue."""

    name: str
    under_way: int
    idle_s: float
    """Seconds since it last asked for jobs."""


class PutOff(Fact):
    """A job that was put off."""

    path: str
    due_s: float
    """Seconds until it is queued."""

    tries: int
    """Failures of workers so far; 0: it was put off for another reason."""


class Queued(Fact):
    """How a picture stands in the queue."""

    state: str
    """`none`; `waiting`; `running`; `running-again`: queued again after that; `put-off`; `unknown`."""

    stream: str = ""
    """`high`, `normal`, `low`; `later` of what was put off."""

    age_s: float | None = None
    """Seconds since it was queued."""

    due_s: float | None = None
    """Seconds until what was put off is queued again."""

    tries: int = 0
    """Failures of workers so far."""

    consumer: str = ""
    """The daemon that works on it."""

    dead: LetterSummary | None = None
    """Its dead letter."""

    problem: str = ""
    """Why it can't be told; empty: it can."""


class Overview(Fact):
    """The queue at one moment."""

    streams: dict[str, Waiting]
    consumers: list[Consumer]
    running: list[Running]
    """Up to 20 of the jobs under way."""

    later: int
    """How many jobs were put off."""

    next: list[PutOff]
    """Up to 20 of these, those first that are due first."""

    dead: int


_SHARED = """
local paths, later, details = KEYS[1], KEYS[2], KEYS[3]
local streams = {high = KEYS[4], normal = KEYS[5], low = KEYS[6]}
local rank = {high = 1, normal = 2, low = 3}

local function add(path, priority, event, tries, rested)
  local entry = redis.call('XADD', streams[priority], '*',
    'path', path, 'event', event, 'tries', tries, 'rested', rested)
  redis.call('HSET', paths, path, 'w:' .. priority .. ':' .. entry)
end

local function state_of(path)
  local text = redis.call('HGET', paths, path)
  if not text then return nil end
  return string.match(text, '^(%a):(%a+):([%d-]+):?(%d*)$')
end

local function drop_letter(path)
  local letter = redis.call('HGET', KEYS[8], path)
  if letter then
    redis.call('XDEL', KEYS[7], letter)
    redis.call('HDEL', KEYS[8], path)
  end
end

local function push(path, priority, event, tries, rested)
  if redis.call('ZREM', later, path) == 1 then redis.call('HDEL', details, path) end
  local state, queued, entry = state_of(path)
  if state and #redis.call('XRANGE', streams[queued], entry, entry) == 1 then
    if state ~= 'w' then
      redis.call('HSET', paths, path, 'd:' .. queued .. ':' .. entry .. ':' .. event)
      return 0
    end
    if rank[queued] <= rank[priority] then return 0 end
    redis.call('XDEL', streams[queued], entry)
  end
  add(path, priority, event, tries, rested)
  return 1
end
"""

# Redis out of memory must neither grow further nor keep what it holds from being worked off.
_REFUSED_WHEN_FULL = "#!lua"
_RUN_WHEN_FULL = "#!lua flags=allow-oom"

_PUSH = (
    _REFUSED_WHEN_FULL
    + _SHARED
    + """
local added = 0
for i = 1, #ARGV, 5 do
  added = added + push(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
end
return added
"""
)

_ASK = (
    _REFUSED_WHEN_FULL
    + _SHARED
    + """
local added = 0
for i = 1, #ARGV, 5 do
  if not redis.call('ZSCORE', later, ARGV[i]) then
    added = added + push(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
end
return added
"""
)

_BEGIN = (
    _RUN_WHEN_FULL
    + _SHARED
    + """
local live = {}
for i = 1, #ARGV, 2 do
  local state, queued, entry = state_of(ARGV[i])
  live[#live + 1] = (entry == ARGV[i + 1]) and 1 or 0
  if entry == ARGV[i + 1] and state == 'w' then
    redis.call('HSET', paths, ARGV[i], 'r:' .. queued .. ':' .. entry)
  end
end
return live
"""
)

_FINISH = (
    _RUN_WHEN_FULL
    + _SHARED
    + """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local group, consumer = ARGV[1], ARGV[2]
local are_letters = redis.call('HLEN', KEYS[8]) > 0
for i = 3, #ARGV, 11 do
  local path, priority, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local dead, again, event, tries, rested = ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local state, queued, current, newer = state_of(path)
  redis.call('XACK', streams[priority], group, entry)
  redis.call('XDEL', streams[priority], entry)
  if are_letters and (dead ~= '' or ARGV[i + 10] ~= '') then drop_letter(path) end
  if dead ~= '' then
    local letter = redis.call('XADD', KEYS[7], '*', 'path', path, 'event', event, 'tries', tries,
      'reason', dead, 'traceback', ARGV[i + 9], 'consumer', consumer)
    redis.call('HSET', KEYS[8], path, letter)
    are_letters = true
  end
  if current == entry then
    redis.call('HDEL', paths, path)
    if state == 'd' then
      add(path, 'normal', newer, 0, '')
    elseif again ~= '' then
      local pause_ms = tonumber(ARGV[i + 8])
      if pause_ms > 0 then
        redis.call('ZADD', later, now_ms + pause_ms, path)
        redis.call('HSET', details, path, again .. ' ' .. event .. ' ' .. tries .. ' ' .. rested)
      else
        add(path, again, event, tries, rested)
      end
    end
  end
end
"""
)

_DUE = (
    _RUN_WHEN_FULL
    + _SHARED
    + """
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
for _, path in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now_ms, 'LIMIT', 0, 500)) do
  local priority, event, tries, rested =
    string.match(redis.call('HGET', details, path) or '', '^(%a+) (%d+) (%d+) (.*)$')
  redis.call('HDEL', details, path)
  redis.call('ZREM', later, path)
  if priority then push(path, priority, event, tries, rested) end
end
local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
return first[2] and math.max(0, tonumber(first[2]) - now_ms) or -1
"""
)

_RETRY = (
    _SHARED
    + """
local now = redis.call('TIME')
local put_back = 0
for i = 1, #ARGV do
  local entry = redis.call('XRANGE', KEYS[7], ARGV[i], ARGV[i])[1]
  if entry then
    local path
    for k = 1, #entry[2], 2 do
      if entry[2][k] == 'path' then path = entry[2][k + 1] end
    end
    redis.call('XDEL', KEYS[7], ARGV[i])
    if redis.call('HGET', KEYS[8], path) == ARGV[i] then redis.call('HDEL', KEYS[8], path) end
    push(path, 'high', now[1] .. string.format('%06d', now[2]) .. '000', 0, '')
    put_back = put_back + 1
  end
end
return put_back
"""
)

_DROP = (
    _SHARED
    + """
local dropped = 0
for i = 1, #ARGV do
  local entry = redis.call('XRANGE', KEYS[7], ARGV[i], ARGV[i])[1]
  if entry then
    for k = 1, #entry[2], 2 do
      local path = entry[2][k + 1]
      if entry[2][k] == 'path' and redis.call('HGET', KEYS[8], path) == ARGV[i] then
        redis.call('HDEL', KEYS[8], path)
      end
    end
    dropped = dropped + redis.call('XDEL', KEYS[7], ARGV[i])
  end
end
return dropped
"""
)


def _pushed(jobs: Sequence[Job]) -> list[bytes | str | int]:
    arguments: list[bytes | str | int] = []
    for job in jobs:
        arguments += (job.path, job.priority.value, job.event_ns, job.tries, _rest(job))
    return arguments


def _rest(job: Job) -> str:
    return job.rest.pack() if job.rest else ""


def _text(text: str) -> bytes:
    """As Redis takes it: a path in it may be of any bytes."""
    return text.encode("utf-8", "backslashreplace")


class Jobs:
    """The queue as one daemon, scan or command sees it. Methods raise redis.RedisError when Redis is away."""

    def __init__(self, config: Queue) -> None:
        self.consumer = config.consumer or socket.gethostname()
        self._claim_idle_ms = int(config.claim_idle_s * 1000)
        self._redis = connection(config.url, config.user, config.password_file, answer_s=5, connect_s=2)
        self._streams = {priority: f"{config.prefix}:{priority}" for priority in Priority}
        self._dead = f"{config.prefix}:dead"
        self._later = f"{config.prefix}:later"
        self._details = f"{config.prefix}:details"
        self._letters_by_path = f"{config.prefix}:letters"
        self._keys = [
            f"{config.prefix}:paths",
            self._later,
            self._details,
            *self._streams.values(),
            self._dead,
            self._letters_by_path,
        ]
        self._push = self._redis.register_script(_PUSH)
        self._ask = self._redis.register_script(_ASK)
        self._begin = self._redis.register_script(_BEGIN)
        self._finish = self._redis.register_script(_FINISH)
        self._due = self._redis.register_script(_DUE)
        self._retry = self._redis.register_script(_RETRY)
        self._drop = self._redis.register_script(_DROP)

    def ensure_group(self) -> None:
        """Creates the streams and the consumer group where they are missing."""
        for stream in self._streams.values():
            if self._has_group(stream):  # Redis out of memory refuses to create even what is there
                continue
            try:
                self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _has_group(self, stream: str) -> bool:
        try:
            return any(group["name"] == GROUP.encode() for group in self._redis.xinfo_groups(stream))
        except redis.ResponseError:  # no such stream
            return False

    def push(self, jobs: Sequence[Job]) -> int:
        """Queues jobs; how many were not queued already. A waiting one moves up to a higher priority.

        :raises redis.OutOfMemoryError: there is no room for more.
        """
        arguments = _pushed(jobs)
        return int(self._push(keys=self._keys, args=arguments)) if arguments else 0

    def ask(self, jobs: Sequence[Job]) -> int:
        """Like `push`, but leaves alone what was put off: visitors don't cut a pause short, or start the
        count of tries again."""
        arguments = _pushed(jobs)
        return int(self._ask(keys=self._keys, args=arguments)) if arguments else 0

    def fetch(self, count: int, wait_s: float) -> list[Job]:
        """Takes up to `count` jobs, the highest priority first; waits up to `wait_s` seconds (0: not at all)
        for the first."""
        jobs: list[Job] = []
        for stream in self._streams.values():
            jobs += self._read({stream: ">"}, count - len(jobs), None)
            if len(jobs) >= count:
                break
        if not jobs and wait_s > 0:
            everything: dict[str, str] = dict.fromkeys(self._streams.values(), ">")
            jobs = self._read(everything, count, max(1, int(wait_s * 1000)))
        return self._started(jobs)

    def unfinished(self, known: set[str]) -> list[Job]:
        """What this consumer began and never finished, but for the entries `known` to be under way."""
        jobs = self._read(dict.fromkeys(self._streams.values(), "0"), None, None)
        return self._started([job for job in jobs if job.entry not in known])

    def claim(self, known: set[str]) -> list[Job]:
        """Takes over what other consumers began and show no sign of life for."""
        jobs: list[Job] = []
        for priority, stream in self._streams.items():
            reply = self._redis.xautoclaim(stream, GROUP, self.consumer, self._claim_idle_ms, count=64)
            jobs += self._jobs(priority, reply[1])
        return self._started([job for job in jobs if job.entry not in known])

    def keep_alive(self, jobs: Iterable[Job]) -> None:
        """Shows a sign of life for jobs under way."""
        entries: dict[Priority, list[int | bytes | str | memoryview[int]]] = {}
        for job in jobs:
            entries.setdefault(job.priority, []).append(job.entry)
        for priority, ids in entries.items():
            self._redis.xclaim(self._streams[priority], GROUP, self.consumer, 0, ids, justid=True)

    def finish(self, batch: Sequence[Done]) -> None:
        """Acknowledges and deletes jobs, and queues what follows from them, all at once."""
        arguments: list[bytes | str | int] = [GROUP, self.consumer]
        for done in batch:
            job, again = done.job, done.again or done.job
            arguments += (job.path, job.priority.value, job.entry, _text(done.dead))
            arguments += (
                again.priority.value if done.again else "",
                again.event_ns,
                again.tries,
                _rest(again),
            )
            arguments += (int(done.after_s * 1000), _text(done.traceback), int(done.settled) or "")
        if batch:
            self._finish(keys=self._keys, args=arguments)

    def queue_due(self) -> float | None:
        """Queues put-off jobs whose time has come; seconds until the next one, or None."""
        milliseconds = int(self._due(keys=self._keys))
        return None if milliseconds < 0 else milliseconds / 1000

    def lengths(self) -> dict[str, int]:
        """Entries of each stream (waiting or under way), of `later` and of `dead`."""
        pipe = self._redis.pipeline(transaction=False)
        for stream in self._streams.values():
            pipe.xlen(stream)
        pipe.zcard(self._later)
        pipe.xlen(self._dead)
        names = [*(priority.value for priority in self._streams), "later", "dead"]
        return dict(zip(names, pipe.execute(), strict=True))

    def ages(self) -> dict[str, float | None]:
        """Age in seconds of the oldest entry of each stream, waiting or under way; None: there is none."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.time()
        for stream in self._streams.values():
            pipe.xrange(stream, count=1)
        (seconds, microseconds), *oldest = pipe.execute()
        now_ms = seconds * 1000 + microseconds // 1000
        return {
            priority.value: (now_ms - int(entries[0][0].split(b"-")[0])) / 1000 if entries else None
            for priority, entries in zip(self._streams, oldest, strict=True)
        }

    # Dead letters

    def letters(self, after: str = "", count: int = 1000) -> list[Letter]:
        """Up to `count` dead letters, the oldest first, from behind the one `after` on."""
        return self._letters(f"({after}" if after else "-", "+", count)

    def letter(self, id: str) -> Letter | None:
        """One dead letter; None when there is none of that id."""
        letters = self._letters(id, id, 1)
        return letters[0] if letters else None

    def is_dead(self, path: bytes) -> bool:
        """Whether a path has a dead letter."""
        return bool(self._redis.hexists(self._letters_by_path, path))

    def retry(self, ids: Sequence[str]) -> int:
        """Puts dead letters back into the queue, with all their tries; returns how many there were. The
        verdict on the picture has to be gone by then."""
        return int(self._retry(keys=self._keys, args=list(ids))) if ids else 0

    def drop(self, ids: Sequence[str]) -> int:
        """Removes dead letters; how many there were. The verdict on the picture stays."""
        return int(self._drop(keys=self._keys, args=list(ids))) if ids else 0

    def _letters(self, first: str, last: str, count: int) -> list[Letter]:
        reply: Any = self._redis.xrange(self._dead, first, last, count=count)
        return [
            Letter(
                id=entry.decode(),
                path=os.fsdecode(fields[b"path"]),
                reason=fields[b"reason"].decode("utf-8", "replace"),
                traceback=fields.get(b"traceback", b"").decode("utf-8", "replace"),
                tries=int(fields[b"tries"]),
                given_up_at=int(entry.partition(b"-")[0]) / 1000,
                asked_at=int(fields[b"event"]) / 1e9,
                consumer=fields.get(b"consumer", b"").decode("utf-8", "replace"),
            )
            for entry, fields in reply
        ]

    # For people

    def queued(self, path: bytes) -> Queued:
        """How a picture stands in the queue."""
        id: Any = self._redis.hget(self._letters_by_path, path)
        letter = self.letter(id.decode()) if id else None
        return self._queued(path).model_copy(update={"dead": letter and letter.summary()})

    def _queued(self, path: bytes) -> Queued:
        seconds, microseconds = self._redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        due_ms: Any = self._redis.zscore(self._later, path)
        if due_ms is not None:
            detail: Any = self._redis.hget(self._details, path)
            tries = int(detail.split(b" ")[2]) if detail else 0
            due_s = max(0.0, (due_ms - now_ms) / 1000)
            return Queued(state="put-off", stream="later", due_s=due_s, tries=tries)
        known: Any = self._redis.hget(self._keys[0], path)
        if not known:
            return Queued(state="none")
        state, stream, entry = known.decode().split(":")[:3]
        name = self._streams[Priority(stream)]
        found: Any = self._redis.xrange(name, entry, entry)
        if not found:
            return Queued(state="none")
        consumer = ""
        if state != "w":
            pending: Any = self._redis.xpending_range(name, GROUP, entry, entry, 1)
            consumer = pending[0]["consumer"].decode() if pending else ""
        return Queued(
            state={"w": "waiting", "r": "running"}.get(state, "running-again"),
            stream=stream,
            age_s=max(0.0, (now_ms - int(entry.partition("-")[0])) / 1000),
            tries=int(found[0][1][b"tries"]),
            consumer=consumer,
        )

    def overview(self, shown: int = 20) -> Overview:
        """The queue now, with up to `shown` of the jobs under way and of those put off."""
        lengths, ages = self.lengths(), self.ages()
        seconds, microseconds = self._redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        streams: dict[str, Waiting] = {}
        consumers: dict[str, Consumer] = {}
        running: list[Running] = []
        for priority, stream in self._streams.items():
            under_way = 0
            for known in self._consumers(stream):
                name, pending = known["name"].decode(), known["pending"]
                under_way += pending
                idle_s = known["idle"] / 1000
                if earlier := consumers.get(name):
                    pending, idle_s = pending + earlier.under_way, min(idle_s, earlier.idle_s)
                consumers[name] = Consumer(name=name, under_way=pending, idle_s=idle_s)
            if under_way:
                running += self._running(priority, stream, shown - len(running))
            name = priority.value
            streams[name] = Waiting(length=lengths[name], under_way=under_way, oldest_s=ages[name])
        return Overview(
            streams=streams,
            consumers=sorted(consumers.values(), key=lambda consumer: consumer.name),
            running=running,
            later=lengths["later"],
            next=self._put_off(now_ms, shown),
            dead=lengths["dead"],
        )

    def _consumers(self, stream: str) -> list[dict[str, Any]]:
        try:
            consumers: Any = self._redis.xinfo_consumers(stream, GROUP)
        except redis.ResponseError:  # no daemon has been here yet
            return []
        return list(consumers)

    def _running(self, priority: Priority, stream: str, count: int) -> list[Running]:
        if count < 1:
            return []
        pending: Any = self._redis.xpending_range(stream, GROUP, "-", "+", count)
        pipe = self._redis.pipeline(transaction=False)
        for entry in pending:
            pipe.xrange(stream, entry["message_id"], entry["message_id"])
        running = []
        for entry, found in zip(pending, pipe.execute(), strict=True):
            if found and found[0][1]:
                running.append(
                    Running(
                        path=os.fsdecode(found[0][1][b"path"]),
                        priority=priority.value,
                        consumer=entry["consumer"].decode(),
                        idle_s=entry["time_since_delivered"] / 1000,
                    )
                )
        return running

    def _put_off(self, now_ms: int, count: int) -> list[PutOff]:
        first: Any = self._redis.zrange(self._later, 0, count - 1, withscores=True)
        paths = [path for path, _ in first]
        details: Any = self._redis.hmget(self._details, paths) if paths else []
        return [
            PutOff(
                path=os.fsdecode(path),
                due_s=max(0.0, (due_ms - now_ms) / 1000),
                tries=int(detail.split(b" ")[2]) if detail else 0,
            )
            for (path, due_ms), detail in zip(first, details, strict=True)
        ]

    def ping(self) -> None:
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    def _read(self, streams: dict[str, str], count: int | None, block_ms: int | None) -> list[Job]:
        if count is not None and count < 1:
            return []
        wanted: dict[Any, Any] = {**streams}
        reply: Any = self._redis.xreadgroup(GROUP, self.consumer, wanted, count=count, block=block_ms)
        by_stream = {stream.encode(): priority for priority, stream in self._streams.items()}
        jobs = []
        for stream, entries in reply or ():
            jobs += self._jobs(by_stream[stream], entries)
        return jobs

    def _jobs(
        self, priority: Priority, entries: Iterable[tuple[bytes, dict[bytes, bytes] | None]]
    ) -> list[Job]:
        jobs = []
        for entry, fields in entries:
            if not fields:  # deleted by hand while it was pending
                self._redis.xack(self._streams[priority], GROUP, entry)
                continue
            jobs.append(
                Job(
                    path=fields[b"path"],
                    event_ns=int(fields[b"event"]),
                    priority=priority,
                    tries=int(fields[b"tries"]),
                    rest=Rest.parse(fields[b"rested"].decode("ascii", "replace")),
                    entry=entry.decode(),
                )
            )
        return jobs

    def _started(self, jobs: list[Job]) -> list[Job]:
        """Notes that work on the jobs begins; drops those that something else has replaced."""
        if not jobs:
            return []
        arguments = [value for job in jobs for value in (job.path, job.entry)]
        live = self._begin(keys=self._keys, args=arguments)
        replaced = [Done(job) for job, is_live in zip(jobs, live, strict=True) if not is_live]
        self.finish(replaced)
        return [job for job, is_live in zip(jobs, live, strict=True) if is_live]
