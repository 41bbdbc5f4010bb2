"""`python -m tests.upgrade`: the steps of molecule/upgrade that are more than a deploy."""

from __future__ import annotations

import argparse
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from bitrix_cdn.settings import Settings
from dev.lab import state
from dev.lab.errors import LabError
from dev.lab.site import Site
from tests.kit.deployment import INVENTORY, ROOT
from tests.kit.load import report, visiting
from tests.kit.support import Remote
from tests.upgrade import pictures
from tests.upgrade.release import ReleaseError, deploy, previous, unpacked

REQUESTS_FAILED = 3
"""Exit status of `probed` where the command succeeded and a request did not."""


def main(arguments: list[str] | None = None) -> int:
    """Run one step and return its exit status: 1, after one line, where it can't be done."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("previous", help="say which release the upgrade starts from (PREVIOUS=<ref> chooses)")
    prepare = commands.add_parser("prepare", help="deploy that release onto the lab, and have pictures made")
    probed = commands.add_parser("probed", help="run a command while visitors come; report what they met")
    for step in (prepare, probed):
        step.add_argument(
            "--pictures", type=Path, required=True, metavar="FILE", help="what was there before"
        )
    probed.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "previous":
                release = previous(os.environ.get("PREVIOUS"))
                print(f"{release.commit} {release.name}")
                return 0
            case "prepare":
                return _prepare(options.pictures)
            case _:
                return _probed(options.pictures, options.argv[options.argv[:1] == ["--"] :])
    except (ReleaseError, LabError) as error:
        print(f"upgrade: {error}", file=sys.stderr)
        return 1


def _prepare(file: Path) -> int:
    release = previous(os.environ.get("PREVIOUS"))
    with tempfile.TemporaryDirectory(prefix="bitrix-cdn-previous-") as directory:
        unpacked(release, Path(directory))
        deploy(release, Path(directory))
    lab = state.load()
    cdn = lab.host("cdn")
    remote = Remote("cdn", cdn.address, key=lab.ssh_key, known_hosts=lab.known_hosts, sockets=file.parent)
    _, data = runpy.run_path(str(ROOT / INVENTORY))["cdn"]
    try:
        with Site(f"http://{lab.host('bitrix').address}") as site:
            variants, original = pictures.fill(site, remote, Settings.model_validate(data["settings"]))
    finally:
        remote.disconnect()
    pictures.save(variants, original, file)
    print(f"{release.name} is deployed, and {len(variants)} pictures are there as WebP")
    return 0


def _probed(file: Path, command: list[str]) -> int:
    visitors = pictures.visitors(state.load(), *pictures.load(file))
    with visiting(visitors) as seen:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    print(report(seen), file=sys.stderr)
    if status == 0 and any(one.failures for one in seen):
        return REQUESTS_FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
