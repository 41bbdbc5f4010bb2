"""What is told of something: one model, from where it is found out to HTTP and `--json`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fact(BaseModel):
    """What all facts share. Paths in them are text: bytes that aren't UTF-8 are surrogates, as in Python."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
