"""A schedule on a converter of its own with a real Redis: what a shop does, what fails, and the verdict."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import redis
from webp_converter.queue.jobs import GROUP, Priority
from webp_converter.variants.store import AVIF, DECISIONS, XATTR, Mark

from converter_app.tests.harness import TOKEN, DaemonProcess, RedisServer, children_of, wait_until
from tests.oracle.disk import HOOK, SYNCED, empty, lose
from tests.oracle.history import Decision, Health, History, Lying, Seen, lost, misjudged, served_wrong
from tests.oracle.schedules import BIG, Step
from tests.oracle.versions import SIDE, picture, version_of

GRACE_S = 4.0
"""For how long a variant of what was replaced may still be served while the converter runs."""

SETTLED_S = 40.0
"""For how long the converter may be at work when nothing happens any more."""

_PATIENT: dict[str, dict[str, Any]] = {
    # It is the schedule that kills workers, no picture.
    "queue": {"tries": 100, "retry_pause_s": 0.05},
    "watch": {"remove_copies": False, "damaged_rest_s": 1.0, "intermediate_rest_s": 0.5},
    "store": {"minimum_free_mib": 0, "high_water": 1.0, "low_water": 1.0, "directory_rest_s": 0.3},
    "workers": {"memory_limit_mib": 512, "count": 1},
}


class Visitors:
    """Somebody who asks for one picture after another, and gets what nginx would give."""

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self._root = root
        self._clock = clock
        self._over = threading.Event()
        self._got: list[tuple[str, float, float, bool, bytes]] = []
        self._bodies: dict[bytes, bytes] = {}
        self._paths: tuple[str, ...] = ()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def want(self, path: str) -> None:
        """From now on, this one too."""
        if path not in self._paths:
            self._paths = (*self._paths, path)

    def _ask(self) -> None:
        while not self._over.wait(0.01):
            for path in self._paths:
                begin = self._clock()
                for suffix in (".avif", ".webp", ""):
                    try:
                        body = (self._root / f"{path}{suffix}").read_bytes()
                    except OSError:
                        continue
                    digest = hashlib.blake2b(body).digest()
                    self._bodies.setdefault(digest, body)
                    self._got.append((path, begin, self._clock(), bool(suffix), digest))
                    break

    def seen(self) -> list[Seen]:
        """All that they got; nobody asks any more."""
        self._over.set()
        self._thread.join()
        versions = {digest: version_of(body) for digest, body in self._bodies.items()}
        return [
            Seen(path, begin, end, variant, versions[digest], len(self._bodies[digest]))
            for path, begin, end, variant, digest in self._got
        ]


class Run:
    """One schedule as it is played."""

    def __init__(self, place: Path, beside: Path, settled_s: float, bug: str) -> None:
        """
        :param place: where all is that the disk may be too full for.
        :param beside: where there is room.
        :param bug: code that each process of the converter runs first.
        """
        self._settled_s = settled_s
        self._began = time.monotonic()
        self.history = History()
        self.health = Health()
        self.place = place
        self.server = RedisServer(place / "redis")
        self.server.start()
        token = place / "token"
        token.write_text(f"{TOKEN}\n")
        self.daemon = DaemonProcess(
            place / "cdn", self.server.url, **_PATIENT, api={"token_file": str(token)}
        )
        self._noted = beside / "synced"
        self._noted.touch()
        (beside / "sitecustomize.py").write_text(HOOK + bug)
        path = os.pathsep.join([str(beside), os.environ.get("PYTHONPATH", "")])
        self._environment = {SYNCED: str(self._noted), "PYTHONPATH": path}
        self.root = self.daemon.root
        self.visitors = Visitors(self.root, self.now)
        self._over = threading.Event()
        self._wanted_up = True
        self._is_up = False
        self._watcher = threading.Thread(target=self._watch_health, daemon=True)
        self.start_the_daemon()
        self._watcher.start()

    def now(self) -> float:
        return time.monotonic() - self._began

    # The shop

    def do(self, step: Step) -> None:
        """Does what a step says, and waits as long as it says."""
        getattr(self, step.what.lower().replace(" ", "_").replace("'", ""))(step)
        time.sleep(step.pause_s)

    def _put(self, path: str, version: int, data: bytes, mtime: int = 0) -> None:
        """As PHP does: the file is opened, written and closed, and that is acknowledged or not."""
        self.visitors.want(path)
        target = self.root / path
        self.history.begin(path, version, len(data), self.now())
        try:
            with contextlib.suppress(FileExistsError):
                target.parent.mkdir(parents=True)
            try:
                file = target.open("wb", buffering=0)
            except FileNotFoundError:  # the converter removed the directory that it was the last in
                target.parent.mkdir(parents=True, exist_ok=True)
                file = target.open("wb", buffering=0)
            with file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                if mtime:
                    os.utime(file.fileno(), (mtime, mtime))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # A shop that couldn't write leaves nothing half written behind, as far as it is able to.
            target.unlink(missing_ok=True)
            self.history.remove(path, self.now())
        else:
            self.history.acknowledge(path, self.now())

    def write(self, step: Step) -> None:
        self._put(step.path, step.version, picture(step.version, step.number or SIDE))

    rewrite = write

    def date(self, step: Step) -> None:
        self._put(step.path, step.version, picture(step.version), step.number)

    def rewrite_in_the_same_size(self, step: Step) -> None:
        data = picture(step.version)
        with contextlib.suppress(FileNotFoundError):
            data = data.ljust((self.root / step.path).stat().st_size, b"\0")
        self._put(step.path, step.version, data)

    def resize(self, step: Step) -> None:
        """As Bitrix does: a copy of the original first, then the picture made of it."""
        self._put(step.path, step.version, picture(step.version, BIG))
        self.remove(step)
        self._put(step.path, step.version, picture(step.version))

    def replace(self, step: Step) -> None:
        data = picture(step.version)
        new = self.root / f"{step.path}.new"
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            new.unlink(missing_ok=True)
            return
        self.visitors.want(step.path)
        self.history.begin(step.path, step.version, len(data), self.now())
        new.rename(self.root / step.path)
        self.history.acknowledge(step.path, self.now())

    def remove(self, step: Step) -> None:
        (self.root / step.path).unlink(missing_ok=True)
        self.history.remove(step.path, self.now())

    def rename(self, step: Step) -> None:
        self.visitors.want(step.to)
        source, target = self.root / step.path, self.root / step.to
        if not source.exists():  # its write wasn't acknowledged
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        begin = self.now()
        source.rename(target)
        self.history.move(step.path, step.to, begin, self.now())

    def move_a_directory(self, step: Step) -> None:
        source, target = self.root / step.path, self.root / step.to
        inside = [path for path, _ in self.history.present() if path.startswith(f"{step.path}/")]
        if not inside:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        for path in inside:
            self.visitors.want(path.replace(f"{step.path}/", f"{step.to}/"))
        begin = self.now()
        source.rename(target)
        self.history.move_all(step.path, step.to, begin, self.now())

    # What fails

    def _down(self) -> None:
        self._wanted_up = self._is_up = False
        self.health.down(self.now())

    def start_the_daemon(self, _: Step | None = None) -> None:
        with self._with_environment():
            self.daemon.start(ready=False)
        self._wanted_up = True

    @contextlib.contextmanager
    def _with_environment(self) -> Iterator[None]:
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def kill_the_daemon(self, _: Step) -> None:
        self._down()
        self.daemon.kill()

    def cut_the_power(self, step: Step) -> None:
        """The daemon's host goes out. Of what the shop wrote within the last moment, half is lost as well."""
        self._down()
        self.daemon.kill()
        lose(self.root, self._noted)
        for path, version in self.history.doubt(self.now() - step.number % 1000 / 1000):
            if version % 2:
                with contextlib.suppress(FileNotFoundError):
                    empty(self.root / path)

    def restart_the_daemon(self, _: Step) -> None:
        self._down()
        self.daemon.stop()
        self.start_the_daemon()

    def restart_the_daemon_with_avif(self, step: Step) -> None:
        """As after a deploy that changed a setting."""
        text = self.daemon.config_file.read_text()
        if "avif = true" not in text:
            self.daemon.config_file.write_text(text.replace("[encoding]", "[encoding]\navif = true"))
        self.restart_the_daemon(step)

    def freeze_the_daemon(self, _: Step) -> None:
        self._down()
        assert self.daemon.process
        self.daemon.process.send_signal(signal.SIGSTOP)

    def thaw_the_daemon(self, _: Step) -> None:
        assert self.daemon.process
        self.daemon.process.send_signal(signal.SIGCONT)
        self._wanted_up = True

    def wait_for_the_daemon(self, _: Step | None = None) -> None:
        wait_until(lambda: self._is_up, timeout_s=60)

    def kill_a_worker(self, step: Step) -> None:
        """Any process of the daemon's but itself."""
        assert self.daemon.process
        found = below(self.daemon.process.pid)
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[step.number % len(found)], signal.SIGKILL)

    def kill_redis(self, _: Step) -> None:
        self.server.kill()

    def cut_redis_power(self, step: Step) -> None:
        """What it wrote within the last second, which it hadn't synced, is lost in part."""
        self.server.kill()
        for file in self.server.directory.glob("appendonlydir/*.incr.aof"):
            os.truncate(file, max(0, file.stat().st_size - step.number % 20_000))

    def start_redis(self, _: Step) -> None:
        self.server.start()

    def freeze_redis(self, _: Step) -> None:
        assert self.server.process
        self.server.process.send_signal(signal.SIGSTOP)

    def thaw_redis(self, _: Step) -> None:
        assert self.server.process
        self.server.process.send_signal(signal.SIGCONT)

    def flush_redis(self, _: Step) -> None:
        with contextlib.suppress(redis.RedisError):
            self.queue().flushall()

    def fill_the_disk(self, step: Step) -> None:
        """All but a few pages."""
        with contextlib.suppress(OSError), (self.place / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        with contextlib.suppress(OSError):
            os.truncate(self.place / "filler", (self.place / "filler").stat().st_size - step.number % 30_000)

    def free_the_disk(self, _: Step) -> None:
        (self.place / "filler").unlink(missing_ok=True)

    def ask_for_a_scan(self, _: Step) -> None:
        url = f"http://127.0.0.1:{self.daemon.api_port}/api/scan"
        asked = Request(url, method="POST", headers={"Authorization": f"Bearer {TOKEN}"})
        with contextlib.suppress(OSError), urlopen(asked, timeout=1):
            pass

    def queue(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.server.socket), socket_timeout=2)

    def _watch_health(self) -> None:
        while not self._over.wait(0.05):
            if not self._wanted_up or self._is_up:
                continue
            health = self.daemon.health()
            if health and health["status"] == "ok" and not health["scanning"] and self._wanted_up:
                self._is_up = True
                self.health.up(self.now())

    # The verdict

    def settle(self) -> list[str]:
        """Waits until all is as it must be; what still isn't when patience is at its end."""
        deadline = time.monotonic() + self._settled_s
        while problems := self.unsettled():
            if time.monotonic() > deadline:
                return problems
            time.sleep(0.05)
        return []

    def unsettled(self) -> list[str]:
        tree, decisions = look(self.root)
        problems = [*lost(self.history, tree), *misjudged(tree, decisions)]
        health = self.daemon.health()
        if not health or health["status"] != "ok" or health["scanning"] or health["running"]:
            problems.append(f"the daemon says {health}")
        with contextlib.suppress(redis.RedisError):
            problems += left_in(self.queue())
        problems += [
            f"left over: {path}"
            for path in self.daemon.temporary.rglob("*")
            if path.is_file() and _is_work(path)
        ]
        return problems

    def verdict(self) -> list[str]:
        """All that was wrong; empty: nothing."""
        problems = self.settle()
        seen = self.visitors.seen()
        if not seen:
            problems.append("the visitors got nothing at all")
        problems += served_wrong(self.history, self.health, seen, GRACE_S)
        problems += [f"the daemon: {line}" for line in self.daemon.log("loop failed")]
        return problems

    def close(self) -> None:
        self._over.set()
        self.visitors.seen()
        self.daemon.kill()
        self.server.kill()


