"""The status page of a real daemon, as a browser without scripts gets it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest
from converter_app.tests import views
from converter_app.tests.clients import NASTY, Answer, Client, Page, conversion_of, converted, give_up
from converter_app.tests.harness import (
    TOKEN,
    DaemonProcess,
    RedisServer,
    StartDaemon,
    daemon_in,
    variant_of,
    wait_until,
)
from tests.kit import pictures

from webp_converter.api import access, models
from webp_converter.api.page_routes import media_type
from webp_converter.api.service import Service
from webp_converter.config import Config
from webp_converter.queue.jobs import Overview
from webp_converter.queue.latest_jobs import REMEMBERED, Conversion, LatestJobs, Rate
from webp_converter.variants.statistics import Totals
from webp_converter.variants.store import XATTR, Mark
from webp_converter.work.health import Health

HOSTILE = os.fsdecode(views.HOSTILE)


class Visitor:
    """A browser: it keeps the cookie, and says where its forms come from."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._ask = Client(daemon)
        self.origin = f"http://127.0.0.1:{daemon.api_port}"
        self.cookie = ""

    def page(self, path: str = "/") -> Page:
        answer = self.get(path)
        assert answer.status == 200
        return Page(answer.body)

    def get(self, path: str, method: str = "GET") -> Answer:
        return self._ask(method, path, token=None, **({"Cookie": self.cookie} if self.cookie else {}))

    def send(self, headers: dict[str, str] | None = None, /, **fields: str) -> Answer:
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} if headers is None else headers
        sent = {"Host": self.origin.removeprefix("http://"), **sent}
        if self.cookie:
            sent["Cookie"] = self.cookie
        answer = post(self._ask, urlencode(fields).encode(), sent)
        for name, morsel in SimpleCookie(answer.headers.get("Set-Cookie", "")).items():
            self.cookie = f"{name}={morsel.value}"
        return answer


def post(ask: Client, body: bytes, headers: dict[str, str], kind: str = "") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", ask._port, timeout=30)
    try:
        kind = kind or "application/x-www-form-urlencoded"
        connection.request("POST", "/", body, {"Content-Type": kind, **headers})
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon with a token, whose worker has little memory."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "variants").mkdir()
    originals = {"variants": str(directory / "variants"), "temporary": str(directory / "temporary2")}
    with daemon_in(directory, originals=originals) as daemon:
        yield daemon


@pytest.fixture
def ask(served: DaemonProcess) -> Client:
    return Client(served)


@pytest.fixture
def visitor(served: DaemonProcess) -> Visitor:
    return Visitor(served)


def picture(daemon: DaemonProcess, path: Path, which: str) -> str:
    """Address of a picture on the page."""
    conversion = conversion_of(daemon, path)
    assert conversion
    return f"/pictures/{conversion['id']}/{which}"


# What it tells


def test_the_values_are_the_apis(served: DaemonProcess, ask: Client, visitor: Visitor) -> None:
    path = converted(served, "values.jpg")
    dead, letter = give_up(served, ask, "values dead.jpg")

    def compared() -> bool:
        """Whether all is equal; what is counted meanwhile makes it wait."""
        page = visitor.page()
        statistics = Totals.model_validate(ask("GET", "/api/statistics?days=30").json)
        queue = Overview.model_validate(ask("GET", "/api/queue").json)
        recent = models.LatestWork.model_validate(ask("GET", "/api/recent").json)
        health = Health.model_validate(ask("GET", "/health").json)
        shown = [name.removeprefix("conversion-") for name in page.by_id if name.startswith("conversion-")]
        letters = [name.removeprefix("letter-") for name in page.by_id if name.startswith("letter-")]
        days = {
            name.removeprefix("saved-"): page.number(name)
            for name in page.by_id
            if re.fullmatch(r"saved-[\d-]{10}", name)
        }
        return (
            statistics.converted > 0
            and page.number("saved-bytes") == statistics.saved_bytes
            and page.number("converted") == statistics.converted
            and days == {day: work.saved_bytes for day, work in statistics.days.items()}
            and page.number("queued") == sum(stream.length for stream in queue.streams.values())
            and all(page.number(f"queue-{name}") == queue.streams[name].length for name in queue.streams)
            and page.number("queue-later") == queue.later
            and page.number("dead") == queue.dead
            and letters == [told["id"] for told in ask("GET", "/api/dead?count=20").json]
            and shown == [conversion.id for conversion in recent.conversions]
            and page.number("decided-hour") == recent.decided_hour
            and page.number("decided-minute") == recent.decided_minute
            and page.by_id["health"]["data-status"] == health.status
            and set(health.parts) <= {name.removeprefix("part-") for name in page.by_id}
        )

    wait_until(compared)
    page = visitor.page()
    assert letter["reason"] in page.by_id[f"letter-{letter['id']}"]["text"]
    assert f"webp-converter dead retry {letter['id']}" in page.by_id[f"letter-{letter['id']}"]["text"]
    conversion = conversion_of(served, path)
    assert conversion
    told = page.by_id[f"conversion-{conversion['id']}"]["text"]
    assert f"SSIM {conversion['ssim']:.4f}" in told
    assert f"quality {conversion['verdict'][1:]}" in told
    for part in ("queue", "cache", "watch", "pool", "disk", "scan", "eviction", "originals"):
        assert page.by_id[f"part-{part}"]["data-state"] in ("ok", "idle", "busy")
    dead.unlink()


