"""What the HTTP API takes and gives: the models of its OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Problem(Model):
    """Why there is no other answer."""

    detail: str
    """One line."""


class Part(Model):
    """One part of the daemon."""

    status: str
    """`ok` or `degraded`."""

    reason: str
    """What is wrong; empty: nothing."""


class Health(Model):
    """How the daemon does."""

    status: str
    """`ok`; `degraded`: it works, but not all of it; `failed`: it can't work."""

    parts: dict[str, Part]
    scanning: bool
    """Whether a reconcile scan is running or about to."""

    directories: int
    """Directories watched."""

    running: int
    """Jobs in worker processes."""

    queue: dict[str, int]
    """Jobs in each stream, put off (`later`), and dead letters (`dead`); empty while Redis is away."""


class Disk(Model):
    """The file system of one tree."""

    tree: str
    used_bytes: int
    available_bytes: int
    share: float
    """0 to 1, as `df` counts: compare with `store.high_water`."""


class LastEviction(Model):
    """What the last eviction did."""

    finished_at: float
    """Unix time."""

    pictures: int
    """Originals with variants, as looked at."""

    age_files: int
    """Variants gone because nobody read them for `store.evict_after_days`."""

    age_bytes: int
    space_files: int
    """Variants gone because the file system was above `store.high_water`."""

    space_bytes: int
    refused: int
    """Pictures whose original can't bear the note of an eviction, so that their variants stay."""

    missing_bytes: int
    """What could not be freed down to `store.low_water`, with nothing of ours left."""

    seconds: float


class LastScan(Model):
    """What the last reconcile scan did."""

    finished_at: float
    """Unix time."""

    originals: int
    queued: int
    removed: int
    """Stale variants, and those without an original."""

    complete: bool
    """Whether all that was found could be queued; otherwise there is another scan."""

    seconds: float


class OriginalsModel(Model):
    """Whether the site's originals could be read when one was last asked for."""

    tried_at: float | None
    """Unix time; None: none was asked for since the daemon started."""

    problem: str
    """Why not; empty: they could."""


class Status(Model):
    """Health and surroundings."""

    health: Health
    consumer: str
    """Name of the daemon in the queue."""

    version: str
    release: str
    """As the deploy names it; empty: it runs from none."""

    uptime_s: float
    disks: list[Disk]
    originals: OriginalsModel
    last_scan: LastScan | None
    """None: there was none since the daemon started."""

    last_eviction: LastEviction | None
    """None: there was none since the daemon started."""


class Picture(Model):
    """What is known of one original."""

    path: str
    verdict: str
    """`q75` to `q100`, `q0` for lossless, or why the original is best."""

    evicted: bool
    """Whether its variants went because nobody read them; they come back when it is asked for."""

    format: str | None
    """Of the original, where the statistics remember it."""

    original_bytes: int | None
    variant_bytes: int | None
    """None: the original is best."""

    ssim: float | None
    """Structural similarity of the variant to the original."""

    encode_ms: int | None
    """Decoding, judging and encoding."""

    latency_ms: int | None
    """From close-write to published."""

    avif_bytes: int | None
    """None: there is no AVIF variant."""


class ConversionModel(Model):
    """A variant that was published."""

    id: str
    """By which `/pictures/{id}/before`, `/pictures/{id}/webp` and, where there is one, `/pictures/{id}/avif`
    answer with the pictures, as long as they are what they were."""

    path: str
    format: str
    """Of the original."""

    original_bytes: int
    variant_bytes: int
    avif_bytes: int | None
    """None: there is no AVIF variant."""

    verdict: str
    """`q75` to `q100`, `q0` for lossless."""

    ssim: float | None
    """Structural similarity of the variant to the original."""

    encode_ms: int
    latency_ms: int
    published_at: float
    """Unix time."""


class RecentModel(Model):
    """What this daemon did last, as far back as its start."""

    decided_minute: int
    """Decisions about pictures within the last minute: converted, or best as they are."""

    decided_hour: int
    conversions: list[ConversionModel]
    """One a picture, the latest first."""


class SumsModel(Model):
    """Pictures, each counted once as what its latest decision was, and bytes of the converted ones."""

    converted: int
    kept: int
    """The original is best."""

    failed: int
    """Given up."""

    original_bytes: int
    variant_bytes: int
    saved_bytes: int
    success_rate: float | None
    """Converted and kept among all; None when there are none."""


