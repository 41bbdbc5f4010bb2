"""The host agent, called from this side, in the version that this side has.

    remote.run(call("journal", "undo"))

A command brings the modules that it needs along, a few kilobytes, and uses nothing of what is installed on
the host. What is installed is another version whenever it matters: a rollout takes the lock, opens the
journal and records the change of the agent itself before the deploy brings the new one, and may be undone by
a version that is newer than all of that. So the operator's version alone decides what is done, and the files
of the lock and of the journal are what versions share. `cdn-host` is the same for whoever is on the host.

Python comes with the agent. Where there is none, nothing was ever deployed, or somebody removed it: a command
says so, or does what its `bare` says, in shell.
"""

from __future__ import annotations

import base64
import functools
import json
import shlex
import zlib
from pathlib import Path

PYTHON = "/usr/bin/python3"
SOURCES = Path(__file__).parents[2] / "host_agent"

NEEDED = {
    "audit": ("audit", "audit.log"),
    "lock": ("flock", "json_output", "lock", "lock.cli"),
    "journal": ("flock", "json_output", "systemd", "journal", "journal.undo", "journal.cli"),
    "release": (
        *("flock", "json_output", "systemd", "journal", "journal.undo", "health", "health.converter"),
        *("release", "release.switch", "release.cli"),
    ),
    "removal": ("json_output", "removal", "removal.host"),
}
"""Of each part the modules that it needs, the last its command."""

_BOOT = """\
import binascii,importlib,json,sys,zlib
from importlib.machinery import ModuleSpec
texts=json.loads(zlib.decompress(binascii.a2b_base64("%(modules)s")))
class Brought:
 def find_spec(self,name,*_):
  return ModuleSpec(name,self,is_package=True) if name in texts else None
 def create_module(self,spec):
  return None
 def exec_module(self,module):
  exec(compile(texts[module.__name__],module.__name__,"exec"),module.__dict__)
sys.meta_path.insert(0,Brought())
sys.exit(importlib.import_module("host_agent.%(command)s").main(sys.argv[1:]))"""

_REFUSAL = "echo 'there is no Python, which a deploy installs: deploy first' >&2; exit 1"


def call(part: str, *arguments: str, bare: str = _REFUSAL) -> str:
    """A shell command, on separate lines, that runs a part of the agent; what it prints is JSON.

    :param bare: what is done on a host that has no Python yet; it must end the script.
    """
    boot = shlex.quote(_BOOT % {"modules": _modules(part), "command": NEEDED[part][-1]})
    words = " ".join(map(shlex.quote, arguments))
    # Python may be there in part, after an interrupted dpkg.
    usable = f"{PYTHON} -I -S -c 'import fcntl, json' 2>/dev/null" if bare != _REFUSAL else f"[ -x {PYTHON} ]"
    return f"{usable} || {{ {bare} ; }}\n{PYTHON} -I -S -X utf8 -c {boot} {words}"


def source(module: str) -> Path:
    """The file of a module of the agent."""
    path = SOURCES.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def _modules(part: str) -> str:
    modules = {"host_agent": ""}
    for name in NEEDED[part]:
        modules[f"host_agent.{name}"] = source(name).read_text("utf-8")
    return base64.b64encode(zlib.compress(json.dumps(modules).encode(), 9)).decode()
