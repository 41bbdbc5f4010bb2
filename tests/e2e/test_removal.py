"""A bare host, the deploy, `bitrix-cdn remove`: what is left is what docs/uninstall.md names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial

from bitrix_cdn.cli.exits import Exit
from dev.lab import state
from tests.kit.deployment import ROOT, Deployment, deploy
from tests.kit.support import Remote

LOOK = r"""
export LC_ALL=C
shown() { find "$@" -xdev -printf '%y %m %u %g %p\n' 2>/dev/null; }
shown /etc /opt /srv /mnt /home /root /usr/local /usr/bin /var/lib /var/cache /var/www
find /etc -xdev -type f -exec sha256sum {} + | sed 's/^/content /'
dpkg-query -W -f 'package ${db:Status-Status} ${Package}\n' | grep -v ' not-installed '
systemctl list-unit-files --no-legend --no-pager --state=enabled | awk '{ print "enabled", $1 }'
systemctl list-units --no-legend --no-pager --plain --state=active,failed --type=service,timer,socket,mount |
    awk '{ print "unit", $1, $3 }'
sed 's/^/account /' /etc/passwd
sed 's/^/group /' /etc/group
ss -Hlntu | awk '{ print "port", $1, $5 }' | sort -u
awk '{ print "mount", $2 }' /proc/self/mounts
nft list ruleset | sed 's/^/rule /'
"""

LEFT = re.compile(
    r"|".join(
        [
            # Of apt, dpkg, systemd and ucf themselves; and what Debian's packages leave when they are purged.
            r"/var/(lib/(apt|dpkg|ucf|systemd|private)|cache/(apt|debconf|ldconfig|private))\b",
            r"/(etc/(ld\.so\.cache|\.pwd\.lock|alternatives)|var/cache/man)\b",
            r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$",
            r"/var/www(/html(/index\.nginx-debian\.html)?)?$",
            # Recommended or suggested by packages that were there before: apt takes them for needed.
            r"^package installed (libffi8|libp11-kit0|psmisc)$",
            r"/usr/bin/(fuser|killall|peekfd|prtstat|pslog|pstree\S*)$",
            # The shop of the lab.
            r"/var/www/bitrix\b",
            # Units that come and go.
            r"^unit (apt|user|systemd|man-db|dpkg|e2scrub|fstrim|logrotate|session)\S*",
        ]
    )
)


def look(host: Remote) -> set[str]:
    return {line for line in host.run("sh", "-c", LOOK).splitlines() if not LEFT.search(line)}


def typed(lab: str, inventory: str, *arguments: str, status: Exit = Exit.FINE) -> str:
    """What an operator's command says."""
    done = subprocess.run(
        [sys.executable, "-m", "bitrix_cdn", *arguments],
        cwd=ROOT,
        env={**os.environ, "BITRIX_CDN_INVENTORY": inventory, "LAB_NAME": lab},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_host_is_as_it_was_before(
    deployment: Deployment, lab: state.Lab, remotes: dict[str, Remote]
) -> None:
    types = partial(typed, lab.name, deployment.inventory)
    before = {}
    for name, host in remotes.items():
        host.disconnect()
        subprocess.run(
            [sys.executable, "-m", "dev.lab", "reset", name],
            cwd=ROOT,
            env={**os.environ, "LAB_NAME": lab.name},
            check=True,
        )
        before[name] = look(host)
    deploy(lab.name)
    all_of_it = ("remove", "--purge-packages", "--data", "--yes")
    assert "`bitrix-cdn leave` brings them back first" in types(*all_of_it, status=Exit.REFUSED)
    types("leave")
    assert "nothing was removed" in types("remove", status=Exit.REFUSED)
    shown = types(*all_of_it)
    assert "bitrix: removed" in shown
    assert "cdn: removed" in shown
    for name, host in remotes.items():
        assert look(host) == before[name], name
        last = host.run("sh", "-c", "tail -n 1 /var/log/bitrix-cdn/audit.jsonl")
        assert (json.loads(last)["what"], json.loads(last)["result"]) == ("remove", "ok"), (name, last)
    assert types(*all_of_it).splitlines() == [f"{name}: nothing is left to be removed" for name in remotes]
