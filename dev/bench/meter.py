"""CPU time and memory of a program: all of its processes together."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

_SAMPLE_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Adds up the CPU time and the memory of processes and all that they start, while its block runs."""

    def __init__(self, *roots: int) -> None:
        self._roots = roots
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.cpu_s = 0.0
        """Seconds of CPU time, user and system."""

        self.peak_mib = 0.0
        """The largest sum of proportional set sizes that was seen, in MiB."""

    def __enter__(self) -> Meter:
        self._before = self._cpu()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = self._cpu() - self._before
        self._stop.set()
        self._thread.join()

    def _pids(self) -> list[int]:
        found, left = [], list(self._roots)
        while left:
            pid = left.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    left += [int(child) for child in (task / "children").read_text().split()]
        return found

    def _cpu(self) -> float:
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))  # its own, and those of children that ended
        return total / _TICKS

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            size_kib = 0
            for pid in self._pids():
                with contextlib.suppress(OSError):
                    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                        if line.startswith("Pss:"):
                            size_kib += int(line.split()[1])
            self.peak_mib = max(self.peak_mib, size_kib / 1024)
