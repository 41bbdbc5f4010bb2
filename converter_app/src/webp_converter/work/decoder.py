"""Decodes and encodes in a sandboxed process: a stranger's bytes in, bytes and numbers out.

The worker reads the picture and writes the variant, and parses neither. The decoder is
forked, enters its sandbox (`base.sandbox`) before the first picture, and has one end of a pair of
sockets. Its output is treated as hostile: a fixed format, each field checked, nothing unpickled.

A decoder that was taken over can still lie about the pictures that it is given from then on, so everything
that isn't right about an answer, and each end of a request, ends it.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import socket
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from enum import IntEnum
from types import TracebackType
from typing import NamedTuple, NoReturn, Self

from webp_converter.base import sandbox
from webp_converter.base.bitrix import Box
from webp_converter.base.sandbox import Layer, SandboxError
from webp_converter.config import Encoding
from webp_converter.picture import images, inputs, predictor
from webp_converter.picture.images import DamagedError, DecoderError, Header, Keep, Opened, Reason, Variant

_TRACEBACK_CHARACTERS = 8000
_TEXT_BYTES = 16_384
_PART_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16


class Task(NamedTuple):
    """What is wanted of one picture."""

    data: bytes
    box: Box | None = None
    """One that doesn't fit in it isn't converted; None: whatever its size."""

    second: bool = False
    """Whether to encode with the method of the second pass, and without AVIF."""

    header_only: bool = False


class Answer(NamedTuple):
    """What became of it."""

    header: Header | None = None
    """Format and size; None where it can't be told."""

    decision: Variant | Keep | DamagedError | None = None
    """None: no more than the header was wanted, or the picture doesn't fit in its box."""

    seconds: float = 0
    """How long it took; of pictures that were handed over together, each its share."""


class PictureError(Exception):
    """A picture that a decoder failed at: the reason on one line, and the traceback below it."""


class LostError(PictureError):
    """A picture with which the decoder was lost: it ended, or what it answered isn't right."""


Step = Callable[[Encoding, Task], Answer]
Decode = Callable[[Task], Answer]


def step(encoding: Encoding, task: Task) -> Answer:
    """Decodes and encodes in this process.

    :raises DecoderError: a decoder is broken; and whatever else goes wrong with one picture
    """
    header = None
    if task.second:
        changes = {"method": encoding.second_pass_method, "avif": False}
        encoding = encoding.model_copy(update=changes)
    try:
        opened = images.opened(task.data, encoding)
        if not isinstance(opened, Opened):
            return Answer(None, opened)
        header = opened.header
        if task.header_only or (task.box and not task.box.holds(header.width, header.height)):
            return Answer(header)
        return Answer(header, images.convert(opened, encoding))
    except DamagedError as error:
        return Answer(header, error)


def described(error: Exception) -> str:
    """The reason on one line, and the traceback below it."""
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(":")
    try:
        return f"{reason}\n{traceback.format_exc(limit=20)[-_TRACEBACK_CHARACTERS:]}"
    except MemoryError:
        return reason


# What goes through the sockets


class _Status(IntEnum):
    VARIANT = 1
    KEEP = 2
    DAMAGED = 3
    HEADER = 4
    BROKEN = 5
    """DecoderError: the text."""

    FAILED = 6
    """PictureError: the text."""


# Nonce; how many pictures follow. All answers come with the last: to wake whoever waits takes a tenth
# of encoding a thumbnail.
_REQUEST = struct.Struct("<8sH")

# Flags; box; size of the picture that follows.
_PICTURE = struct.Struct("<B IIB Q")
_SECOND, _HEADER_ONLY, _BOX = 1, 2, 4

# Nonce of the request; status; format, width, height; reason; size of the text that ends it.
_HEAD = struct.Struct("<8sB BII B I")

# Quality, similarity, encodings, size. Behind its head an answer has two of these, of the variant and of the
# AVIF beside it; then come the bytes of both.
_NUMBERS = struct.Struct("<BdIQ")
_NONE = Variant(b"", 0, math.nan, 0)

