"""Kernel settings, with this machine's."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitrix_cdn.engine.kernel import sysctl_applied
from tests.unit.engine.machines import machines

KEY = "vm.overcommit_memory"


@pytest.mark.parametrize(
    ("offset", "least", "pending"), [(0, False, False), (1, False, True), (1, True, True), (-1, True, False)]
)
def test_a_stricter_value_may_stay_where_that_is_said(
    tmp_path: Path, offset: int, least: bool, pending: bool
) -> None:
    now = int(Path("/proc/sys", KEY.replace(".", "/")).read_text())
    file = tmp_path / "60-test.conf"
    file.write_text(f"# Managed\n\n{KEY} = {now + offset}\nkernel.yama_of_no_kernel = 1\n")
    with machines("one"):
        made = [str(command) for command in sysctl_applied._inner(path=str(file), least=least)]
    assert made == ([f"sysctl -q -w {KEY}={now + offset}"] if pending else [])
