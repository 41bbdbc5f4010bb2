"""The reference of settings says what the model says."""

import subprocess
import sys

from tests.kit.deployment import ROOT


def test_the_reference_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "bitrix_cdn.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "docs/settings.md").read_text(), (
        "run: python -m bitrix_cdn.settings > docs/settings.md"
    )


def test_every_setting_is_explained() -> None:
    for line in (ROOT / "docs/settings.md").read_text().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[-2].strip(), line
