"""A host that differs from its inventory is told of by name, and one that doesn't never is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitrix_cdn.engine.keys import fingerprint
from bitrix_cdn.settings import Settings
from dev.lab import state
from tests.kit.deployment import ROOT, Deployment, deploy
from tests.kit.drift import CLEAN, DRIFT, FAILED, check
from tests.kit.hosts import Cdn
from tests.kit.support import Figure, Remote, wait_until

LISTENER = """
import socket, sys, time
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
one = socket.socket(socket.AF_INET, kind)
one.bind(("0.0.0.0", int(sys.argv[2])))
kind == socket.SOCK_STREAM and one.listen()
time.sleep(900)
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1OtNnWvxYkJLKxjPSJGmHPRBDzVwMHiwMSMbbLkWmE eve"


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_hosts_as_deployed_show_no_drift_time_and_again(
    deployment: Deployment, lab: state.Lab, figure: Figure, times: int
) -> None:
    checks = []
    for _ in range(times):
        checks.append(check(deployment, lab))
        assert checks[-1].status == CLEAN, checks[-1].report
    seconds = sorted(one.seconds for one in checks)
    figure(f"{lab.suite}: drift check of both hosts {seconds[0]:.1f} to {seconds[-1]:.1f} s (figure: 5)")


@dataclass
class Hosts:
    """Both hosts, on which each kind of drift is made."""

    bitrix: Remote
    cdn: Remote
    lab: str
    right: bool = True

    def make(self) -> None:
        self.right = False
        for host in (self.bitrix, self.cdn):
            host.put("/root/listener.py", LISTENER.encode())
        self.cdn.run("sh", "-c", _ON_THE_CDN_HOST, timeout=120)
        self.bitrix.run("sh", "-c", _ON_THE_SITES_HOST)

    def put_right(self) -> None:
        """Undoes what no deploy undoes, as it isn't declared; then deploys."""
        for host in (self.bitrix, self.cdn):
            host.run("sh", "-c", _TAKEN_BACK)
        deploy(self.lab)
        self.right = True


_ON_THE_CDN_HOST = f"""set -e
echo "# by hand" >> /etc/nginx/conf.d/types.conf
sed -i 's/^maxmemory .*/maxmemory 1gb/' /etc/redis/redis-queue.conf
chmod 666 /etc/varnish/default.vcl
chown www-data /etc/mtail/edge.mtail
rm /etc/sysctl.d/60-redis.conf
DEBIAN_FRONTEND=noninteractive apt-get -qq remove -y logrotate >/dev/null
systemctl -q stop prometheus-nginx-exporter
systemctl -q disable varnish
systemctl -q mask prometheus-varnish-exporter
echo "# mine" > /etc/nginx/conf.d/mine.conf
ln -s /etc/hostname /etc/nginx/sites-enabled/mine
mkdir -p /etc/systemd/system/webp-converter.service.d
printf '[Service]\\nNice=5\\n' > /etc/systemd/system/webp-converter.service.d/mine.conf
echo '0 0 1 1 * root true' > /etc/cron.d/mine
printf '[Service]\\nExecStart=true\\n' > /etc/systemd/system/mine.service
systemd-run -q --unit=mine-tcp python3 /root/listener.py tcp 8000
systemd-run -q --unit=mine-udp python3 /root/listener.py udp 40000
useradd -N -s /bin/bash eve
usermod -s /bin/bash games
echo '{KEY}' >> /root/.ssh/authorized_keys
"""

_ON_THE_SITES_HOST = f"""set -e
echo "// by hand" >> /var/www/bitrix/index.php
echo 'eve ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/eve
echo '{KEY}' > /etc/ssh/authorized_keys.d/root
systemctl -q mask --runtime prometheus-node-exporter
useradd -N -o -u 0 -M toor 2>/dev/null
systemd-run -q --unit=mine-tcp python3 /root/listener.py tcp 8000
"""

_TAKEN_BACK = """
systemctl stop mine-tcp mine-udp 2>/dev/null
rm -f /root/listener.py /etc/sudoers.d/eve /etc/ssh/authorized_keys.d/root /etc/cron.d/mine
rm -f /etc/nginx/conf.d/mine.conf /etc/nginx/sites-enabled/mine /etc/systemd/system/mine.service
rm -rf /etc/systemd/system/webp-converter.service.d
systemctl daemon-reload
sed -i '/^toor:/d' /etc/passwd /etc/shadow
userdel eve 2>/dev/null
usermod -s /usr/sbin/nologin games
sed -i '/ eve$/d' /root/.ssh/authorized_keys
true
"""


@pytest.fixture
def hosts(bitrix: Remote, cdn: Cdn, lab: state.Lab) -> Iterator[Hosts]:
    hosts = Hosts(bitrix, cdn.remote, lab.name)
    try:
        yield hosts
    finally:
        if not hosts.right:
            hosts.put_right()


