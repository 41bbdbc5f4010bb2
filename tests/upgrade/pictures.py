"""Pictures that the shop had before the upgrade, and how their variants lay on the disk."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from bitrix_cdn.settings import Settings
from dev.lab import state
from dev.lab.site import EXACT, PROPORTIONAL, Picture, Resized, Site
from tests.kit.load import Visitor, get
from tests.kit.pictures import photo
from tests.kit.support import Remote, wait_until

BROWSER = "image/webp,image/apng,image/*,*/*;q=0.8"
"""`Accept` of a client that takes WebP."""

ORIGINALS = 6
"""Uploaded before the upgrade, each in two sizes."""

SIZES = ((450, 450, PROPORTIONAL), (120, 120, EXACT))

NEW_EVERY_S = 1.0
"""A picture that was never asked for is made through the mount so often while the upgrade runs."""


@dataclass(frozen=True)
class Variant:
    """A picture whose WebP was there before the upgrade."""

    url_path: str
    file: str
    """The variant's path on the CDN host."""

    inode: int
    born: str
    """When the file was made: a conversion publishes a new file, a revalidation only touches the old one."""

    sha256: str
    """Of its bytes, as visitors got them."""


def births(cdn: Remote, files: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Inode and time of birth of files on the CDN host."""
    lines = cdn.run("stat", "--printf", r"%n\t%i\t%w\n", *files).splitlines()
    return {file: (int(inode), born) for file, inode, born in (line.split("\t") for line in lines)}


def fill(site: Site, cdn: Remote, settings: Settings) -> tuple[list[Variant], Picture]:
    """Uploads pictures, has them resized, and waits for the WebP of each, of one original also.

    :return: the variants, and that original.
    """
    originals = [
        site.upload(f"upgrade-{number}.jpg", photo(f"upgrade-{number}", 900, 700))
        for number in range(ORIGINALS)
    ]
    pictures: list[Picture] = [
        site.resize(original, width, height, how) for original in originals for width, height, how in SIZES
    ]
    pictures.append(originals[0])
    with httpx.Client(base_url=f"http://{cdn.address}", headers={"Accept": BROWSER}, timeout=10) as client:
        bodies = {picture.path: as_webp(client, picture) for picture in pictures}
    # What is to be encoded once more in idle time is remembered in memory only: a restart forgets it.
    cdn.run("systemctl", "restart", "webp-converter.service")
    files = {picture.path: variant(picture, settings) for picture in pictures}
    found = births(cdn, list(files.values()))
    return [
        Variant(
            picture.url_path,
            files[picture.path],
            *found[files[picture.path]],
            hashlib.sha256(bodies[picture.path]).hexdigest(),
        )
        for picture in pictures
    ], originals[0]


def as_webp(client: httpx.Client, picture: Picture) -> bytes:
    """What a browser gets of a picture, once that is WebP."""
    answer = wait_until(
        f"{picture.path} as WebP",
        lambda: client.get(picture.url_path),
        lambda answer: answer.headers.get("Content-Type") == "image/webp",
        timeout=60,
    )
    return answer.content


def variant(picture: Picture, settings: Settings) -> str:
    """Where the WebP of a picture lies on the CDN host."""
    root = settings.cdn.root if isinstance(picture, Resized) else settings.cdn.variants
    return f"{root}{picture.path}.webp"


def save(variants: list[Variant], original: Picture, file: Path) -> None:
    file.write_text(
        json.dumps({"variants": [asdict(one) for one in variants], "original": asdict(original)}, indent=1)
    )


def load(file: Path) -> tuple[list[Variant], Picture]:
    """What `save` has written."""
    saved: dict[str, Any] = json.loads(file.read_text())
    return [Variant(**one) for one in saved["variants"]], Picture(**saved["original"])


def visitors(lab: state.Lab, variants: list[Variant], original: Picture) -> list[Visitor]:
    """Those who come while the upgrade runs."""
    shop, cdn = (f"http://{lab.host(name).address}" for name in ("bitrix", "cdn"))
    resized, shown = variants[0], variants[-1]
    with Site(shop) as site:
        as_it_is = hashlib.sha256(site.get(original)).hexdigest()
    sizes = itertools.count(61)

    def resize(width: int) -> str:
        query = {"src": original.path, "width": width, "height": 450, "type": PROPORTIONAL}
        return f"{shop}/resize.php?{urlencode(query)}"

    return [
        Visitor("a picture as WebP", _webp(cdn, resized)),
        Visitor("the same over HTTPS", _webp(cdn.replace("http:", "https:"), resized)),
        Visitor("an original as WebP", _webp(cdn, shown)),
        Visitor(
            "an original as it is", get(f"{cdn}{original.url_path}", accept="image/jpeg", bodies=[as_it_is])
        ),
        Visitor("the shop's page", get(f"{shop}/")),
        Visitor("a picture that the shop has", get(resize(450))),
        Visitor("pictures that the shop makes", lambda: get(resize(next(sizes)))(), NEW_EVERY_S),
    ]


def _webp(base: str, variant: Variant) -> Callable[[], None]:
    return get(f"{base}{variant.url_path}", accept=BROWSER, bodies=[variant.sha256])
