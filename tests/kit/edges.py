"""The edges and the balancer in front of them, as visitors and operators see them."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import pytest

from bitrix_cdn.settings import Settings
from dev.lab.site import Picture, Site
from tests.kit.deployment import Deployment
from tests.kit.hosts import BROWSER, OLD_BROWSER, Cdn
from tests.kit.load import RequestError, Seen, Visitor, visiting
from tests.kit.pictures import photo
from tests.kit.support import Remote, wait_until

EDGES = ("edge1", "edge2")


DRAIN = "/var/lib/bitrix-cdn/drain"


LOG = "/var/log/nginx/access.log"


@dataclass(frozen=True)
class Balancer:
    """The balancer: what visitors get from it, and what it thinks of the edges."""

    remote: Remote
    cdn: Cdn
    client: httpx.Client

    def get(self, picture: Picture | str, accept: str = BROWSER) -> httpx.Response:
        path = picture if isinstance(picture, str) else picture.url_path
        return self.client.get(path, headers={"Accept": accept})

    def states(self) -> dict[str, str]:
        """`UP`, `DOWN` and the like, of each host behind it."""
        port = self.cdn.settings.monitoring.exporters.haproxy_port
        script = (
            "import urllib.request\n"
            "result = urllib.request.urlopen(arguments[0], timeout=5).read().decode()\n"
        )
        text = self.cdn.remote.python(script, f"http://{self.remote.address}:{port}/metrics")
        found = re.findall(r'haproxy_server_status\{proxy="edges",server="([^"]+)",state="(\w+)"\} 1', text)
        return dict(found)

    def wait_for(self, **states: str) -> float:
        """Until the hosts are in these states; returns when that was seen, in seconds since 1970."""
        wait_until(
            f"{states}",
            self.states,
            lambda seen: all(seen.get(name) == wanted for name, wanted in states.items()),
            timeout=30,
        )
        return time.time()


@dataclass(frozen=True)
class Expected:
    """A request and the one right answer to it, as the CDN host gave it."""

    path: str
    accept: str
    content: bytes
    kind: str


@dataclass
class Load:
    """Visitors who look at every byte that they get."""

    seen: list[Seen]

    @property
    def served(self) -> int:
        return sum(len(one.requests) for one in self.seen)

    @property
    def failed(self) -> list[str]:
        return [failure for one in self.seen for failure in one.failures]

    @property
    def slowest(self) -> float:
        return max(one.slowest_s for one in self.seen)

    def __str__(self) -> str:
        return f"{self.served} requests, {len(self.failed)} failed (figure: 0), slowest {self.slowest:.2f} s"


@contextmanager
def visitors(balancer: Balancer, gallery: list[Expected], *, count: int = 8) -> Iterator[Load]:
    """Visitors all the time, while the body runs."""

    def visitor(seed: int) -> Visitor:
        chance = random.Random(seed)
        client = clients.enter_context(httpx.Client(base_url=balancer.client.base_url, timeout=20))

        def ask() -> None:
            one = chance.choice(gallery)
            try:
                answer = client.get(one.path, headers={"Accept": one.accept})
            except httpx.HTTPError as error:
                raise RequestError(f"{one.path}: {error!r}") from None
            if answer.status_code != httpx.codes.OK:
                raise RequestError(f"{one.path}: status {answer.status_code}")
            if answer.content != one.content:
                raise RequestError(f"{one.path}: {len(answer.content)} other bytes")

        return Visitor(f"visitor {seed}", ask, pause_s=0)

    with ExitStack() as clients, visiting([visitor(seed) for seed in range(count)]) as seen:
        yield Load(seen)


def logged(edge: Remote, after: float = 0.0) -> Counter[str]:
    """The paths that an edge was asked for, by its own log, from a time on; in seconds since 1970."""
    # It writes what it has kept back.
    edge.run("sh", "-c", "kill -USR1 $(cat /run/nginx.pid); sleep 0.3")
    found: Counter[str] = Counter()
    for line in edge.run("cat", LOG).splitlines():
        if not line.startswith("{"):
            continue  # from before the deploy
        entry = json.loads(line)
        if time.mktime(time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")) >= after:
            found[entry["uri"]] += 1
    return found


@contextmanager
def drained(edge: Remote) -> Iterator[None]:
    edge.run("touch", DRAIN)
    try:
        yield
    finally:
        edge.run("rm", "-f", DRAIN)


@pytest.fixture(autouse=True, scope="session")
def _five_hosts(deployment: Deployment, remotes: dict[str, Remote]) -> None:
    if not {*EDGES, "balancer"} <= set(remotes):
        deployment.lacks("edges and balancer")


@pytest.fixture(scope="session")
def balancer(remotes: dict[str, Remote], cdn: Cdn, settings: Settings) -> Iterator[Balancer]:
    remote = remotes["balancer"]
    base_url = f"http://{remote.address}:{settings.nginx.http_port}"
    with httpx.Client(base_url=base_url, timeout=20) as client:
        yield Balancer(remote, cdn, client)


@pytest.fixture(scope="session")
def edges(remotes: dict[str, Remote]) -> dict[str, Remote]:
    return {name: remotes[name] for name in EDGES}


@pytest.fixture(autouse=True)
def all_up(request: pytest.FixtureRequest) -> None:
    """Each test begins with all hosts in place."""
    balancer: Balancer = request.getfixturevalue("balancer")
    balancer.wait_for(edge1="UP", edge2="UP", cdn="UP")


@pytest.fixture(scope="session")
def gallery(remotes: dict[str, Remote], cdn: Cdn, balancer: Balancer) -> list[Expected]:
    """Pictures of both kinds, decided, for browsers of both kinds; each was asked for at the balancer."""
    token = uuid.uuid4().hex[:8]
    pictures: list[Picture] = []
    with Site(f"http://{remotes['bitrix'].address}") as site:
        for number in range(15):
            name = f"edges-{token}-{number}"
            original = site.upload(f"{name}.jpg", photo(name, 500, 400))
            pictures += [original, site.resize(original, 200, 200)]
    found = []
    for picture in pictures:
        for accept, answer in ((BROWSER, cdn.as_webp(picture)), (OLD_BROWSER, cdn.get(picture, OLD_BROWSER))):
            assert answer.headers["X-Image-Variant"] != "pending"
            kind = answer.headers["Content-Type"]
            found.append(Expected(picture.url_path, accept, answer.content, kind))
    assert {one.kind for one in found} == {"image/webp", "image/jpeg"}
    for one in found:
        wait_until(
            f"{one.path} as {one.kind} at an edge",
            lambda one=one: balancer.get(one.path, one.accept),  # type: ignore[misc]
            lambda answer, one=one: answer.content == one.content,  # type: ignore[misc]
        )
    return found
