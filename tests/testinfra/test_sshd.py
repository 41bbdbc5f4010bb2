"""Role sshd: hardened, and the operator is still in."""

import re

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings


def effective(host: Host, user: str = "root") -> dict[str, str]:
    """What sshd does for a user, as it says itself."""
    lines = host.check_output(f"/usr/sbin/sshd -T -C user={user},host=x,addr=192.0.2.1").splitlines()
    return dict(line.split(" ", 1) for line in lines if " " in line)


def test_passwords_are_refused_unless_asked_for(bitrix: Host, cdn: Host, settings: Settings) -> None:
    expected = "yes" if settings.sshd.password_authentication else "no"
    for host in (bitrix, cdn):
        assert effective(host)["passwordauthentication"] == expected
        assert effective(host)["kbdinteractiveauthentication"] == expected


def test_logins_are_few_at_a_time_and_told_with_their_key(cdn: Host) -> None:
    assert effective(cdn)["maxstartups"] == "10:30:60"
    assert effective(cdn)["loglevel"] == "VERBOSE"
    assert re.search(
        "Accepted (key|publickey) .*SHA256:", cdn.check_output("journalctl -u ssh -n 2000 -o cat")
    )


def test_no_rollback_is_pending(bitrix: Host, cdn: Host) -> None:
    for host in (bitrix, cdn):
        assert not host.service("bitrix-cdn-sshd-rollback.timer").is_running


@pytest.mark.parametrize("group", ["bitrix", "cdn"])
def test_sftp_accounts_can_do_sftp_only(group: str, bitrix: Host, cdn: Host, settings: Settings) -> None:
    host, user = {
        "bitrix": (bitrix, settings.sftp.originals_account),
        "cdn": (cdn, settings.sftp.cache_account),
    }[group]
    rules = effective(host, user)
    assert rules["forcecommand"].startswith("internal-sftp")
    assert rules["permittty"] == "no"
    assert rules["disableforwarding"] == "yes"
    assert rules["authenticationmethods"] == "publickey"


@pytest.mark.parametrize(
    "option",
    [
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "MACs=hmac-sha1-etm@openssh.com",
        "MACs=hmac-sha2-256",
        "MACs=umac-64-etm@openssh.com",
    ],
)
def test_weak_cryptography_is_refused(option: str, bitrix: Host, cdn: Host) -> None:
    for host in (bitrix, cdn):
        # A cipher with a built-in checksum would need no MAC.
        said = host.run(f"ssh -o BatchMode=yes -o Ciphers=aes256-ctr -o {option} 127.0.0.1 true || true")
        assert "Unable to negotiate" in said.stderr, said


def test_tunnels_lead_to_our_pages_alone(cdn: Host, settings: Settings) -> None:
    rules = effective(cdn)
    if settings.sshd.forwarding != "pages":
        pytest.skip("this deployment says otherwise")
    assert rules["allowtcpforwarding"] == "local"
    assert f"127.0.0.1:{settings.converter.api.port}" in rules["permitopen"].split()
    assert not any(f":{port}" in rules["permitopen"] for port in (22, settings.redis.queue_port))
    assert (rules["allowagentforwarding"], rules["allowstreamlocalforwarding"]) == ("no", "no")
