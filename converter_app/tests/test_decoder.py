"""A decoder that a picture took over: whatever it tries reaches nothing, and the next picture is converted.

Each attempt is made twice by the same function in the same place, once without a sandbox: there it must
succeed, else it would prove nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pickle
import queue
import re
import resource
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from converter_app.tests.harness import children_of, wait_until
from dev.fuzz import mutant, originals
from tests.kit import pictures

from webp_converter.base import sandbox
from webp_converter.base.bitrix import Box
from webp_converter.base.processes import start_fork_server
from webp_converter.base.sandbox import Layer, SandboxError
from webp_converter.config import Config, Encoding, Queue, Workers
from webp_converter.config import Store as StoreConfig
from webp_converter.picture import inputs
from webp_converter.picture.images import DamagedError, DecoderError, Header, Keep, Reason, Variant
from webp_converter.queue.jobs import Job
from webp_converter.variants.store import Temporary
from webp_converter.work import worker
from webp_converter.work.decoder import (
    Answer,
    Decode,
    Decoder,
    LostError,
    PictureError,
    Task,
    described,
    step,
)
from webp_converter.work.pool import Answered, Failure, Pool
from webp_converter.work.worker import Order, Report

_libc = ctypes.CDLL(None, use_errno=True)

PLACE = Path()
"""A directory with what there is to take; set before a decoder is forked."""

PARENT = 0
TCP = ("127.0.0.1", 0)


def system_call(name: str, *arguments: object) -> int:
    """A system call by its name; only those that report no error return."""
    library = sandbox._seccomp
    assert library
    result = int(_libc.syscall(library.seccomp_syscall_resolve_name(name.encode()), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


def connect(family: socket.AddressFamily, kind: socket.SocketKind, address: object) -> None:
    with socket.socket(family, kind) as client:
        client.connect(address)


def read_memory_of_parent() -> None:
    with Path(f"/proc/{PARENT}/mem").open("rb") as memory:
        assert memory.fileno()


def inherited_descriptor() -> None:
    """Writes to the first descriptor that isn't its own socket, as any is that was open before."""
    found = [fd for fd in range(3, 1024) if is_open(fd)]
    if len(found) < 2:
        raise OSError(9, "nothing but its own socket is open")


def is_open(fd: int) -> bool:
    try:
        os.read(fd, 0)
    except OSError:
        return False
    return True


def start_thread() -> None:
    threading.Thread(target=time.sleep, args=(0,)).start()


def executable_memory() -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()


def make_memory_executable() -> None:
    memory = mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    system_call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(4096), mmap.PROT_READ | mmap.PROT_EXEC)


def execute_memory() -> None:
    fd = system_call("memfd_create", b"program", 0)
    os.write(fd, Path("/bin/true").read_bytes())


def execute_shell() -> None:
    for fd in range(3, 1024):  # the other end is to wait until the shell has ended
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, True)
    os.execv("/bin/sh", ["sh", "-c", f"echo taken > {PLACE / 'executed'}"])


