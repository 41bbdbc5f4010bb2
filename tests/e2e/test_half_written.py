"""Files that are not what they will be: Bitrix's intermediates, and what a dying connection leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.hosts import BROWSER, Cdn, Shop
from tests.kit.lab import lab_command
from tests.kit.pictures import opened
from tests.kit.support import Remote, wait_until


@pytest.mark.both
def test_the_intermediate_of_bitrix_is_never_published_as_the_answer(shop: Shop, cdn: Cdn) -> None:
    rest = cdn.settings.converter.watch.intermediate_rest_s
    original = shop.upload(1200, 900)
    # Where the resized picture will be: asked for with another size first to learn the layout.
    sibling = shop.site.resize(original, 300, 300)
    path = sibling.path.replace("/300_300_1/", "/450_450_1/")
    url = sibling.url_path.replace("/300_300_1/", "/450_450_1/")
    full = shop.site.get(original)
    seen_full = 0

    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(shop.site.resize, original, 450, 450, pause_ms=round(min(rest / 2, 5) * 1000))
        while not request.done():
            answer = cdn.client.get(url, headers={"Accept": BROWSER})
            if answer.status_code == 200:
                assert answer.headers["Content-Type"] == "image/jpeg", "the intermediate was converted"
                assert answer.headers["X-Image-Variant"] == "pending"
                seen_full += answer.content == full
            time.sleep(0.05)
        resized = request.result()

    assert seen_full > 5, "the intermediate was hardly there: nothing was tested"
    assert resized.path == path
    sizes = set()
    deadline = time.monotonic() + rest + 3
    while time.monotonic() < deadline:
        answer = cdn.get(resized)
        if answer.headers["Content-Type"] == "image/webp":
            sizes.add(opened(answer.content).size)
        time.sleep(0.1)
    assert sizes == {(resized.width, resized.height)}


@pytest.fixture
def mount(shop: Shop, bitrix: Remote) -> Iterator[str]:
    """The mount's path on the Bitrix host; back in place after the test."""
    path = shop.settings.site.resize_cache
    yield path
    wait_until("the mount on bitrix to be back", lambda: _mounted(bitrix, path), timeout=90, interval=1)


def _mounted(bitrix: Remote, path: str) -> bool:
    return bitrix.run("findmnt", "-n", "-o", "FSTYPE", "--target", path, check=False).strip() == "fuse.sshfs"


def _kill_sshfs(bitrix: Remote, mount: str) -> None:
    bitrix.run("pkill", "-KILL", "-x", "sshfs")


def _partition(bitrix: Remote, mount: str) -> None:
    lab_command("partition", bitrix.name)
    # Longer than the server waits for a silent client: it ends the session and closes the file.
    time.sleep(20)
    bitrix.disconnect()
    lab_command("heal", bitrix.name)


@pytest.mark.parametrize("cut", [_kill_sshfs, _partition])
def test_a_resized_file_cut_off_by_a_dying_connection_is_found_removed_and_made_again(
    shop: Shop, cdn: Cdn, bitrix: Remote, mount: str, cut: Callable[[Remote, str], None]
) -> None:
    original = shop.upload()
    example = shop.site.resize(original, 300, 300)
    whole = shop.site.get(example)
    path = example.path.replace("/300_300_1/", "/450_450_1/")
    user = shop.settings.site.user
    half = f"/tmp/{shop.token}.half"
    bitrix.put(half, whole[: len(whole) // 2])
    shop.bitrix.run("mkdir", "-p", shop.mounted(path).rsplit("/", 1)[0], user=user)
    # A writer as PHP is one: it has written half of the file and hasn't closed it.
    writer = bitrix.run(
        *("sh", "-c", 'exec >/dev/null 2>&1 </dev/null; setsid sh -c "$1" sh "$2" "$3" & '),
        *("sh", 'exec 3>"$2"; cat "$1" >&3; sleep 300', half, shop.mounted(path)),
        user=user,
    )
    assert writer == ""
    file = cdn.file(path)
    wait_until(
        "half a file on cdn",
        lambda: cdn.status(file).get(file),
        lambda status: status is not None and status.size == len(whole) // 2,
    )

    cut(bitrix, mount)
    ended = time.monotonic()

    # While it is there, no variant of it is served.
    rest = cdn.settings.converter.watch.damaged_rest_s

    def there() -> bool:
        url = example.url_path.replace("/300_300_1/", "/450_450_1/")
        answer = cdn.client.get(url, headers={"Accept": BROWSER})
        assert answer.headers.get("Content-Type") != "image/webp", "half a picture was published"
        return bool(cdn.exist([file]))

    wait_until(
        "the half file to be removed", there, lambda exists: not exists, timeout=rest + 45, interval=0.5
    )
    if cut is _kill_sshfs:
        assert time.monotonic() - ended > rest / 2, "it was removed before its rest time"
    assert not cdn.exist([cdn.variant(path)])

    wait_until("the mount on bitrix to be back", lambda: _mounted(bitrix, mount), timeout=90, interval=1)
    again = shop.site.resize(original, 450, 450)
    assert again.made
    assert again.path == path
    assert opened(cdn.as_webp(again).content).size == (again.width, again.height)
    bitrix.run("rm", "-f", half)
