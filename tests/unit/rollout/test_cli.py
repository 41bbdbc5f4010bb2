"""The command line: a wrong command is said in one line, with status 2, and nothing is connected to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitrix_cdn.rollout import cli
from tests.kit.deployment import ROOT
from tests.kit.examples import filled_in

PRODUCTION = "a shop's inventory"
"""In place of its file."""


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: inventory"),
        ([PRODUCTION, "--batch", "0"], "'0': a number from 1 to 1000 is allowed"),
        ([PRODUCTION, "--batch", "two"], "'two': a number from 1 to 1000 is allowed"),
        ([PRODUCTION, "--watch", "-1"], "'-1': a number from 0 to 3600 is allowed"),
        ([PRODUCTION, "--watch", "nan"], "'nan': a number from 0 to 3600 is allowed"),
        (
            [PRODUCTION, "--canary", "edge9"],
            "edge9: no such host; there are shop.shop.test, cdn.shop.test",
        ),
        ([PRODUCTION, "--force"], "unrecognized arguments: --force"),
    ],
)
def test_a_wrong_command(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = str(filled_in(tmp_path))
    arguments = [inventory if word == PRODUCTION else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_an_inventory_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inventories/none.py"]) == 1
    assert capsys.readouterr().err == "rollout: inventories/none.py: no such inventory\n"


def test_an_inventory_that_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inventory = tmp_path / "shop.py"
    inventory.write_text(
        "from bitrix_cdn.settings import groups\n\nbitrix, cdn, *others = groups(bitrix={})\n"
    )
    assert cli.main([str(inventory)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("rollout: ")
    assert 'group "bitrix" is missing' in lines[0]
    assert 'group "cdn" is missing' in lines[1]
