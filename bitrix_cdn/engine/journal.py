"""The undo journal of a host (see :mod:`host_agent.journal`) in the scripts that change something there.

If no journal is open, this costs one check for its directory.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Literal

from bitrix_cdn.engine.agent import call
from host_agent.journal import JOURNAL

# The number of the open file in the scripts.
_LOCK = 8


def record_script(
    paths: Sequence[str] = (),
    *,
    late: Sequence[str] = (),
    unit: str = "",
    action: Literal["", "reload", "restart"] = "",
    trial: str = "",
) -> str:
    """The part of a shell script that records what is about to be changed; it runs under `set -e`.

    Until the script ends, what it has recorded isn't undone.

    :param paths: files and symbolic links that are about to be written or removed.
    :param late: of those, the ones that go back last: stamps of what a unit runs with, and directories,
        which are only ever removed again.
    :param unit: systemd unit that is about to be enabled.
    :param action: what is about to be done to it besides.
    :param trial: directory of a journal for this one change, which is opened here; see `roles/converter.py`.
    """
    what = {"paths": list(paths), "late": list(late), "unit": unit, "action": action, "trial": trial}
    j = shlex.quote(str(JOURNAL))
    recording = f"{call('journal', 'record', json.dumps({**what, 'lock': _LOCK}))} >/dev/null"
    lock = f"exec {_LOCK}> {j}.lock"
    if trial:
        return f"[ ! -d {j} ] || {lock}\n{recording}"
    return f"if [ -d {j} ]; then\n{lock}\n{recording}\nfi"


def begin_script() -> str:
    """A shell script that opens the journal; one that is open stays as it is."""
    return call("journal", "begin")


def commit_script() -> str:
    """A shell script that closes the journal and keeps what was changed."""
    return call("journal", "commit")


def undo_script() -> str:
    """A shell script that puts everything back as the journal has it, then closes it; see
    :func:`host_agent.journal.undo.undo`.
    """
    return call("journal", "undo")