def test_hostile_names_are_text(served: DaemonProcess, ask: Client, visitor: Visitor) -> None:
    path = converted(served, HOSTILE)
    dead, letter = give_up(served, ask, "dead " + HOSTILE)
    answer = visitor.get("/")
    page = Page(answer.body)
    assert not page.all("script")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    conversion = conversion_of(served, path)
    assert conversion
    shown = views.SHOWN
    assert shown in page.by_id[f"conversion-{conversion['id']}"]["text"]
    assert "dead " + shown in page.by_id[f"letter-{letter['id']}"]["text"]
    images = [image for image in page.all("img") if conversion["id"] in (image["src"] or "")]
    assert [image["alt"] for image in images] == [f"Before: {shown}", f"After: {shown}"]
    dead.unlink()


def test_a_page_of_its_own_and_of_the_moment(visitor: Visitor) -> None:
    answer = visitor.get("/")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["form-action"], policy["img-src"]) == ("'self'", "'self'")
    assert re.fullmatch(r"'sha256-[\w+/]+='", policy["style-src"])
    page = Page(answer.body)
    for tag, attributes in page.elements:
        assert "style" not in attributes, tag
        for name in ("href", "src", "action"):
            if address := attributes.get(name):
                assert re.match(r"/(?!/)|#", address), address
    assert [a.get("lang") for a in page.all("html")] == ["en"]
    assert len(page.all("h1")) == 1
    assert all("alt" in image for image in page.all("img"))
    assert not [meta for meta in page.all("meta") if meta.get("http-equiv")]


def test_head(visitor: Visitor, served: DaemonProcess) -> None:
    path = converted(served, "head.jpg")
    for address in ("/", picture(served, path, "before"), picture(served, path, "webp"), "/icons/ok.svg"):
        answer = visitor.get(address, "HEAD")
        assert (answer.status, answer.body) == (200, b""), address
        assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("given", "content"),
    [("30", "30;url=/?refresh=30"), ("1", "5;url=/?refresh=5"), ("x", None), ("0", None), ("-5", None)],
)
def test_it_refreshes_where_that_is_asked_for(visitor: Visitor, given: str, content: str | None) -> None:
    page = visitor.page(f"/?refresh={given}")
    assert [m["content"] for m in page.all("meta") if m.get("http-equiv")] == ([content] if content else [])


@pytest.mark.parametrize("done", ["retried&count=3", "signed-in", "mischief", "retried&count=mischief", ""])
def test_the_address_puts_no_words_of_its_own(visitor: Visitor, done: str) -> None:
    page = visitor.page(f"/?done={done}")
    assert "mischief" not in " ".join(page.texts)
    assert ("notice" in page.by_id) == (done.partition("&")[0] in ("retried", "signed-in"))


# Without Redis