def _is_work(path: Path) -> bool:
    return path.parent.name[:1].isdigit()


def below(pid: int) -> list[int]:
    """All processes that one has started, and those that these have."""
    children = children_of(pid)
    return [*children, *(found for child in children for found in below(child))]


def left_in(queue: redis.Redis) -> list[str]:
    """What is still queued."""
    counts: dict[str, Any] = {str(one): queue.xlen(f"webp:{one}") for one in Priority}
    counts |= {"later": queue.zcard("webp:later"), "paths": queue.hlen("webp:paths")}
    for one in Priority:
        with contextlib.suppress(redis.ResponseError):
            pending: Any = queue.xpending(f"webp:{one}", GROUP)
            counts[f"pending in {one}"] = pending["pending"]
    return [f"{count} in {name}" for name, count in counts.items() if count]


def look(root: Path) -> tuple[dict[str, Lying], list[Decision]]:
    """All pictures of a tree, and what was decided on them. What changes meanwhile is looked at again."""
    tree: dict[str, Lying] = {}
    decisions: list[Decision] = []
    suffixes = tuple(os.fsdecode(suffix) for suffix in (*DECISIONS, AVIF))
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(FileNotFoundError):
                if name.endswith(suffixes):
                    decisions.append(_decision(root, path))
                elif name.endswith(".jpg"):
                    data = path.read_bytes()
                    tree[str(path.relative_to(root))] = Lying(_cached(data), len(data))
    return tree, decisions


