"""The process that supervises a mount: it starts, queries and ends others, and never waits for one."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import math
import os
import pwd
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from host_agent.mount import linux, report, spool
from host_agent.mount.config import RUN, Config, ConfigError
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

SSHFS = "fuse.sshfs"

PROBE = ".mount-guard-probe"
"""File that the account makes and removes on the other host, where such a name is not taken for a picture."""

# Longest sleep of the loop in seconds: systemd's watchdog and the metrics need regular signs of life.
_BEAT = 2.0
# While sshfs starts, how often its mount is looked for, in seconds.
_MOUNT_POLL = 0.02
# How often the spool is counted while the other host is down, in seconds.
_COUNT = 5.0
# Time for files that are open when the service is stopped.
_PATIENCE = 4.0
# Whether the account can use the files is asked with the first probe of a connection, then this often.
_ACCESS = 30.0


class Child:
    """A process of ours: killed with all that it started, reaped when the kernel lets go of it."""

    def __init__(
        self, pid: int, ended: Callable[[], None], selector: selectors.BaseSelector, pipe: int = -1
    ) -> None:
        self.pid = pid
        self.pipe = pipe
        """What it answers through; closed with the interest in it."""
        self._selector = selector
        self._watched = os.pidfd_open(pid)
        selector.register(self._watched, selectors.EVENT_READ, ended)

    def forget(self) -> None:
        """No longer report its end."""
        if self._watched >= 0:
            self._selector.unregister(self._watched)
            os.close(self._watched)
            self._watched = -1
            if self.pipe >= 0:
                os.close(self.pipe)

    def kill(self) -> None:
        self.forget()
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)


class Guard:
    """One mount's supervision: :class:`Machine` decides, this does."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.machine = Machine(
            Timing(
                probe_interval=config.probe_interval,
                probe_timeout=config.probe_timeout,
                connect_timeout=config.connect_timeout,
                retry_min=config.retry_min,
                retry_max=config.retry_max,
                min_free=config.min_free if config.spool else 0,
                spool=config.spool,
            ),
            random.random,
        )
        self._selector = selectors.DefaultSelector()
        self._events: list[Event] = []
        self._sshfs: Child | None = None
        self._said: list[str] = []
        self._probe: Child | None = None
        self._push: Child | None = None
        self._push_input: IO[bytes] | None = None
        self._pipes: list[int] = []
        self._zombies: set[int] = set()
        self._root = -1
        """The private mount, once sshfs has made it: this one is proven and bound, never its path."""
        self._mount: linux.Mount | None = None
        self._owner = (0, 0)
        """The numbers of the account and the group that sshfs was started with."""
        self._access = -math.inf
        """When it was last asked whether the account can use the files."""
        self._refused = ""
        self._waiting = (0, 0)
        self._pushed = (0, 0)
        self._pushed_before = (0, 0)
        self._counter: Child | None = None
        self._counted = 0.0
        self._written = 0.0
        self._shown: tuple[State, str] | None = None
        self._ready = False
        self._state_since = time.time()
        self._last_good: float | None = None

    # The loop.

    def run(self) -> int:
        """Supervises until the service is stopped."""
        self._listen_to_signals()
        self._prepare()
        while True:
            now = time.monotonic()
            poll = _MOUNT_POLL if self.machine.state is State.CONNECTING and self._mount is None else _BEAT
            timeout = max(0.0, min(self.machine.deadline() - now, poll))
            for key, _ in self._selector.select(timeout):
                if self._selector.get_map().get(key.fd) is key:  # not closed by one before it
                    key.data()
            self._adopt_mount()
            self._events.append(Tick())
            while self._events:
                self._take(self._events.pop(0))
            self._reap()
            self._tell()
            if self.machine.state is State.STOPPED:
                return 0

    def _take(self, event: Event) -> None:
        state = self.machine.state
        for action in self.machine.step(event, time.monotonic()):
            self._do(action)
        if self.machine.state is not state:
            self._state_since = time.time()

    def _do(self, action: Action) -> None:
        match action:
            case Action.CONNECT:
                self._connect()
            case Action.PROBE:
                self._ask()
            case Action.PUSH:
                self._start_push()
            case Action.BIND:
                self._bind()
            case Action.UNBIND:
                self._end_push()
                self._give_back()
                self._note_clean()
            case Action.DROP:
                self._drop()
            case Action.LEAVE:
                self._leave()

    def _listen_to_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno())
        self._signals = (reader, writer)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        meaning: dict[int, Event] = {signal.SIGTERM: Stop(), signal.SIGINT: Stop(), signal.SIGHUP: Retry()}

        def read() -> None:
            for number in reader.recv(64):
                if number in meaning:
                    self._events.append(meaning[number])

        self._selector.register(reader, selectors.EVENT_READ, read)

    def _prepare(self) -> None:
        """Removes what an earlier guard left, and makes the private directory."""
        config = self.config
        clean_up(config)
        if own := linux.mounts_at(config.mount_point):
            raise ConfigError(f"{config.mount_point} is a separate file system ({own[-1].kind})")
        config.run.mkdir(parents=True, exist_ok=True)
        for place in (config.run.parent, config.run):
            place.chmod(0o755)  # everybody may ask for the status
        run = str(config.run)
        # Private: nothing mounted here shows up anywhere else.
        linux.bind(run, run, private=True)
        for directory in ("remote", "below"):
            (config.run / directory).mkdir(mode=0o755, exist_ok=True)
        try:
            os.close(self._point())
            if config.spool:
                above = str(Path(config.mount_point).parent)
                linux.bind(above, str(config.run / "below"), private=True)
        except OSError as error:
            raise ConfigError(f"{config.mount_point}: {error.strerror}") from None
        config.state.mkdir(parents=True, exist_ok=True)

    def _point(self) -> int:
        """A descriptor of the ordinary directory, made if it is missing, and the account's own.

        The site's account may exchange what lies there at any time: no link is followed.

        :raises OSError: it can't be had.
        """
        above, name = os.path.split(self.config.mount_point)
        parent = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent)
                made = True
            point = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        finally:
            os.close(parent)
        if Path(f"/proc/self/fd/{point}").readlink() != Path(self.config.mount_point):
            os.close(point)
            raise OSError(errno.ELOOP, "a symbolic link has come into the path; restart the guard")
        if made:
            Path(f"/proc/self/fd/{point}").chmod(0o755)
        with contextlib.suppress(ConfigError):  # no such account: told when it is mounted
            owner = self._numbers()
            found = os.fstat(point)
            if (found.st_uid, found.st_gid) != owner:
                os.chown(f"/proc/self/fd/{point}", *owner)
        return point

    def _numbers(self) -> tuple[int, int]:
        """The numbers that the account and the group have now.

        :raises ConfigError: there is no such account or group.
        """
        try:
            return pwd.getpwnam(self.config.owner).pw_uid, grp.getgrnam(self.config.group).gr_gid
        except KeyError as error:
            raise ConfigError(f"this host has no such account or group: {error.args[0]}") from None

    def _adopt_mount(self) -> None:
        """Keeps hold of the mount that sshfs has made. Reads the kernel's table, which never blocks."""
        if self.machine.state is not State.CONNECTING or self._mount is not None:
            return
        if not linux.mounts_at(self.config.private):
            return
        root = os.open(self.config.private, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # It may be gone again: then the descriptor is one of the bare directory.
        number = linux.mount_of(root)
        found = next((mount for mount in linux.mounts() if mount.id == number), None)
        if found is None or found.kind != SSHFS or found.point != self.config.private:
            os.close(root)
            return
        self._root, self._mount = root, found
        self._events.append(Attached())

    def _let_go(self) -> None:
        """Unmounts the private mount; sshfs can't end while we hold it open."""
        linux.detach(self.config.private)
        if self._mount is not None:
            os.close(self._root)
        self._root, self._mount = -1, None

    def _give_back(self) -> None:
        """Makes the real path the ordinary directory again."""
        give_back(self.config)

    # sshfs.

    def _connect(self) -> None:
        config = self.config
        try:
            uid, gid = self._owner = self._numbers()
        except ConfigError as error:
            self._refused = report.ACCESS
            self._events.append(Failed(str(error)))
            return
        command = [
            *("sshfs", "-f", "-F", config.ssh_config, f"peer:{config.remote_path}", config.private),
            *("-o", f"{config.options},uid={uid},gid={gid}"),
        ]
        self._said, self._access = [], -math.inf
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=linux.die_with_parent,
        )
        assert process.stderr is not None
        self._sshfs = Child(self._own(process), self._sshfs_ended, self._selector)
        self._read_lines(process.stderr, self._sshfs_says)

    def _own(self, process: subprocess.Popen[bytes]) -> int:
        """Takes over the reaping."""
        pid = process.pid
        self._zombies.add(pid)
        process.returncode = 0  # else its destructor would wait for it
        return pid

    def _sshfs_says(self, line: str) -> None:
        self._said.append(line)
        del self._said[:-40]
        print(line, file=sys.stderr, flush=True)

    def _sshfs_ended(self) -> None:
        self._hear_out()
        reason, self._refused = report.explain(self._said, self.config.known_hosts)
        self._events.append(Failed(reason))
        if self._sshfs is not None:
            self._sshfs.forget()

    def _bind(self) -> None:
        self._give_back()
        try:
            point = self._point()
            try:
                # By descriptor: a mount that is gone can't be bound, and nothing else is taken for it.
                linux.bind(f"/proc/self/fd/{self._root}", f"/proc/self/fd/{point}")
            finally:
                os.close(point)
        except OSError as error:
            self._events.append(Failed(f"{self.config.mount_point} can't be mounted: {error.strerror}"))
            return
        self._refused = ""
        if self._push_input is not None:
            with contextlib.suppress(OSError):
                self._push_input.write(b"bound\n")
                self._push_input.flush()

    def _drop(self) -> None:
        for child in (self._sshfs, self._probe):
            if child is not None:
                child.kill()
        # No process waits any more. Whoever comes now meets the directory below.
        self._give_back()
        self._let_go()
        self._end_push()
        self._sshfs = self._probe = None
        self._note_clean()

    def _leave(self) -> None:
        self._end_push()
        if self._probe is not None:
            self._probe.kill()
        self._give_back()
        self._let_go()
        if self._sshfs is not None:
            # Unmounted, sshfs ends by itself when the last open file is closed.
            self._sshfs.forget()
            deadline = time.monotonic() + _PATIENCE
            while self._sshfs.pid in self._zombies and time.monotonic() < deadline:
                time.sleep(0.02)
                self._reap()
            self._sshfs.kill()
        if self.config.spool and Path(self.config.hold).exists():
            # Stopped by who holds the directory below: what is in it from now on is the site's own.
            self.config.marker.unlink(missing_ok=True)
        clean_up(self.config)

    # Probes.

    def _ask(self) -> None:
        """Asks for free space: statvfs goes all the way, where stat is answered from a cache. Now and then it
        does as the account does, too."""
        if not self._intact():
            self._events.append(Failed(f"{self.config.mount_point} was unmounted by somebody else"))
            return
        config, root, owner = self.config, self._root, self._owner
        access = time.monotonic() - self._access >= _ACCESS

        def ask() -> object:
            started = time.monotonic()
            space = os.fstatvfs(root)
            latency, free = time.monotonic() - started, space.f_bavail * space.f_frsize
            try:
                if (now := self._numbers()) != owner:
                    change = f"was {report.pair(owner)} when it was mounted, and is {report.pair(now)}"
                    return [latency, free, f"{config.owner}:{config.group} {change}"]
            except ConfigError as error:
                return [latency, free, str(error)]
            # Where nothing is free, that is what is to be told.
            said = try_access(config, root, owner) if access and (free or not config.spool) else ""
            return [latency, free, said]

        def answered(answer: object) -> None:
            self._probe = None
            match answer:
                case [float(latency), int(free), ""]:
                    if access:
                        self._access = time.monotonic()
                    self._last_good = time.time()
                    self._events.append(Answered(latency, free))
                case [_, _, str(said)]:
                    self._refused = report.ACCESS
                    self._events.append(Failed(said))
                case _:
                    # sshfs may be about to end: what it says is more than "not connected".
                    self._hear_out()
                    said, refused = report.explain(self._said, self.config.known_hosts)
                    self._refused = refused or self._refused
                    self._events.append(Failed(said if self._said else f"a probe fails: {answer}"))

        self._probe = self._in_child(ask, answered)

    def _intact(self) -> bool:
        """Whether our mount is where it must be, by the kernel's table."""
        if self._mount is None or self._mount not in linux.mounts():
            return False
        if self.machine.state is not State.MOUNTED:
            return True
        real = linux.mounts_at(self.config.mount_point)
        return bool(real) and real[-1].device == self._mount.device

    def _in_child(self, work: Callable[[], object], done: Callable[[object], None]) -> Child:
        """Runs something short in its own process; it may hang there for ever."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                linux.die_with_parent()
                signal.set_wakeup_fd(-1)
                try:
                    answer = work()
                except OSError as error:
                    answer = error.strerror
                os.write(writer, json.dumps(answer).encode())
            finally:
                os._exit(0)
        os.close(writer)
        self._zombies.add(pid)

        def ended() -> None:
            text = os.read(reader, 4096)
            child.forget()
            done(json.loads(text) if text else "killed")

        child = Child(pid, ended, self._selector, reader)
        return child

    # The spool.

    def _note_clean(self) -> None:
        """Once nothing lies below, whatever comes there is an outage's."""
        config = self.config
        if not config.spool or config.marker.exists() or Path(config.hold).exists():
            return
        if spool.count(config.below, limit=1) == (0, 0):
            config.marker.touch()

    def _start_push(self) -> None:
        self._note_clean()
        if self.config.held:
            # A directory that was full before its first mount is moved by an operator, not by us.
            self._events.append(Pushed())
            return
        process = subprocess.Popen(
            [sys.executable, "-m", "host_agent.mount", "push", self.config.name, str(self._root)],
            pass_fds=[self._root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=linux.die_with_parent,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._push_input = process.stdin
        self._pushed_before = self._pushed
        child = Child(self._own(process), self._push_ended, self._selector)
        self._push = child

        def take(line: str) -> None:
            if self._push is child:  # not the last words of one that was killed
                self._push_says(line)

        self._read_lines(process.stdout, take)

    def _push_says(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "progress":
            files, size, left, left_size = map(int, rest.split())
            before = self._pushed_before
            self._pushed = (before[0] + files, before[1] + size)
            self._waiting = (left, left_size)
        elif word == "ready":
            self._events.append(Pushed())
        elif word == "failed":
            self._events.append(PushFailed(f"the spool can't be pushed: {rest}"))

    def _push_ended(self) -> None:
        self._hear_out()
        self._end_push()
        # After its own word, if it had one.
        self._events.append(PushFailed("the push of the spool ended before its time"))

    def _end_push(self) -> None:
        if self._push is not None:
            self._push.kill()
            self._push = None
        if self._push_input is not None:
            with contextlib.suppress(OSError):
                self._push_input.close()
            self._push_input = None

    def _count_spool(self) -> None:
        """Keeps the number of waiting files up to date while they aren't pushed."""
        now = time.monotonic()
        if not self.config.spool or self._push is not None or self._counter is not None:
            return
        if now - self._counted < _COUNT or self.config.held:
            return
        self._counted = now
        below = self.config.below

        def counted(answer: object) -> None:
            self._counter = None
            match answer:
                case [int(files), int(size)] if self._push is None:
                    self._waiting = (files, size)

        self._counter = self._in_child(lambda: spool.count(below), counted)

    # Others.

    def _hear_out(self) -> None:
        """Reads the last words of children."""
        for pipe in list(self._pipes):
            self._selector.get_key(pipe).data()

    def _read_lines(self, stream: IO[bytes], take: Callable[[str], None]) -> None:
        """Calls `take` with each line; never waits for one."""
        descriptor = os.dup(stream.fileno())
        stream.close()
        os.set_blocking(descriptor, False)
        rest = bytearray()

        def read() -> None:
            while True:
                try:
                    chunk = os.read(descriptor, 1 << 16)
                except BlockingIOError:
                    return
                if not chunk:
                    self._selector.unregister(descriptor)
                    self._pipes.remove(descriptor)
                    os.close(descriptor)
                    return
                rest.extend(chunk)
                *lines, last = rest.split(b"\n")
                rest[:] = last
                for line in lines:
                    take(line.decode(errors="replace").strip("\r"))

        self._pipes.append(descriptor)
        self._selector.register(descriptor, selectors.EVENT_READ, read)

    def _reap(self) -> None:
        for pid in list(self._zombies):
            try:
                done, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                done = pid
            if done:
                self._zombies.discard(pid)

    def _tell(self) -> None:
        self._count_spool()
        machine, now = self.machine, time.monotonic()
        shown = (machine.state, machine.reason)
        changed = shown != self._shown
        if machine.state is State.MOUNTED and now - machine.since > 5:
            self._note_clean()
        if not changed and now - self._written < _BEAT:
            linux.notify("WATCHDOG=1")
            return
        self._written = now
        status = self.status()
        line = report.sentence(status, time.time())
        with contextlib.suppress(OSError):  # a full /run or disk must not end the guard
            report.write(self.config.run / "status.json", report.as_json(status))
            if self.config.metrics:
                path = Path(self.config.metrics) / f"mount_guard_{self.config.name}.prom"
                report.write(path, report.metrics(status))
        settled = machine.state is State.MOUNTED or machine.failures > 0 or machine.state is State.FULL
        ready = "READY=1\n" if settled and not self._ready else ""
        self._ready = self._ready or settled
        stopping = "STOPPING=1\n" if machine.state is State.STOPPED else ""
        linux.notify(f"{ready}{stopping}STATUS={line}\nWATCHDOG=1")
        if changed:
            self._shown = shown
            print(line, file=sys.stderr, flush=True)

    def status(self) -> report.Status:
        machine = self.machine
        return report.Status(
            name=self.config.name,
            state=machine.state,
            since=self._state_since,
            reason=machine.reason,
            mount_point=self.config.mount_point,
            latency=machine.latency,
            last_good_probe=self._last_good,
            reconnects=machine.reconnects,
            refused=self._refused,
            free=machine.free,
            spool_files=self._waiting[0],
            spool_bytes=self._waiting[1],
            pushed_files=self._pushed[0],
            pushed_bytes=self._pushed[1],
            pid=os.getpid(),
            written=time.time(),
        )


def give_back(config: Config) -> None:
    """Unmounts what guards have mounted over the real path, and nothing else."""
    private = f"/{RUN.name}/{config.name}/remote"
    # The private directory itself was bound by a guard that took it for the mount.
    linux.detach(
        config.mount_point,
        lambda mount: mount.kind == SSHFS or mount.root.removesuffix("//deleted").endswith(private),
    )


def try_access(config: Config, root: int, owner: tuple[int, int]) -> str:
    """Does what the account must be able to do with the other host's files; for good its process is the
    account's own. Returns what it is refused, in words, or nothing.

    :param root: descriptor of the private mount.
    :param owner: numbers of the account and its group.
    :raises OSError: something else fails.
    """
    uid, gid = owner
    os.initgroups(config.owner, gid)
    os.setgid(gid)
    os.setuid(uid)
    linux.die_with_parent()  # forgotten with the old numbers
    try:
        if config.spool:
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(PROBE, flags, 0o600, dir_fd=root))
        # Needs to search the directory only: no list of a million names is asked for.
        with contextlib.suppress(FileNotFoundError):
            (os.unlink if config.spool else os.stat)(PROBE, dir_fd=root)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        what = "not writable" if config.spool else "not readable"
        return (
            f"{what}: the other host refuses {config.owner} ({report.pair(owner)}): {error.strerror}; "
            "compare the owners there, and deploy"
        )
    return ""


def clean_up(config: Config) -> None:
    """Ends what a guard that was killed left running, and gives the real path back."""
    linux.kill_control_group()
    give_back(config)
    for point in (config.private, str(config.run / "below"), str(config.run)):
        linux.detach(point)
