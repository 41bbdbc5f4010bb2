"""Stores of variants, and pictures in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from webp_converter.config import Config, Encoding
from webp_converter.config import Store as StoreConfig
from webp_converter.variants.store import WEBP, Finished, Mark, Store, Temporary, Unfinished
from webp_converter.work.decoder import step
from webp_converter.work.worker import Conversion, Report


def make_store(directory: Path, avif: bool = False) -> Store:
    root = directory / "upload"
    root.mkdir(exist_ok=True)
    config = Config(
        store=StoreConfig(root=root, temporary=directory / "tmp", owner="root", group="root"),
        encoding=Encoding(avif=avif),
    )
    return Store(config, Temporary(config.store.temporary).path)


def original(store: Store, name: str = "a/photo.jpg", data: bytes = b"original") -> Path:
    path = Path(os.fsdecode(store.root)) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def finished(store: Store, path: Path, data: bytes = b"variant", suffix: bytes = WEBP) -> Finished:
    identity = store.identity_of(os.fsencode(path))
    assert identity
    mark = Mark(identity.size, identity.mtime_ns, "q80", 0.9612, 0, 7)
    name = store.write(data, identity.mtime_ns)
    return Finished(os.fsencode(path), identity, mark, time.time_ns(), name, suffix)


def finished_with_avif(
    store: Store, path: Path, data: bytes = b"variant", suffix: bytes = WEBP, avif: bytes | None = b"avif"
) -> Finished:
    """With regard to AVIF; `avif` is None where nothing came of it."""
    made = finished(store, path, data, suffix)
    mark = made.mark._replace(avif=True)
    if avif is None:
        return made._replace(mark=mark)
    beside = Unfinished(mark._replace(verdict="q60"), store.write(avif, mark.mtime_ns))
    return made._replace(mark=mark, avif=beside)


def variant(path: Path, suffix: bytes = WEBP) -> Path:
    return Path(str(path) + suffix.decode())


def concluded(conversion: Conversion, encoding: Encoding) -> Report:
    """What a conversion reports; it is decoded in this process, so let it be of a picture of ours."""
    try:
        task = next(conversion)
        while True:
            task = conversion.send(step(encoding, task))
    except StopIteration as end:
        report: Report = end.value
        return report
