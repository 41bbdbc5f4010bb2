"""What units may do to the host that they don't need to, as systemd counts it, and what accounts may see."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from bitrix_cdn.settings import Settings
from dev.audit.hosts import UNITS, rated
from dev.audit.limits import limits
from roles.nginx import ACCOUNT
from roles.originals import ACCOUNT as READER
from tests.kit.inventory import Inventory


@pytest.mark.smoke
def test_no_unit_may_do_more_than_it_needs(inventory: Inventory) -> None:
    wanted = limits()
    for name, host in inventory.chosen().items():
        found = rated(host.check_output(UNITS), shop=name in inventory.names("bitrix"))
        assert found, name
        assert not {unit: score for unit, score in found.items() if score > wanted.exposure(unit)}, name


LOOK = r"""
import os, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        name = open(f"/proc/{pid}/comm").read().strip()
        if name != "nginx":
            continue
        with open(f"/proc/{pid}/mem", "rb+", buffering=0):
            print(pid)
    except OSError:
        pass
"""


def opened(host: Host, unit: str, user: str) -> list[str]:
    """The processes of nginx whose memory can be opened from inside a unit, as an account."""
    main = host.check_output("systemctl show -p MainPID --value %s", unit)
    inside = f"nsenter -t {main} -m -p -n -i -u -- setpriv --reuid {user} --regid www-data --init-groups"
    found: list[str] = host.check_output(f"{inside} python3 -c %s", LOOK).split()
    return found


@pytest.mark.smoke
def test_what_converts_pictures_cannot_look_into_what_serves_them(cdn: Host) -> None:
    # It could, if it were of their account, and root can.
    assert opened(cdn, "nginx.service", ACCOUNT)
    served = cdn.check_output("pgrep -x -u %s,%s nginx", ACCOUNT, READER).split()
    assert {*served} <= {*opened(cdn, "dbus.service", "root")}
    assert opened(cdn, "webp-converter.service", "www-data") == []
    # Nor the one of the other, or from outside of any sandbox.
    assert opened(cdn, "dbus.service", "www-data") == []
    assert opened(cdn, "nginx.service", READER) == []


def test_no_process_that_faces_visitors_is_www_datas(cdn: Host) -> None:
    shown = cdn.check_output("ps -o comm= -u www-data").split()
    assert not {"nginx", "varnishd", "cache-main", "haproxy"} & set(shown), shown


def test_the_accounts_that_serve_pictures_read_no_secret(cdn: Host, settings: Settings) -> None:
    token = str(settings.converter.api.token_file)
    for account in (ACCOUNT, READER):
        assert cdn.run("runuser -u %s -- cat %s", account, token).rc == 1
        assert cdn.run("runuser -u %s -- test -w %s", account, settings.cdn.resize_cache).rc == 1


def test_what_visitors_ask_for_is_not_the_converters_to_read(cdn: Host) -> None:
    logs = cdn.check_output("find /var/log/nginx -type f").split()
    assert logs
    for log in logs:
        assert cdn.run("runuser -u www-data -- cat %s", log).rc == 1, log


def test_processes_do_not_look_into_each_other(cdn: Host) -> None:
    scope = cdn.file("/proc/sys/kernel/yama/ptrace_scope")
    assert "kernel.yama.ptrace_scope = 1" in cdn.file("/etc/sysctl.d/05-bitrix-cdn.conf").content_string
    # Not every kernel has it.
    assert not scope.exists or int(scope.content_string) >= 1
