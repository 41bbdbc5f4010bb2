"""Runs the cases of `tests/varnish` on a host's own Varnish."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from testinfra.host import Host

from bitrix_cdn.settings import Settings
from roles.varnish import VCL, Source, configuration


@dataclass(frozen=True)
class Case:
    status: int
    output: str


def outcomes(host: Host, cases: Sequence[Path], vcl: Callable[[int], str]) -> dict[str, Case]:
    """The outcome of each case, by its name.

    One after the other: side by side they are late for their own seconds.

    :param vcl: the VCL whose source is on that port of loopback.
    """
    # In memory: a disk that others write to can hold up Varnish's log for longer than its patience lasts.
    place = host.check_output("mktemp -d -p /dev/shm")
    script = []
    for number, case in enumerate(cases):
        port = 20081 + number
        base = f"{place}/{case.stem}"
        host.check_output("printf %%s %s > %s", vcl(port), f"{base}.vcl")
        host.check_output("printf %%s %s > %s", case.read_text(), f"{base}.vtc")
        run = f"TMPDIR={place} varnishtest -Dvcl={base}.vcl -Dport={port} {base}.vtc > {base}.log 2>&1"
        script.append(f"{run}; echo $? > {base}.rc")
    host.check_output(f"chmod 1777 {place}; chmod a+r {place}/*; {'; '.join(script)}")
    found = {
        case.stem: Case(
            int(host.check_output("cat %s", f"{place}/{case.stem}.rc")),
            host.check_output(
                "grep -aE '^\\*+ +(top|c[0-9]|s[0-9]|v1)|^#' %s | tail -n 40 || true",
                f"{place}/{case.stem}.log",
            ),
        )
        for case in cases
    }
    host.check_output("rm -rf %s", place)
    return found


def quick(settings: Settings, source: Source) -> str:
    """The VCL with seconds instead of minutes, and without the probe."""
    encoding = settings.converter.encoding.model_copy(update={"avif": True})
    # Without validation: 1 s is less than the settings allow.
    changed = settings.model_copy(
        update={
            "varnish": settings.varnish.model_copy(update={"absent_s": 1}),
            "converter": settings.converter.model_copy(update={"encoding": encoding}),
        }
    )
    # One name for all, as the cases tell it to be away.
    quicker = replace(source, name="originals", host="127.0.0.1", fresh_s=1, pending_s=1, behind_s=1)
    file = configuration(changed, quicker, settings.varnish.memory)[VCL]
    without_probe = re.sub(r"probe \w+ \{.*?\}\n", "", file.content, flags=re.DOTALL).replace(
        "    .probe = originals_there;\n", ""
    )
    assert "probe" in file.content
    assert ".probe" not in without_probe
    return without_probe
