"""The host agent as it is sent to a host, with its files elsewhere: any machine will do as the host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bitrix_cdn.engine import agent


@contextmanager
def sent_with(module: str, path: Path, instead: Path, room: Path) -> Iterator[None]:
    """What is sent has another path in a module of the agent.

    :param path: that stands there, once.
    :param room: an empty directory's path.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "SOURCES", shutil.copytree(agent.SOURCES, room))
        source = agent.source(module)
        text = source.read_text()
        assert text.count(f'"{path}"') == 1
        source.write_text(text.replace(f'"{path}"', f'"{instead}"'))
        agent._modules.cache_clear()
        yield
    agent._modules.cache_clear()
