"""A certificate from a real ACME authority (Debian's pebble, on the site's host): got, taken, renewed."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.lab import state
from tests.kit.deployment import ROOT, pyinfra
from tests.kit.hosts import Cdn
from tests.kit.support import Remote, wait_until

NAME = "cdn.shop.test"
HOME = "/root/authority"
TRUSTED = "/usr/local/share/ca-certificates/lab-authority.crt"

CONFIGURATION = {
    "pebble": {
        "listenAddress": "0.0.0.0:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": f"{HOME}/server.pem",
        "privateKey": f"{HOME}/server.key",
        "httpPort": 80,
        "tlsPort": 443,
    }
}


@pytest.fixture
def authority(bitrix: Remote, cdn: Cdn) -> Iterator[str]:
    """The address of an authority that the CDN host trusts, and that finds `NAME` there.

    By default pebble refuses one nonce in twenty, to try its clients; certbot gives up at two in a row.
    """
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    bitrix.run("mkdir", "-p", HOME)
    bitrix.put(f"{HOME}/pebble.json", json.dumps(CONFIGURATION).encode())
    start = f"""
        set -e
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends pebble openssl >/dev/null
        cd {HOME}
        openssl req -x509 {key} -days 2 -subj '/CN=lab authority' -keyout ca.key -out ca.pem
        openssl req -x509 {key} -days 2 -subj /CN=authority -addext subjectAltName=IP:{bitrix.address} \\
            -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key \\
            -keyout server.key -out server.pem
        cp /etc/hosts hosts.before
        echo '{cdn.remote.address} {NAME}' >> /etc/hosts
        systemd-run -q --unit=authority -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0 \\
            pebble -config {HOME}/pebble.json
    """
    stop = f"""
        systemctl stop authority
        cat {HOME}/hosts.before > /etc/hosts
        rm -r {HOME}
    """
    try:
        bitrix.run("sh", "-c", start, timeout=180)
        cdn.remote.put(TRUSTED, bitrix.run("cat", f"{HOME}/ca.pem").encode())
        cdn.remote.run(
            "sh", "-c", "apt-get install -y -qq ca-certificates >/dev/null; update-ca-certificates"
        )
        yield f"https://{bitrix.address}:14000/dir"
    finally:
        bitrix.run("sh", "-c", stop, check=False)
        cdn.remote.run("sh", "-c", f"rm -f {TRUSTED}; update-ca-certificates --fresh")


def served(cdn: Cdn) -> str:
    return ssl.get_server_certificate((cdn.remote.address, cdn.settings.tls.port), timeout=5)


def issuer(cdn: Cdn, certificate: str) -> str:
    return cdn.remote.run("openssl", "x509", "-noout", "-issuer", input=certificate.encode())


def test_a_certificate_is_got_taken_and_renewed(
    lab: state.Lab, cdn: Cdn, authority: str, tmp_path: Path
) -> None:
    inventory = tmp_path / "acme.py"
    text = (ROOT / "inventories/lab.py").read_text()
    own, asked = '"mode": "self-signed"', f'"mode": "acme", "acme_directory": "{authority}"'
    changed = text.replace(own, asked).replace('"nginx": {', f'"nginx": {{"server_names": ["{NAME}"], ')
    assert changed.count(NAME) == changed.count(authority) == 1
    inventory.write_text(changed)
    before = served(cdn)
    try:
        run = pyinfra("-y", inventory=str(inventory), lab=lab.name)
        assert run.status == 0, run.output[-3000:]
        first = wait_until("another certificate", lambda: served(cdn), lambda pem: pem != before)
        assert "Pebble" in issuer(cdn, first)
        assert pyinfra("--dry", "--json", inventory=str(inventory), lab=lab.name).planned() == {}

        cdn.remote.run("certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew", timeout=120)
        second = wait_until("a renewed one", lambda: served(cdn), lambda pem: pem != first)
        assert "Pebble" in issuer(cdn, second)
        assert cdn.remote.run("systemctl", "is-enabled", "certbot.timer") == "enabled\n"
    finally:
        back = pyinfra("-y", lab=lab.name)
        cdn.remote.run("rm", "-rf", "/etc/letsencrypt")
    assert back.status == 0, back.output[-3000:]
    assert "Pebble" not in issuer(cdn, served(cdn))