def test_redis_away(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    daemon = start_daemon()
    visitor = Visitor(daemon)
    path = converted(daemon, "photo.jpg")
    wait_until(lambda: "converted" in (page := visitor.page()).by_id and page.number("converted") == 1)
    redis_server.kill()
    wait_until(lambda: visitor.page().by_id["health"]["data-status"] == "degraded")
    page = visitor.page()
    assert "Redis is away" in page.by_id["health"]["text"]
    assert page.by_id["part-queue"]["data-state"] == "degraded"
    assert page.number("converted") == 1  # as it was known
    assert re.search(r"Redis is away.*What is shown is [\d.]+ s old", " ".join(page.texts), re.DOTALL)
    assert visitor.get(picture(daemon, path, "webp")).body == variant_of(path).read_bytes()


def test_a_redis_that_hangs_holds_nobody_up(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    daemon = start_daemon()
    visitor = Visitor(daemon)
    assert redis_server.process
    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        text = " ".join(visitor.page().texts)
        assert "no answer after" in text
    finally:
        redis_server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "no answer after" not in " ".join(visitor.page().texts))


def test_nothing_known_at_all(start_daemon: StartDaemon, redis_server: RedisServer) -> None:
    redis_server.kill()
    daemon = start_daemon(ready=False)
    wait_until(daemon.health)
    page = Visitor(daemon).page()
    assert page.by_id["health"]["data-status"] == "degraded"
    assert "Redis is away" in page.by_id["queue"]["text"]


# Orders


def test_retry_with_the_token_at_hand(served: DaemonProcess, ask: Client, visitor: Visitor) -> None:
    path, letter = give_up(served, ask, "page " + NASTY)
    assert {"type": "password", "name": "token"}.items() <= {
        k: v
        for field in visitor.page().all("input")
        if field.get("type") == "password"
        for k, v in field.items()
    }.items()
    answer = visitor.send(token=TOKEN, retry=letter["id"])
    assert answer.status == 303
    cookie = SimpleCookie(answer.headers["Set-Cookie"])[access.COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "strict", "/")
    assert 0 < int(cookie["max-age"]) <= 3600
    assert TOKEN not in answer.headers["Set-Cookie"]
    page = visitor.page(answer.headers["Location"])
    assert page.by_id["notice"]["text"] == "1 picture is tried again."
    assert page.by_id["notice"]["role"] == "status"
    assert ask("GET", f"/api/dead/{letter['id']}").status == 404

    # It fails as before; the browser is signed in, and needs no token now.
    def newer() -> str | None:
        letters = ask("GET", "/api/dead").json
        return next((one["id"] for one in letters if one["path"] == str(path)), None)

    again = wait_until(newer, timeout_s=30)
    assert not [field for field in visitor.page().all("input") if field.get("type") == "password"]
    answer = visitor.send(retry="all", refresh="30")
    assert answer.status == 303
    assert "refresh=30" in answer.headers["Location"]
    assert ask("GET", f"/api/dead/{again}").status == 404
    assert visitor.send(retry=again).headers["Location"].endswith("count=0")
    wait_until(newer, timeout_s=30)

    answer = visitor.send(sign="out")
    assert answer.status == 303
    assert visitor.cookie == f"{access.COOKIE}="
    assert visitor.send(retry="all").status == 401
    path.unlink()


def test_sign_in_without_an_order(visitor: Visitor) -> None:
    answer = visitor.send(token=TOKEN, sign="in")
    assert (answer.status, answer.headers["Location"]) == (303, "/?done=signed-in")
    assert access.is_session(TOKEN.encode(), visitor.cookie.partition("=")[2], time.time())
    # The cookie orders through the page alone.
    assert visitor._ask("POST", "/api/scan", token=None, Cookie=visitor.cookie).status == 401


def refused(answer: Answer, status: int, words: str) -> None:
    """One clear line, on the page itself."""
    assert answer.status == status
    page = Page(answer.body)
    assert words in page.by_id["notice"]["text"]
    assert page.by_id["notice"]["role"] == "alert"
    assert "\n" not in page.by_id["notice"]["text"]
    assert "Set-Cookie" not in answer.headers
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("retry", ["1-1", "all"])
def test_no_order_without_a_token(visitor: Visitor, retry: str) -> None:
    refused(visitor.send(retry=retry), 401, "A token is needed")
    refused(visitor.send(retry=retry, token=""), 401, "A token is needed")
    for wrong in ("wrong", TOKEN[:-1], TOKEN + "0", "\xff" * 32):
        refused(visitor.send(retry=retry, token=wrong), 401, "The token is wrong")


def test_a_cookie_ends_and_can_not_be_made(visitor: Visitor) -> None:
    now = time.time()
    over = access.session(TOKEN.encode(), now - access.SESSION_S - 1)
    until, _, seal = access.session(TOKEN.encode(), now).partition(".")
    forged = access.session(b"another token of 32 characters..", now)
    for value in (
        over,
        forged,
        f"{int(until) + 1}.{seal}",
        f"{until}.",
        ".",
        "x.y",
        "",
        "9" * 5000,
        f"{until}.é",
    ):
        visitor.cookie = f"{access.COOKIE}={value}".encode().decode("latin-1")
        assert visitor.send(retry="1-1").status == 401, value
    visitor.cookie = f"{access.COOKIE}={until}.{seal}"
    assert visitor.send(retry="1-1").status == 303


def test_a_new_token_ends_all_sessions(start_daemon: StartDaemon, tmp_path: Path) -> None:
    file = tmp_path / "token"
    visitor = Visitor(start_daemon(api={"token_file": str(file)}))
    refused(visitor.send(token=TOKEN, retry="1-1"), 503, str(file))
    file.write_text(TOKEN)
    assert visitor.send(token=TOKEN, retry="1-1").status == 303
    file.write_text(TOKEN[::-1])
    refused(visitor.send(retry="1-1"), 401, "signed out")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    ],
)
def test_forms_from_elsewhere_are_refused(
    served: DaemonProcess, ask: Client, visitor: Visitor, headers: dict[str, str]
) -> None:
    visitor.send(token=TOKEN, sign="in")
    sent = {name: visitor.origin if value == "OWN" else value for name, value in headers.items()}
    for fields in ({"retry": "all"}, {"token": TOKEN, "retry": "all"}, {"sign": "out"}):
        answer = visitor.send(sent, **fields)
        assert answer.status == 403
        assert "status page" in models.Problem.model_validate(answer.json).detail
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("own", [{"Origin": "OWN"}, {"Sec-Fetch-Site": "same-origin"}])
def test_one_sign_that_a_form_is_its_own_is_enough(visitor: Visitor, own: dict[str, str]) -> None:
    sent = {name: visitor.origin if value == "OWN" else value for name, value in own.items()}
    assert visitor.send(sent, token=TOKEN, sign="in").status == 303