_FORMATS = ("", "jpeg", "png", "gif", "bmp", "tiff", "webp", "avif")
_REASONS = (None, *Reason)
_MAXIMUM_ENCODES = 1000


class _Inbox:
    """What comes from the other end, of which no more is kept than fits into one small read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.rest = b""
        """What has come and wasn't taken."""

    def take(self, size: int) -> bytes:
        """:raises EOFError: the other end is closed"""
        missing = size - len(self.rest)
        if missing > 0:
            parts = [self.rest]
            while missing > 0:
                part = os.read(self._fd, max(_SMALL_BYTES, min(missing, _PART_BYTES)))
                if not part:
                    raise EOFError
                parts.append(part)
                missing -= len(part)
            self.rest = b"".join(parts)
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken


class _AnswerError(Exception):
    """What a decoder answered isn't right: what of it."""


def _packed(nonce: bytes, answer: Answer | Exception) -> bytes:
    """An answer as it goes through the socket."""
    header, reason, text = None, 0, ""
    variant: Variant | None = None
    avif: Variant | None = None
    if isinstance(answer, DecoderError):
        status, text = _Status.BROKEN, str(answer)
    elif isinstance(answer, Exception):
        status, text = _Status.FAILED, described(answer)
    else:
        header, decision, _ = answer
        if isinstance(decision, Variant):
            status, variant, avif = _Status.VARIANT, decision, decision.avif
        elif isinstance(decision, Keep):
            status, reason, text, avif = (
                *(_Status.KEEP, _REASONS.index(decision.reason)),
                *(decision.detail, decision.avif),
            )
        elif decision:
            status, text = _Status.DAMAGED, str(decision)
        else:
            status = _Status.HEADER
    raw = text.encode("utf-8", "backslashreplace")[:_TEXT_BYTES].decode("utf-8", "ignore").encode()
    head = _HEAD.pack(
        nonce,
        status,
        *((_FORMATS.index(header.format), header.width, header.height) if header else (0, 0, 0)),
        reason,
        len(raw),
    )
    found = [variant or _NONE, avif or _NONE]
    numbers = [_NUMBERS.pack(one.quality, one.similarity, one.encodes, len(one.data)) for one in found]
    return b"".join((head, *numbers, *(one.data for one in found), raw))


def _received(nonce: bytes, inbox: _Inbox, limit: int) -> Answer | PictureError | DecoderError:
    """Reads an answer, in which variants are of at most `limit` bytes.

    :raises _AnswerError: something of it isn't right
    """
    found, code, form, width, height, reason, text_size = _HEAD.unpack(inbox.take(_HEAD.size))
    _require(found == nonce, "it belongs to another picture")
    _require(code in list(_Status), f"status {code}")
    status = _Status(code)
    _require(form < len(_FORMATS), f"format {form}")
    _require(bool(form) == bool(width) == bool(height), f"{width}x{height} of format {form}")
    _require(bool(form) or status not in (_Status.VARIANT, _Status.HEADER), f"{status.name} of no format")
    _require(reason < len(_REASONS) and bool(reason) == (status is _Status.KEEP), f"reason {reason}")
    _require(text_size <= _TEXT_BYTES, f"a text of {text_size} bytes")
    (best, size), (beside, avif_size) = (_announced(inbox.take(_NUMBERS.size), limit) for _ in range(2))
    _require(bool(size) == (status is _Status.VARIANT), f"{size} bytes with status {status.name}")
    _require(not avif_size or status in (_Status.VARIANT, _Status.KEEP), f"AVIF with status {status.name}")
    data, avif_data, raw = inbox.take(size), inbox.take(avif_size), inbox.take(text_size)
    _require(not size or (data[:4], data[8:12]) == (b"RIFF", b"WEBP"), "a variant that isn't WebP")
    _require(not avif_size or avif_data[4:8] == b"ftyp", "a variant that isn't AVIF")
    text = _text(raw)
    if status is _Status.FAILED:
        return PictureError(text)
    if status is _Status.BROKEN:
        return DecoderError(text)
    header = Header(_FORMATS[form], width, height) if form else None
    avif = beside._replace(data=avif_data) if avif_size else None
    decision: Variant | Keep | DamagedError | None = None
    if why := _REASONS[reason]:
        decision = Keep(why, text, avif)
    elif status is _Status.VARIANT:
        decision = best._replace(data=data, avif=avif)
    elif status is _Status.DAMAGED:
        decision = DamagedError(text)
    return Answer(header, decision)


