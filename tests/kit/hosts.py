"""The running, deployed hosts, as the end-to-end tests see them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import partial

import httpx

from bitrix_cdn.settings import Settings
from dev.lab.site import PROPORTIONAL, Picture, Resized, Site, SiteError
from tests.kit.pictures import opened, photo
from tests.kit.support import Remote, Status, statuses, wait_until

CONVERTER = "webp-converter.service"


BROWSER = "image/webp,image/apng,image/*,*/*;q=0.8"
"""`Accept` of a client that takes WebP."""


SHORT_LIVED = "public, max-age=15, stale-while-revalidate=10"
"""`Cache-Control` of a name that may be used again for another picture."""


OLD_BROWSER = "image/png,image/jpeg,image/*;q=0.8,*/*;q=0.5"
"""`Accept` of one that doesn't name it."""


@dataclass
class Cdn:
    """The CDN host: what visitors get from it, and what lies on its disk."""

    remote: Remote
    settings: Settings
    client: httpx.Client

    def get(self, picture: Picture, accept: str = BROWSER) -> httpx.Response:
        return self.client.get(picture.url_path, headers={"Accept": accept})

    def as_webp(self, picture: Picture, timeout: float = 30) -> httpx.Response:
        """The answer to a browser, once it is WebP."""
        return wait_until(
            f"{picture.path} as image/webp",
            lambda: self.get(picture),
            lambda answer: answer.headers.get("Content-Type") == "image/webp",
            timeout=timeout,
        )

    def wait_for_fresh_variant(self, picture: Picture | str, *, mtime_ns: int) -> None:
        """Until the variant on the disk is that of the original as it was at `mtime_ns`."""
        variant = self.variant(picture)
        wait_until(
            f"{variant} with mtime {mtime_ns}",
            lambda: self.status(variant).get(variant),
            lambda status: status is not None and status.mtime_ns == mtime_ns,
        )

    def file(self, picture: Picture | str) -> str:
        """Where a picture of the site lies on this host."""
        return self.settings.cdn.root + (picture if isinstance(picture, str) else picture.path)

    def variant(self, picture: Picture | str) -> str:
        """Where its WebP variant lies."""
        return self.file(picture) + ".webp"

    def status(self, *paths: str) -> dict[str, Status]:
        return statuses(self.remote, paths)

    def exist(self, paths: list[str]) -> list[str]:
        """Those of the paths that exist on this host."""
        found = statuses(self.remote, paths)
        return [path for path in paths if path in found]

    def daemon(self) -> tuple[int, int]:
        """The daemon's main process and how often systemd has restarted it."""
        shown = self.remote.run("systemctl", "show", CONVERTER, "-p", "MainPID", "-p", "NRestarts")
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return int(values["MainPID"]), int(values["NRestarts"])

    def daemon_ready(self) -> bool:
        """Whether the daemon runs and calls itself healthy."""
        url = f"http://127.0.0.1:{self.settings.converter.api.port}/health"
        health = self.remote.python(_HEALTH, url)
        return health == 200 and self.daemon()[0] > 0


_HEALTH = """
import urllib.error, urllib.request
try:
    with urllib.request.urlopen(arguments[0], timeout=5) as answer:
        result = answer.status
except urllib.error.HTTPError as error:
    result = error.code
except OSError as error:
    result = str(error)
"""


@dataclass
class Shop:
    """The site, with a memory of what a test put there."""

    site: Site
    bitrix: Remote
    settings: Settings
    token: str
    photos: int = 0
    originals: list[Picture] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)

    def photo(self, width: int, height: int, *, form: str = "JPEG") -> bytes:
        """A picture that no other test has, and this one only once."""
        self.photos += 1
        return photo(f"{self.token}-{self.photos}", width, height, form=form)

    def upload(
        self, width: int = 900, height: int = 700, *, form: str = "JPEG", name: str | None = None
    ) -> Picture:
        """An original that no other test has."""
        extension = "png" if form == "PNG" else "jpg"
        content = self.photo(width, height, form=form)
        picture = self.site.upload(name or f"photo-{self.token}-{self.photos}.{extension}", content)
        self.originals.append(picture)
        return picture

    def resized(self, width: int = 450, height: int = 450, how: int = PROPORTIONAL) -> Resized:
        """A resized picture, just made, of a new original."""
        made = self.site.resize(self.upload(), width, height, how)
        assert made.made, f"{made.path} was there before"
        return made

    def directory(self, name: str = "120_120_2") -> str:
        """A path of this test's own in `resize_cache/`, as the site has it below its root; not made yet."""
        path = f"/upload/resize_cache/e2e/{self.token}"
        if path not in self.directories:
            self.directories.append(path)
        return f"{path}/{name}"

    def write(self, path: str, content: bytes) -> None:
        """Write a file below `resize_cache/` through the mount, as the account of PHP."""
        directory = self.mounted(path).rsplit("/", 1)[0]
        self.bitrix.run("mkdir", "-p", directory, user=self.settings.site.user)
        self.bitrix.put(self.mounted(path), content, user=self.settings.site.user)

    def mounted(self, path: str) -> str:
        """Where `path` is on the Bitrix host: behind the mount."""
        return self.settings.site.root + path

    def clean_up(self) -> None:
        for original in self.originals:
            # Some tests delete what they uploaded themselves.
            with contextlib.suppress(SiteError):
                self.site.delete(original)
        for directory in self.directories:
            # A variant may be published into it while it is being removed.
            wait_until(f"{directory} to be removed", partial(self._removed, self.mounted(directory)))

    def _removed(self, path: str) -> bool:
        self.bitrix.run("rm", "-rf", path, user=self.settings.site.user, check=False)
        return not self.bitrix.run("ls", "-d", path, check=False)


def no_pictures(shop: Shop) -> dict[str, bytes]:
    whole = shop.photo(450, 300)
    return {
        "page.jpg": b"<!doctype html><title>Not found</title>" * 50,
        "empty.jpg": b"",
        "truncated.jpg": whole[: len(whole) * 2 // 3],
        "header-only.jpg": whole[:20],
        "truncated.png": shop.photo(200, 200, form="PNG")[:5000],
        "zeros.png": bytes(10_000),
    }


def all_are_published(cdn: Cdn, pictures: list[str]) -> None:
    """Wait for the WebP of each picture, and decode what visitors get."""
    variants = [cdn.variant(picture) for picture in pictures]
    wait_until(
        f"{len(variants)} variants",
        lambda: sorted(set(variants) - set(cdn.exist(variants))),
        lambda missing: not missing,
        timeout=60,
        interval=0.5,
    )
    # nginx may remember for a second that there was none.
    time.sleep(1.5)
    for picture in pictures:
        answer = cdn.client.get(picture, headers={"Accept": BROWSER})
        assert answer.headers["Content-Type"] == "image/webp", picture
        assert opened(answer.content).format == "WEBP"