def read_own_process_memory() -> None:
    here, there = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    parts = [(ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8) for buffer in (here, there)]
    system_call("process_vm_readv", os.getpid(), parts[0], 1, parts[1], 1, 0)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "read the token": lambda: (PLACE / "api-token").read_bytes(),
    "read the settings": lambda: Path("/etc/hostname").open("rb").close(),
    "read its own environment": lambda: Path("/proc/self/environ").read_bytes(),
    "read the environment of its parent": lambda: Path(f"/proc/{PARENT}/environ").open("rb").close(),
    "open the memory of its parent": read_memory_of_parent,
    "list a directory": lambda: os.listdir(PLACE),
    "look at a file": lambda: os.stat(PLACE / "api-token"),
    "create a file": lambda: (PLACE / "created").open("xb").close(),
    "write a picture": lambda: (PLACE / "picture").write_bytes(b"defaced"),
    "append to a log": lambda: (PLACE / "log").open("ab").close(),
    "remove a file": lambda: (PLACE / "picture").unlink(),
    "rename a file": lambda: (PLACE / "picture").rename(PLACE / "elsewhere"),
    "make a directory": lambda: (PLACE / "directory").mkdir(),
    "link a file": lambda: os.link(PLACE / "picture", PLACE / "linked"),
    "make a symbolic link": lambda: os.symlink("/etc/shadow", PLACE / "symbolic"),
    "change a mode": lambda: (PLACE / "picture").chmod(0o777),
    "write to a descriptor that its parent has": inherited_descriptor,
    "connect to Redis over TCP": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, TCP),
    "connect to Redis's socket": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, str(PLACE / "socket")),
    "ask a name server": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "talk to the kernel by netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "make a pair of sockets": lambda: socket.socketpair(),
    "make a pipe": lambda: os.pipe(),
    "run a shell": execute_shell,
    "fork": lambda: os.fork() or os._exit(0),
    "start a thread": start_thread,
    "send a signal to its parent": lambda: os.kill(PARENT, 0),
    "send a signal to a thread of its parent": lambda: system_call("tgkill", PARENT, PARENT, 0),
    "be traced": lambda: system_call("ptrace", 0, 0, 0, 0),
    "read memory of a process": read_own_process_memory,
    "open a process": lambda: system_call("pidfd_open", PARENT, 0),
    "outlive its parent": lambda: system_call("prctl", 1, 0, 0, 0, 0),
    "lift a limit": lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
    "change the account": lambda: os.setuid(os.getuid()),
    "leave its namespaces": lambda: system_call("unshare", 0x200),
    "map executable memory": executable_memory,
    "make memory executable": make_memory_executable,
    "execute a file in memory": execute_memory,
    "share memory": lambda: system_call("shmget", 0, 4096, 0o600 | 0o1000),
    "set another filter": lambda: system_call("seccomp", 2, 0, ctypes.byref(ctypes.c_uint32(0))),
}

PRIVILEGED: dict[str, Callable[[], object]] = {
    "mount": lambda: system_call("mount", b"none", b"/mnt", b"tmpfs", 0, None),
    "chroot": lambda: system_call("chroot", b"/nowhere"),
    "io_uring": lambda: system_call("io_uring_setup", 0, None),
    "bpf": lambda: system_call("bpf", 0, None, 0),
    "perf_event_open": lambda: system_call("perf_event_open", None, 0, -1, -1, 0),
    "userfaultfd": lambda: system_call("userfaultfd", -1),
    "keyctl": lambda: system_call("keyctl", 0, 0, 0),
    "load a module": lambda: system_call("finit_module", -1, b"", 0),
    "trace its parent": lambda: system_call("ptrace", 0x4206, PARENT, 0, 0),
}
"""What the kernel itself may refuse to an account without rights. The filter ends who asks for it."""


def own_socket() -> int:
    return next(fd for fd in range(3, 1024) if can_write(fd))


def can_write(fd: int) -> bool:
    try:
        os.write(fd, b"")
    except OSError:
        return False
    return True


def raw(
    nonce: bytes = b"", status: int = 4, form: int = 1, reason: int = 0, text: int = 0, **of: int
) -> bytes:
    """An answer whose fields may be anything."""
    numbers = [
        struct.pack("<BdIQ", of.get(f"{name}quality", 0), float("nan"), 0, of.get(f"{name}size", 0))
        for name in ("", "avif_")
    ]
    side = int(form > 0)
    return struct.pack("<8sBBIIBI", nonce, status, form, side, side, reason, text) + b"".join(numbers)


def said(*parts: bytes) -> None:
    fd = own_socket()
    for part in parts:
        os.write(fd, part)
    time.sleep(30)


def endless() -> None:
    fd = own_socket()
    while True:
        os.write(fd, bytes(1 << 16))


