"""What the CDN promises: the service levels' targets, as the recording rules measure them."""

AVAILABILITY = 0.999
"""Share of requests that aren't answered with 5xx."""

LATENCY = 0.95
"""Share of pictures sent within `FAST_S`: with it, that is their P95."""

FAST_S = 0.25
"""Seconds that a picture may take, and close-write to published."""

CACHE_HIT = 0.80
"""Share of what goes through Varnish that it answers by itself."""

CONVERSION = 0.95
"""Share of pictures that are decided about, not given up."""

SAVING = 0.30
"""Share of the originals' bytes that their variants save."""

SSIM = 0.95
"""Structural similarity of a variant to its original; the share of variants above it as well."""

BUDGET = "30d"
"""Over how long an error budget is spent."""
