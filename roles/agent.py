"""The host agent: this project's code on every host, one package with one command, `cdn-host`."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, deploy, operation

from bitrix_cdn.engine.agent import SOURCES
from bitrix_cdn.engine.distribution import Distribution
from bitrix_cdn.engine.files import Existing, File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.packages import packages
from bitrix_cdn.settings import Settings
from roles.preflight import distribution

COMMAND = "/usr/local/bin/cdn-host"
LIBRARY = "/usr/local/lib/bitrix-cdn"

PACKAGES = ("python3",)

# Where earlier versions had their modules.
_FORMER = (
    "/usr/local/lib/mount-guard",
    "/usr/local/lib/bitrix-cdn-backup",
    f"{LIBRARY}/redis_mend.py",
    f"{LIBRARY}/probe_picture.py",
)


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    return Footprint(packages=PACKAGES, owned=(LIBRARY,))


@deploy("Host agent")
def agent(settings: Settings) -> None:
    here = distribution(settings)
    packages("Install Python for the host agent", here, PACKAGES)
    tree(name="Install the host agent", files=files(here), root="/usr/local")


@deploy("Host agent")
def no_former_agent() -> None:
    """After the last unit has been told where the modules are now."""
    removed(name="Remove the modules of earlier versions", paths=_FORMER)


def files(here: Distribution) -> list[File]:
    """The command and its modules; `bitrix-cdn restore` writes them to a bare host."""
    command = rendered(
        "agent", owners={COMMAND: ("755", "root", "root")}, library=LIBRARY, python=here.python
    )
    return [*command, *modules()]


def modules(package: str = "") -> list[File]:
    """The modules of a package of the agent, by default of all; those that a unit of it runs with."""
    return [
        File(f"{LIBRARY}/host_agent/{path.relative_to(SOURCES)}", path.read_text())
        for path in sorted(SOURCES.joinpath(package).rglob("*.py"))
    ]


def inputs(package: str) -> list[str]:
    """The files that a unit which runs a package of the agent is started with."""
    return [COMMAND, *(file.path for file in modules(package))]


@operation()
def removed(paths: tuple[str, ...]) -> Generator[StringCommand, None, None]:
    """Removes files and directories.

    + paths: of which some may be there
    """
    present = host.get_fact(Existing, paths=list(paths))
    if not present:
        host.noop("there are none")
        return
    quoted = " ".join(map(shlex.quote, present))
    yield StringCommand(f"set -e\n{record_script(present)}\nrm -rf -- {quoted}")
