"""What somebody left on a host and a deploy can't put right is told before any change, and by drift."""

from __future__ import annotations

import pytest

from dev.lab import state
from tests.kit.deployment import Deployment, pyinfra, refusal
from tests.kit.drift import DRIFT, check
from tests.kit.hosts import Cdn

FOREIGN = "/etc/nginx/conf.d/aaa-mine.conf"


def test_a_foreign_file_that_nginx_refuses_is_told(cdn: Cdn, deployment: Deployment, lab: state.Lab) -> None:
    cdn.remote.put(FOREIGN, b"nonsense on;\n")
    try:
        run = pyinfra("-y", lab=lab.name)
        checked = check(deployment, lab)
    finally:
        cdn.remote.run("rm", "-f", FOREIGN)
    refusal(run, "cdn: ", 'unknown directive "nonsense"', f"{FOREIGN}:1", "it isn't ours")
    assert "Starting operation" not in run.output
    assert checked.status == DRIFT, checked.errors
    assert 'unknown directive "nonsense"' in checked.found("cdn")[("file", FOREIGN)]["summary"]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            "mv /etc/nginx/nginx.conf /etc/nginx/kept && mkdir /etc/nginx/nginx.conf",
            "/etc/nginx/nginx.conf is a directory, and a file must be there",
        ),
        (
            "mv /etc/bitrix-cdn /etc/bitrix-cdn.kept && touch /etc/bitrix-cdn",
            "/etc/bitrix-cdn is no directory, and one must be there",
        ),
    ],
)
def test_something_of_another_kind_is_told(cdn: Cdn, lab: state.Lab, made: str, told: str) -> None:
    cdn.remote.run("sh", "-c", made)
    try:
        run = pyinfra("-y", lab=lab.name)
    finally:
        cdn.remote.run(
            *("sh", "-c"),
            # nginx has taken the file again: the next deploy shall have no reason to.
            "cd /etc; [ ! -e nginx/kept ] || "
            "{ rmdir nginx/nginx.conf; mv nginx/kept nginx/nginx.conf; systemctl reload nginx; }; "
            "[ ! -e bitrix-cdn.kept ] || { rm -rf bitrix-cdn; mv bitrix-cdn.kept bitrix-cdn; }",
        )
    refusal(run, f"cdn: {told}")
    assert "Starting operation" not in run.output
