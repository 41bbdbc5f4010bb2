"""What is removed from a host: what the deploy brought, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bitrix_cdn.removal.run import Found, listed, spec
from bitrix_cdn.settings import Settings
from host_agent.json_output import AgentError
from host_agent.removal import host
from host_agent.removal.host import MARK, Removal

GIVEN = {
    "accounts": ["cdn-originals"],
    "packages": ["curl", "sshfs", "varnish"],
    "owned": ["/etc/bitrix-cdn", "/opt/converter", "/usr/local/bin/converter"],
    "empty": ["/srv/originals/upload", "/srv/originals"],
    "data": ["/var/www/cdn"],
}


class Machine:
    """The root of a host, and what is run there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(command).replace(str(self.root), ""))
        said = ""
        if command[:2] == ("dpkg-query", "-S"):
            packaged = (f"{self.root}/etc/nginx/nginx.conf", f"{self.root}/etc/ssh")
            said = "".join(f"nginx: {path}\n" for path in command[2:] if path in packaged)
        elif command[0] == "dpkg-query":
            said = "installed curl\ninstalled sshfs\nconfig-files varnish\n"
        return subprocess.CompletedProcess(command, 0, said, "")

    def write(self, path: str, text: str) -> Path:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def tree(self) -> set[str]:
        return {f"/{path.relative_to(self.root)}" for path in self.root.rglob("*") if not path.is_dir()}


def ours(name: str = "x") -> str:
    return f"# {MARK.decode()}role/{name}: edit that, not this.\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setattr(host, "_run", found.run)
    found.write(
        "/etc/passwd", "root:x:0:0::/root:/bin/sh\ncdn-originals:x:9:9::/:/bin/false\nwww:x:1:1::/:/\n"
    )
    found.write("/etc/ssh/sshd_config.d/10-bitrix-cdn.conf", ours())
    found.write("/etc/systemd/system/originals-export.service", ours())
    found.write("/etc/systemd/system/mount-guard@.service", ours())
    found.write("/etc/systemd/system/shop.service", "[Unit]\n")
    found.write("/etc/nginx/nginx.conf", ours())
    found.write("/etc/nginx/conf.d/shop.conf", "# the shop's own\n")
    found.write("/etc/bitrix-cdn/ssh/key", "secret")
    found.write("/opt/converter/releases/1/bin", "")
    found.write("/var/www/cdn/upload/a.jpg", "a picture")
    found.write("/srv/originals/upload/.keep", "")
    for unit in ("nginx.service", "ssh.service", "mount-guard@originals.service", "cron.service"):
        found.write(f"/var/lib/bitrix-cdn/applied/{unit}", "")
    for what, names in (("packages", "curl"), ("units", "cron.service"), ("accounts", "root\nwww")):
        found.write(f"/var/lib/bitrix-cdn/before/{what}", f"{names}\n")
    return found


def test_what_was_there_before_is_not_among_it(machine: Machine) -> None:
    found = Removal(GIVEN, machine.root).found(data=False)
    assert found["units"] == ["mount-guard@originals.service", "nginx.service", "originals-export.service"]
    assert found["accounts"] == ["cdn-originals"]
    assert found["packages"] == ["sshfs"]
    assert found["stays"] == ["/var/www/cdn"]
    assert f"{machine.root}/etc/nginx/nginx.conf" not in found["files"]
    assert machine.ran[0].startswith("dpkg-query")


def test_what_is_removed_and_what_stays(machine: Machine) -> None:
    Removal(GIVEN, machine.root).remove(data=False)
    assert {path for path in machine.tree() if not path.startswith("/var/lib/")} == {
        *("/etc/passwd", "/etc/systemd/system/shop.service", "/etc/nginx/nginx.conf"),
        *("/etc/nginx/conf.d/shop.conf", "/var/www/cdn/upload/a.jpg", "/srv/originals/upload/.keep"),
    }
    # An empty directory that a package owns stays too; the others go.
    assert not (machine.root / "etc/ssh/sshd_config.d").exists()
    assert (machine.root / "etc/ssh").exists()
    assert "systemctl disable -q --now nginx.service" in machine.ran
    assert "systemctl disable -q --now cron.service" not in machine.ran
    assert machine.ran.index("systemctl daemon-reload") < machine.ran.index(
        "systemctl try-reload-or-restart ssh.service"
    )
    assert "userdel -f cdn-originals" in machine.ran


def test_directories_that_every_host_has_stay(machine: Machine) -> None:
    machine.write("/usr/local/bin/converter", "")
    (machine.root / "srv/originals/upload/.keep").unlink()
    Removal(GIVEN, machine.root).remove(data=True)
    assert not (machine.root / "srv/originals").exists()
    assert not (machine.root / "var/www").exists()
    assert all((machine.root / name).is_dir() for name in ("usr/local/bin", "opt", "srv"))


def test_it_can_be_run_again_and_then_finds_nothing(machine: Machine) -> None:
    removal = Removal(GIVEN, machine.root)
    removal.remove(data=True)
    removal.remove(data=True)
    removal.forget()
    machine.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    found = removal.found(data=True)
    assert not Found(**found).any
    assert not found["known"]
    assert not (machine.root / "var/www").exists()


def test_nothing_is_removed_through_a_mount(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**GIVEN, "owned": ["/proc"]}
    monkeypatch.setattr(machine, "root", Path("/"))
    removal = Removal(given, Path("/"))
    with pytest.raises(AgentError, match="/proc is mounted"):
        removal.remove(data=False)
    assert not [one for one in machine.ran if one.startswith(("systemctl", "userdel"))]


def test_the_shops_own_account_and_pictures_are_never_among_it() -> None:
    settings = Settings.model_validate({})
    for groups in (["bitrix"], ["cdn", "monitoring"], ["edge"], ["balancer"]):
        given = spec(settings, groups)
        assert settings.site.user not in given["accounts"]
        paths = [*given["owned"], *given["empty"], *given["data"]]
        assert not [path for path in paths if path.rstrip("/") in ("", "/etc", "/var", "/usr", "/var/www")]
        shop = (settings.site.upload, settings.site.root, settings.site.resize_cache)
        assert not [path for path in paths if any(f"{one}/".startswith(f"{path}/") for one in shop)]


def test_an_operator_reads_what_goes_and_what_stays() -> None:
    found = Found(["a.service"], ["/etc/a"], [], ["curl"], True, ["/var/www/cdn"])
    assert list(listed("cdn", found, purge=False)) == [
        "cdn: units: a.service",
        "cdn: files: /etc/a",
        "cdn: packages stay (--purge-packages removes them): curl",
        "cdn: data stays (--data removes it): /var/www/cdn",
    ]
    assert list(listed("cdn", Found(known=False), purge=True)) == ["cdn: nothing is left to be removed"]
