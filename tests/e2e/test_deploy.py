"""The deploy: from bare hosts, again, rehearsed, and with everything that can be wrong with a host."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.lab import state
from tests.kit.deployment import ROOT, Deployment, Run, pyinfra, refusal
from tests.kit.drift import check
from tests.kit.hosts import Cdn
from tests.kit.ports import beyond_loopback
from tests.kit.support import Remote, wait_until

BOTH = {"bitrix", "cdn"}


@contextmanager
def put_right(host: Remote, *script: str) -> Iterator[None]:
    """Runs a script on the host at the end, whatever happened."""
    try:
        yield
    finally:
        host.run("sh", "-c", "\n".join(script))


@pytest.mark.both
def test_bare_hosts_can_be_rehearsed(rehearsal: Run) -> None:
    assert rehearsal.status == 0, rehearsal.output
    assert {host for hosts in rehearsal.planned().values() for host in hosts} == BOTH


@pytest.mark.both
def test_a_second_deploy_changes_nothing_on_any_host(second: Run) -> None:
    assert second.status == 0, second.output
    assert second.hosts() == BOTH
    assert second.changed() == {}


@pytest.mark.both
def test_no_package_listens_before_it_is_configured(deployment: Deployment, bitrix: Remote, cdn: Cdn) -> None:
    if deployment.first is None:
        pytest.skip("these hosts were deployed before")
    for host in (bitrix, cdn.remote):
        now = host.run(
            "sh", "-c", 'cat /proc/net/tcp /proc/net/tcp6 | awk \'$4 == "0A" { print "now", $2 }\''
        )
        last = {(address, port) for _, address, port in beyond_loopback(now.splitlines())}
        seen = deployment.ports[host.name]
        assert ("0.0.0.0", 22) in {(address, port) for _, address, port in seen}
        gone = {one for one in seen if one[1:] not in last}
        assert not gone, f"{host.name} listened during the deploy, and no more: {gone}"
        early = {one for one in seen if one[0] == "before" and one[2] in {80, 443}}
        assert not early, f"{host.name} listened before it was configured: {early}"


@pytest.mark.both
def test_a_package_that_was_half_unpacked_is_installed_again(lab: state.Lab, cdn: Cdn) -> None:
    cdn.remote.run(
        *("sed", "-i", "/^Package: logrotate$/,/^$/s/^Status: .*/Status: install reinstreq half-installed/"),
        "/var/lib/dpkg/status",
    )
    # On a host that runs nothing from /tmp, the VCL is judged all the same.
    cdn.remote.run(
        *(
            "sh",
            "-c",
            "mount -t tmpfs -o noexec,mode=1777 tmpfs /tmp; echo '# by hand' >> /etc/varnish/default.vcl",
        )
    )
    with put_right(cdn.remote, "umount /tmp"):
        run = pyinfra("-y", "--json", "--limit", "cdn", lab=lab.name)
    assert run.status == 0, run.output
    assert "Base | Repair an interrupted dpkg" in run.changed()
    assert cdn.remote.run("dpkg", "--audit") == ""
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}


@pytest.mark.both
def test_a_rehearsal_afterwards_plans_nothing(lab: state.Lab) -> None:
    run = pyinfra("--dry", "--json", lab=lab.name)
    assert (run.status, run.hosts(), run.planned()) == (0, BOTH, {})


def test_what_was_broken_is_repaired_and_the_rest_left_alone(
    lab: state.Lab, bitrix: Remote, cdn: Cdn
) -> None:
    redis = cdn.remote.run("systemctl", "show", "-p", "MainPID", "--value", "redis-server@cache")
    # As a deploy by an account whose umask is 077 would have left them.
    closed = "chmod 700 $(realpath /var/www) /usr/local/lib/bitrix-cdn"
    cdn.remote.run(
        "sh",
        "-c",
        f"{closed}; chmod 700 /mnt/bitrix; chmod -R go-rwx /opt/webp-converter/releases; "
        "rm /etc/nginx/conf.d/negotiation.conf; chmod 666 /etc/webp-converter/config.toml; "
        "systemctl disable -q --now redis-server@queue webp-converter",
    )
    bitrix.run("sh", "-c", f"{closed}; systemctl disable -q --now mount-guard@resize-cache")
    run = pyinfra("-y", "--json", lab=lab.name)
    assert run.status == 0, run.output
    assert set(run.changed()) == {
        "nginx | Write nginx's configuration (checked by nginx)",
        "Redis | Run the Redis of the queue",
        "Lab site | Create /var/www/bitrix",
        "sftp | Give /var/www/cdn to root, as sshd requires for a chroot",
        "Converter | Create the directory above the originals' mount point",
        "Converter | Make the releases readable for the converter's account",
        "Converter | Write config.toml (checked by the converter)",
        "Converter | Run the converter",
        "Host agent | Install the host agent",
        "Mounts | Mount the other host's files",
    }
    assert cdn.remote.run("systemctl", "show", "-p", "MainPID", "--value", "redis-server@cache") == redis
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}


_BY_HAND = """set -e
echo 'server { listen 127.0.0.1:8998; }' >> /etc/nginx/conf.d/cdn.conf
systemctl reload nginx
sed -i '/^http {/a server { listen 127.0.0.1:8999; }' /etc/nginx-originals/nginx.conf
kill -HUP $(systemctl show -p MainPID --value nginx-originals)
sed -i 's/^maxmemory .*/maxmemory 99mb/' /etc/redis/redis-cache.conf
systemctl restart redis-server@cache
cdn-host redis queue config set maxmemory 98mb
nft insert rule inet bitrix_cdn exporters accept
sed 's/^vcl 4.1;/&\\n# by hand/' /etc/varnish/default.vcl > /etc/varnish/mine.vcl
varnishadm -t 60 vcl.load mine$$ /etc/varnish/mine.vcl
varnishadm vcl.use mine$$
rm /etc/varnish/mine.vcl
sed -i 's/scrape_interval: .*/scrape_interval: 77s/' /etc/prometheus/prometheus.yml
systemctl kill -s HUP --kill-whom=main prometheus
sed -i '1i LoginGraceTime 77' /etc/ssh/sshd_config.d/10-bitrix-cdn.conf
systemctl reload ssh
"""
_RUNS = """
ss -Hltn | grep -o -e :8998 -e :8999 || :
cdn-host redis cache config get maxmemory
cdn-host redis queue config get maxmemory
nft -s list table inet bitrix_cdn
varnishadm vcl.show $(varnishadm vcl.list | awk '$1 == "active" { print $NF }') | grep hand || :
curl -s http://127.0.0.1:9090/api/v1/status/config
"""


def test_what_somebody_had_services_take_by_hand_is_told_and_taken_back(
    lab: state.Lab, cdn: Cdn, deployment: Deployment
) -> None:
    before = cdn.remote.run("sh", "-c", _RUNS)
    cdn.remote.run("sh", "-c", _BY_HAND)
    wait_until("Prometheus to take it", lambda: cdn.remote.run("sh", "-c", _RUNS), lambda now: "1m17s" in now)
    told = {what for kind, what in check(deployment, lab).found("cdn") if kind == "service"}
    changed = pyinfra("-y", "--json", lab=lab.name)
    assert changed.status == 0, changed.output
    assert cdn.remote.run("sh", "-c", _RUNS) == before
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}
    units = {"nginx", "nginx-originals", "redis-server@cache", "redis-server@queue", "varnish"}
    units |= {"bitrix-cdn-firewall", "prometheus", "ssh"}
    assert {f"{unit}.service" for unit in units} <= told


@pytest.fixture
def deploy_only(tmp_path: Path, lab: state.Lab) -> Callable[..., Run]:
    """Runs a few lines of pyinfra on one host."""

    def run(host: str, code: str) -> Run:
        script = tmp_path / "operations.py"
        script.write_text(code)
        return pyinfra("-y", "--limit", host, operations=str(script), lab=lab.name)

    return run


def test_a_configuration_that_nginx_refuses_never_arrives(cdn: Cdn, deploy_only: Callable[..., Run]) -> None:
    before = cdn.remote.run("sh", "-c", "cat /etc/nginx/nginx.conf /etc/nginx/conf.d/*")
    run = deploy_only(
        "cdn",
        "from bitrix_cdn.engine.files import File, tree\n"
        "tree(name='Break nginx', root='/etc/nginx', check='nginx -t -q', files=[\n"
        "    File('/etc/nginx/conf.d/cdn.conf', 'nonsense;\\n'),\n"
        "    File('/etc/nginx/conf.d/new.conf', '# harmless\\n'),\n"
        "])\n",
    )
    refusal(run, "nonsense", "unknown directive")
    assert cdn.remote.run("sh", "-c", "cat /etc/nginx/nginx.conf /etc/nginx/conf.d/*") == before
    assert cdn.remote.run("sh", "-c", "ls -d /tmp/tmp.* 2>/dev/null; true") == ""


def test_a_change_that_shuts_the_operator_out_is_taken_back(
    lab: state.Lab, cdn: Cdn, deploy_only: Callable[..., Run], tmp_path: Path
) -> None:
    drop_in = "/etc/ssh/sshd_config.d/10-bitrix-cdn.conf"
    before = cdn.remote.run("cat", drop_in)

    def login() -> int:
        # A new login, not over the connection that the tests have open.
        return subprocess.run(
            [
                *("ssh", "-i", str(lab.ssh_key), "-o", f"UserKnownHostsFile={lab.known_hosts}"),
                *("-o", "BatchMode=yes", "-o", "ControlPath=none", f"root@{cdn.remote.address}", "true"),
            ],
            capture_output=True,
            check=False,
        ).returncode

    run = deploy_only(
        "cdn",
        "from bitrix_cdn.engine.files import File\n"
        "from roles.sshd import confirmed_sshd_config\n"
        "confirmed_sshd_config(name='Let nobody in', unit='ssh.service', timeout=6,\n"
        f"    drop_in=File('{drop_in}', 'AllowUsers nobody\\n'))\n",
    )
    # Before anything is asserted: the tests that follow need the host.
    wait_until("a login as root", login, lambda status: status == 0, timeout=20)
    refusal(run, "restores the old one within 6 s")
    assert cdn.remote.run("cat", drop_in) == before


def test_a_server_that_does_not_read_our_file_is_told(lab: state.Lab, bitrix: Remote) -> None:
    config, drop_in = "/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d/10-bitrix-cdn.conf"
    bitrix.run("sh", "-c", f"cp -p {config} /run/was; sed -i /^Include/d {config}; rm {drop_in}")
    with put_right(bitrix, f"cp -p /run/was {config}"):
        run = pyinfra("-y", "--limit", "bitrix", lab=lab.name)
    refusal(run, f"sshd does not read {drop_in}", "Include /etc/ssh/sshd_config.d/*.conf")
    assert pyinfra("-y", "--limit", "bitrix", lab=lab.name).status == 0
    assert bitrix.run("cat", drop_in)


def test_another_distribution_is_refused_before_anything_changes(lab: state.Lab, bitrix: Remote) -> None:
    bitrix.run("sh", "-c", "printf 'ID=ubuntu\\nVERSION_ID=\"24.04\"\\n' > /run/os-release")
    bitrix.run("mount", "--bind", "/run/os-release", "/usr/lib/os-release")
    with put_right(bitrix, "umount /usr/lib/os-release"):
        run = pyinfra("-y", lab=lab.name)
    refusal(
        run, "bitrix: Ubuntu 24.04 is not supported on a host of bitrix with", "Debian 12 or Debian 13 is"
    )
    assert "Starting operation" not in run.output


def test_a_shop_that_is_elsewhere_is_asked_for(lab: state.Lab, tmp_path: Path) -> None:
    inventory = tmp_path / "shop.py"
    text = (ROOT / "inventories/lab.py").read_text()
    inventory.write_text(
        text.replace(
            '"lab_site": {"enabled": True', '"site": {"root": "/srv/shop"}, "lab_site": {"enabled": False'
        )
    )
    run = pyinfra("-y", inventory=str(inventory), lab=lab.name)
    refusal(run, "bitrix: there is no directory /srv/shop/upload", "settings.site")
    assert "Starting operation" not in run.output


def test_a_python_without_wheels_is_refused(lab: state.Lab, cdn: Cdn) -> None:
    release = "/opt/webp-converter/current/release"
    cdn.remote.run(
        "sh",
        "-c",
        "printf '#!/bin/sh\\necho 3.9\\n' > /usr/local/bin/python3; chmod 755 /usr/local/bin/python3; "
        f"mv {release} {release}.away",
    )
    with put_right(cdn.remote, "rm /usr/local/bin/python3", f"mv {release}.away {release}"):
        run = pyinfra("-y", lab=lab.name)
    refusal(run, "wheels are for Python", "python3 here is 3.9")
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}


def test_a_mount_whose_other_side_refuses_the_key_says_so(lab: state.Lab, bitrix: Remote, cdn: Cdn) -> None:
    deny = "/etc/ssh/sshd_config.d/00-deny.conf"
    account = cdn.settings.sftp.cache_account
    cdn.remote.run("sh", "-c", f"echo 'DenyUsers {account}' > {deny}; systemctl reload ssh")
    with put_right(cdn.remote, f"rm {deny}", "systemctl reload ssh"):
        bitrix.run("systemctl", "stop", "mount-guard@resize-cache")
        run = pyinfra("-y", lab=lab.name)
        refusal(run, "Permission denied (publickey)")
    assert pyinfra("-y", "--json", lab=lab.name).status == 0
    assert bitrix.run("findmnt", "-n", "-o", "FSTYPE", cdn.settings.site.resize_cache) == "fuse.sshfs\n"


def test_pictures_that_are_only_here_are_not_hidden(lab: state.Lab, bitrix: Remote, cdn: Cdn) -> None:
    path = cdn.settings.site.resize_cache
    bitrix.run("systemctl", "stop", "mount-guard@resize-cache")
    # As on a host whose mount was never up: the guard knows nothing of an outage.
    bitrix.run("rm", "/var/lib/mount-guard/resize-cache/spool")
    bitrix.run("sh", "-c", f"mkdir -p {path}/a && echo only here > {path}/a/b.jpg")
    with put_right(bitrix, f"rm -rf {path}/a"):
        run = pyinfra("-y", lab=lab.name)
        refusal(run, path, "1 files", "bitrix-cdn adopt")
        assert bitrix.run("cat", f"{path}/a/b.jpg") == "only here\n"
    assert pyinfra("-y", lab=lab.name).status == 0


def test_pictures_of_an_outage_are_pushed_and_no_reason_to_refuse(
    lab: state.Lab, bitrix: Remote, cdn: Cdn
) -> None:
    path, name = cdn.settings.site.resize_cache, "outage.jpg"
    bitrix.run("systemctl", "stop", "mount-guard@resize-cache")
    bitrix.run("sh", "-c", f"echo made during the outage > {path}/{name}")
    assert pyinfra("-y", lab=lab.name).status == 0
    assert cdn.remote.run("cat", f"{cdn.settings.cdn.resize_cache}/{name}") == "made during the outage\n"
    assert bitrix.run("cat", f"{path}/{name}") == "made during the outage\n"
    bitrix.run("rm", f"{path}/{name}")


def test_a_host_that_is_away_stops_the_deploy(lab: state.Lab, tmp_path: Path) -> None:
    # An address of the lab's network that no host has.
    nobody = lab.host("cdn").address.rsplit(".", 1)[0] + ".250"
    inventory = tmp_path / "away.py"
    text = (ROOT / "inventories/lab.py").read_text()
    inventory.write_text(text.replace('_entry("cdn")', f'_entry("cdn") | {{"ssh_hostname": "{nobody}"}}'))
    run = pyinfra("-y", inventory=str(inventory), lab=lab.name)
    refusal(run, "[cdn]", "Could not connect")
    assert "Starting operation" not in run.output


def test_an_operator_with_sudo_can_do_all_of_it(
    lab: state.Lab, bitrix: Remote, cdn: Cdn, tmp_path: Path
) -> None:
    hosts = (bitrix, cdn.remote)
    made = ["ssh-keygen", "-y", "-f", str(lab.ssh_key)]
    public = subprocess.run(made, capture_output=True, text=True, check=True).stdout
    for host in hosts:
        host.run("useradd", "--create-home", "--shell", "/bin/sh", "deployer")
        host.put("/etc/sudoers.d/deployer", b"deployer ALL=(ALL) NOPASSWD: ALL\n")
        host.run("install", "-d", "-m", "700", "-o", "deployer", "/home/deployer/.ssh")
        host.put("/home/deployer/.ssh/authorized_keys", public.encode())
    inventory = tmp_path / "sudo.py"
    text = (ROOT / "inventories/lab.py").read_text()
    inventory.write_text(text.replace('"ssh_key":', '"ssh_user": "deployer", "sudo": True, "ssh_key":'))
    cdn.remote.run("rm", "/etc/nginx/conf.d/negotiation.conf")
    try:
        run = pyinfra("-y", "--json", inventory=str(inventory), lab=lab.name)
        assert run.status == 0, run.output
        assert set(run.changed()) == {"nginx | Write nginx's configuration (checked by nginx)"}
    finally:
        for host in hosts:
            host.run("sh", "-c", "userdel -rf deployer 2>/dev/null; rm -f /etc/sudoers.d/deployer")


def test_a_deploy_killed_halfway_is_finished_by_the_next(lab: state.Lab, cdn: Cdn) -> None:
    # The release is to be reinstalled; the kill comes while it is.
    cdn.remote.run("systemctl", "stop", "webp-converter")
    cdn.remote.run("rm", "-rf", "/opt/webp-converter")
    try:
        process = subprocess.Popen(
            [str(ROOT / ".venv/bin/pyinfra"), "-y", "inventories/lab.py", "deploy.py"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(
            "the release being installed",
            lambda: cdn.remote.run("sh", "-c", "ls -d /opt/webp-converter/releases/*/bin || true"),
            timeout=60,
        )
        process.kill()
        process.wait()
    finally:
        run = pyinfra("-y", lab=lab.name)
    assert run.status == 0, run.output
    assert pyinfra("--dry", "--json", lab=lab.name).planned() == {}
    wait_until("a healthy daemon", cdn.daemon_ready)
