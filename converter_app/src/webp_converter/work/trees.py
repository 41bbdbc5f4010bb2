"""The two trees of variants."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from webp_converter.variants.originals import Originals
from webp_converter.variants.store import Finished, Result, Store


class Trees(NamedTuple):
    """The two trees of variants."""

    resized: Store
    originals: Originals

    def of(self, path: bytes) -> Store:
        """The one that a picture lies in."""
        return self.originals if self.originals.holds(path) else self.resized

    def publish(self, batch: list[Finished]) -> list[Result]:
        """Publishes decisions, each in its tree; what became of each, in order."""
        results: dict[int, Result] = {}
        for store in self:
            places = [i for i, finished in enumerate(batch) if self.of(finished.path) is store]
            published = store.publish([batch[i] for i in places])
            results |= dict(zip(places, published, strict=True))
        return [results[i] for i in range(len(batch))]

    def unfinished(self) -> list[Path]:
        """What is under way, and what workers left that died."""
        return [Path(os.fsdecode(path)) for store in self for path in store.unfinished()]
