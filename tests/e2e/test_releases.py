"""Releases of the daemon, on the running CDN host: new ones, broken ones, and the ways back."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bitrix_cdn.engine.journal import undo_script
from dev.lab import state
from host_agent.journal import JOURNAL
from tests.kit.deployment import ROOT, Run, pyinfra, refusal
from tests.kit.hosts import Cdn, Shop
from tests.kit.load import RequestError, Visitor, visiting
from tests.kit.support import Figure, Remote, wait_until

HOME = "/opt/webp-converter"
CONFIG = "/etc/webp-converter/config.toml"

# The converter's role alone, as deploy.py has it.
CONVERTER = """\
from pyinfra import host

from roles.converter import converter
from roles.preflight import settings_of

converter(settings=settings_of(host))
"""


class Sources:
    """A copy of the project's sources, for another release than the one that the lab was deployed from."""

    def __init__(self, place: Path, lab: state.Lab) -> None:
        self.root = shutil.copytree(
            ROOT, place, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "*.egg-info")
        )
        self._lab = lab.name
        (self.root / "only.py").write_text(CONVERTER)

    def replace(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1))

    def run(self, *arguments: str, operations: str = "only.py") -> Run:
        return pyinfra(
            *("-y", "--limit", "cdn", *arguments), operations=operations, lab=self._lab, root=self.root
        )


