"""The site's originals: fetched from the nginx that alone reads their mount, never from the mount itself.

A process that is blocked in FUSE can't be killed; an HTTP request has a deadline. Their variants are in a
separate tree, in which an original's path stands for it without being a file.
"""

from __future__ import annotations

import contextlib
import email.utils
import fcntl
import http.client
import os
import stat
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from webp_converter.base import log
from webp_converter.base.bitrix import Box
from webp_converter.base.fact import Fact
from webp_converter.base.names import has_room
from webp_converter.config import Config
from webp_converter.variants.store import (
    DECISIONS,
    FOREIGN,
    SUFFIXES,
    DecisionState,
    Finished,
    Identity,
    Original,
    Result,
    Store,
    StoreError,
    Temporary,
    read_mark,
)

_PREFIX = "/original/upload/"
_CHUNK_BYTES = 1 << 18
_AWAY_S = 2.0
_PURGE_TIMEOUT_S = 2.0
# Varnish purges nothing that it is fetching just now, and would keep an answer of before the variant.
_PURGE_AGAIN_S = 1.0
_PENDING = [{"X-Only": "pending", "Accept": accept} for accept in ("image/webp", "image/avif,image/webp")]
# What nginx leaves as it is when it writes a path, besides letters, digits and "_.-~".
_UNESCAPED = "/!$&'()*+,:;=@[]"


class OriginAwayError(Exception):
    """The originals can't be read now: why. A retry can help, and the picture isn't to blame."""


class OriginStatus(Fact):
    """Whether the site's originals could be read when one was last asked for."""

    tried_at: float | None = None
    """Unix time; None: none was asked for since the daemon started."""

    problem: str = ""
    """Why not; empty: they could."""

    def tried(self, problem: str = "") -> None:
        """Takes note of a try."""
        self.tried_at, self.problem = time.time(), problem


class Head(NamedTuple):
    """What the site's host says of an original."""

    size: int
    mtime_ns: int
    """Whole seconds: HTTP has no finer ones."""


class Origin:
    """The HTTP server that reads the mount."""

    def __init__(self, url: str, deadline_s: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._deadline_s = deadline_s

    def head(self, name: bytes) -> Head | None:
        """Size and time of an original by its path below `upload/`; None: the site doesn't have it.

        :raises OriginAwayError: the site can't be asked now.
        """
        return self._ask("HEAD", name, 0)[0]

    def get(self, name: bytes, maximum_bytes: int) -> tuple[Head, bytes] | None:
        """An original; beyond `maximum_bytes` no bytes are read. None: the site doesn't have it.

        :raises OriginAwayError: the site can't be asked now.
        """
        head, data = self._ask("GET", name, maximum_bytes)
        return None if head is None else (head, data)

    def _ask(self, method: str, name: bytes, maximum_bytes: int) -> tuple[Head | None, bytes]:
        deadline = time.monotonic() + self._deadline_s
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._deadline_s)
        try:
            connection.request(method, _PREFIX + quote(name), headers={"Connection": "close"})
            answer = connection.getresponse()
            if answer.status == 404:
                return None, b""
            modified = answer.headers.get("Last-Modified")
            if answer.status != 200 or modified is None:
                raise OriginAwayError(f"{os.fsdecode(name)}: {answer.status} {answer.reason}")
            size = int(answer.headers["Content-Length"])
            head = Head(size, int(email.utils.parsedate_to_datetime(modified).timestamp()) * 1_000_000_000)
            if method == "HEAD" or size > maximum_bytes:
                return head, b""
            data = bytearray()
            while chunk := answer.read1(_CHUNK_BYTES):
                data += chunk
                if time.monotonic() > deadline:
                    raise OriginAwayError(f"{os.fsdecode(name)}: not read after {self._deadline_s:g} s")
            if len(data) != size:
                raise OriginAwayError(f"{os.fsdecode(name)}: cut off after {len(data)} of {size} bytes")
            return head, bytes(data)
        except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
            raise OriginAwayError(f"{os.fsdecode(name)}: {error or type(error).__name__}") from error
        finally:
            connection.close()


