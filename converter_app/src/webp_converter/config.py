"""The daemon's settings: one TOML file, checked as a whole before anything starts.

The deploy imports this model too and renders the file from it, so this module needs pydantic and
nothing else of the daemon. Every value is a scalar or a list: TOML can express all of it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

DEFAULT_FILE = Path("/etc/webp-converter/config.toml")


class ConfigError(Exception):
    """One line that names the file, the key, what was given and what is allowed."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("an absolute path without '..' is needed")
    return path


def _redis_url(url: str) -> str:
    if not url.startswith(("unix:///", "redis://", "rediss://")):
        raise ValueError("unix:///path/to/redis.sock or redis://host:port/db is needed")
    return url


def _http_url(url: str) -> str:
    if not re.fullmatch(r"http://[A-Za-z0-9.-]+(:\d{1,5})?", url):
        raise ValueError("http://host:port is needed")
    return url


def _extension(extension: str) -> str:
    if not extension.isalnum() or not extension.isascii() or extension != extension.lower():
        raise ValueError("lower-case ASCII letters and digits without a dot are needed")
    return extension


def _site_url(url: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?", url):
        raise ValueError("http://host:port or https://host:port is needed")
    return url


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
SiteUrl = Annotated[str, AfterValidator(_site_url)]
Extension = Annotated[str, AfterValidator(_extension)]
Quality = Annotated[int, Field(ge=1, le=100)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    """The base of all sections: unknown keys are refused, docstrings describe the fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Store(Section):
    """The tree of the resized pictures and their variants."""

    root: AbsolutePath = Path("/var/www/cdn/upload/resize_cache")
    """Directory of the resized pictures, which is watched; each variant lies beside its original."""

    temporary: AbsolutePath = Path("/var/www/cdn/.webp-converter")
    """Directory for unfinished variants: outside of `root`, on its file system and under the same mount."""

    owner: str = Field(default="www-data", min_length=1)
    """User that published files belong to. Matters only when run as root."""

    group: str = Field(default="www-data", min_length=1)
    """Group that published files belong to. Matters only when run as root."""

    directory_rest_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds (0 to 3600) before a directory that the daemon emptied is removed: PHP unlinks a picture and
    writes it again, and must find the directory then."""

    minimum_free_mib: int = Field(default=256, ge=0, le=1_048_576)
    """MiB (0 to 1048576) of free space below which nothing is converted and health says degraded."""

    evict_after_days: int = Field(default=30, ge=0, le=3650)
    """Days (1 to 3650) without a reader after which a variant is evicted; it is made again on request. 0:
    never."""

    high_water: float = Field(default=0.9, gt=0, le=1)
    """Used share (above 0, to 1) of a tree's file system above which the least recently read variants are
    evicted; 1: none."""

    low_water: float = Field(default=0.8, gt=0, le=1)
    """Used share (above 0, to 1, at most `high_water`) of the file system at which this eviction stops."""

    evict_every_s: int = Field(default=3600, ge=1, le=604_800)
    """Seconds (1 to 604800) between two searches for variants that are not read. Above `high_water` a search
    starts at once; if it can't free enough, the next one follows after this time."""

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if self.low_water > self.high_water:
            raise ValueError("low_water must not be above high_water")
        return self


class Originals(Section):
    """Where the variants of the site's originals are stored; the originals' mount is read-only."""

    variants: AbsolutePath = Path("/var/cache/webp/upload")
    """Directory of the variants and verdicts of originals, laid out like the site's upload directory."""

    temporary: AbsolutePath = Path("/var/cache/webp/.webp-converter")
    """Directory for unfinished variants of originals, under the same mount as `variants`, outside of it."""

    url: HttpUrl = "http://127.0.0.1:8081"
    """Server that originals are fetched from: the only one that reads their mount."""

    purge_url: HttpUrl = "http://127.0.0.1:6081"
    """Cache that is purged when a variant of an original is published or removed."""

    deadline_s: float = Field(default=5.0, ge=0.5, le=60)
    """Seconds (0.5 to 60) within which an original must be fetched."""

    retry_s: float = Field(default=30.0, ge=1, le=3600)
    """Seconds (1 to 3600) before an original that could not be fetched is tried again."""


class Watch(Section):
    """Which files become jobs, and when."""

    extensions: list[Extension] = Field(
        default=["jpg", "jpeg", "jpe", "png", "gif", "bmp", "tif", "tiff", "webp", "avif"], min_length=1
    )
    """Extensions of the file names to convert, in lower case; the comparison ignores case. The format of a
    file is recognised by its signature. Names such as `photo.jpg.webp` are always those of variants."""

    intermediate_rest_s: float = Field(default=10.0, ge=0, le=3600)
    """Seconds (0 to 3600) that a picture larger than its `W_H_T` directory allows must stay unchanged before
    it is converted: Bitrix puts the full original there for a moment."""

    damaged_rest_s: float = Field(default=60.0, ge=1, le=86_400)
    """Seconds (1 to 86400) that an empty or truncated resized picture must stay unchanged before it is
    removed, so that Bitrix makes it again."""

    remove_copies: bool = True
    """Whether a full original under the name of a resized picture is removed like a truncated one: PHP leaves
    it there when the mount goes away in between. It is removed only within 10 times `damaged_rest_s` after it
    was written, and only once, because Bitrix can't resize some originals."""

    scan_processes: int = Field(default=2, ge=1, le=16)
    """Processes (1 to 16) that share a reconcile scan."""

    scan_every_s: int = Field(default=21_600, ge=0, le=604_800)
    """Seconds (1 to 604800) from one reconcile scan to the next; 0: none. A start, lost events and the return
    of the queue cause a scan in any case."""


class Encoding(Section):
    """How a variant is chosen."""

    policy: Literal["ssim", "size-rules", "fixed"] = "ssim"
    """`ssim`: the lowest quality of `ladder` that reaches `ssim_target`. `size-rules`: by the original's
    size. `fixed`: always `quality`."""

    ssim_target: float = Field(default=0.95, ge=0.5, le=0.999)
    """Lowest structural similarity (0.5 to 0.999) to the original that the policy `ssim` accepts."""

    ladder: list[Quality] = Field(default=[75, 80, 85, 90, 95], min_length=1)
    """WebP qualities (1 to 100, rising) that the policy `ssim` chooses from."""

    quality: Quality = 85
    """WebP quality (1 to 100) of the policy `fixed`."""

    size_limits: list[Annotated[int, Field(ge=1)]] = [100_000, 1_000_000]
    """Sizes of the original in bytes (from 1, rising) between the classes of the policy `size-rules`."""

    size_qualities: list[Quality] = [90, 85, 80]
    """WebP quality (1 to 100) of each class of `size-rules`: below the first limit, ..., above the last."""

    method: int = Field(default=2, ge=0, le=6)
    """Effort of the WebP encoder (0: fast, to 6: small)."""

    lossless: bool = True
    """Use lossless WebP for originals other than JPEG if it is smaller than lossy; in an animation, for each
    frame separately."""

    second_pass_method: int = Field(default=6, ge=0, le=6)
    """Effort (1 to 6) of a second encoding when the converter is idle, which replaces variants that become
    smaller; 0, or not above `method`: none."""

    second_pass_idle_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds (0 to 3600) without any work before the second encoding starts."""

    avif: bool = False
    """Also make `photo.jpg.avif` if it is smaller than the WebP variant, and serve it to browsers that accept
    it. This takes about six times as long as WebP. Animations get none."""

    avif_ladder: list[Quality] = Field(default=[50, 55, 60, 65, 70, 75, 80], min_length=1)
    """AVIF qualities (1 to 100, rising) that the policy `ssim` chooses from, for the same `ssim_target`."""

    avif_quality: Quality = 60
    """AVIF quality (1 to 100) of the policies `size-rules` and `fixed`."""

    avif_speed: int = Field(default=8, ge=0, le=10)
    """Speed of the AVIF encoder (0: small, to 10: fast)."""

    avif_maximum_pixels: int = Field(default=4_000_000, ge=1, le=268_435_456)
    """Width times height (1 to 268435456) above which no AVIF is made: it would take too long."""

    metadata: Literal["none", "icc", "all"] = "none"
    """What a variant keeps besides its pixels. `none`: nothing; colours are converted to sRGB. `icc`: an
    embedded RGB colour profile (sRGB needs none; CMYK and gray are converted). `all`: EXIF and XMP too; the
    orientation is applied to the pixels."""

    minimum_saving: float = Field(default=0.10, ge=0, le=0.9)
    """Share of the original's bytes (0 to 0.9) that a variant must save; otherwise the original is served."""

    maximum_pixels: int = Field(default=40_000_000, ge=10_000, le=268_435_456)
    """Pixels (10000 to 268435456), of all frames together, above which a picture is not decoded."""

    maximum_frames: int = Field(default=1000, ge=1, le=100_000)
    """Frames (1 to 100000) above which an animation is not decoded."""

    maximum_bytes: int = Field(default=67_108_864, ge=65_536, le=1_073_741_824)
    """Size in bytes (65536 to 1073741824) above which a picture is not read."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name, ladder in (("ladder", self.ladder), ("avif_ladder", self.avif_ladder)):
            if ladder != sorted(set(ladder)):
                raise ValueError(f"{name} must rise from rung to rung")
        if self.size_limits != sorted(set(self.size_limits)):
            raise ValueError("size_limits must rise")
        if len(self.size_qualities) != len(self.size_limits) + 1:
            raise ValueError("size_qualities needs one entry more than size_limits")
        return self


class Workers(Section):
    """The worker processes."""

    count: int = Field(default=0, ge=0, le=256)
    """Worker processes (1 to 256) at most; 0: one for each core."""

    minimum: int = Field(default=1, ge=0, le=256)
    """Worker processes (0 to 256, not above `count`) that stay when there is little to do."""

    idle_s: float = Field(default=60.0, ge=1, le=86_400)
    """Seconds (1 to 86400) without work after which a worker above the minimum ends."""

    time_limit_s: float = Field(default=60.0, ge=1, le=3600)
    """Seconds (1 to 3600) that one picture may take; then its worker is killed and a failed try counted."""

    memory_limit_mib: int = Field(default=1536, ge=256, le=65_536)
    """Address space in MiB (256 to 65536) of each worker and of each decoder."""

    tasks_per_process: int = Field(default=2000, ge=0, le=1_000_000)
    """Tasks (0 to 1000000) after which a worker is replaced; 0: never. A task is one large picture or a few
    small ones."""

    sandbox: Literal["required", "where-possible"] = "required"
    """Whether the system call filter (libseccomp) of the processes that decode pictures is needed.
    `required`: without it nothing is converted. `where-possible`: without it a warning is logged."""

    stop_s: float = Field(default=5.0, ge=0, le=80)
    """Seconds (0 to 80) for pictures in progress to finish when the daemon stops."""

    def processes(self) -> int:
        """The most worker processes: `count`, or the cores this process may use."""
        return self.count or len(os.sched_getaffinity(0))


class RedisSection(Section):
    """An instance of Redis, and the user for it."""

    url: RedisUrl
    """Each section has its own."""

    user: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,64}$")
    """User of that Redis (1 to 64 letters, digits, `_`, `-`); empty: no user name is sent. The deploy sets
    it for the project's instances if `url` isn't set."""

    password_file: str = ""
    """Absolute path of a file with that user's password. It is read at each connection."""

    @model_validator(mode="after")
    def _user_has_password(self) -> Self:
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file need each other")
        if self.user and "@" in self.url:
            raise ValueError("a user is named in url or in user, not in both")
        if self.password_file:
            _absolute(Path(self.password_file))
        return self


class Queue(RedisSection):
    """The job queue, on the Redis instance that evicts nothing."""

    url: RedisUrl = "unix:///run/redis-queue/redis.sock"
    """The queue's Redis: `unix:///path/to/redis.sock` or `redis://host:port/db`."""

    prefix: str = Field(default="webp", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """First part of every key (1 to 32 letters, digits, `_`, `-`)."""

    consumer: str = Field(default="", max_length=64)
    """Unique name of this daemon in the consumer group; empty: the host's name."""

    tries: int = Field(default=3, ge=1, le=100)
    """Failures of a worker (1 to 100) after which a picture becomes a dead letter."""

    retry_pause_s: float = Field(default=5.0, ge=0, le=3600)
    """Seconds (0 to 3600) before the first retry; doubled before each further one."""

    claim_idle_s: float = Field(default=60.0, ge=1, le=3600)
    """Seconds (1 to 3600) without a sign of life after which another daemon's jobs are taken over."""

    batch: int = Field(default=64, ge=1, le=256)
    """Jobs (1 to 256) fetched at once."""


class Cache(RedisSection):
    """Statistics of pictures, on the Redis instance that may evict keys."""

    url: RedisUrl = "unix:///run/redis-cache/redis.sock"
    """The cache's Redis: `unix:///path/to/redis.sock` or `redis://host:port/db`."""

    prefix: str = Field(default="webp", pattern=r"^[A-Za-z0-9_-]{1,32}$")
    """First part of every key (1 to 32 letters, digits, `_`, `-`)."""

    days: int = Field(default=90, ge=1, le=3650)
    """Days (1 to 3650) for each of which separate numbers are kept."""


class Api(Section):
    """Health and the HTTP API."""

    address: str = "127.0.0.1"
    """Address to listen on."""

    port: Port = 8088
    """TCP port (1 to 65535)."""

    token_file: AbsolutePath = Path("/etc/webp-converter/api-token")
    """File with the token (at least 16 characters) that calls which change something must send. Without the
    file they are refused, and reading works. It is read at each such call."""

    hosts: list[Annotated[str, Field(min_length=1)]] = []
    """Names by which clients may address the API besides `localhost`, the loopback addresses and `address`.
    Any other is refused, because a web page in a browser may have pointed its own name here."""

    language: Literal["auto", "en", "ru"] = "auto"
    """Language of the status page: English (`en`), Russian (`ru`), or the one of these two that the browser
    prefers (`auto`). The API itself speaks English."""


class Delivery(Section):
    """The server of the visitors, for `webp-converter explain`, which sends the requests of visitors."""

    url: SiteUrl = "http://127.0.0.1:80"
    """The server on this host that serves visitors. Its certificate isn't checked: it is for another name."""

    deadline_s: float = Field(default=5.0, ge=0.5, le=60)
    """Seconds (0.5 to 60) within which this server, and the cache behind it, must answer each request."""


class Metrics(Section):
    """Metrics for Prometheus."""

    address: str = "127.0.0.1"
    """Address to listen on."""

    port: Port = 9101
    """TCP port (1 to 65535)."""


class Log(Section):
    """The log: one JSON object a line on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest severity that is written."""


class Config(Section):
    """All settings; the file's sections."""

    store: Store = Store()
    originals: Originals = Originals()
    watch: Watch = Watch()
    encoding: Encoding = Encoding()
    workers: Workers = Workers()
    queue: Queue = Queue()
    cache: Cache = Cache()
    api: Api = Api()
    delivery: Delivery = Delivery()
    metrics: Metrics = Metrics()
    log: Log = Log()

    def of_workers(self) -> Self:
        """What workers, and so their decoders, are told: nothing of the queue, the cache and the API."""
        return self.model_copy(update={"queue": Queue(), "cache": Cache(), "api": Api()})

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for temporary, tree in (
            (self.store.temporary, self.store.root),
            (self.originals.temporary, self.originals.variants),
        ):
            if temporary.is_relative_to(tree) or tree.is_relative_to(temporary):
                raise ValueError(f"temporary directory {temporary} and {tree} must lie outside of each other")
        return self


def load(path: Path) -> Config:
    """Reads and checks the file.

    :raises ConfigError: the file can't be read, isn't TOML or isn't valid; one line.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {complaints(error, Config)}") from error


def complaints(error: ValidationError, model: type[BaseModel]) -> str:
    """All that is wrong with a model's values, in one line: key, what was given, what is allowed."""
    return "; ".join(text for _, text in each_complaint(error, model))


def each_complaint(
    error: ValidationError, model: type[BaseModel]
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Each wrong value by itself: where it is, and key, what was given, what is allowed."""
    for detail in error.errors():
        yield detail["loc"], _complaint(detail, model)


def _complaint(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _siblings(detail["loc"], model)
        meant = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        hint = f"did you mean {meant[0]}? " if meant else ""
        return f"{key}: unknown key; {hint}known: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    allowed = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "model_type":
        allowed = "{key: value} is allowed, as it is a section"
    # Sections are too long to repeat, passwords too secret.
    given = "" if isinstance(detail["input"], dict) or "password" in key else f"{detail['input']!r}: "
    return f"{key}: {given}{allowed}" if key else allowed


def _siblings(location: tuple[int | str, ...], model: Any) -> list[str]:
    """The names that would have been known in place of the last part of `location`."""
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