def test_what_is_no_form(ask: Client, visitor: Visitor) -> None:
    own = {"Origin": visitor.origin, "Host": visitor.origin.removeprefix("http://")}
    refused(post(ask, b"{}", own, kind="application/json"), 422, "no form")
    refused(post(ask, b"x" * 5000, own), 422, "4096 bytes")
    for retry in ("x", "1-1\n", "1-1<script>", "../1-1"):
        answer = visitor.send(token=TOKEN, retry=retry)
        assert answer.status == 422
        assert "no dead letter" in Page(answer.body).by_id["notice"]["text"].lower()
    refused(post(ask, b"\xff%ff=%00&retry", own), 401, "A token is needed")


# Pictures


def test_before_and_after(served: DaemonProcess, visitor: Visitor) -> None:
    path = converted(served, "pair.jpg")
    for which, kind, file in (("before", "image/jpeg", path), ("webp", "image/webp", variant_of(path))):
        answer = visitor.get(picture(served, path, which))
        assert answer.status == 200
        assert answer.body == file.read_bytes()
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "path",
    [
        "/pictures/0123456789abcdef/before",
        "/pictures/x/before",
        "/pictures/..%2f..%2f..%2fetc%2fpasswd/before",
        "/pictures/../../../etc/passwd",
        "/pictures/%2e%2e/before",
        "/pictures//etc/passwd/before",
        "/pictures/ID/../before",
        "/pictures/ID/before/..",
        "/pictures/%00/webp",
        "/pictures/%ff/webp",
    ],
)
def test_only_what_was_converted_is_shown(served: DaemonProcess, visitor: Visitor, path: str) -> None:
    known = served.root / "known.jpg"
    if not known.exists():
        converted(served, "known.jpg")
    conversion = conversion_of(served, known)
    assert conversion
    assert visitor.get(path.replace("ID", conversion["id"])).status == 404


@pytest.mark.parametrize("which", ["keep", "jpg", "..", "after", "%2e%2e", "before.webp"])
def test_only_as_what_it_was_converted(served: DaemonProcess, visitor: Visitor, which: str) -> None:
    path = served.root / "which.jpg"
    if not path.exists():
        converted(served, "which.jpg")
    assert visitor.get(picture(served, path, which)).status in (404, 422)
    assert visitor.get(picture(served, path, "avif")).status == 404  # there is none