ANSWERS: dict[str, Callable[[bytes], object]] = {
    "of another picture": lambda _: said(raw(b"guessed!")),
    "a pickle": lambda _: said(pickle.dumps([Path("/etc/passwd")]) * 20),
    "of an unknown status": lambda nonce: said(raw(nonce, status=99)),
    "of an unknown format": lambda nonce: said(raw(nonce, form=200)),
    "of an unknown reason": lambda nonce: said(raw(nonce, status=2, reason=100)),
    "of a verdict without a reason": lambda nonce: said(raw(nonce, status=2)),
    "a variant without bytes": lambda nonce: said(raw(nonce, status=1)),
    "bytes without a variant": lambda nonce: said(raw(nonce, status=4, size=100)),
    "that a decoder is broken": lambda nonce: said(raw(nonce, status=5, form=0)),
    "a huge one": lambda nonce: said(raw(nonce, status=1, size=1 << 62)),
    "a huge text": lambda nonce: said(raw(nonce, text=1 << 31)),
    "a variant that isn't WebP": lambda nonce: said(raw(nonce, status=1, size=20), b"<script>alert(1)</sc"),
    "a quality that there isn't": lambda nonce: said(raw(nonce, status=1, size=20, quality=200)),
    "a text that isn't UTF-8": lambda nonce: said(raw(nonce, status=6, text=2), b"\xff\xfe"),
    "more than it announces": lambda nonce: said(raw(nonce) + b"more"),
    "an endless one": lambda _: endless(),
    "an end": lambda _: os._exit(0),
    "a crash": lambda _: ctypes.string_at(0),
    "an abort": lambda _: os.abort(),
}


def hostile(encoding: Encoding, task: Task) -> Answer:
    """In place of decoding: does what the picture says."""
    kind, _, name = task.data.partition(b": ")
    if kind == b"attempt":
        (ATTEMPTS | PRIVILEGED)[name.decode()]()
        return Answer(Header("jpeg", 1, 1))
    if kind == b"silence":
        time.sleep(60)
    if kind == b"answer":
        ANSWERS[name.decode()](nonce_asked())
    return step(encoding, task)


def nonce_asked() -> bytes:
    """The nonce of the request at hand, which a decoder that was taken over finds in its memory."""
    frame = sys._getframe()
    while "nonce" not in frame.f_locals or frame.f_code.co_name != "_answer_all":
        assert frame.f_back
        frame = frame.f_back
    return bytes(frame.f_locals["nonce"])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What there is to take, for any account."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(0o777 if directory == tmp_path else 0o755)
    for name in ("api-token", "picture", "log"):
        (tmp_path / name).write_text("a secret")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        here = globals()
        monkeypatch.setitem(here, "PLACE", tmp_path)
        monkeypatch.setitem(here, "PARENT", os.getpid())
        monkeypatch.setitem(here, "TCP", tcp.getsockname())
        yield tmp_path


@pytest.fixture
def photo() -> bytes:
    return pictures.jpeg(side=64)


def decoder_of(work: Callable[[Encoding, Task], Answer] = hostile) -> Decoder:
    return Decoder(Encoding(), 60, required=True, work=work)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    """A decoder without a sandbox."""
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "lock", lambda *_: Layer(0))
        decoder = decoder_of()
        decoder.start()
    with decoder:
        yield decoder


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_that_is_refused(place: Path, photo: bytes, free: Decoder, name: str) -> None:
    task = Task(f"attempt: {name}".encode())
    with decoder_of() as decoder:
        before = sorted((path.name, path.stat().st_mtime_ns) for path in place.iterdir())
        with pytest.raises(PictureError, match=r"Error: |SIGSYS"):
            decoder(task)
        assert sorted((path.name, path.stat().st_mtime_ns) for path in place.iterdir()) == before
        assert isinstance(decoder(Task(photo)).decision, Variant)
    if name == "run a shell":
        with pytest.raises(LostError, match="exit code 0"):
            free(task)
        assert (place / "executed").exists()
    else:
        assert free(task).header


@pytest.mark.parametrize("name", PRIVILEGED)
def test_an_attempt_that_needs_rights_ends_its_process(
    place: Path, photo: bytes, free: Decoder, name: str
) -> None:
    task = Task(f"attempt: {name}".encode())
    with decoder_of() as decoder:
        with pytest.raises(LostError, match="SIGSYS"):
            decoder(task)
        assert isinstance(decoder(Task(photo)).decision, Variant)
    with contextlib.suppress(PictureError):  # the kernel's answer
        free(task)
    assert free._pid, "the kernel ended it too"


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_wrong(place: Path, photo: bytes, name: str) -> None:
    with decoder_of() as decoder:
        with pytest.raises(LostError, match=r"answered wrongly|crashed \((exit code 0|SIGSEGV|SIGABRT)\)"):
            decoder(Task(f"answer: {name}".encode()))
        assert isinstance(decoder(Task(photo)).decision, Variant)


