"""The converter daemon: installed from wheels built here, one release a directory."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Generator
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, deploy, operation
from pyinfra.operations import apt, files

from bitrix_cdn.engine.files import directory, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.kernel import sysctl_applied
from bitrix_cdn.engine.keys import token
from bitrix_cdn.engine.services import running
from bitrix_cdn.engine.wheels import Bundle, bundle
from bitrix_cdn.settings import Settings
from host_agent.release import HOME, TRIAL
from roles.preflight import PYTHONS, machine
from roles.releases import CONFIG, Installed, pruned, readable, running_release
from roles.topology import BEHIND, LOOPBACK, askers

PROJECT = Path(__file__).parent.parent / "converter_app"
SYSCTL = "/etc/sysctl.d/60-webp-converter.conf"
PACKAGES = ("python3-venv", "libseccomp2")
COMMAND = "/usr/local/bin/webp-converter"
MISSES = "/etc/systemd/system/webp-converter-misses"
SOCKET = "/run/webp-converter/misses.sock"
"""Where nginx tells what visitors missed."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    api, metrics = place.settings.converter.api, place.settings.converter.metrics
    if not place.among("cdn"):
        return Footprint()
    local = ("127.0.0.1", "::1", "localhost")
    ports = (
        Port(
            api.port,
            "host" if api.address in local else "everybody",
            "converter: health and API",
            page=api.address in local,
        ),
        Port(
            metrics.port,
            "monitoring",
            "converter: metrics",
            anywhere=metrics.address not in local,
            gate=("/metrics",) if metrics.address == LOOPBACK else (),
            job="converter",
        ),
    )
    cdn = place.settings.cdn
    return Footprint(
        ports,
        trees=("/etc/webp-converter",),
        saved=("/etc/webp-converter",),
        packages=PACKAGES,
        owned=("/etc/webp-converter", str(HOME), COMMAND),
        # The pictures of the shop, and what was made of them.
        data=(cdn.root, cdn.variants),
    )


@deploy("Converter")
def converter(settings: Settings) -> None:
    here = machine(settings)
    python = PYTHONS[here["version"]]
    apt.packages(name="Install Python's venv and libseccomp", packages=[*PACKAGES], no_recommends=True)
    for path in (
        f"{settings.cdn.root}/.webp-converter",
        settings.cdn.variants,
        f"{settings.cdn.variants}/.webp-converter",
        f"{settings.cdn.variants}/upload",
    ):
        directory(name=f"Create {path}", path=path, mode="755", user="www-data", group="www-data")
    directory(
        name="Create the directory above the originals' mount point",
        path=settings.cdn.originals_parent,
    )
    daemon = bundle(PROJECT, python, here["machine"])
    keep = settings.releases.keep
    release(name=f"Install release {daemon.id}", daemon=daemon, python=python, keep=keep)
    readable(name="Make the releases readable for the converter's account")
    files.link(
        name="Link the command webp-converter into /usr/local/bin",
        path=COMMAND,
        target=f"{HOME}/current/bin/webp-converter",
    )
    values = settings.converter.model_dump(mode="json")
    if values["metrics"]["address"] == LOOPBACK:
        values["metrics"]["address"] = BEHIND
    configuration = rendered(
        "converter",
        settings=settings,
        converter=values,
        misses=SOCKET,
        askers=askers(settings),
    )
    tree(
        name="Write config.toml (checked by the converter)",
        files=configuration,
        check=f"{HOME}/releases/{daemon.id}/bin/webp-converter config check --config {CONFIG}",
        trial=str(TRIAL),
    )
    token(
        name="Create the token of the converter's API",
        path=str(settings.converter.api.token_file),
        owner="www-data",
    )
    sysctl_applied(name="Raise the kernel's inotify limits", path=SYSCTL)
    running(
        name="Open the miss log socket",
        unit="webp-converter-misses.socket",
        start=[f"{MISSES}.socket"],
        ready=f"test -S {SOCKET}",
        trial=str(TRIAL),
    )
    running(name="Run the miss log buffer", unit="webp-converter-misses.service")
    running_release(
        name="Run the converter",
        release=daemon.id,
        healthy_within_s=settings.releases.healthy_within_s,
    )
    pruned(name="Remove old releases", keep=keep)


@operation()
def release(
    daemon: Bundle, python: str, keep: int
) -> Generator[StringCommand | FileUploadCommand, None, None]:
    """Installs a release beside the others; which of them runs stays as it is.

    + daemon: the wheels to install from
    + python: the Python that they were chosen for
    + keep: how many releases are kept, which is asked in the same question as by what removes the others
    """
    if daemon.id in host.get_fact(Installed, keep=keep).complete:
        host.noop(f"release {daemon.id} is installed")
        return
    # A unique name: what a killed run left working on the host may still use its archive, and removes it.
    archive = f"{HOME}/{daemon.id}-{secrets.token_hex(4)}.tar"
    refusal = f"{host.name}: the converter's wheels are for Python {python}, but python3 here is"
    yield StringCommand(
        f"""
        mkdir -p {HOME}/releases
        found=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') || found=missing
        [ "$found" = {python} ] || {{ echo {shlex.quote(refusal)} "$found" >&2; exit 1; }}
        """
    )
    yield FileUploadCommand(str(daemon.archive), archive)
    record = record_script(late=[f"{HOME}/releases/{daemon.id}"])
    # What an interrupted run left has no `release` in it, and is made again.
    yield StringCommand(
        f"""
        set -e
        exec 9>{HOME}/lock
        flock 9
        find {HOME} -maxdepth 1 -name '*.tar' -mmin +60 -delete
        place={HOME}/releases/{daemon.id}
        wheels=$(mktemp -d)
        trap 'rm -rf "$wheels" {archive}' EXIT
        if [ ! -e "$place/release" ]; then
            tar -xf {archive} -C "$wheels"
            rm -rf "$place"
            {record}
            umask 022
            # By pip's own wheel, which python3-venv brings: a pip in the release would take longer to install
            # than all else.
            python3 -m venv --without-pip "$place"
            "$place/bin/python" -I "$(echo /usr/share/python-wheels/pip-*.whl)/pip" install -q --no-compile \\
                --disable-pip-version-check --no-index --require-hashes \\
                --find-links "$wheels" -r "$wheels/requirements.txt"
            # Root compiles what the daemon imports; its own account may not write here.
            for module in cli daemon work.preload; do
                "$place/bin/python" -I -c "import webp_converter.$module"
            done
            echo {daemon.id} > "$place/release"
        fi
        """
    )
