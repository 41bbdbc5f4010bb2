"""What `dpkg --verify` says, and what of it is wrong."""

from __future__ import annotations

import pytest

from host_agent.integrity import differing


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("??5??????   /usr/sbin/nginx", "/usr/sbin/nginx"),
        ("missing     /usr/lib/x86_64-linux-gnu/libssl.so.3", "/usr/lib/x86_64-linux-gnu/libssl.so.3"),
        ("??5??????   /usr/share/a name/of two words", "/usr/share/a name/of two words"),
        ("dpkg: error: a parser's", "dpkg: error"),
    ],
)
def test_a_program_that_differs_is_told(line: str, path: str) -> None:
    [told] = differing([line])
    assert path in told


@pytest.mark.parametrize(
    "line",
    [
        "??5?????? c /etc/nginx/nginx.conf",
        "missing   c /etc/logrotate.d/nginx",
        "missing     /usr/share/doc/nginx/copyright",
        "missing     /usr/share/man/man8",
    ],
)
def test_configuration_and_what_images_leave_out_are_not(line: str) -> None:
    assert not [*differing([line])]