def test_each_kind_of_drift_is_told_by_name_and_a_deploy_puts_it_right(
    hosts: Hosts, deployment: Deployment, lab: state.Lab, tmp_path: Path
) -> None:
    hosts.make()
    junit = tmp_path / "drift.xml"
    checked = check(deployment, lab, "--junit", str(junit))
    assert checked.status == DRIFT, checked.errors
    assert 'name="Listening ports"' in junit.read_text()

    cdn = checked.found("cdn")
    edited = cdn.pop(("file", "/etc/nginx/conf.d/types.conf"))
    assert "-# by hand" in edited["diff"]
    secret = cdn.pop(("file", "/etc/redis/redis-queue.conf"))
    assert "-maxmemory ******" in secret["diff"]
    assert "1gb" not in str(secret)
    for kind, what, said in (
        ("access", "/etc/varnish/default.vcl", "is 666 root:root, must be 644 root:root"),
        ("access", "/etc/mtail/edge.mtail", "is 644 www-data:root, must be 644 root:root"),
        ("file", "/etc/sysctl.d/60-redis.conf", "is missing"),
        ("package", "logrotate", "is not installed"),
        # Debian 12's ends with an error when it is stopped.
        ("service", "prometheus-nginx-exporter.service", ", must be active"),
        ("service", "varnish.service", "is disabled, must be enabled"),
        ("service", "prometheus-varnish-exporter.service", "is masked"),
        ("unknown-file", "/etc/nginx/conf.d/mine.conf", "unknown file"),
        ("unknown-file", "/etc/nginx/sites-enabled/mine", "unknown link"),
        ("unknown-file", "/etc/systemd/system/webp-converter.service.d/mine.conf", "unknown file"),
        ("unknown-file", "/etc/systemd/system/mine.service", "unknown file"),
        ("unknown-file", "/etc/cron.d/mine", "unknown file"),
        ("port", "8000/tcp", "python3 listens on 0.0.0.0"),
        ("port", "40000/udp", "python3 listens on 0.0.0.0"),
        ("account", "eve", "is unknown"),
        ("account", "games", "may log in: its shell is /bin/bash"),
        ("key", fingerprint(KEY), "is a key of the account root (eve)"),
    ):
        assert said in cdn.pop((kind, what), {"summary": "nothing"})["summary"], (kind, what, cdn)
    # What follows from the above: services that haven't taken their files, a timer without its package.
    follows = {what for kind, what in cdn if kind == "service"}
    assert follows <= {
        "nginx.service",
        "nginx-originals.service",
        "mtail.service",
        "redis-server@queue.service",
        "logrotate.timer",
        # Its unit has a drop-in that systemd hasn't read.
        "webp-converter.service",
    }
    assert {kind for kind, _ in cdn} <= {"service"}, cdn

    site = checked.found("bitrix")
    assert "-// by hand" in site.pop(("file", "/var/www/bitrix/index.php"))["diff"]
    for kind, what, said in (
        ("unknown-file", "/etc/sudoers.d/eve", "unknown file"),
        ("unknown-file", "/etc/ssh/authorized_keys.d/root", "unknown file"),
        ("service", "prometheus-node-exporter.service", "is masked"),
        ("account", "toor", "has uid 0"),
        ("port", "8000/tcp", "python3 listens on 0.0.0.0"),
    ):
        assert said in site.pop((kind, what), {"summary": "nothing"})["summary"], (kind, what, site)
    assert site == {}

    hosts.put_right()
    again = check(deployment, lab)
    assert again.status == CLEAN, again.report


def test_a_host_that_can_not_be_reached_is_said_so_and_the_other_one_is_checked(
    bitrix: Remote, deployment: Deployment, lab: state.Lab
) -> None:
    bitrix.run("systemd-run", "-q", "--unit=back", "--on-active=60", "systemctl", "start", "ssh")
    bitrix.run("systemctl", "stop", "ssh")
    try:
        checked = check(deployment, lab)
    finally:
        _exec(lab, "bitrix", "systemctl", "start", "ssh")
        _exec(lab, "bitrix", "systemctl", "stop", "back.timer")
    assert checked.status == FAILED
    away, here = checked.report["hosts"]
    assert (away["name"], away["status"]) == ("bitrix", "failed")
    assert "connect" in away["error"]
    assert (here["name"], here["status"], here["differences"]) == ("cdn", "clean", [])
    assert "bitrix: could not be checked" in checked.errors
    assert len(checked.errors.strip().splitlines()) == 1


def _exec(lab: state.Lab, host: str, *command: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "dev.lab", "exec", host, "--", *command],
        cwd=ROOT,
        env={**os.environ, "LAB_NAME": lab.name},
        check=True,
    )


@pytest.mark.both
def test_the_result_reaches_prometheus(
    cdn: Cdn, settings: Settings, deployment: Deployment, lab: state.Lab
) -> None:
    port = settings.monitoring.exporters.node_port
    started = time.time()
    try:
        checked = check(deployment, lab, "--publish")
        assert checked.status == CLEAN, checked.errors
        exported = cdn.remote.python(_METRICS, f"http://127.0.0.1:{port}/metrics")
        assert exported['drift_differences{host="bitrix"}'] == 0
        assert exported['drift_check_failed{host="cdn"}'] == 0
        assert started - 2 <= exported["drift_check_timestamp_seconds"] <= time.time()
        # And it stays the one file that it was.
        listed = cdn.remote.run("ls", settings.mounts.metrics)
        assert [one for one in listed.split() if "drift" in one] == ["drift.prom"]
    finally:
        cdn.remote.run("rm", "-f", f"{settings.mounts.metrics}/drift.prom")
        wait_until(
            "the exporter to forget it",
            lambda: cdn.remote.python(_METRICS, f"http://127.0.0.1:{port}/metrics"),
            lambda found: found == {},
        )


_METRICS = """
import urllib.request
with urllib.request.urlopen(arguments[0], timeout=10) as answer:
    lines = answer.read().decode().splitlines()
result = {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("drift_")}
"""
