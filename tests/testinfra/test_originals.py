"""Role originals: the second nginx, which alone reads the mount."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.originals import ACCOUNT
from tests.kit.inventory import gixy
from tests.kit.support import wait_until

UNIT = "nginx-originals.service"
CONFIGURATION = "/etc/nginx-originals/nginx.conf"

_ASK = """
import http.client, json, sys
host, port, method, path, headers = json.loads(sys.argv[1])
connection = http.client.HTTPConnection(host, port, timeout=10)
connection.request(method, path, headers=headers)
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode("latin-1")]))
"""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: str


class Bulkhead:
    """The second nginx, asked from its own host, and a directory of originals of this test's own."""

    def __init__(self, cdn: Host, bitrix: Host, settings: Settings) -> None:
        self.cdn, self.bitrix, self.settings = cdn, bitrix, settings
        self.name = f"testinfra-{uuid4().hex[:8]}"
        self.directory = f"{settings.site.upload}/{self.name}"
        self.variants = f"{settings.cdn.variants}/upload/{self.name}"

    def get(self, path: str, method: str = "GET", accept: str = "*/*") -> Answer:
        question = json.dumps(["127.0.0.1", self.settings.originals.port, method, path, {"Accept": accept}])
        return Answer(*json.loads(self.cdn.check_output("python3 -c %s %s", _ASK, question)))

    def write(self, name: str, content: str) -> str:
        """Writes an original on the site's host; its path for the visitor."""
        place = f"{self.directory}/{name}"
        self.bitrix.check_output(
            "runuser -u %s -- sh -c %s",
            self.settings.site.user,
            f"umask 022 && mkdir -p \"$(dirname '{place}')\" && printf %s '{content}' > '{place}'",
        )
        return f"/upload/{self.name}/{name}"

    def write_variant(self, name: str, content: str) -> None:
        place = f"{self.variants}/{name}"
        self.cdn.check_output("install -D -m 644 /dev/null %s && printf %%s %s > %s", place, content, place)


@pytest.fixture
def bulkhead(cdn: Host, bitrix: Host, settings: Settings) -> Iterator[Bulkhead]:
    made = Bulkhead(cdn, bitrix, settings)
    yield made
    bitrix.check_output("rm -rf %s", made.directory)
    cdn.check_output("rm -rf %s", made.variants)


@pytest.mark.smoke
def test_it_listens_for_this_host_alone(cdn: Host, settings: Settings) -> None:
    lines = cdn.check_output("ss -Htln sport = :%s", str(settings.originals.port)).splitlines()
    assert {line.split()[3] for line in lines} == {f"127.0.0.1:{settings.originals.port}"}


@pytest.mark.smoke
def test_it_reads_as_an_account_of_its_own(cdn: Host) -> None:
    main = cdn.check_output("systemctl show -p MainPID --value %s", UNIT)
    assert set(cdn.check_output("ps -o user= --ppid %s", main).split()) == {ACCOUNT}


def test_the_original_until_there_is_a_variant(bulkhead: Bulkhead) -> None:
    path = bulkhead.write("photo.jpg", "original")
    first = bulkhead.get(path, accept="image/webp")
    assert (first.status, first.body, first.headers["X-Image-Variant"]) == (200, "original", "pending")
    assert first.headers["Vary"] == "Accept"

    bulkhead.write_variant("photo.jpg.webp", "variant")
    second = bulkhead.get(path, accept="image/webp")
    assert (second.body, second.headers["X-Image-Variant"]) == ("variant", "webp")
    assert second.headers["Content-Type"] == "image/webp"
    third = bulkhead.get(path)
    assert (third.body, third.headers["X-Image-Variant"]) == ("original", "original")


def test_a_verdict_settles_it(bulkhead: Bulkhead) -> None:
    path = bulkhead.write("photo.jpg", "original")
    bulkhead.write_variant("photo.jpg.keep", "")
    assert bulkhead.get(path, accept="image/webp").headers["X-Image-Variant"] == "original"


def test_a_damaged_original_is_kept_as_briefly_as_a_pending_one(bulkhead: Bulkhead) -> None:
    path = bulkhead.write("photo.jpg", "original")
    bulkhead.write_variant("photo.jpg.keep", "")
    bulkhead.cdn.check_output("chmod 744 %s", f"{bulkhead.variants}/photo.jpg.keep")
    answer = bulkhead.get(path, accept="image/webp")
    assert (answer.body, answer.headers["X-Image-Variant"]) == ("original", "pending")


def test_a_name_without_room_for_a_suffix_is_never_pending(bulkhead: Bulkhead) -> None:
    name = "\u0444" * 124 + ".jpg"
    answer = bulkhead.get(quote(bulkhead.write(name, "original")), accept="image/webp")
    assert (answer.status, answer.body, answer.headers["X-Image-Variant"]) == (200, "original", "original")


def test_a_change_on_the_site_shows_at_once(bulkhead: Bulkhead) -> None:
    path = bulkhead.write("photo.png", "one")
    assert bulkhead.get(path).body == "one"
    bulkhead.write("photo.png", "another")
    assert bulkhead.get(path).body == "another"


@pytest.mark.parametrize(
    "name", ["import.xml", "a.php", ".hidden.jpg", "a.jpg.txt", "a", ".git/a.jpg", "a.jpg.keep"]
)
def test_only_pictures(bulkhead: Bulkhead, name: str) -> None:
    path = bulkhead.write(name, "secret")
    for address in (path, "/original" + path):
        answer = bulkhead.get(address)
        assert answer.status == 404
        assert "secret" not in answer.body


