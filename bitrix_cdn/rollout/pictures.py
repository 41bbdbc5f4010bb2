"""Requests a picture on the host itself as a browser does, with tools that every host has."""

from __future__ import annotations

import io
import time

from PIL import Image, UnidentifiedImageError

from bitrix_cdn.fleet import Remote
from bitrix_cdn.rollout.errors import RolloutError
from bitrix_cdn.rollout.http import Door, ask

ACCEPTS = {"WEBP": "image/webp,image/*;q=0.8,*/*;q=0.5", "JPEG": "image/jpeg,image/*;q=0.8"}
"""The formats that are asked for, by Pillow's names, and how browsers ask for them."""

# Until a variant that is being made just now is there, in seconds: the picture is made again all the time.
_PATIENCE = 30.0


def comes_in(remote: Remote, door: Door, path: str, form: str) -> str:
    """What is wrong with a picture in one format; empty: it comes, and is whole."""
    answer = ask(remote, door, path, ACCEPTS[form])
    if answer.status != 200:
        return f"{path} is answered with {answer.status}"
    try:
        with Image.open(io.BytesIO(answer.body)) as picture:
            picture.load()
            found = picture.format
    except (UnidentifiedImageError, OSError) as error:
        return f"{path} is no whole picture: {error}"
    if found != form or answer.type != f"image/{form.lower()}":
        return f"{path} comes as {answer.type} ({found}), asked for as {form}"
    return ""


def check(remote: Remote, door: Door, path: str, *, patience: float = _PATIENCE) -> None:
    """Makes sure that a JPEG comes as both formats.

    :param patience: seconds in which it may still come right.
    :raises RolloutError: it does not.
    :raises HostError: the host can't be reached.
    """
    deadline = time.monotonic() + patience
    for form in ACCEPTS:
        while wrong := _wrong(remote, door, path, form):
            if time.monotonic() > deadline:
                raise RolloutError(f"{remote.name}: {wrong}")
            time.sleep(0.5)


def _wrong(remote: Remote, door: Door, path: str, form: str) -> str:
    try:
        return comes_in(remote, door, path, form)
    except RolloutError as error:
        return str(error).removeprefix(f"{remote.name}: ")
