"""What the shop had before the upgrade is still there, and was not made again.

Runs in `molecule verify -s upgrade` only, where MOLECULE_EPHEMERAL_DIRECTORY has what was there before.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.lab import state
from dev.lab.site import Picture, Site
from tests.kit.support import Remote
from tests.upgrade import pictures
from tests.upgrade.pictures import BROWSER, Variant


@pytest.fixture(scope="module")
def before() -> tuple[list[Variant], Picture]:
    """The pictures that the previous release left."""
    return pictures.load(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pictures.json")


@pytest.fixture(scope="module")
def lab() -> state.Lab:
    return state.load()


@pytest.fixture(scope="module")
def cdn(lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    remote = Remote(
        "cdn",
        lab.host("cdn").address,
        key=lab.ssh_key,
        known_hosts=lab.known_hosts,
        sockets=tmp_path_factory.mktemp("ssh"),
    )
    yield remote
    remote.disconnect()


def test_each_picture_is_served_as_the_webp_that_it_was(
    cdn: Remote, before: tuple[list[Variant], Picture]
) -> None:
    variants, _ = before
    assert variants
    with httpx.Client(base_url=f"http://{cdn.address}", headers={"Accept": BROWSER}, timeout=10) as client:
        for variant in variants:
            answer = client.get(variant.url_path)
            assert answer.headers.get("Content-Type") == "image/webp", variant.url_path
            assert hashlib.sha256(answer.content).hexdigest() == variant.sha256, variant.url_path


def test_no_picture_was_converted_again(cdn: Remote, before: tuple[list[Variant], Picture]) -> None:
    variants, _ = before
    assert pictures.births(cdn, [variant.file for variant in variants]) == {
        variant.file: (variant.inode, variant.born) for variant in variants
    }


def test_a_new_picture_becomes_webp(
    cdn: Remote, lab: state.Lab, before: tuple[list[Variant], Picture]
) -> None:
    _, original = before
    with (
        Site(f"http://{lab.host('bitrix').address}") as site,
        httpx.Client(base_url=f"http://{cdn.address}", headers={"Accept": BROWSER}, timeout=10) as client,
    ):
        assert pictures.as_webp(client, site.resize(original, 59, 449))