class DayModel(SumsModel):
    """The work of one day, in UTC: each decision counts, also a repeated one."""

    decisions: int
    again: int
    """Decisions about pictures that were decided before."""

    evicted: int
    """Variants that went because nobody read them."""

    evicted_bytes: int


class StatisticsModel(SumsModel):
    """All that is counted."""

    since: int
    """Unix time at which counting began, or began anew after Redis lost the sums; 0: nothing was counted."""

    evicted: int
    evicted_bytes: int
    formats: dict[str, SumsModel]
    """By format of the original; `-`: not known."""

    days: dict[str, DayModel]
    """By date, the latest first."""


class WaitingModel(Model):
    """One priority of the queue."""

    length: int
    """Jobs waiting or under way."""

    under_way: int
    oldest_s: float | None
    """Age of the oldest job in seconds."""


class ConsumerModel(Model):
    """A daemon that takes jobs from the queue."""

    name: str
    under_way: int
    idle_s: float
    """Seconds since it last asked for jobs."""


class RunningModel(Model):
    """A job under way."""

    path: str
    priority: str
    consumer: str
    idle_s: float
    """Seconds since the daemon took it, or last showed a sign of life for it."""


class PutOffModel(Model):
    """A job that was put off."""

    path: str
    due_s: float
    """Seconds until it is queued."""

    tries: int
    """Failures of workers so far; 0: it was put off for another reason."""


class QueueModel(Model):
    """The queue at one moment."""

    streams: dict[str, WaitingModel]
    consumers: list[ConsumerModel]
    running: list[RunningModel]
    """Up to 20 of the jobs under way."""

    later: int
    """How many jobs were put off."""

    next: list[PutOffModel]
    """Up to 20 of these, those first that are due first."""

    dead: int


class LetterSummary(Model):
    """A picture that was given up."""

    id: str
    path: str
    reason: str
    tries: int
    given_up_at: float
    """Unix time."""

    consumer: str
    """The daemon that gave it up."""


class LetterModel(LetterSummary):
    """A picture that was given up, with all that is known of why."""

    traceback: str
    """Empty where a worker ended without one."""

    asked_at: float
    """Unix time of the event that the picture was to be converted for."""

    command: str
    """What to paste into a shell to have it tried again."""


class Retried(Model):
    """A picture that is tried again."""

    id: str
    path: str


class ScanAsked(Model):
    """A scan begins as soon as one that is running has ended."""

    asked: bool


class CountModel(Model):
    files: int
    bytes: int
    """On disk."""


class CleanupModel(Model):
    """What was removed, or with `dry_run` would have been."""

    dry_run: bool
    stale: CountModel
    """Variants and verdicts of another content of their original, or of one that is gone."""

    unfinished: CountModel
    """Files of runs that were killed."""

    evicted: dict[str, CountModel]
    """Variants that nobody read, by rule: `age`, `space`."""

    refused: int
    """Pictures whose original can't bear the note of an eviction, so that their variants stay."""

    missing_bytes: int
    """What could not be freed down to `store.low_water`, with nothing of ours left."""

    queued: int
    """Originals without a decision that were queued."""

    missed: bool
    """Whether the queue was away, so that another scan is needed."""

    seconds: float


class Wish(Model):
    """Pictures to convert."""

    paths: list[str] = Field(min_length=1, max_length=1000)
    """Absolute paths of originals: below `store.root`, or below `originals.variants` as if they lay there."""


class AskedModel(Model):
    """What became of the wish for one picture."""

    path: str
    state: str
    """`queued`; `decided`: it is converted already, or best as it is; `missing`: there is no such picture."""


class Asked(Model):
    """What became of the wish for each picture."""

    pictures: list[AskedModel]


class OriginalModel(Model):
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


class VariantModel(Model):
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


class QueuedModel(Model):
    """How the picture stands in the queue."""

    state: str
    """`none`; `waiting`; `running`; `running-again`: queued again after that; `put-off`; `unknown`."""

    stream: str = ""
    age_s: float | None = None
    due_s: float | None = None
    tries: int = 0
    """Failures of workers so far."""

    consumer: str = ""
    dead: LetterSummary | None = None
    """Its dead letter."""

    problem: str = ""


class AnswerModel(Model):
    """What somebody who asks for the picture is answered."""

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


class Explanation(Model):
    """Why a picture is delivered as it is."""

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
    queue: QueuedModel
    varnish: list[AnswerModel]
    """What Varnish answers to each class of browsers; empty for `resize_cache/`, which it doesn't have."""

    visitors: list[AnswerModel]
    """What nginx answers."""

    notes: list[str]
    """Whatever else there is to know, in sentences."""
