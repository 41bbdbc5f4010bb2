"""The service levels, as the recording rules measure them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Levels:
    """The service levels' targets, named as in the settings."""

    availability: float = 0.999
    """Share of requests that aren't answered with 5xx."""

    fast: float = 0.95
    """Share of pictures sent within 0.25 s: at 0.95, that is their P95."""

    cache_hit: float = 0.80
    """Share of what goes through Varnish that it answers by itself."""

    conversion_success: float = 0.95
    """Share of pictures that are decided about, not given up."""

    saving: float = 0.30
    """Share of the originals' bytes that their variants save."""

    ssim: float = 0.95
    """Structural similarity of a variant to its original."""

    publish_s: float = 1.0
    """Seconds from close-write to published, for 99 of 100 pictures converted at once."""
