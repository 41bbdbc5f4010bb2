"""Checks before anything is changed on any host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from pyinfra import host
from pyinfra.api import FactBase, Host
from pyinfra.api.exceptions import ConnectError

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.distribution import LOOK, Distribution, known, supported
from bitrix_cdn.engine.errors import OneLineError
from bitrix_cdn.engine.keys import PublicKey
from bitrix_cdn.fleet.audit import record_while_changing
from bitrix_cdn.fleet.hold import HeldError, hold_while_changing
from bitrix_cdn.fleet.lock import holder_script, own_token, refusal
from bitrix_cdn.fleet.ssh import LoginError
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.inventory import GROUPS
from host_agent.lock import parse
from roles.topology import HOST_KEY, peer

# Debian release -> the Python that it ships, for which the daemon's wheels are brought along.
PYTHONS = {"12": "3.11", "13": "3.13"}

# Machines for which all of the daemon's dependencies exist as wheels.
MACHINES = ("x86_64", "aarch64")

# Where shops are: BitrixVM's first one, its further ones, and what is usual elsewhere.
SHOPS = ("/home/bitrix/www", "/home/bitrix/ext_www/*", "/var/www/*")


def settings_of(host: Host) -> Settings:
    """The settings that the inventory checked.

    :raises OneLineError: the host comes from something else than such an inventory.
    """
    data = host.data.get("settings")
    if data is None:
        raise OneLineError(
            f"{host.name}: has no settings; deploy with an inventory made like inventories/production.py"
        )
    return Settings.model_validate(data)


class Machine(FactBase[dict[str, str]]):
    """Distribution, version, hardware, whether firewalld and SELinux are at work, who holds the host, and the
    mount options of the given directory, in one command."""

    default = dict

    def command(self, directory: str) -> str:
        return (
            f"{LOOK}; echo machine $(uname -m); "
            "echo systemd $(test -d /run/systemd/system && echo yes || echo no); "
            "echo firewalld $(systemctl is-active firewalld.service 2>/dev/null); "
            "echo selinux $(test -e /sys/fs/selinux/enforce && echo yes || echo no); "
            f'echo "lock $({holder_script()})"; '
            f"d={shlex.quote(directory)}; "
            'while [ ! -d "$d" ]; do d=$(dirname "$d"); done; '
            'echo options $(findmnt -n -o OPTIONS --target "$d")'
        )

    def process(self, output: Iterable[str]) -> dict[str, str]:
        return {key: value for key, _, value in (line.partition(" ") for line in output)}


class Shop(FactBase[dict[str, list[str]]]):
    """What of a shop is missing on a host (its `upload/`, its account, its group; in words), and the shops
    that are found there: their root, and user and group of what PHP writes."""

    default = dict

    def command(self, upload: str, user: str, group: str) -> str:
        directory, account, members = map(shlex.quote, (upload, user, group))
        return (
            f"test -d {directory} || echo missing directory {directory}; "
            f"id -u {account} >/dev/null 2>&1 || echo missing account {account}; "
            f"getent group {members} >/dev/null || echo missing group {members}; "
            f"for root in {' '.join(SHOPS)}; do test -d $root/bitrix && test -d $root/upload && "
            "echo found $root $(stat -L -c '%U %G' $root/upload); done; true"
        )

    def process(self, output: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {"missing": [], "found": []}
        for line in output:
            kind, _, what = line.partition(" ")
            found[kind].append(what)
        return found


def machine(settings: Settings) -> dict[str, str]:
    """What this host is; see :class:`Machine`."""
    return host.get_fact(Machine, directory=settings.cdn.root)


def distribution(settings: Settings) -> Distribution:
    """This host's, which :func:`preflight` has found to be a known one."""
    found = known(machine(settings))
    assert found is not None
    return found


