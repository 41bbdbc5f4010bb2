"""The host agent, called from this side, in the version that this side has.

    remote.run(call("journal", "undo"))

A command brings the modules that it needs along, a few kilobytes, and uses nothing of what is installed on
the host. What is installed is another version whenever it matters: a rollout takes the lock, opens the
journal and records the change of the agent itself before the deploy brings the new one, and may be undone by
a version that is newer than all of that. So the operator's version alone decides what is done, and the files
of the lock and of the journal are what versions share. `cdn-host` is the same for whoever is on the host.

Python comes with the agent. Where none is yet, nothing was ever deployed: a command says so, or does what its
`bare` says, in shell.
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

_NEEDED = {
    "lock": ("flock", "answers", "lock", "lock.cli"),
}
"""Of each part its modules, in an order in which they can be imported."""

_BOOT = """\
import binascii,json,sys,types,zlib
for name,text in json.loads(zlib.decompress(binascii.a2b_base64("{modules}"))):
 module=sys.modules[name]=types.ModuleType(name)
 module.__path__=[]
 exec(compile(text,name,"exec"),module.__dict__)
sys.exit(sys.modules["host_agent.{part}.cli"].main(sys.argv[1:]))"""

_REFUSAL = "echo 'there is no Python: nothing was ever deployed here; do that first' >&2; exit 1"


def call(part: str, *arguments: str, bare: str = _REFUSAL) -> str:
    """A shell command, in lines of its own, that runs a part of the agent; what it prints is JSON.

    :param bare: what is done on a host that has no Python yet; it must end the script.
    """
    boot = shlex.quote(_BOOT.format(modules=_modules(part), part=part))
    words = " ".join(map(shlex.quote, arguments))
    # Python may be there in part, after an interrupted dpkg.
    usable = f"{PYTHON} -I -S -c 'import fcntl, json' 2>/dev/null" if bare != _REFUSAL else f"[ -x {PYTHON} ]"
    return f"{usable} || {{ {bare} ; }}\n{PYTHON} -I -S -X utf8 -c {boot} {words}"


@functools.cache
def _modules(part: str) -> str:
    modules = [("host_agent", "")]
    for name in _NEEDED[part]:
        path = SOURCES.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        modules.append((f"host_agent.{name}", file.read_text("utf-8")))
    return base64.b64encode(zlib.compress(json.dumps(modules).encode(), 9)).decode()
