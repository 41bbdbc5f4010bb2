"""Programs that some tests run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest


def needs(program: str, package: str) -> None:
    """Skips the test where a program isn't installed; in CI, where it must be, fails it."""
    if shutil.which(program):
        return
    reason = f"{program} is not installed: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def said(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program says, on both streams.

    :raises AssertionError: it fails; that is the message.
    """
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


def started(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a program as on a new terminal, in its own process group; it may be interrupted."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_hear_signals,
    )


def _hear_signals() -> None:
    # What the shell's `&` or `nohup` started ignores one of them, and hands that on.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
