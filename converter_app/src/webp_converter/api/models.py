"""The models of the HTTP API's requests and answers, beside those that other modules define."""

from __future__ import annotations

from pydantic import Field

from webp_converter.api.service import RequestedPicture
from webp_converter.base.fact import Fact
from webp_converter.events.scanner import LastScan
from webp_converter.queue.jobs import Queued
from webp_converter.queue.latest_jobs import Conversion
from webp_converter.variants.originals import OriginStatus
from webp_converter.work.health import Health
from webp_converter.work.housekeeper import LastEviction


class Problem(Fact):
    """Why there is no other answer."""

    detail: str
    """One line."""


class Disk(Fact):
    """The file system of one tree."""

    tree: str
    used_bytes: int
    available_bytes: int
    share: float
    """0 to 1, as `df` counts: compare with `store.high_water`."""


class Status(Fact):
    """Health and surroundings."""

    health: Health
    consumer: str
    """Name of the daemon in the queue."""

    version: str
    release: str
    """As the deploy names it; empty: it runs from none."""

    uptime_s: float
    disks: list[Disk]
    originals: OriginStatus
    last_scan: LastScan | None
    """None: there was none since the daemon started."""

    last_eviction: LastEviction | None
    """None: there was none since the daemon started."""


class LatestWork(Fact):
    """The latest work of this daemon, at most since its start."""

    decided_minute: int
    """Decisions about pictures within the last minute: converted, or best as they are."""

    decided_hour: int
    conversions: list[Conversion]
    """One a picture, the latest first."""


class Retried(Fact):
    """A picture that is tried again."""

    id: str
    path: str


class ScanRequested(Fact):
    """A scan starts at once, or when a running one has ended."""

    asked: bool


class ConvertRequest(Fact):
    """Pictures to convert."""

    paths: list[str] = Field(min_length=1, max_length=1000)
    """Absolute paths of originals: below `store.root`, or below `originals.variants` as if they lay there."""


class ConvertResponse(Fact):
    """What was done about each requested picture."""

    pictures: list[RequestedPicture]


class OriginalModel(Fact):
    """The original that is explained."""

    path: str
    """Its file on the CDN host; of one of the site's originals, its path on the site."""

    present: bool | None
    """None: it can't be asked now."""

    bytes: int | None = None
    modified_at: float | None = None
    """Unix time."""

    format: str | None = None
    width: int | None = None
    height: int | None = None
    problem: str = ""
    """Why something of it isn't known; empty: nothing."""


class VariantModel(Fact):
    """A variant, or the verdict that the original is best."""

    name: str
    state: str
    """`fresh`; `stale`: of another content; `foreign`: not ours; `missing`; `unknown`: not compared."""

    bytes: int | None = None
    verdict: str | None = None
    """`q1` to `q100`, `q0` for lossless, or why the original is best."""

    quality: int | None = None
    """0: lossless."""

    ssim: float | None = None
    mark_version: str | None = None
    encode_ms: int | None = None
    made_from_bytes: int | None = None
    made_from_modified_at: float | None = None


class AnswerModel(Fact):
    """The answer that one kind of client gets for the picture."""

    who: str
    accept: str
    status: int | None = None
    type: str | None = None
    bytes: int | None = None
    variant: str | None = None
    """`X-Image-Variant`."""

    cache_control: str | None = None
    cache: str | None = None
    """`X-Cache`: `hit`, `miss`, `stale`."""

    age_s: int | None = None
    problem: str = ""
    """Why there is no answer; empty: there is one."""


class Explanation(Fact):
    """What is served for a picture, and why."""

    asked: str
    url: str
    """Its path on the CDN."""

    kind: str
    """`resized`: in `resize_cache/`; `original`: one of the site's."""

    state: str
    """`webp`, `original`: decided; `foreign`; `pending`; `failed`; `missing`; `unknown`."""

    why: str
    """One or two sentences."""

    original: OriginalModel
    directory: str
    """Where its variants lie."""

    variants: list[VariantModel]
    queue: Queued
    varnish: list[AnswerModel]
    """What Varnish answers to each class of browsers; empty for `resize_cache/`, which it doesn't have."""

    visitors: list[AnswerModel]
    """What nginx answers."""

    notes: list[str]
    """Whatever else there is to know, in sentences."""
