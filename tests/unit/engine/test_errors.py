"""What pyinfra shows of an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bitrix_cdn.engine.errors import OneLineError


def test_where_it_was_raised_is_not_shown() -> None:
    @contextmanager
    def deploy() -> Iterator[None]:
        yield

    with pytest.raises(OneLineError) as raised, deploy():
        raise OneLineError("bitrix: Debian 13 is needed")
    assert raised.value.__traceback__ is None
