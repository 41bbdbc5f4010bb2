"""The lab's PHP site, as a program talks to it: upload, resize, rewrite, delete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from dev.lab.errors import LabError

# Bitrix's numbers for how a picture is fitted into a size.
PROPORTIONAL_ALT, PROPORTIONAL, EXACT = 0, 1, 2


class SiteError(LabError):
    """The site refused a request, or doesn't answer."""


@dataclass(frozen=True)
class Picture:
    """A picture that the site has: an original or a resized one."""

    path: str
    """Where it lies below the document root."""
    bytes: int

    @property
    def url_path(self) -> str:
        """The path as it stands in a page."""
        return quote(self.path)


@dataclass(frozen=True)
class Resized(Picture):
    """A resized picture; `made` tells whether this request made it, `milliseconds` what PHP took."""

    width: int
    height: int
    made: bool
    milliseconds: float


@dataclass(frozen=True)
class Directory:
    """A directory that Bitrix tried to remove, and the names that prevented it."""

    path: str
    removed: bool
    left: tuple[str, ...]


@dataclass(frozen=True)
class Deleted:
    """What deleting an original did."""

    removed: tuple[str, ...]
    directories: tuple[Directory, ...]


class Site:
    """A client of the site at `base_url`; every method raises :class:`SiteError` when it is refused."""

    def __init__(self, base_url: str, *, timeout: float = 120) -> None:
        self.base_url = base_url
        self._client = httpx.Client(base_url=base_url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def health(self) -> None:
        """Return if the site answers."""
        self._answer("GET", "/health.php", timeout=5)

    def upload(self, name: str, content: bytes) -> Picture:
        """Store an original."""
        return _picture(self._answer("POST", "/upload.php", files={"file": (name, content)}))

    def resize(
        self,
        original: Picture,
        width: int,
        height: int,
        how: int = PROPORTIONAL,
        *,
        filters: Sequence[Mapping[str, Any]] | None = None,
        pause_ms: int = 0,
    ) -> Resized:
        """Return the resized picture, made if it isn't there.

        `pause_ms` is how long the full original stays under the resized name meanwhile.
        """
        params = {"src": original.path, "width": width, "height": height, "type": how, "pause_ms": pause_ms}
        if filters is not None:
            params["filters"] = json.dumps(filters)
        answer = self._answer("GET", "/resize.php", params=params)
        return Resized(
            path=answer["path"],
            bytes=answer["bytes"],
            width=answer["width"],
            height=answer["height"],
            made=answer["made"],
            milliseconds=answer["ms"],
        )

    def rewrite(self, picture: Picture, content: bytes, way: Literal["copy", "rename"] = "copy") -> None:
        """Put other bytes under the picture's name, written in place or renamed over it."""
        data = {"path": picture.path, "way": way}
        self._answer("POST", "/rewrite.php", data=data, files={"file": ("file", content)})

    def delete(self, original: Picture) -> Deleted:
        """Remove an original, all that was made from it, and the directories that this empties."""
        answer = self._answer("POST", "/delete.php", data={"src": original.path})
        directories = (Directory(d["path"], d["removed"], tuple(d["left"])) for d in answer["directories"])
        return Deleted(tuple(answer["removed"]), tuple(directories))

    def get(self, picture: Picture) -> bytes:
        """Return the picture's bytes as the site itself has them."""
        response = self._send("GET", picture.url_path)
        if response.status_code != httpx.codes.OK:
            raise SiteError(f"{self.base_url}{picture.url_path} answers {response.status_code}")
        return response.content

    def _answer(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        response = self._send(method, path, **request)
        try:
            answer = response.json()
        except ValueError:
            answer = {"error": response.text.strip()[:200] or "an empty body"}
        if response.status_code != httpx.codes.OK or "error" in answer:
            raise SiteError(f"{method} {self.base_url}{path}: {response.status_code}: {answer.get('error')}")
        return dict(answer)

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **request)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise SiteError(f"{self.base_url} doesn't answer ({reason}): was the lab deployed?") from None


def _picture(answer: Mapping[str, Any]) -> Picture:
    return Picture(path=answer["path"], bytes=answer["bytes"])
