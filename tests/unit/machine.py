"""A directory that stands for a host, where the scripts that run on hosts can be tried without one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bitrix_cdn.engine.journal import begin_script, record_script, undo_script

SYSTEMCTL = """#!/bin/sh
# States: $UNITS/NAME.active, $UNITS/NAME.enabled; what changes them goes to $UNITS/log.
verb=$1; shift
[ "$1" != -q ] || { quiet=1; shift; }
case $verb in
is-active|is-enabled)
    state=$(cat "$UNITS/$1.${verb#is-}" 2>/dev/null) || state=inactive
    [ -n "$quiet" ] || echo "$state"
    [ "$state" = active ] || [ "$state" = enabled ] ;;
daemon-reload) echo daemon-reload >> "$UNITS/log" ;;
reset-failed) ;;
*)
    echo "$verb $1" >> "$UNITS/log"
    [ ! -e "$UNITS/$1.broken" ] || { echo failed > "$UNITS/$1.active"; exit 1; }
    case $verb in
    stop) echo inactive > "$UNITS/$1.active" ;;
    disable) echo disabled > "$UNITS/$1.enabled" ;;
    enable) echo enabled > "$UNITS/$1.enabled" ;;
    *) echo active > "$UNITS/$1.active" ;;
    esac ;;
esac
"""


class Machine:
    """A directory that stands for a host."""

    def __init__(self, root: Path) -> None:
        self.etc, self.units, self.bin = root / "etc", root / "units", root / "bin"
        self.journal = root / "lib/journal"
        for directory in (self.etc, self.units, self.bin):
            directory.mkdir()
        self.command("systemctl", SYSTEMCTL)
        self.command("sleep", "#!/bin/sh\n")
        self.command("journalctl", "#!/bin/sh\necho last words of $2\n")

    def command(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "UNITS": str(self.units)},
        )

    def done(self, script: str) -> str:
        result = self.run(script)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def record(self, *paths: Path, late: tuple[Path, ...] = (), **unit: str) -> str:
        return "set -eu\n" + record_script(
            [str(path) for path in paths],
            late=[str(path) for path in late],
            journal=str(self.journal),
            **unit,  # type: ignore[arg-type]
        )

    def begin(self) -> None:
        self.done(begin_script(str(self.journal)))

    def undo(self) -> str:
        return self.done(undo_script(str(self.journal)))

    def unit(self, name: str, active: str, enabled: str) -> None:
        (self.units / f"{name}.active").write_text(f"{active}\n")
        (self.units / f"{name}.enabled").write_text(f"{enabled}\n")

    def log(self) -> list[str]:
        return (self.units / "log").read_text().splitlines()