class Purger:
    """Tells the cache in front that what it has of a picture is no longer the best there is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80

    def purge(self, names: Sequence[bytes]) -> None:
        """Purges pictures by their paths below `upload/`, and a moment later what of them still is pending; a
        cache that is away has forgotten them anyway, or asks again within minutes."""
        self._send(names, [{}])
        again = threading.Timer(_PURGE_AGAIN_S, self._send, [names, _PENDING])
        again.daemon = True
        again.start()

    def _send(self, names: Sequence[bytes], kinds: Sequence[dict[str, str]]) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_PURGE_TIMEOUT_S)
        try:
            for name in names:
                for kind in kinds:
                    connection.request("PURGE", canonical_url(name), headers={"Host": "originals", **kind})
                    connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            log.warning("not purged", reason=str(error) or type(error).__name__, pictures=len(names))
        finally:
            connection.close()


def canonical_url(name: bytes) -> str:
    """The one spelling of an original's address under which the cache keeps it: nginx's."""
    return "/upload/" + quote(name, safe=_UNESCAPED)


class Originals(Store):
    """The tree of the originals' variants, seen as a store whose originals are elsewhere."""

    def __init__(self, config: Config, temporary: bytes) -> None:
        """`temporary` is the daemon's directory for unfinished files; the one here gets the same name."""
        super().__init__(config, temporary)
        settings = config.originals
        self.root = os.fsencode(settings.variants)
        self.temporary = os.path.join(os.fsencode(settings.temporary), os.path.basename(temporary))
        self._origin = Origin(settings.url, settings.deadline_s)
        self._purger = Purger(settings.purge_url)
        self._away_until = 0.0
        self._lock = -1

    def prepare(self) -> None:
        """Makes the directory for unfinished files, and clears what earlier runs left.

        :raises StoreError: the store can't be worked with.
        """
        parent = os.path.dirname(self.temporary)
        try:
            Temporary.clear(parent)
            os.mkdir(self.temporary, 0o700)
            self._lock = os.open(self.temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"temporary directory {os.fsdecode(parent)}: {error.strerror}") from error

    def close(self) -> None:
        """Removes what is left of this run."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.temporary):
                os.unlink(os.path.join(self.temporary, name))
            os.rmdir(self.temporary)
        if self._lock >= 0:
            os.close(self._lock)

    def holds(self, path: bytes) -> bool:
        """Whether a path stands for an original."""
        return path.startswith(self.root + b"/")

    def _name(self, path: bytes) -> bytes:
        return path.removeprefix(self.root + b"/")

    @staticmethod
    def box_of(path: bytes) -> Box | None:
        """None: whatever its directory is called, an original is never made again."""
        return None

    # Reading, in a worker

    def _head(self, path: bytes) -> Head | None:
        if time.monotonic() < self._away_until:
            # One worker waits for the deadline, once; the pictures at hand don't wait behind it.
            raise OriginAwayError("away a moment ago")
        try:
            return self._origin.head(self._name(path))
        except OriginAwayError:
            self._away_until = time.monotonic() + _AWAY_S
            raise

    def decision_state_of(self, path: bytes) -> DecisionState | None:
        """Whether an original has a decision about what it is now; None when the site doesn't have it.

        :raises OriginAwayError: the site can't be asked now.
        """
        head = self._head(path)
        if head is None:
            return None
        if not has_room(os.path.basename(path)):
            return DecisionState.TOO_LONG
        try:
            with self.directory(path) as (directory, name):
                return self.decision_state(directory, name, _status(head))
        except FileNotFoundError:
            return DecisionState.UNDECIDED

    def read(self, path: bytes, maximum_bytes: int) -> Original | None:
        """The original's bytes; None when the site doesn't have it.

        :raises OriginAwayError: the site can't be asked now.
        """
        found = self._origin.get(self._name(path), maximum_bytes)
        return Original(found[1], _status(found[0])) if found else None

    def is_copied(self, name: bytes, data: bytes) -> bool:
        """Whether an original, by its path below `upload/`, has these very bytes.

        :raises OriginAwayError: the site can't be asked now.
        """
        head = self._head(os.path.join(self.root, name))
        if head is None or head.size != len(data):
            return False
        found = self._origin.get(name, len(data))
        return found is not None and found[1] == data

    def identity_of(self, path: bytes) -> Identity | None:
        """The original's identity now; None when there is none, or it can't be determined."""
        try:
            head = self._head(path)
        except OriginAwayError:
            return None
        return Identity.of(_status(head)) if head else None

    # Publishing, in the publishing thread

    def publish(self, batch: Sequence[Finished]) -> list[Result]:
        """Publishes decisions and purges the cache of what was there before."""
        for finished in batch:
            self._make_directory(finished.path)
        results = super().publish(batch)
        done = [f.path for f, result in zip(batch, results, strict=True) if result is Result.PUBLISHED]
        if done:
            self._purger.purge([self._name(path) for path in done])
        return results

    def _make_directory(self, path: bytes) -> None:
        relative = self._name(path).split(b"/")[:-1]
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for part in relative:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=fd)
                child = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                os.close(fd)
                fd = child
        except OSError:  # something else has that name: publishing says so
            return
        finally:
            os.close(fd)

    @staticmethod
    def _unchanged(directory: int, name: bytes, identity: Identity) -> bool:
        # Asked for again as soon as a visitor sees it, and then compared.
        return True

    # Comparing, when Varnish asks again

    def revalidate(self, path: bytes) -> bool:
        """Removes what was made of another content of an original, or of one that is gone; whether it has to
        be converted again, if only to AVIF too.

        :raises OriginAwayError: nothing was removed.
        """
        head = self._head(path)
        removed = 0
        lacking = False
        try:
            with self.directory(path) as (directory, name):
                for suffix in SUFFIXES:
                    mark = read_mark(directory, name + suffix)
                    if mark is None or mark is FOREIGN:
                        continue
                    if head and mark.describes(_status(head)):
                        _asked_for(directory, name + suffix)
                        lacking |= suffix in DECISIONS and not mark.decides(_status(head), self._avif)
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name + suffix, dir_fd=directory)
                        removed += 1
        except FileNotFoundError:
            pass
        if removed:
            log.info("stale removed", path=path, removed=removed)
            self._purger.purge([self._name(path)])
            self.remove_empty_directories(path)
        return lacking or bool(removed and head)


def _asked_for(directory: int, name: bytes) -> None:
    """Makes eviction count a file as read: a verdict never is read, nor a variant that Varnish has."""
    with contextlib.suppress(OSError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        os.utime(name, ns=(time.time_ns(), status.st_mtime_ns), dir_fd=directory, follow_symlinks=False)


def _status(head: Head) -> os.stat_result:
    """What `stat` would say of such a file. HTTP knows neither inode nor change time."""
    seconds = head.mtime_ns // 1_000_000_000
    values = (stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, head.size, seconds, seconds, seconds)
    return os.stat_result(values, {"st_mtime_ns": head.mtime_ns, "st_ctime": float(seconds)})
