"""The pages that are made from the code say what the code says."""

from bitrix_cdn.cli import main
from tests.kit.deployment import ROOT


def test_the_pages_are_up_to_date() -> None:
    assert main(["docs", "--check"]) == 0, "run: bitrix-cdn docs"


def test_every_setting_is_explained() -> None:
    for line in (ROOT / "docs/settings.md").read_text().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[-2].strip(), line
