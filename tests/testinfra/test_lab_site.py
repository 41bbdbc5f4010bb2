"""Role lab_site: the site writes pictures as Bitrix does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import httpx
import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from dev.lab.site import EXACT, PROPORTIONAL, Picture, Site, SiteError
from tests.kit.inventory import Inventory
from tests.kit.pictures import opened, photo


@pytest.fixture
def address(inventory: Inventory, settings: Settings) -> str:
    if not settings.lab_site.enabled:
        pytest.skip("the lab's site isn't installed here")
    data = inventory.data("bitrix")
    return f"http://{data.get('ssh_hostname', data['address'])}"


@pytest.fixture
def site(address: str) -> Iterator[Site]:
    with Site(address) as site:
        yield site


@pytest.fixture
def original(site: Site) -> Iterator[Picture]:
    token = uuid4().hex[:8]
    picture = site.upload(f"testinfra-{token}.jpg", photo(token, 800, 600))
    yield picture
    # One test deletes it itself.
    with suppress(SiteError):
        site.delete(picture)


@pytest.mark.parametrize(
    ("width", "height", "how", "size"),
    [
        (450, 450, PROPORTIONAL, (450, 338)),
        (120, 120, EXACT, (120, 120)),
        (400, 100, EXACT, (400, 100)),
        # Of a picture that is small enough the site shows the original itself.
        (800, 600, PROPORTIONAL, (800, 600)),
    ],
)
def test_a_picture_is_resized_as_asked(
    site: Site, original: Picture, width: int, height: int, how: int, size: tuple[int, int]
) -> None:
    resized = site.resize(original, width, height, how)

    assert opened(site.get(resized)).size == (resized.width, resized.height) == size
    assert resized.made == (size != (800, 600))
    directory, name = original.path.removeprefix("/upload/").rsplit("/", 1)
    expected = f"/upload/resize_cache/{directory}/{width}_{height}_{how}/{name}"
    assert resized.path == (expected if resized.made else original.path)


def test_filters_have_a_directory_of_their_own(site: Site, original: Picture) -> None:
    plain = site.resize(original, 100, 100)
    sharpened = site.resize(original, 100, 100, filters=[{"name": "sharpen", "precision": 5}])

    directory = sharpened.path.rsplit("/", 2)[1]
    assert directory.startswith("100_100_1")
    assert len(directory) == len("100_100_1") + 32
    assert site.get(plain) != site.get(sharpened)


def test_what_is_there_is_taken_as_it_is(site: Site, original: Picture) -> None:
    resized = site.resize(original, 200, 200)
    site.rewrite(resized, b"not what it was")

    again = site.resize(original, 200, 200)

    assert not again.made
    assert site.get(again) == b"not what it was"


def test_files_are_the_sites_and_readable_by_all(
    site: Site, original: Picture, bitrix: Host, settings: Settings
) -> None:
    resized = site.resize(original, 100, 100)
    for path, mode in (
        (original.path, "644"),
        (original.path.rsplit("/", 1)[0], "755"),
        (resized.path, "644"),
        (resized.path.rsplit("/", 1)[0], "755"),
    ):
        stat = bitrix.check_output("stat -c '%%U:%%G %%a' %s", settings.site.root + path)
        assert stat == f"{settings.site.user}:{settings.site.group} {mode}", path


def test_deleting_removes_all_that_was_made(
    site: Site, original: Picture, bitrix: Host, settings: Settings
) -> None:
    name = original.path.rsplit("/", 1)[1]
    made = [site.resize(original, 300, 300), site.resize(original, 100, 100, EXACT)]

    deleted = site.delete(original)

    assert set(deleted.removed) == {original.path, *(picture.path for picture in made)}
    assert bitrix.check_output("find %s -name %s", settings.site.upload, name) == ""
    with pytest.raises(SiteError, match="404"):
        site.resize(original, 50, 50)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("page.jpg", b"<!doctype html><p>no picture</p>", "415"),
        ("empty.png", b"", "415"),
        ("shell.php", photo("shell", 60, 60), "415"),
        ("photo.jpg.php", photo("shell", 60, 60), "415"),
        ("photo.png", photo("jpeg named png", 60, 60), "415"),
        ("...", photo("dots", 60, 60), "400"),
    ],
)
def test_only_pictures_are_taken(site: Site, name: str, content: bytes, why: str) -> None:
    with pytest.raises(SiteError, match=f": {why}: "):
        site.upload(name, content)


@pytest.mark.parametrize(
    "path",
    [
        "/upload/iblock/../../local/config.php",
        "/upload/iblock/abc/../../../index.php",
        "/upload/iblock/abc/..",
        "/etc/passwd",
        "",
        "/upload/iblock/ABC/x.jpg",
        "/upload/iblock/abc/x.jpg\0.png",
    ],
)
def test_paths_out_of_the_originals_are_refused(site: Site, address: str, path: str) -> None:
    answers = [
        httpx.get(f"{address}/resize.php", params={"src": path, "width": 10, "height": 10}),
        httpx.post(f"{address}/delete.php", data={"src": path}),
        httpx.post(f"{address}/rewrite.php", data={"path": path}, files={"file": b"x"}),
    ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]


def test_pages_say_which_method_they_take(address: str) -> None:
    answer = httpx.get(f"{address}/upload.php")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


def test_the_page_shows_the_pictures_from_the_cdn_host(
    site: Site, original: Picture, address: str, settings: Settings
) -> None:
    page = httpx.get(address)
    assert page.status_code == 200
    name = original.path.rsplit("/", 1)[1]
    assert f'src="{settings.lab_site.cdn_url}/upload/resize_cache/' in page.text
    assert f"/450_450_1/{name}" in page.text


def test_neither_uploads_nor_the_library_are_run(
    site: Site, original: Picture, address: str, bitrix: Host, settings: Settings
) -> None:
    directory = original.path.rsplit("/", 1)[0]
    script = f"{directory}/run-me.php"
    bitrix.check_output("sh -c %s", f"echo '<?php echo 6*7;' > {settings.site.root}{script}")
    try:
        assert "42" not in httpx.get(address + script).text
        assert httpx.get(f"{address}/local/config.php").status_code == 404
    finally:
        bitrix.check_output("rm %s", settings.site.root + script)