def _decision(root: Path, path: Path) -> Decision:
    original = path.with_suffix("")
    mark = Mark.parse(os.getxattr(path, XATTR))
    described = False
    with contextlib.suppress(FileNotFoundError):
        described = bool(mark and mark.describes(original.stat()))
    variant = path.suffix != ".keep"
    version = _cached(path.read_bytes()) if variant else None
    names = [str(one.relative_to(root)) for one in (original, path)]
    return Decision(names[0], names[1], described, version, variant, decides=path.suffix != ".avif")


_known: dict[bytes, int | None] = {}


def _cached(data: bytes) -> int | None:
    digest = hashlib.blake2b(data).digest()
    if digest not in _known:
        _known[digest] = version_of(data)
    return _known[digest]


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of memory, which is soon full, where one can be mounted."""
    if os.geteuid() != 0:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def play(
    steps: Sequence[Step],
    place: Path,
    tell: Callable[[str], object] = lambda _: None,
    settled_s: float = SETTLED_S,
    bug: str = "",
) -> list[str]:
    """Plays a schedule in an empty directory; what was wrong.

    :param tell: is told of each step before it is done.
    :param settled_s: how long it may take the converter to come to its end with it.
    :param bug: code that each process of the converter runs first.
    """
    with tempfile.TemporaryDirectory(prefix="oracle-") as beside, small_disk(place):
        run = Run(place, Path(beside), settled_s, bug)
        try:
            run.wait_for_the_daemon()
            for step in steps:
                tell(f"{run.now():8.3f} s  {step}")
                run.do(step)
            return run.verdict()
        finally:
            run.close()