def talkative(encoding: Encoding, task: Task) -> Answer:
    """Says something before it is asked, too."""
    if task.data == b"talk":
        signal.signal(signal.SIGALRM, lambda *_: os.write(own_socket(), raw(b"guessed!")))
        return Answer(Header("jpeg", 1, 1))
    return step(encoding, task)


def test_an_answer_before_the_question_is_of_no_picture(photo: bytes) -> None:
    with decoder_of(talkative) as decoder:
        assert decoder(Task(b"talk")).header
        first = decoder._pid
        os.kill(first, signal.SIGALRM)
        wait_until(lambda: not decoder._is_silent(decoder._channel))  # type: ignore[arg-type]
        assert isinstance(decoder(Task(photo)).decision, Variant)
        assert decoder._pid != first


def test_a_lazy_import_is_no_damage(photo: bytes) -> None:
    def lazy(encoding: Encoding, task: Task) -> Answer:
        with inputs._guarded("jpeg"):
            import this  # noqa: F401
        return step(encoding, task)

    with decoder_of(lazy) as decoder, pytest.raises(DecoderError, match="jpeg decoder lacks something"):
        decoder(Task(photo))


ENCODING = Encoding(avif=True, metadata="all")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(ENCODING, 60, required=True) as decoder:
        yield decoder


def outcome(decode: Decode, task: Task) -> object:
    """What became of a picture, to be compared: tracebacks and addresses differ."""
    try:
        header, decision, _ = decode(task)
    except PictureError as error:
        return plain(str(error).partition("\n")[0])
    except Exception as error:
        return plain(described(error).partition("\n")[0])
    shown: object = decision
    if isinstance(decision, DamagedError):
        shown = plain(f"damaged: {decision}")
    elif isinstance(decision, Keep):
        shown = replace(decision, detail=plain(decision.detail))
    return header and (header.format, header.width, header.height), shown


