"""A shop under way: pages and resized pictures all the time, and what became of each."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from dev.lab.site import Picture, Site, SiteError
from tests.e2e.conftest import Cdn, Shop
from tests.kit.support import opened


@dataclass(frozen=True)
class Request:
    """One request to the site. Times are seconds since 1970, of the one kernel that all of the lab has."""

    started: float
    seconds: float
    failed: str


@dataclass(frozen=True)
class Made:
    """A resized picture that the site said it has made."""

    original: Picture
    width: int
    height: int
    path: str


@dataclass
class Traffic:
    """What visitors did and met."""

    shop: Shop
    originals: list[Picture]
    requests: list[Request] = field(default_factory=list)
    made: dict[tuple[str, int, int], Made] = field(default_factory=dict)
    made_again: int = 0
    """Pictures that the site had made before and made once more."""

    def stall(self, since: float, until: float = float("inf")) -> float:
        """The longest that anybody waited, of the requests started in that time."""
        return max((r.seconds for r in self.requests if since <= r.started <= until), default=0.0)

    def failures(self, since: float, until: float = float("inf")) -> list[str]:
        return [r.failed for r in self.requests if r.failed and since <= r.started <= until]

    def usual(self, until: float) -> float:
        """The longest that anybody waited before the fault."""
        return max(r.seconds for r in self.requests if r.started + r.seconds < until)

    def lost(self, cdn: Cdn) -> list[str]:
        """Asks for each picture again as a page would, and compares what the CDN host serves of it with
        the pixels that a fresh rendering has.

        What a fault has left behind half made is removed after its rest, and made again when it is asked for:
        until that is over, nothing counts as lost.
        """
        deadline = time.monotonic() + cdn.settings.converter.watch.damaged_rest_s + 15
        left = list(self.made.values())
        while True:
            found = self._lost(cdn, left)
            if not found or time.monotonic() > deadline:
                return list(found.values())
            left = [made for made in left if made.path in found]
            time.sleep(1)

    def _lost(self, cdn: Cdn, pictures: list[Made]) -> dict[str, str]:
        """Those that aren't as they should be, by path, each with what is wrong."""
        lost = {}
        with Site(self.shop.site.base_url, timeout=30) as site:
            for made in pictures:
                now = site.resize(made.original, made.width, made.height)
                answer = cdn.client.get(now.url_path, headers={"Accept": "image/jpeg"})
                if answer.status_code != httpx.codes.OK:
                    lost[made.path] = f"{now.path}: the CDN host answers {answer.status_code}"
                    continue
                try:
                    seen = pixels(answer.content)
                except OSError as error:
                    lost[made.path] = f"{now.path}: {error}"
                    continue
                if seen != self._rendered(site, made):
                    size = opened(answer.content).size
                    lost[made.path] = f"{now.path}: other pixels than a fresh rendering, {size} served"
        return lost

    def _rendered(self, site: Site, made: Made) -> str:
        # An explicit filter equal to the site's own gives a directory of its own: rendered anew.
        filters = [{"name": "sharpen", "precision": 15}]
        fresh = site.resize(made.original, made.width, made.height, filters=filters)
        return pixels(site.get(fresh))


def pixels(content: bytes) -> str:
    """A hash of the decoded picture.

    :raises OSError: it is cut off or no picture.
    """
    picture = opened(content)
    return hashlib.sha256(f"{picture.size}{picture.mode}".encode() + picture.tobytes()).hexdigest()


@contextmanager
def traffic(shop: Shop, *, originals: int = 3, pause: float = 0.1) -> Iterator[Traffic]:
    """Visitors come while the body runs: two look at the pages, one at pictures that were never asked for."""
    uploaded = [shop.upload(400, 300) for _ in range(originals)]
    seen = Traffic(shop, uploaded)
    over = threading.Event()
    chance = random.Random(1)
    sizes = iter(chance.sample([(w, h) for w in range(60, 380, 2) for h in range(60, 280, 2)], 17_000))

    def request(what: str, work: object) -> None:
        assert callable(work)
        started, failed = time.time(), ""
        try:
            work()
        except (SiteError, httpx.HTTPError) as error:
            failed = f"{what}: {error}"
        seen.requests.append(Request(started, time.time() - started, failed))

    def look() -> None:
        with httpx.Client(base_url=shop.site.base_url, timeout=60) as client:
            while not over.is_set():
                request("a page", lambda: client.get("/").raise_for_status())
                over.wait(pause)

    def resize() -> None:
        with Site(shop.site.base_url, timeout=60) as site:
            while not over.is_set():
                # Three new ones, then one that is there already.
                for original in uploaded:
                    width, height = next(sizes)

                    def new(original: Picture = original, width: int = width, height: int = height) -> None:
                        resized = site.resize(original, width, height)
                        if resized.made:
                            seen.made[original.path, width, height] = Made(
                                original, width, height, resized.path
                            )

                    request("a resize", new)
                    over.wait(pause)
                if seen.made:
                    old = chance.choice(list(seen.made.values()))

                    def again(old: Made = old) -> None:
                        seen.made_again += site.resize(old.original, old.width, old.height).made

                    request("a resize", again)

    visitors = [threading.Thread(target=work) for work in (look, look, resize)]
    for visitor in visitors:
        visitor.start()
    try:
        yield seen
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()
