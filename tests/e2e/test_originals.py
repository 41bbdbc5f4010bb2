"""Originals, through the cache and from the second nginx: on demand, and while the site's host is away."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from bitrix_cdn.settings.types import mebibytes
from dev.lab import state
from dev.lab.site import Picture
from tests.kit.deployment import ROOT
from tests.kit.hosts import BROWSER, OLD_BROWSER, SHORT_LIVED, Cdn, Shop
from tests.kit.pictures import opened, ssim
from tests.kit.support import Figure, Remote, wait_until


def counted(cdn: Cdn, name: str) -> int:
    """What Varnish has counted so far."""
    return int(cdn.remote.run("varnishstat", "-1", "-f", f"MAIN.{name}").split()[1])


def of_origin(cdn: Cdn) -> int:
    """How many requests Varnish has sent on so far, but for its probe's."""
    return counted(cdn, "backend_req")


@pytest.mark.both
def test_the_first_visitor_gets_the_original_at_once_and_the_next_ones_the_variant(
    shop: Shop, cdn: Cdn
) -> None:
    original = shop.upload()
    written = shop.site.get(original)

    first = cdn.get(original)

    assert first.content == written
    assert first.headers["X-Image-Variant"] == "pending"
    assert first.headers["Cache-Control"] == SHORT_LIVED
    assert first.headers["Vary"] == "Accept"
    assert first.headers["X-Cache"] == "miss"
    # The pending answer is kept for 10 s: what ends it sooner is the purge.
    then = cdn.as_webp(original, timeout=15)
    assert ssim(then.content, written) >= 0.95
    assert then.headers["X-Image-Variant"] == "webp"
    assert then.headers["Cache-Control"] == SHORT_LIVED
    assert opened(then.content).format == "WEBP"
    # For every class at once.
    old = cdn.get(original, accept=OLD_BROWSER)
    assert (old.content, old.headers["X-Image-Variant"]) == (written, "original")
    assert old.headers["Cache-Control"] == SHORT_LIVED