def _announced(raw: bytes, limit: int) -> tuple[Variant, int]:
    """What is said of a variant before its bytes come, and of how many."""
    quality, similarity, encodes, size = _NUMBERS.unpack(raw)
    _require(size <= limit, f"a variant of {size} bytes")
    _require(quality <= (100 if size else 0), f"quality {quality}")
    _require(math.isnan(similarity) or (size and -1.001 <= similarity <= 1.001), f"similarity {similarity}")
    _require(encodes <= (_MAXIMUM_ENCODES if size else 0), f"{encodes} encodings")
    return Variant(b"", quality, similarity, encodes), size


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _AnswerError("a text that isn't UTF-8") from error
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _AnswerError(otherwise)


# The sandboxed end


def _become(channel: socket.socket, encoding: Encoding, work: Step, required: bool) -> NoReturn:
    """Enters the sandbox, says so, and answers requests until the worker is gone."""
    try:
        fd = channel.detach()
        try:
            layers = sandbox.lock(fd, required)
        except SandboxError as error:
            os.write(fd, b"\xff" + str(error).encode())
            os._exit(1)
        warnings.simplefilter("ignore")  # what Pillow remarks about odd pictures is no event
        os.write(fd, bytes([layers.value]))
        while True:
            _answer_all(fd, encoding, work)
    except EOFError:  # the worker is gone
        os._exit(0)
    except BaseException:
        os._exit(1)


def _answer_all(fd: int, encoding: Encoding, work: Step) -> None:
    inbox = _Inbox(fd)
    nonce, count = _REQUEST.unpack(inbox.take(_REQUEST.size))
    answers = []
    for _ in range(count):
        flags, width, height, resize_type, size = _PICTURE.unpack(inbox.take(_PICTURE.size))
        task = Task(
            inbox.take(size),
            Box(width, height, resize_type) if flags & _BOX else None,
            second=bool(flags & _SECOND),
            header_only=bool(flags & _HEADER_ONLY),
        )
        try:
            answers.append(_packed(nonce, work(encoding, task)))
        except Exception as error:  # whatever one picture does, the next is converted
            answers.append(_packed(nonce, error))
    view = memoryview(b"".join(answers))
    while view:
        view = view[os.write(fd, view) :]


# The end that is free