def plain(text: str) -> str:
    return re.sub("0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize("name", originals())
def test_every_kind_of_picture_as_if_nothing_was_locked_up(decoder: Decoder, name: str) -> None:
    here = partial(step, ENCODING)
    whole = originals()[name]
    for data in (whole, whole[: len(whole) // 2], whole[:-20]):
        task = Task(data)
        assert outcome(decoder, task) == outcome(here, task)


def test_mutants_as_if_nothing_was_locked_up(decoder: Decoder) -> None:
    here = partial(step, ENCODING)
    pid = decoder._pid
    for number in range(60):
        task = Task(mutant(11, number).data)
        assert outcome(decoder, task) == outcome(here, task)
    assert decoder._pid == pid


def test_what_is_told_without_converting(decoder: Decoder, photo: bytes) -> None:
    size = Header("jpeg", 64, 64)
    assert decoder(Task(photo, header_only=True))[:2] == (size, None)
    assert decoder(Task(photo, Box(63, 64, 1)))[:2] == (size, None)
    assert isinstance(decoder(Task(photo, Box(64, 64, 1))).decision, Variant)
    assert decoder(Task(b"<html>"))[:2] == (None, Keep(Reason.NO_PICTURE))
    assert isinstance(decoder(Task(b"")).decision, DamagedError)


def busy(encoding: Encoding, task: Task) -> Answer:
    os.write(own_socket(), raw(nonce_asked()))
    while True:
        pass


def outlive_an_answer() -> None:
    """Waits for the end of a decoder that continues after its answer."""
    if os.geteuid() == 0:  # which not everywhere may limit other accounts
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    with Decoder(Encoding(), 0, required=True, work=busy) as decoder:
        decoder(Task(b""))
        os.waitid(os.P_PID, decoder._pid, os.WEXITED | os.WNOWAIT)
        print(decoder._end())


def test_time_of_a_decoder_that_nobody_waits_for() -> None:
    program = "from converter_app.tests.test_decoder import outlive_an_answer; outlive_an_answer()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "SIGXCPU\n"


def test_without_the_library_nothing_is_decoded_unless_the_settings_say_so(
    monkeypatch: pytest.MonkeyPatch, photo: bytes
) -> None:
    monkeypatch.setattr(sandbox, "_seccomp", None)
    with decoder_of() as decoder, pytest.raises(SandboxError, match="libseccomp2"):
        decoder(Task(photo))
    with Decoder(Encoding(), 60, required=False) as decoder:
        assert isinstance(decoder(Task(photo)).decision, Variant)
        assert Layer.SECCOMP not in decoder.layers


# In a worker


def work_with_a_hostile_decoder(orders: Sequence[Order]) -> list[Report | str]:
    if worker._decoder._work is not hostile:
        worker._decoder.close()
        worker._decoder = Decoder(worker._config.encoding, 1, required=True, work=hostile)
    return worker.convert_all(orders)


class World:
    """A pool over a store in which pictures lie."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "resize_cache"
        self.root.mkdir()
        owner = {"owner": "root", "group": "root"} if os.geteuid() == 0 else {}
        store = StoreConfig.model_validate({"root": self.root, "temporary": directory / "tmp", **owner})
        settings = Workers.model_validate({"count": 1, "time_limit_s": 5})
        self.config = Config(store=store, workers=settings, queue=Queue(url=f"redis://:{SECRET}@127.0.0.1:1"))
        self.answers: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        start_fork_server()
        temporary = Temporary(self.config.store.temporary)
        self.pool = Pool(self.config, temporary.path, self.answers.put, work_with_a_hostile_decoder)

    def convert(self, *contents: bytes) -> list[Report | Failure]:
        jobs = []
        for number, content in enumerate(contents):
            path = self.root / f"{time.monotonic_ns()}-{number}.jpg"
            path.write_bytes(content)
            jobs.append(Job(os.fsencode(path), 0, entry=path.name))
        self.pool.submit(jobs)
        answers: list[tuple[Job, Report | Failure]] = []
        while len(answers) < len(jobs):
            answers += self.answers.get(timeout=60)
        found = {job.entry: answer for job, answer in answers}
        return [found[job.entry] for job in jobs]


SECRET = secrets.token_hex(16)
"""Another one in each process that imports this."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.pool.close()


def test_exactly_the_picture_that_ends_its_decoder_fails(world: World, photo: bytes) -> None:
    first, bad, last = world.convert(photo, b"answer: a crash", photo)
    assert isinstance(bad, Failure)
    assert bad.reason == "decoder crashed (SIGSEGV)"
    assert all(isinstance(report, Report) and report.finished for report in (first, last))
    assert world.pool.replaced == 1
    [wrong, after] = world.convert(b"answer: a pickle", photo)
    assert isinstance(wrong, Failure)
    assert wrong.reason.startswith("decoder answered wrongly")
    assert isinstance(after, Report)
    assert world.pool.layers
    assert Layer.SECCOMP in world.pool.layers


def test_no_answer_at_all(world: World, photo: bytes) -> None:
    """The worker is ended with its decoder."""
    [report] = world.convert(photo)
    assert isinstance(report, Report)
    [process] = [one.process for one in world.pool._workers]
    [pid] = children_of(process.pid or 0)
    [failure] = world.convert(b"silence: ")
    assert isinstance(failure, Failure)
    assert failure.reason == "not done after 5 s"
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    [report] = world.convert(photo)
    assert isinstance(report, Report)


def memory_of(pid: int) -> Iterator[bytes]:
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(text, 16) for text in line.split()[0].split("-"))
            if "rw" in line.split()[1]:
                memory.seek(first)
                yield memory.read(last - first)


def test_no_password_is_in_a_decoder_s_memory(world: World, photo: bytes) -> None:
    world.convert(photo)
    [process] = [one.process for one in world.pool._workers]
    [pid] = children_of(process.pid or 0)
    assert any(SECRET.encode() in part for part in memory_of(os.getpid()))
    assert not any(SECRET.encode() in part for part in memory_of(pid))


def test_a_pool_says_why_its_decoders_cannot_be_locked_up(tmp_path: Path) -> None:
    """Of a decoder's own words, before it has seen a picture."""
    program = (
        "import queue, sys; from pathlib import Path\n"
        "from webp_converter.base import sandbox; from webp_converter.config import Config\n"
        "from webp_converter.work import worker\n"
        "sandbox._seccomp = None\n"
        "import multiprocessing; ours, theirs = multiprocessing.Pipe()\n"
        "worker.serve(Config(), b'/nowhere', worker.convert_all, theirs)\n"
        "print(ours.recv())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "libseccomp2" in done.stdout