@pytest.fixture(scope="module")
def own(lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """The sources as they are."""
    return Sources(tmp_path_factory.mktemp("own") / "sources", lab)


@pytest.fixture(scope="module")
def newer(lab: state.Lab, tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """A release with another version, that no other test has, which keeps only one before it."""
    sources = Sources(tmp_path_factory.mktemp("newer") / "sources", lab)
    sources.replace("converter_app/pyproject.toml", 'version = "', 'version = "99.')
    sources.replace("inventories/lab.py", '"lab_site"', '"releases": {"keep": 2}, "lab_site"')
    return sources


BROKEN = {
    # How the daemon is broken, and what is said of it.
    "ends at its start": (
        ("cli.py", "    log.configure(settings.log.level)\n", '    sys.exit("broken on purpose")\n'),
        "it does not start (exit-code)",
    ),
    "never gets healthy": (
        ("work/health.py", "works = not self._stopping.is_set() and", "works = not parts and"),
        "it says that it can't work",
    ),
}


@pytest.fixture(params=["ends at its start", pytest.param("never gets healthy", marks=pytest.mark.long)])
def broken(request: pytest.FixtureRequest, lab: state.Lab, tmp_path: Path) -> tuple[Sources, str]:
    """A release with a fault and another configuration, and what is said of it."""
    (module, old, new), said = BROKEN[request.param]
    sources = Sources(tmp_path / "sources", lab)
    sources.replace(f"converter_app/src/webp_converter/{module}", old, new)
    sources.replace("inventories/lab.py", '"damaged_rest_s": 10.0', '"damaged_rest_s": 11.0')
    sources.replace("inventories/lab.py", '"lab_site"', '"releases": {"healthy_within_s": 6}, "lab_site"')
    return sources, said


@pytest.fixture(scope="module")
def release(cdn: Cdn, own: Sources) -> Iterator[str]:
    """Id of the lab's own release; at the end it is current again, and alone."""
    id = current(cdn)
    remove(cdn, installed(cdn) - {id})
    yield id
    if current(cdn) != id:
        run = own.run()
        assert run.status == 0, run.output[-3000:]
    assert current(cdn) == id
    cdn.remote.run(
        "sh",
        "-c",
        f"cd {HOME}; echo {id} > history; cd releases; for r in *; do [ $r = {id} ] || rm -rf $r; done",
    )


@pytest.fixture
def journal(cdn: Cdn) -> Iterator[None]:
    """An open journal; what a test that failed leaves is undone."""
    cdn.remote.run("cdn-host", "journal", "begin")
    yield
    cdn.remote.run("sh", "-c", undo_script(), timeout=180)


def remove(cdn: Cdn, releases: set[str]) -> None:
    cdn.remote.run("rm", "-rf", *(f"{HOME}/releases/{id}" for id in releases))


def current(cdn: Cdn) -> str:
    return cdn.remote.run("cat", f"{HOME}/current/release").strip()


def history(cdn: Cdn) -> list[str]:
    return cdn.remote.run("sh", "-c", f"cat {HOME}/history || true").split()


def installed(cdn: Cdn) -> set[str]:
    return set(cdn.remote.run("ls", f"{HOME}/releases").split())


def running(cdn: Cdn) -> str:
    """The release that the daemon which answers calls its own."""
    url = f"http://127.0.0.1:{cdn.settings.converter.api.port}/api/status"
    asked = "import json, urllib.request; result = json.load(urllib.request.urlopen(arguments[0], timeout=5))"
    release: str = cdn.remote.python(asked, url)["release"]
    return release


def roll_back(lab: state.Lab, *data: str) -> Run:
    """What `bitrix-cdn release back` runs."""
    given = [word for value in data for word in ("--data", value)]
    return pyinfra("-y", "--limit", "cdn", *given, operations="rollback.py", lab=lab.name)


@contextmanager
def visitors(cdn: Cdn, shop: Shop) -> Iterator[None]:
    """Pictures are asked for, and new ones made, all the while: each is answered, and becomes WebP."""
    served = shop.resized()
    cdn.as_webp(served)
    made = []

    def ask() -> None:
        try:
            answer = cdn.get(served)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            # A reload ends the connection that was kept: browsers ask again (RFC 9112, 9.3.1).
            answer = cdn.get(served)
        if (answer.status_code, answer.headers["Content-Type"]) != (200, "image/webp"):
            raise RequestError(f"{answer.status_code} {answer.headers['Content-Type']}")

    with visiting([Visitor("a picture that is there", ask, pause_s=0.02)]) as seen:
        made.append(shop.resized())
        yield
        made.append(shop.resized())
    assert len(seen[0].requests) > 50
    assert seen[0].failures == []
    for picture in made:
        cdn.as_webp(picture)


def state_of(remote: Remote) -> dict[str, str]:
    """Every file and link that a deploy may change: its mode, owner, time, and content."""
    listed = remote.run(
        "sh",
        "-c",
        "cd /; { find etc usr/local var/lib/bitrix-cdn opt/webp-converter -path '*/releases/*' -prune "
        f"-o -path {str(JOURNAL)[1:]}.lock -o -name lock -o '(' -type f -o -type l ')' -print0 | "
        "xargs -0 stat -c '%n %A %U:%G %Y %N' -- ; "
        "find etc usr/local var/lib/bitrix-cdn opt/webp-converter -path '*/releases/*' -prune -o "
        f"-path {str(JOURNAL)[1:]}.lock -o -type f -print0 | xargs -0 sha256sum -- | "
        "sed 's,^\\([^ ]*\\)  \\(.*\\),\\2 \\1,'; "
        "ls -d opt/webp-converter/releases/* ; }",
        timeout=120,
    )
    found: dict[str, str] = {}
    for line in listed.splitlines():
        path, _, rest = line.partition(" ")
        found[path] = f"{found.get(path, '')} {rest}"
    return found


def test_a_release_that_does_not_get_healthy_is_taken_back_by_the_deploy(
    cdn: Cdn, shop: Shop, release: str, own: Sources, broken: tuple[Sources, str], journal: None
) -> None:
    sources, said = broken
    before = cdn.remote.run("sh", "-c", f"stat -c '%a %U %Y' {CONFIG}; cat {CONFIG}")
    with visitors(cdn, shop):
        run = sources.run()
    refusal(run, "does not get healthy", said, f"release {release} runs again, with its configuration")
    assert cdn.remote.run("sh", "-c", f"stat -c '%a %U %Y' {CONFIG}; cat {CONFIG}") == before
    assert (current(cdn), running(cdn)) == (release, release)
    assert cdn.daemon_ready()
    # It is not taken for done,
    if "start" in said:
        refusal(sources.run(), "does not get healthy", said)
    # and when a rollout undoes all of it, not even its directory is left.
    assert installed(cdn) > {release}
    cdn.remote.run("sh", "-c", undo_script())
    assert (installed(cdn), running(cdn)) == ({release}, release)
    if "start" in said:
        run = own.run("--json")
        assert (run.status, run.changed()) == (0, {}), run.output


@pytest.mark.both
def test_a_new_release_is_gone_back_from_in_seconds(
    cdn: Cdn, shop: Shop, release: str, newer: Sources, lab: state.Lab, figure: Figure
) -> None:
    # Older ones, as if they had been current before; one whose installation wasn't finished.
    cdn.remote.run(
        "sh",
        "-c",
        f"cd {HOME}/releases; for old in 0ld1 0ld2; do "
        f"cp -al {release} $old; rm $old/release; echo $old > $old/release; done; "
        f"mkdir unfinished; printf '%s\\n' 0ld1 0ld2 {release} > ../history",
    )
    with visitors(cdn, shop):
        run = newer.run("--json")
        assert run.status == 0, run.output[-3000:]
        new = current(cdn)
        assert new != release
        assert running(cdn) == new
        assert installed(cdn) == {release, new}
        assert history(cdn)[-2:] == [release, new]
        assert newer.run("--json").changed() == {}

        started = time.monotonic()
        back = roll_back(lab)
        seconds = time.monotonic() - started
    assert back.status == 0, back.output
    assert f"release {release} runs in place of {new}" in back.output
    assert "the next deploy installs" in back.output
    assert (current(cdn), running(cdn), history(cdn)[-1]) == (release, release, release)
    figure(f"{cdn.remote.name}: back to the release before in {seconds:.1f} s (figure: seconds)")
    assert seconds < 60

    refusal(roll_back(lab), f"cdn: no release was current before {release}; there is {new}")
    refusal(roll_back(lab, "release=nonesuch"), f"cdn: no release nonesuch; there is {new}")
    assert running(cdn) == release


def test_a_release_that_refuses_the_configuration_is_not_gone_back_to(
    cdn: Cdn, release: str, newer: Sources, lab: state.Lab
) -> None:
    [other] = installed(cdn) - {release}
    cdn.remote.run("sh", "-c", f"cp -p {CONFIG} {CONFIG}.kept; echo '[unheard_of]' >> {CONFIG}")
    try:
        run = roll_back(lab, f"release={other[:6]}")
    finally:
        cdn.remote.run("mv", f"{CONFIG}.kept", CONFIG)
    refusal(run, f"release {other} refuses the configuration that is deployed", "unheard_of")
    assert (current(cdn), running(cdn)) == (release, release)


def test_a_deploy_with_a_journal_is_undone_to_the_last_byte(
    cdn: Cdn, shop: Shop, release: str, newer: Sources, lab: state.Lab, journal: None
) -> None:
    remote = cdn.remote
    removed = "/etc/nginx/conf.d/removed.conf"
    remote.put(removed, b"# harmless\n")
    newer.replace("templates/nginx/etc/nginx/conf.d/types.conf.j2", "\n", "\n# changed\n")
    newer.replace("templates/varnish/etc/varnish/default.vcl.j2", "\n", "\n# changed\n")
    newer.replace("inventories/lab.py", '"damaged_rest_s": 10.0', '"damaged_rest_s": 11.0')
    newer.replace(
        "templates/originals/etc/systemd/system/nginx-originals.service.j2", "[Unit]", "[Unit]\n# changed"
    )
    (newer.root / "several.py").write_text(
        CONVERTER + "from bitrix_cdn.engine.files import File, tree\n"
        "from bitrix_cdn.engine.services import running\n"
        "from roles.nginx import nginx\n"
        "from roles.originals import originals\n"
        "from roles.varnish import varnish\n"
        "settings = settings_of(host)\n"
        "nginx(settings=settings)\n"
        "originals(settings=settings)\n"
        "varnish(settings=settings)\n"
        f"tree(name='Change', root='/etc', absent=['{removed}'], files=[\n"
        "    File('/etc/systemd/system/new-one.service', '[Service]\\nExecStart=/bin/sleep 1000\\n'\n"
        "        '[Install]\\nWantedBy=multi-user.target\\n'),\n"
        "    File('/etc/new/deep/file', 'new\\n', mode='600'),\n"
        "])\n"
        "running(name='Run', unit='new-one.service', start=['/etc/systemd/system/new-one.service'])\n"
    )

    def processes() -> dict[str, str]:
        units = ("nginx", "varnish", "nginx-originals", "webp-converter", "redis-server@cache")
        show = ("systemctl", "show", "-p", "MainPID", "--value")
        return {unit: remote.run(*show, unit).strip() for unit in units}

    try:
        before, ran = state_of(remote), processes()
        assert "etc/nginx/conf.d/removed.conf" in before
        with visitors(cdn, shop):
            run = newer.run(operations="several.py")
            assert run.status == 0, run.output[-3000:]
            assert running(cdn) != release
            changed = state_of(remote)
            assert len({path for path in before | changed if before.get(path) != changed.get(path)}) > 10
            said = remote.run("sh", "-c", undo_script(), timeout=180)
        assert f"restart {'webp-converter.service'}" in said
        assert "reload-or-restart nginx.service" in said
        after = state_of(remote)
        assert {
            path: (before.get(path), after.get(path))
            for path in before | after
            if before.get(path) != after.get(path)
        } == {}
        now = processes()
        # A reload is undone by a reload: nginx and Varnish, which visitors meet, were never stopped.
        assert (now["nginx"], now["varnish"], now["redis-server@cache"]) == (
            ran["nginx"],
            ran["varnish"],
            ran["redis-server@cache"],
        )
        assert now["nginx-originals"] != ran["nginx-originals"]
        assert remote.run("systemctl", "is-active", "new-one.service", check=False).strip() == "inactive"
        wait_until("a healthy daemon", cdn.daemon_ready)
        assert running(cdn) == release
    finally:
        remote.run("rm", "-f", removed)
    # What is installed has the same.
    assert json.loads(remote.run("cdn-host", "journal", "undo")) == {"open": False, "was_open": False}
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}