class Decoder:
    """A decoder, started when there is something for it and again when it was lost.

    It dies with the thread that started it.
    """

    def __init__(self, encoding: Encoding, limit_s: float, required: bool, work: Step = step) -> None:
        """`limit_s`: seconds of CPU time that it may use besides those that it was waited for."""
        self._encoding = encoding
        self._required = required
        self._work = work
        # An AVIF original may need a WebP larger than itself.
        self._limit = encoding.maximum_bytes + 4 * encoding.maximum_pixels
        self._cpu_s = limit_s + 1
        self._pid = 0
        self._channel: socket.socket | None = None
        self._waited_s = 0.0
        self._cpu_limit_s = 0
        self.layers = Layer(0)
        """The sandbox layers of the latest one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts the process, which has no picture yet.

        :raises SandboxError: it can't be sandboxed
        :raises OSError: it can't be started
        """
        ours, theirs = socket.socketpair()
        with theirs:
            pid = os.fork()
            if not pid:
                _become(theirs, self._encoding, self._work, self._required)
        self._pid, self._channel, self._waited_s, self._cpu_limit_s = pid, ours, 0.0, 0
        first = ours.recv(1)
        if not first or first == b"\xff":
            reason = ours.recv(_TEXT_BYTES).decode() if first else ""
            end = self._end()
            raise SandboxError(reason or f"a decoder ended at its start ({end})")
        self.layers = Layer(first[0])

    def __call__(self, task: Task) -> Answer:
        """Has a picture decoded and encoded.

        :raises PictureError: it failed at that; LostError: with the process
        :raises DecoderError: a decoder is broken
        :raises SandboxError: no process can be sandboxed
        :raises OSError: none can be started
        """
        [answer] = self.each([task])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def each(self, tasks: Sequence[Task]) -> list[Answer | Exception]:
        """The same of several at a time, in order. When the process is lost they are tried one by one, so
        that one picture's failure is never another's."""
        try:
            answers = self._ask(tasks)
        except Exception as error:
            if len(tasks) == 1:
                return [error]
            return [answer for task in tasks for answer in self.each([task])]
        return [self._proven(answer) if isinstance(answer, DecoderError) else answer for answer in answers]

    def _proven(self, claim: DecoderError) -> Exception:
        """What a decoder says of itself, which ends the daemon, if another one that has seen no stranger's
        picture fails at those that are known to be good."""
        self.close()
        try:
            answers = self._ask([Task(sample) for sample in inputs.SAMPLES.values()])
        except Exception:
            return claim
        if any(isinstance(one, Exception) or isinstance(one.decision, DamagedError) for one in answers):
            return claim
        return LostError(f"decoder answered wrongly: none is broken, though {claim}")

    def _ask(self, tasks: Sequence[Task]) -> list[Answer | PictureError | DecoderError]:
        if self._channel and not self._is_silent(self._channel):
            self.close()  # it ended since, or talks without being asked
        if not self._channel:
            self.start()
        assert self._channel
        inbox = _Inbox(self._channel.fileno())
        nonce = os.urandom(8)
        began = time.monotonic()
        try:
            self._limit_cpu()
            self._send(self._channel, nonce, tasks)
            answers = [_received(nonce, inbox, self._limit) for _ in tasks]
            _require(not inbox.rest, "more than was announced")
        except (EOFError, ConnectionError, ProcessLookupError):
            raise LostError(f"decoder crashed ({self._end()})") from None
        except BaseException as error:  # amid an answer
            self.close()
            if isinstance(error, _AnswerError):
                raise LostError(f"decoder answered wrongly: {error}") from None
            raise
        waited_s = time.monotonic() - began
        self._waited_s += waited_s
        seconds = waited_s / len(tasks)
        return [one._replace(seconds=seconds) if isinstance(one, Answer) else one for one in answers]

    def close(self) -> None:
        """Ends the process."""
        self._end()

    @staticmethod
    def _is_silent(channel: socket.socket) -> bool:
        """Whether nothing has come that wasn't asked for, not even the end."""
        try:
            channel.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return False

    def _limit_cpu(self) -> None:
        """Lets it use as much CPU time as it was waited for, and `limit_s`; none while nobody waits."""
        soft = math.ceil(self._waited_s + self._cpu_s)
        if soft == self._cpu_limit_s:
            return
        self._cpu_limit_s = soft
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        soft = soft if most == resource.RLIM_INFINITY else min(soft, most)
        with contextlib.suppress(PermissionError):  # root of a container may be no lord over other accounts
            resource.prlimit(self._pid, resource.RLIMIT_CPU, (soft, most))

    @staticmethod
    def _send(channel: socket.socket, nonce: bytes, tasks: Sequence[Task]) -> None:
        parts = [_REQUEST.pack(nonce, len(tasks))]
        for task in tasks:
            flags = _SECOND * task.second | _HEADER_ONLY * task.header_only | _BOX * bool(task.box)
            box = (task.box.width, task.box.height, task.box.resize_type) if task.box else (0, 0, 0)
            parts += _PICTURE.pack(flags, *box, len(task.data)), task.data
        channel.sendall(b"".join(parts))

    def _end(self) -> str:
        """Ends the process if it hasn't ended; how it ended, in words."""
        if self._channel:
            self._channel.close()
            self._channel = None
        pid, self._pid = self._pid, 0
        if not pid:
            return ""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            return signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError:
            return f"exit code {code}"


# Loads what the first picture would else have loaded.
predictor.fitted()
