"""Lists what there is to remove on each host, and removes it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitrix_cdn.adopt.transfer import MOUNT
from bitrix_cdn.drift.expected import ACCOUNTS_OF_PACKAGES
from bitrix_cdn.engine.agent import PYTHON, call
from bitrix_cdn.engine.footprint import Place
from bitrix_cdn.fleet import HostError, Inventory, RefusedError, Remote, keep_others_away
from bitrix_cdn.fleet.audit import recorded
from bitrix_cdn.settings import Settings
from roles.alertmanager import ACCOUNT as ALERTMANAGER
from roles.base import BEFORE
from roles.footprints import footprints
from roles.nginx import ACCOUNT, GROUP

# Where pictures are that only the CDN host has: mounted, or waiting in the spool.
_LEFT = f"""
if systemctl is-enabled -q {MOUNT} 2>/dev/null || systemctl is-active -q {MOUNT}; then echo mount; fi
if mountpoint -q %s; then echo mounted; fi
"""

_NGINX = f"""
[ ! -f /etc/nginx/nginx.conf ] || sed -i 's/^user {ACCOUNT} {GROUP};/user {GROUP};/' /etc/nginx/nginx.conf
"""


@dataclass(frozen=True)
class Found:
    """What a deploy brought to a host."""

    units: Sequence[str] = ()
    files: Sequence[str] = ()
    accounts: Sequence[str] = ()
    packages: Sequence[str] = ()
    """Those that were not there before the first deploy."""
    known: bool = True
    """Whether what was there before is known."""
    stays: Sequence[str] = ()
    """Data that is there and stays."""

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.units or self.files or self.accounts)


def spec(settings: Settings, groups: Sequence[str]) -> dict[str, list[str]]:
    """What :class:`host_agent.removal.host.Removal` must know of a host."""
    place = Place(settings, frozenset(groups), edges=True, balanced=True)
    taken = footprints(place).values()

    def all_of(kind: str) -> list[str]:
        return list(dict.fromkeys(one for footprint in taken for one in getattr(footprint, kind)))

    # The shop's own account stays; Alertmanager's goes with its package.
    others = {settings.site.user, ALERTMANAGER}
    return {
        "accounts": [name for name in all_of("accounts") if name not in others],
        **{kind: all_of(kind) for kind in ("packages", "owned", "empty", "data")},
    }


def refuse_if_needed(inventory: Inventory) -> None:
    """Makes sure that the shop doesn't need its CDN any more.

    :raises RefusedError: its pictures are on the CDN host.
    :raises HostError: the shop's host can't be asked.
    """
    path = shlex.quote(inventory.settings.site.resize_cache)
    for name in inventory.groups.get("bitrix", ()):
        if inventory.hosts[name].run(_LEFT % path, within=0).text:
            raise RefusedError(
                f"{name}: the shop's pictures are on the CDN host; `bitrix-cdn leave` brings them back first"
            )


def find(inventory: Inventory, names: Sequence[str], *, data: bool) -> dict[str, Found]:
    """What there is to remove, by host; changes nothing."""
    found = {}
    for name in names:
        remote = inventory.hosts[name]
        remote.connect()
        said: dict[str, Any] = json.loads(_call(inventory, remote, "list", data=data) or "{}")
        found[name] = Found(**said)
    return found


def listed(name: str, found: Found, *, purge: bool) -> Iterator[str]:
    """What there is on a host, for people."""
    if not found.any and not (purge and found.packages):
        yield f"{name}: nothing is left to be removed"
        return
    for kind in ("units", "files", "accounts"):
        if names := getattr(found, kind):
            yield f"{name}: {kind}: {', '.join(names)}"
    if not found.known:
        yield f"{name}: packages stay: which of them were there before the first deploy is not known"
    elif found.packages:
        stays = "" if purge else " stay (--purge-packages removes them)"
        yield f"{name}: packages{stays}: {', '.join(found.packages)}"
    if found.stays:
        yield f"{name}: data stays (--data removes it): {', '.join(found.stays)}"


def remove(
    inventory: Inventory, found: Mapping[str, Found], *, purge: bool, data: bool
) -> Iterator[tuple[str, str]]:
    """Removes it, host by host; says what was done.

    :raises HostError: something could not be done; run again, it goes on.
    """
    remotes = [inventory.hosts[name] for name in found]
    keep_others_away(remotes, "remove")
    with recorded(remotes, "remove", inventory.file):
        refuse_if_needed(inventory)
        for remote in remotes:
            _call(inventory, remote, "remove", data=data)
            if purge and found[remote.name].packages:
                _purge(remote, found[remote.name].packages)
            # That file is the package's, which may stay and must be able to start.
            remote.run(_NGINX)
            _call(inventory, remote, "forget", data=data)
            remote.run(f"rm -rf {Path(BEFORE).parent}")
            yield remote.name, "removed"


def _call(inventory: Inventory, remote: Remote, command: str, *, data: bool) -> str:
    groups = [group for group, names in inventory.groups.items() if remote.name in names]
    given = json.dumps(spec(inventory.settings, groups)).encode()
    # Without Python it is a host from which all of it is gone, but for what apt had not finished.
    script = call("removal", command, *(["--data"] if data else []), bare=f"[ -e {PYTHON} ] || exit 0")
    return remote.run(script, stdin=given).text


def _purge(remote: Remote, packages: Sequence[str]) -> None:
    """Purges packages, what they alone needed, and the accounts that they added."""
    accounts = " ".join(sorted(ACCOUNTS_OF_PACKAGES | {ALERTMANAGER}))
    remote.run(
        f"""
        set -e
        export DEBIAN_FRONTEND=noninteractive LC_ALL=C
        new() {{ sort -u | comm -13 {BEFORE}/$1 -; }}
        apt-get -qq -y purge {shlex.join(packages)} </dev/null
        # What only they needed, and what only that needed.
        unneeded() {{ apt-get -s autoremove </dev/null | sed -n 's/^Remv \\([^ ]*\\) .*/\\1/p'; }}
        while orphans=$(unneeded | new packages); [ -n "$orphans" ]; do
            apt-get -qq -y purge $orphans </dev/null
        done
        for name in $(cut -d: -f1 /etc/passwd | new accounts); do
            case " {accounts} " in *" $name "*) userdel "$name" ;; esac
        done
        for name in $(cut -d: -f1 /etc/group | new groups); do
            case " {accounts} " in *" $name "*) groupdel "$name" ;; esac
        done
        systemctl daemon-reload
        """
    )


def as_data(found: Mapping[str, Found]) -> dict[str, Any]:
    """What there is, for programs."""
    return {name: vars(one) for name, one in found.items()}


__all__ = ["Found", "HostError", "as_data", "find", "listed", "refuse_if_needed", "remove", "spec"]
