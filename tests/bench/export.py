"""The state that a deploy brings a host to, as variables and files for `playbook.yml`.

    pyinfra --dry INVENTORY deploy.py tests/bench/export.py --data export=DIRECTORY

After the deploy, in the same rehearsal: what is exported are the arguments of the deploy's own operations, so
that the playbook can't say anything else. Operations that it has no words for are named in `left_out`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyinfra import host

from bitrix_cdn.engine.files import File
from bitrix_cdn.engine.wheels import Bundle
from roles.sftp import KEY, KNOWN_HOSTS
from roles.topology import HOST_KEY, peer


class Export:
    """What one host shall be."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.files: list[File] = []
        self.takes: dict[str, list[str]] = {}
        """Units that must be restarted or reloaded for a file, by its path."""
        self.variables: dict[str, Any] = {
            name: []
            for name in (
                *("accounts", "packages", "directories", "absent", "links", "keys", "tokens", "certificates"),
                *("trusts", "releases", "sysctls", "units", "stopped", "left_out"),
            )
        }

    def add(self, name: str, given: Mapping[str, Any]) -> None:
        """Adds an operation, by the name of its function."""
        match name:
            case "files.tree":
                self.files += given["files"]
                self.variables["absent"] += given.get("absent", ())
            case "sshd.confirmed_sshd_config":
                self.files.append(given["drop_in"])
                self.takes[given["drop_in"].path] = [given["unit"]]
            case "apt.packages":
                self.variables["packages"] += given["packages"]
            case "server.user" | "accounts.account":
                self.variables["accounts"].append(dict(given))
            case "files.directory":
                self.variables["directories"].append({**given, "mode": _octal(given.get("mode"))})
            case "files.link":
                self.variables["links"].append(dict(given))
            case "keys.key_pair":
                self.variables["keys"].append(dict(given))
            case "keys.token":
                self.variables["tokens"].append(dict(given))
            case "certificates.self_signed_certificate":
                self.variables["certificates"].append(dict(given))
            case "sftp.trust":
                self.variables["trusts"].append(
                    {
                        "account": given["account"],
                        "peer": peer().name,
                        "key": f"{KEY}.pub",
                        "host_key": HOST_KEY,
                        "known_hosts": KNOWN_HOSTS,
                    }
                )
            case "converter.release":
                daemon: Bundle = given["daemon"]
                self.variables["releases"].append({"id": daemon.id, "archive": str(daemon.archive)})
            case "kernel.sysctl_applied":
                self.variables["sysctls"].append(given["path"])
            case "services.running":
                self.variables["units"].append(given["unit"])
                for path in (*given.get("start", ()), *given.get("reload", ())):
                    self.takes.setdefault(path, []).append(given["unit"])
            case "systemd.service" if not given["running"] and not given["enabled"]:
                self.variables["stopped"].append(given["service"])
            case _:
                self.variables["left_out"].append(name)

    def write(self, name: str) -> None:
        """Writes `host_vars/NAME.json`, and the files' contents below `files/NAME`."""
        written = {file.path: file for file in self.files}
        for file in written.values():
            source = self.place / "files" / name / file.path.lstrip("/")
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(file.content)
        self.variables["files"] = [
            {
                "path": file.path,
                "mode": f"0{file.mode}",
                "owner": file.user,
                "group": file.group,
                "units": self.takes.get(file.path, []),
            }
            for file in written.values()
        ]
        self.variables["packages"] = list(dict.fromkeys(self.variables["packages"]))
        target = self.place / "host_vars" / f"{name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(self.variables, indent=1))


def _octal(mode: str | int | None) -> str | None:
    return None if mode is None else f"0{mode}"


def export(place: Path) -> None:
    """Exports this host's operations, in their order."""
    this = host.state.inventory.get_host(host.name)
    made = Export(place)
    for operation in host.state.ops[this].values():
        # What pyinfra keeps of a call is a closure over the function and its arguments.
        called = inspect.getclosurevars(operation.command_generator).nonlocals
        function, given = called["func"], called["kwargs"]
        made.add(f"{function.__module__.rpartition('.')[2]}.{function.__name__}", given)
    made.write(host.name)


export(Path(host.data.get("export")))