@pytest.mark.parametrize(
    "directory", ["1c_exchange", "1c_catalog", "tmp", "support/not_image", "resize_cache"]
)
def test_directories_that_are_nobodys_business(
    bulkhead: Bulkhead, bitrix: Host, settings: Settings, directory: str
) -> None:
    name = f"{bulkhead.name}.jpg"
    place = f"{settings.site.upload}/{directory}"
    bitrix.check_output("mkdir -p %s && echo secret > %s", place, f"{place}/{name}")
    try:
        for prefix in ("", "/original"):
            assert bulkhead.get(f"{prefix}/upload/{directory}/{name}").status == 404
    finally:
        bitrix.check_output("rm %s", f"{place}/{name}")


@pytest.mark.parametrize("directory", ["1c_exchange", "1c_catalog", "tmp", "support/not_image"])
def test_private_directories_do_not_leave_the_sites_host(
    bulkhead: Bulkhead, bitrix: Host, cdn: Host, settings: Settings, directory: str
) -> None:
    """Not even for root there, nor once Bitrix has removed and made them again."""
    user, place = settings.site.user, f"{settings.site.upload}/{directory}"
    name = f"{bulkhead.name}.xml"
    bitrix.run("runuser -u %s -- rm -rf %s", user, place)
    bitrix.check_output(
        "runuser -u %s -- sh -c %s", user, f"mkdir -p {place} && echo secret > {place}/{name}"
    )
    try:
        there = cdn.run("cat %s", f"{settings.cdn.originals}/{directory}/{name}")
        assert there.rc != 0
        assert "secret" not in there.stdout
    finally:
        bitrix.check_output("rm %s", f"{place}/{name}")


@pytest.mark.parametrize("account", ["nobody", "www-data"])
def test_nobody_but_its_reader_reads_the_mount(
    bulkhead: Bulkhead, cdn: Host, settings: Settings, account: str
) -> None:
    place = f"{settings.cdn.originals}{bulkhead.write('photo.jpg', 'original').removeprefix('/upload')}"
    assert cdn.run("runuser -u %s -- cat %s", ACCOUNT, place).stdout == "original"
    for command in ("cat %s", "ls -l %s"):
        assert cdn.run(f"runuser -u {account} -- {command}", place).rc != 0


def test_symbolic_links_are_not_followed(bulkhead: Bulkhead, bitrix: Host) -> None:
    bulkhead.write("real.jpg", "picture")
    # On this side it would lead to this host's own files.
    bitrix.check_output("ln -s /etc/passwd %s", f"{bulkhead.directory}/link.jpg")
    bitrix.check_output("ln -s /etc %s", f"{bulkhead.directory}/etc")
    for name in ("link.jpg", "etc/passwd.jpg"):
        answer = bulkhead.get(f"/upload/{bulkhead.name}/{name}")
        assert answer.status in {403, 404}
        assert "root:" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PURGE"])
def test_nothing_but_reading(bulkhead: Bulkhead, method: str) -> None:
    assert bulkhead.get(bulkhead.write("photo.jpg", "x"), method).status == 405


def test_the_site_cannot_show_what_proves_the_mount(bitrix: Host, settings: Settings) -> None:
    sentinel = f"{settings.site.upload}/{settings.sftp.sentinel}"
    assert bitrix.file(sentinel).size == 0
    for command in ("cat %s", "rm -f %s", "mv %s /tmp"):
        assert bitrix.run(f"runuser -u {settings.site.user} -- {command}", sentinel).rc != 0
    assert bitrix.file(sentinel).size == 0


def test_what_is_missing_is_404_only_while_the_mount_is_proven(
    bulkhead: Bulkhead, bitrix: Host, settings: Settings
) -> None:
    missing = f"/upload/{bulkhead.name}/missing.jpg"
    assert bulkhead.get(missing).status == 404
    assert bulkhead.get("/health").status == 200
    sentinel = f"{settings.site.upload}/{settings.sftp.sentinel}"
    export = f"cdn-host export {settings.site.upload} {settings.sftp.sentinel}"
    bitrix.check_output(f"{export} release tmp && mv %s %s.away", sentinel, sentinel)
    try:
        assert bulkhead.get(missing).status == 503
        assert bulkhead.get("/original" + missing).status == 503
        assert bulkhead.get("/health").status == 503
    finally:
        bitrix.check_output("mv %s.away %s", sentinel, sentinel)
        bitrix.check_output("systemctl restart originals-export")
    assert bulkhead.get("/health").status == 200


def test_without_the_mount_it_refuses_and_afterwards_reads_again(bulkhead: Bulkhead, cdn: Host) -> None:
    path = bulkhead.write("photo.jpg", "original")
    assert bulkhead.get(path).body == "original"
    cdn.check_output("systemctl stop mount-guard@originals.service")
    try:
        assert bulkhead.get(path).status == 503
    finally:
        cdn.check_output("systemctl start mount-guard@originals.service")
    wait_until("the original again", lambda: bulkhead.get(path), lambda answer: answer.body == "original")


def test_gixy_finds_no_weakness(cdn: Host, tmp_path: Path) -> None:
    # Nothing of the mount is cached on purpose: a file of the site's may change at any moment.
    assert gixy(cdn, CONFIGURATION, tmp_path) == {"try_files_is_evil_too"}