def test_a_link_put_in_its_place_is_not_followed(tmp_path: Path) -> None:
    """Without a daemon, which would remove what has lost its original."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    (root / "shop").mkdir()
    secret.mkdir()
    owner = {"owner": "root", "group": "root"} if os.geteuid() == 0 else {}
    service = Service(Config.model_validate({"store": {"root": str(root), **owner}}))
    path, variant = root / "shop" / "photo.jpg", root / "shop" / "photo.jpg.webp"
    path.write_bytes(pictures.jpeg())
    variant.write_bytes(b"variant")
    mark = Mark(path.stat().st_size, path.stat().st_mtime_ns, "q75")
    os.setxattr(variant, XATTR, mark.pack())
    conversion = Conversion(
        id="id",
        path=str(path),
        format="jpeg",
        original_bytes=mark.size,
        variant_bytes=7,
        avif_bytes=None,
        verdict=mark.verdict,
        ssim=None,
        encode_ms=0,
        latency_ms=0,
        published_at=0,
        original_mtime_ns=mark.mtime_ns,
    )

    def published() -> list[bytes | None]:
        return [service.published(conversion, suffix, 1_000_000) for suffix in (b"", b".webp")]

    assert published() == [path.read_bytes(), b"variant"]
    assert service.published(conversion, b".webp", 6) is None
    assert not service.published(conversion, b"", 6)
    # All that tells the files apart is that they are links.
    for file in (path, variant):
        os.rename(file, secret / file.name)
        file.symlink_to(secret / file.name)
    assert published() == [None, None]
    for file in (path, variant):
        file.unlink()
        os.link(secret / file.name, file)
    assert published() == [path.read_bytes(), b"variant"]
    # Nor where a directory is one.
    os.rename(root / "shop", secret / "shop")
    (root / "shop").symlink_to(secret / "shop")
    assert published() == [None, None]
    (root / "shop").unlink()
    # What bears no mark is somebody else's; what is no file is not waited for.
    os.rename(secret / "shop", root / "shop")
    os.removexattr(variant, XATTR)
    path.unlink()
    os.mkfifo(path)
    assert published() == [None, None]


def test_a_picture_that_changed_is_not_shown_as_what_it_was(served: DaemonProcess, visitor: Visitor) -> None:
    path = converted(served, "changed.jpg")
    first = picture(served, path, "before")
    path.write_bytes(pictures.jpeg("coffee.png", 200))
    # Between the two it is told of neither.
    wait_until(lambda: (now := conversion_of(served, path)) and f"/pictures/{now['id']}/before" != first)
    assert visitor.get(first).status == 404
    assert visitor.get(picture(served, path, "before")).body == path.read_bytes()
    path.unlink()
    wait_until(lambda: not conversion_of(served, path))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (pictures.jpeg(side=64), "image/jpeg"),
        (pictures.encoded(pictures.photograph(side=64), "PNG"), "image/png"),
        (pictures.encoded(pictures.photograph(side=64), "GIF"), "image/gif"),
        (pictures.encoded(pictures.photograph(side=64), "WEBP"), "image/webp"),
        (pictures.encoded(pictures.photograph(side=64), "AVIF"), "image/avif"),
        (pictures.encoded(pictures.photograph(side=64), "BMP"), None),
        (pictures.encoded(pictures.photograph(side=64), "TIFF"), None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", None),
        (b"<!doctype html>\xff\xd8\xff", None),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"", None),
    ],
)
def test_only_pictures_are_served(data: bytes, kind: str | None) -> None:
    assert media_type(data) == kind


# Its parts


def test_the_last_ones_are_remembered() -> None:
    recent = LatestJobs()
    mark = Mark(100, 1, "q75", 0.96)
    for number in range(REMEMBERED + 5):
        recent.converted(b"/%d" % number, mark, "jpeg", 40, 0)
    kept = recent.latest(10_000)
    assert len(kept) == REMEMBERED
    assert kept[0].path == f"/{REMEMBERED + 4}"
    assert kept[-1].path == "/5"
    assert all(recent.find(one.id) == one for one in kept)
    # Converted again it is the latest, and by one address alone; made smaller it stays where it is.
    recent.converted(b"/5", mark, "jpeg", 39, 0)
    assert recent.latest(1)[0].path == "/5"
    assert recent.find(kept[-1].id) is None
    before = recent.latest(2)[1]
    path = os.fsencode(before.path)
    recent.converted(path, mark, "jpeg", 30, 0, again=True)
    after = recent.latest(2)[1]
    assert (after.path, after.variant_bytes) == (before.path, 30)
    assert (after.published_at, recent.find(before.id)) == (before.published_at, None)
    recent.forget(path)
    recent.forget(path)
    assert (len(recent.latest(10_000)), recent.find(after.id)) == (REMEMBERED - 1, None)
    recent.converted(b"/0", mark, "jpeg", 30, 0, again=True)
    assert "/0" not in {one.path for one in recent.latest(10_000)}


def test_rates() -> None:
    rate = Rate()
    for second in range(1, 7201, 2):
        rate.add(second)
    assert rate.within(60, 7200) == pytest.approx(30, abs=3)
    assert rate.within(3600, 7200) == pytest.approx(1800, abs=3)
    assert rate.within(60, 7300) == 0
    assert rate.within(3600, 20_000) == 0
    assert len(rate._slices) <= 3600 // 5 + 1
