"""A shop under way: pages and resized pictures all the time, and what became of each."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle

import httpx

from dev.lab.site import Picture, Site
from tests.kit.hosts import Cdn, Shop
from tests.kit.load import Request, Seen, Visitor, visiting
from tests.kit.pictures import opened


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
    seen: list[Seen] = field(default_factory=list)
    made: dict[tuple[str, int, int], Made] = field(default_factory=dict)
    made_again: int = 0
    """Pictures that the site had made before and made once more."""

    @property
    def requests(self) -> list[Request]:
        return [request for one in self.seen for request in one.requests]

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
        # An explicit filter equal to the site's own gives another directory: rendered again.
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
    chance = random.Random(1)
    sizes = iter(chance.sample([(w, h) for w in range(60, 380, 2) for h in range(60, 280, 2)], 17_000))

    def new(site: Site, original: Picture) -> None:
        width, height = next(sizes)
        resized = site.resize(original, width, height)
        if resized.made:
            seen.made[original.path, width, height] = Made(original, width, height, resized.path)

    def again(site: Site) -> None:
        if seen.made:
            old = chance.choice(list(seen.made.values()))
            seen.made_again += site.resize(old.original, old.width, old.height).made

    with ExitStack() as clients:
        site = clients.enter_context(Site(shop.site.base_url, timeout=60))
        # Three new ones, then one that is there already.
        resizes = cycle([*(partial(new, site, original) for original in uploaded), partial(again, site)])
        visitors = [Visitor("a resize", lambda: next(resizes)(), pause)]
        for _ in range(2):
            client = clients.enter_context(httpx.Client(base_url=shop.site.base_url, timeout=60))
            visitors.append(Visitor("a page", lambda get=client.get: get("/").raise_for_status(), pause))  # type: ignore[misc]
        with visiting(visitors) as seen.seen:
            yield seen