@pytest.mark.both
def test_what_visitors_ask_for_is_asked_of_the_mount_once(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    cdn.as_webp(original)
    cdn.get(original, accept=OLD_BROWSER)
    before = of_origin(cdn)
    for _ in range(50):
        for accept in (BROWSER, OLD_BROWSER, "image/webp", "*/*", "image/png"):
            answer = cdn.get(original, accept=accept)
            assert answer.headers["X-Cache"] == "hit"
    # Nor does a query or another spelling of the address make another picture of it.
    for address in (
        f"{original.url_path}?v=1",
        original.url_path.replace("/upload/", "/upload/%69block/../"),
    ):
        assert cdn.client.get(address, headers={"Accept": BROWSER}).headers["X-Cache"] == "hit"
    assert of_origin(cdn) == before


@pytest.mark.parametrize(
    "name",
    [
        "Диван угловой (2).jpg",
        "a b+c=d.jpg",
        "скидка 50_.PNG",
        "semi-colon.jpeg",
    ],
)
def test_names_in_any_script_are_purged_like_the_others(shop: Shop, cdn: Cdn, name: str) -> None:
    stem, extension = name.rsplit(".", 1)
    form = "PNG" if extension == "PNG" else "JPEG"
    original = shop.upload(500, 400, name=f"{stem} {shop.token}.{extension}", form=form)
    assert cdn.get(original).headers["X-Image-Variant"] == "pending"
    cdn.as_webp(original, timeout=15)


@pytest.mark.parametrize(
    "name",
    ["what?.jpg", "100%.jpg", "a#b;c,d@e!f'g.jpg", "[x]{y}^z`.jpg", 'q"q.jpg', "a\r\nX-Header: b\n.jpg"],
)
def test_names_that_no_form_lets_through_are_purged_too(shop: Shop, cdn: Cdn, name: str) -> None:
    directory = f"/upload/iblock/e2e-{shop.token}"
    user = shop.settings.site.user
    shop.bitrix.run("mkdir", "-p", shop.mounted(directory), user=user)
    try:
        picture = Picture(f"{directory}/{name}", 0)
        shop.bitrix.put(shop.mounted(picture.path), shop.photo(400, 300), user=user)
        assert cdn.get(picture).headers["X-Image-Variant"] == "pending"
        cdn.as_webp(picture, timeout=15)
    finally:
        shop.bitrix.run("rm", "-rf", shop.mounted(directory))


def test_a_picture_larger_than_the_cache_arrives_whole(shop: Shop, cdn: Cdn) -> None:
    """Varnish would drive out all others, and end it where its memory ends."""
    driven_out = counted(cdn, "n_lru_nuked")
    original = shop.upload()
    size = (mebibytes(shop.settings.varnish.memory) + 40) << 20
    shop.bitrix.run("truncate", "-s", str(size), shop.mounted(original.path))
    expected = shop.bitrix.run("sha256sum", shop.mounted(original.path)).split()[0]
    for _ in range(2):
        found = hashlib.sha256()
        with cdn.client.stream("GET", original.url_path, headers={"Accept": OLD_BROWSER}) as answer:
            assert answer.status_code == 200
            for part in answer.iter_bytes():
                found.update(part)
        assert found.hexdigest() == expected
    assert counted(cdn, "n_lru_nuked") == driven_out


def test_a_rewritten_original_is_noticed_when_it_is_compared(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    old = cdn.as_webp(original).content
    new_picture = shop.photo(900, 700)
    shop.site.rewrite(original, new_picture)

    # Minutes later, by default; the purge stands for them.
    purge(cdn, original)
    cdn.get(original)

    new = wait_until(
        "the new variant",
        lambda: cdn.get(original),
        lambda answer: answer.headers["Content-Type"] == "image/webp" and answer.content != old,
        timeout=15,
    )
    assert ssim(new.content, new_picture) >= 0.95


def test_a_deleted_original_takes_its_variant_along_when_it_is_compared(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    cdn.as_webp(original)
    variant = f"{cdn.settings.cdn.variants}{original.path}.webp"
    assert cdn.exist([variant])
    shop.site.delete(original)
    purge(cdn, original)
    cdn.get(original)
    wait_until("the variant to be gone", lambda: cdn.exist([variant]), lambda left: not left)
    wait_until("404", lambda: cdn.get(original).status_code, lambda status: status == 404)


def purge(cdn: Cdn, picture: Picture) -> None:
    """As the converter does, on the CDN host."""
    address = f"http://127.0.0.1:{cdn.settings.varnish.port}{picture.url_path}"
    cdn.remote.python(
        "import urllib.request\n"
        "request = urllib.request.Request(arguments[0], method='PURGE')\n"
        "result = urllib.request.urlopen(request, timeout=5).status",
        address,
    )


@pytest.mark.parametrize("method", ["PURGE", "POST", "PUT", "DELETE", "BAN"])
@pytest.mark.both
def test_nobody_outside_can_purge_or_change(shop: Shop, cdn: Cdn, method: str) -> None:
    original = shop.upload(200, 200)
    cdn.get(original)
    refused = cdn.client.request(method, original.url_path)
    assert refused.status_code == 405
    assert "GET" in refused.headers["Allow"]
    assert cdn.get(original, accept=OLD_BROWSER).status_code == 200


@pytest.mark.parametrize("prefix", ["", "iblock/"])
@pytest.mark.parametrize(
    "name", ["import.xml", "page.php", "page.html", ".hidden.jpg", "noextension", "a.jpg~"]
)
def test_of_the_sites_files_only_pictures_are_served(shop: Shop, cdn: Cdn, prefix: str, name: str) -> None:
    refused(shop, cdn, f"/upload/{prefix}e2e-{shop.token}", name)


@pytest.mark.parametrize("directory", ["1c_exchange", "1c_catalog", "tmp", "support/not_image"])
def test_directories_that_are_no_visitors_business(shop: Shop, cdn: Cdn, directory: str) -> None:
    refused(shop, cdn, f"/upload/{directory}/e2e-{shop.token}", "photo.jpg")


def refused(shop: Shop, cdn: Cdn, directory: str, name: str) -> None:
    """Puts a file on the site and asks the CDN host for it, in several spellings."""
    user = shop.settings.site.user
    shop.bitrix.run("mkdir", "-p", shop.mounted(directory), user=user)
    try:
        shop.bitrix.put(shop.mounted(f"{directory}/{name}"), b"secret", user=user)
        path = quote(f"{directory}/{name}")
        for spelling in (
            path,
            path.replace("/upload/", "/upload//"),
            path.replace("/upload/", "/upload/x/../"),
        ):
            answer = cdn.client.get(spelling)
            assert answer.status_code in {403, 404}, spelling
            assert "secret" not in answer.text
    finally:
        shop.bitrix.run("rm", "-rf", shop.mounted(directory))


@pytest.mark.both
def test_no_clients_headers_decide_what_another_one_gets(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    written = shop.site.get(original)
    cdn.as_webp(original)
    purge(cdn, original)
    poison = [
        {"Accept": "image/webp;q=0, image/avif;q=0"},
        {"Accept": "x" * 4000},
        {"Accept": BROWSER, "Host": "evil.example"},
        {"Accept": BROWSER, "X-Forwarded-Host": "evil.example", "X-Original-URL": "/etc/passwd"},
        {"Accept": OLD_BROWSER, "Range": "bytes=0-9"},
        {"Accept": BROWSER, "Range": "bytes=0-9"},
        {"Accept": BROWSER, "If-None-Match": '"x"', "If-Modified-Since": "Sun, 01 Jan 2040 00:00:00 GMT"},
        {"Accept": BROWSER, "Cookie": "a=b", "Authorization": "Basic eDp5"},
        {"Accept": OLD_BROWSER, "X-Stale-If-Error": "yes", "X-Cache": "hit", "X-Image-Variant": "webp"},
        {"Accept": BROWSER, "X-HTTP-Method-Override": "PURGE"},
    ]
    for headers in poison:
        cdn.client.get(original.url_path, headers=headers)
        with_webp, without = cdn.get(original), cdn.get(original, accept=OLD_BROWSER)
        assert (with_webp.status_code, with_webp.headers["Content-Type"]) == (200, "image/webp"), headers
        assert len(with_webp.content) == int(with_webp.headers["Content-Length"])
        assert without.content == written, headers


def test_ranges_conditions_and_head_work_through_the_cache(shop: Shop, cdn: Cdn) -> None:
    original = shop.upload()
    whole = cdn.as_webp(original)
    part = cdn.client.get(original.url_path, headers={"Accept": BROWSER, "Range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, whole.content[4:12])
    again = cdn.client.get(
        original.url_path, headers={"Accept": BROWSER, "If-None-Match": whole.headers["ETag"]}
    )
    assert (again.status_code, again.headers["Vary"]) == (304, "Accept")
    head = cdn.client.head(original.url_path, headers={"Accept": BROWSER})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


@pytest.fixture
def cut_off(lab: state.Lab, bitrix: Remote) -> Iterator[None]:
    """The site's host without a network, as if its cable were pulled: no answer, not even a refusal."""

    def run(command: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "dev.lab", command, "bitrix"], cwd=ROOT, check=True, capture_output=True
        )

    bitrix.disconnect()
    run("partition")
    try:
        yield
    finally:
        run("heal")
        bitrix.disconnect()


@pytest.mark.both
def test_the_sites_host_away_what_is_known_is_served_and_the_rest_refused_soon(
    shop: Shop, cdn: Cdn, request: pytest.FixtureRequest, figure: Figure
) -> None:
    resized = [shop.site.resize(shop.upload(), 300, 300) for _ in range(4)]
    cached = [shop.upload(600, 400) for _ in range(4)]
    unknown = [shop.upload(600, 400) for _ in range(4)]
    for picture in (*resized, *cached):
        cdn.as_webp(picture)
    # The same load as later, all of it known.
    before = timings(cdn, [picture.url_path for picture in (*resized, *cached, *cached)], 200)

    request.getfixturevalue("cut_off")
    # 200 clients from the first moment on, while the mount hangs and this isn't known yet.
    paths = [picture.url_path for picture in (*resized, *cached, *unknown)]
    during = timings(cdn, paths, 200)

    for picture in resized:
        assert {status for status, _, _ in during[picture.url_path]} == {200}
    for picture in cached:
        answers = during[picture.url_path]
        assert {status for status, _, _ in answers} == {200}
        assert {kind for _, kind, _ in answers} == {"image/webp"}
    slowest = 0.0
    for picture in unknown:
        for status, _, seconds in during[picture.url_path]:
            assert status == 503
            slowest = max(slowest, seconds)
    assert slowest <= 5.0
    local = [picture.url_path for picture in resized]
    quiet, loud = p99(before, local), p99(during, local)
    figure(
        f"site's host away, 200 clients: resize_cache p99 {loud * 1000:.0f} ms "
        f"(before: {quiet * 1000:.0f} ms, ratio {loud / quiet:.2f}); slowest refusal {slowest:.1f} s"
    )


@pytest.mark.both
def test_and_afterwards_all_is_as_before(shop: Shop, cdn: Cdn, bitrix: Remote) -> None:
    wait_until(
        "both mounts",
        lambda: (
            bitrix.run("mountpoint", "-q", cdn.settings.site.resize_cache, check=False) == ""
            and cdn.remote.run(
                "sh", "-c", f"stat -f {cdn.settings.cdn.originals} >/dev/null && echo up", check=False
            )
        ),
        timeout=60,
    )
    original = shop.upload()
    wait_until("an original", lambda: cdn.get(original).status_code, lambda status: status == 200, timeout=60)
    cdn.as_webp(original, timeout=60)
    cdn.as_webp(shop.resized())


Timings = dict[str, list[tuple[int, str, float]]]


def timings(cdn: Cdn, paths: list[str], clients: int) -> Timings:
    """Has each of so many clients ask for four of the pictures: status, type and seconds of each answer."""
    answers: Timings = {path: [] for path in paths}

    def ask(number: int) -> None:
        # Not httpx: 200 of its clients are more work for this machine than for the host.
        connection = http.client.HTTPConnection(cdn.remote.address, cdn.settings.nginx.http_port, timeout=30)
        for turn in range(4):
            path = paths[(number + turn * 7) % len(paths)]
            started = time.monotonic()
            connection.request("GET", path, headers={"Accept": BROWSER})
            answer = connection.getresponse()
            answer.read()
            seconds = time.monotonic() - started
            answers[path].append((answer.status, answer.headers.get("Content-Type", ""), seconds))
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    return answers


def p99(answers: Timings, paths: list[str]) -> float:
    """The 99th percentile of the seconds that these pictures took."""
    seconds = [seconds for path in paths for _, _, seconds in answers[path]]
    return statistics.quantiles(seconds, n=100)[98]