def refuse_if_held(settings: Settings) -> None:
    """Stops what would change this host, with one line, while somebody else is at work on it; and keeps
    others away from when this run begins to change anything.

    :raises HeldError: nothing has been changed.
    """
    # The one of the inventory rather than that of the context.
    state = host.state.inventory.get_host(host.name).state
    hold_while_changing(state)
    record_while_changing(state, host.data.get("plan") or "")
    held = refusal(host.name, parse(machine(settings).get("lock", "")), own_token())
    if held:
        raise HeldError(held)


def refuse_without_peer() -> None:
    """Stops what needs the keys of the host on the other side of this one's mount, if that can't be asked.

    Where all hosts are connected to this asks nothing: it is for runs with `--limit`.

    :raises OneLineError: nothing has been changed.
    """
    other = None if not {"bitrix", "cdn"} & set(host.groups) else peer()
    if other is None or other.connected or other in host.state.failed_hosts:
        return
    try:
        other.connect(reason=f"for {host.name}", show_errors=False, raise_exceptions=True)
        other.get_fact(PublicKey, path=HOST_KEY)
    except ConnectError as error:
        if differences.wanted():
            host.state.failed_hosts.add(other)
            return
        if isinstance(error, LoginError):
            raise
        raise OneLineError(
            f"{other.name}: can't be reached, and {host.name} needs its keys: {error}; have it running, then "
            "run this again; nothing was changed"
        ) from None


def _site_settings(shops: list[str]) -> str:
    """What the inventory may say instead, for an error's text."""
    lines = []
    for shop in shops:
        root, user, group = shop.rsplit(" ", 2)
        lines.append(json.dumps({"site": {"root": root, "user": user, "group": group}}))
    return f"; this looks like a shop: {' or '.join(lines)}" if lines else ""


def _refuse_distribution(here: dict[str, str], settings: Settings) -> None:
    only_shop = set(host.groups) & set(GROUPS) == {"bitrix"} and not settings.lab_site.enabled
    found = known(here)
    if found is None or not (found.every_role or only_shop):
        what = (
            found.title if found else f"{here.get('id', 'unknown')} {here.get('version') or '(no version)'}"
        )
        where = "the shop's host" if only_shop else f"a host of {', '.join(_more_than_a_shop(settings))}"
        raise OneLineError(
            f"{host.name}: {what} is not supported on {where}; {supported(only_shop=only_shop)} is"
        )


def _more_than_a_shop(settings: Settings) -> list[str]:
    groups = [group for group in GROUPS if group in host.groups and group != "bitrix"]
    return groups or ["bitrix with settings.lab_site"]


def preflight(settings: Settings) -> None:
    """Stops the deploy, with one line, if this host can't become what it should.

    :raises OneLineError: nothing has been changed on any host yet.
    """
    # A drift check changes nothing, and tells of each host what it can.
    if host.state.failed_hosts and not differences.wanted():
        away = ", ".join(sorted(other.name for other in host.state.failed_hosts))
        raise OneLineError(
            f"{away}: can't be reached, and the hosts need each other's keys; nothing was changed"
        )
    refuse_if_held(settings)
    refuse_without_peer()
    here = machine(settings)
    _refuse_distribution(here, settings)
    if here["systemd"] != "yes":
        raise OneLineError(f"{host.name}: systemd does not run here; a host booted by systemd is needed")
    if "cdn" in host.groups:
        if here["machine"] not in MACHINES:
            raise OneLineError(
                f"{host.name}: {here['machine']}: the converter has no wheels for it; "
                f"it has for {' and '.join(MACHINES)}"
            )
        if "noatime" in here["options"].split(","):
            raise OneLineError(
                f"{host.name}: {settings.cdn.root} is mounted noatime, which hides what visitors read; "
                "mount it relatime"
            )
    if "bitrix" in host.groups and not settings.lab_site.enabled:
        site = settings.site
        shop = host.get_fact(Shop, upload=site.upload, user=site.user, group=site.group)
        if shop["missing"]:
            raise OneLineError(
                f"{host.name}: there is no {', no '.join(shop['missing'])}; "
                "settings.site must say where the shop is and what it runs as, and the shop's host is the "
                f"one in group bitrix{_site_settings(shop['found'])}"
            )
