"""Explains one picture: its files, the decision and its reason, and the answers to visitors.

It changes nothing, with one exception: it asks nginx as visitors do, and thereby queues a picture that isn't
decided. A part that doesn't answer in time is named, and the rest is explained.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import redis

from webp_converter.api.models import (
    AnswerModel,
    Explanation,
    OriginalModel,
    VariantModel,
)
from webp_converter.base import formatting
from webp_converter.base.names import SUFFIX_BYTES, TOO_LONG, has_room, is_original, is_variant
from webp_converter.config import Config
from webp_converter.queue.jobs import Jobs, Queued
from webp_converter.variants.originals import Originals, OriginAwayError, canonical_url
from webp_converter.variants.store import (
    DECISIONS,
    FAILED,
    FOREIGN,
    SUFFIXES,
    WEBP,
    Original,
    Store,
    is_evicted,
    read_mark,
)
from webp_converter.work.header import header_of

SERVED = ("svg",)
"""Extensions that are served and never converted, besides those of `watch.extensions`."""

REFUSED = (b"1c_exchange", b"1c_catalog", b"tmp", b"support/not_image")
"""Directories of `upload/` that are no visitor's business."""

VISITORS = (
    ("a browser with AVIF", "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"),
    ("a browser with WebP only", "image/webp,image/apng,image/*,*/*;q=0.8"),
    ("an old browser", "image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"),
    ("a bot", "*/*"),
)
_CLASSES = (
    ("browsers with AVIF", "image/avif,image/webp"),
    ("browsers with WebP", "image/webp"),
    ("all others", "none"),
)
_UPLOAD = b"/upload/"
_RESIZED = b"/upload/resize_cache/"

_WHY_KEPT = {
    "no-saving": "no WebP of it saves at least {saving:.0%} of its bytes",
    "similarity": "no WebP of it is similar enough to it (SSIM {ssim})",
    "no-picture": "its first bytes are not those of a picture",
    "format": "it is of a format or kind that is left alone",
    "too-large": "it is beyond the limits on bytes, pixels, frames or sides",
    "damaged": "it can't be decoded whole, and isn't Bitrix's to make again",
}


class Place(NamedTuple):
    """A picture that somebody named."""

    kind: str
    """`resized` or `original`."""

    name: bytes
    """Its path below the directory of its kind."""

    host: str
    """As visitors call the CDN; empty: not told."""

    query: str
    """With its question mark; empty: none."""

    notes: list[str]

    @property
    def url(self) -> str:
        return canonical_url((b"resize_cache/" if self.kind == "resized" else b"") + self.name)


def place_of(asked: str, config: Config) -> Place:
    """Finds a picture by its URL, by the path in it, or by the path of a file.

    :raises ValueError: it can't be a picture that the CDN serves; one line.
    """
    host = query = ""
    root, variants = os.fsencode(config.store.root) + b"/", os.fsencode(config.originals.variants) + b"/"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", asked) or asked.startswith("//"):
        parts = urlsplit(asked)
        if parts.scheme not in ("http", "https", "") or not parts.hostname:
            raise ValueError(f"{asked!r} is no http:// or https:// URL of a picture")
        host = parts.hostname
        path, query = unquote_to_bytes(os.fsencode(parts.path)), parts.query
    elif asked.startswith("/upload/"):
        path, _, query = asked.partition("#")[0].partition("?")  # type: ignore[assignment]
        path = unquote_to_bytes(os.fsencode(path))
    else:
        path = os.fsencode(asked)
        if path.startswith(root):
            path = _RESIZED + path.removeprefix(root)
        elif path.startswith(variants):
            path = _UPLOAD + path.removeprefix(variants)
        elif path.startswith(b"/") and _UPLOAD in path:  # the site's own path, or that of the mount
            path = path[path.index(_UPLOAD) :]
    path = re.sub(rb"/{2,}", b"/", path)
    if not path.startswith(_UPLOAD):
        trees = f"{config.store.root} and {config.originals.variants}"
        raise ValueError(f"{asked!r} lies neither below /upload/ nor in {trees}: the CDN doesn't serve it")
    name, notes = path.removeprefix(_UPLOAD), []
    parts_of_name = name.split(b"/")
    if b"\0" in name or any(part.startswith(b".") or not part for part in parts_of_name):
        raise ValueError(
            f"{asked!r}: the CDN serves nothing whose name begins with a dot, and no directories"
        )
    if any(name.lower().startswith(refused + b"/") for refused in REFUSED):
        raise ValueError(f"{asked!r}: the CDN serves nothing of {os.fsdecode(parts_of_name[0])}/")
    last = os.fsdecode(parts_of_name[-1])
    if is_variant(last) or last.endswith(".keep"):
        notes.append(f"{last} has the name of a variant or verdict: its original is explained.")
        name = name[:-SUFFIX_BYTES]
        last = last[:-SUFFIX_BYTES]
    allowed = (*config.watch.extensions, *SERVED)
    if not is_original(last, allowed):
        raise ValueError(f"{asked!r}: the CDN serves only pictures: {', '.join(allowed)}")
    kind = "original"
    if path.startswith(_RESIZED):
        kind, name = "resized", name.removeprefix(b"resize_cache/")
    return Place(kind, name, host, f"?{query}" if query else "", notes)


def explain(asked: str, config: Config, store: Store, originals: Originals, jobs: Jobs) -> Explanation:
    """Explains a picture.

    :raises ValueError: it can't be a picture that the CDN serves; one line.
    """
    place = place_of(asked, config)
    tree = store if place.kind == "resized" else originals
    path = tree.root + b"/" + place.name
    shown = path if place.kind == "resized" else _UPLOAD + place.name
    original, status = _original(path, os.fsdecode(shown), tree, config)
    variants = _variants(path, tree, status, original.present)
    queue = _queue(path, jobs)  # before anybody asks for the picture, which may queue it
    varnish: list[AnswerModel] = []
    if place.kind == "original":
        cache = config.originals.purge_url
        varnish = _ask_all(cache, place, _CLASSES, config, "originals")
    visitors = _ask_all(config.delivery.url, place, VISITORS, config)
    state, why = _verdict(path, place, original, variants, queue, config)
    notes = list(place.notes)
    if state == "pending" and any(answer.variant == "pending" for answer in visitors):
        notes.append("Asking for it, as was done here, has it converted before all others.")
    return Explanation(
        asked=asked,
        url=place.url + place.query,
        kind=place.kind,
        state=state,
        why=why,
        original=original,
        directory=os.fsdecode(path.rpartition(b"/")[0]),
        variants=variants,
        queue=queue,
        varnish=varnish,
        visitors=visitors,
        notes=notes,
    )


def is_well(told: Explanation) -> bool:
    """Whether a picture is decided, and everything could be asked."""
    problems = [told.original.problem, told.queue.problem]
    problems += [answer.problem for answer in (*told.varnish, *told.visitors)]
    return told.state in ("webp", "original", "foreign") and not any(problems)


def _original(
    path: bytes, shown: str, tree: Store, config: Config
) -> tuple[OriginalModel, os.stat_result | None]:
    try:
        read = tree.read(path, config.encoding.maximum_bytes)
    except OriginAwayError as error:
        return OriginalModel(
            path=shown, present=None, problem=f"the site's host can't be asked: {error}"
        ), None
    except OSError as error:
        return OriginalModel(path=shown, present=None, problem=f"can't be read: {error.strerror}"), None
    if read is None or not stat.S_ISREG(read.status.st_mode):
        return OriginalModel(path=shown, present=False), None
    status = read.status
    told = OriginalModel(path=shown, present=True, bytes=status.st_size, modified_at=status.st_mtime_ns / 1e9)
    return told.model_copy(update=_header(read, config)), status


def _header(read: Original, config: Config) -> dict[str, object]:
    if len(read.data) != read.status.st_size or not read.data:
        return {}
    told = header_of(read.data, config)
    told.pop("problem", None)  # the verdict says so better
    return told


def _variants(
    path: bytes, tree: Store, original: os.stat_result | None, present: bool | None
) -> list[VariantModel]:
    base = path.rpartition(b"/")[2]
    if not has_room(base):
        return []
    try:
        with tree.directory(path) as (directory, name):
            return [_variant(directory, name + suffix, original, present) for suffix in SUFFIXES]
    except FileNotFoundError:
        return [VariantModel(name=os.fsdecode(base + suffix), state="missing") for suffix in SUFFIXES]


def _variant(
    directory: int, name: bytes, original: os.stat_result | None, present: bool | None
) -> VariantModel:
    shown = os.fsdecode(name)
    mark = read_mark(directory, name)
    if mark is None:
        return VariantModel(name=shown, state="missing")
    try:
        size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    except FileNotFoundError:
        return VariantModel(name=shown, state="missing")
    if mark is FOREIGN:
        return VariantModel(name=shown, state="foreign", bytes=size)
    state = "unknown" if present is None else "stale"
    if original is not None and mark.describes(original):
        state = "fresh"
    return VariantModel(
        name=shown,
        state=state,
        bytes=size,
        verdict=mark.verdict,
        quality=mark.quality,
        ssim=mark.ssim,
        mark_version=mark.pack().partition(b" ")[0].decode(),
        encode_ms=mark.encode_ms,
        made_from_bytes=mark.size,
        made_from_modified_at=mark.mtime_ns / 1e9,
    )


def _queue(path: bytes, jobs: Jobs) -> Queued:
    try:
        return jobs.queued(path)
    except redis.RedisError as error:
        reason = " ".join(f"Redis is away: {error}".split()).rstrip(".")
        return Queued(state="unknown", problem=reason)


def _ask_all(
    url: str, place: Place, askers: Sequence[tuple[str, str]], config: Config, host: str = ""
) -> list[AnswerModel]:
    """What the server at `url` answers to each; if it doesn't answer the first, the others aren't sent."""
    answers: list[AnswerModel] = []
    for who, accept in askers:
        if answers and answers[0].problem:
            answers.append(answers[0].model_copy(update={"who": who, "accept": accept}))
        else:
            answers.append(_ask(url, place, who, accept, config, host))
    return answers


def _ask(url: str, place: Place, who: str, accept: str, config: Config, host: str = "") -> AnswerModel:
    """What the server at `url` answers to HEAD, which has all headers and doesn't count as a read."""
    parts = urlsplit(url)
    name, patience_s = parts.hostname or "127.0.0.1", config.delivery.deadline_s
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        # It is this host, by a name that its certificate isn't for.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(name, parts.port, timeout=patience_s, context=context)
    else:
        connection = http.client.HTTPConnection(name, parts.port, timeout=patience_s)
    try:
        headers = {"Host": host or place.host or name, "Accept": accept, "Connection": "close"}
        connection.request("HEAD", place.url + place.query, headers=headers)
        answer = connection.getresponse()
        return AnswerModel(
            who=who,
            accept=accept,
            status=answer.status,
            type=answer.getheader("Content-Type"),
            bytes=_number(answer.getheader("Content-Length")),
            variant=answer.getheader("X-Image-Variant"),
            cache_control=answer.getheader("Cache-Control"),
            cache=answer.getheader("X-Cache"),
            age_s=_number(answer.getheader("Age")),
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return AnswerModel(who=who, accept=accept, problem=f"{url} doesn't answer: {reason}")
    finally:
        connection.close()


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _verdict(
    path: bytes,
    place: Place,
    original: OriginalModel,
    variants: list[VariantModel],
    queue: Queued,
    config: Config,
) -> tuple[str, str]:
    """The state of a picture, and the reason."""
    if original.present is False:
        where = "the site has none under this name" if place.kind == "original" else "the file isn't there"
        return "missing", f"There is no such picture: {where}. Bitrix makes pictures of resize_cache/ itself."
    name = os.fsdecode(path.rpartition(b"/")[2])
    if not is_original(name, config.watch.extensions):
        return "original", "It is served as it is: its extension is none of those that are converted."
    if not has_room(name):
        return "original", f"It is served as it is, for good: {TOO_LONG}."
    decided = next((v for v in variants[: len(DECISIONS)] if v.state not in ("missing", "stale")), None)
    if decided is None:
        return _undecided(path, variants, queue, config)
    if decided.state == "foreign":
        return (
            "foreign",
            f"Somebody else's {decided.name} lies beside it: that is served, and never replaced.",
        )
    doubt = " Whether it has changed since can't be told now." if decided.state == "unknown" else ""
    if decided.name.endswith(WEBP.decode()):
        return "webp", _converted(decided, original) + doubt
    if decided.verdict == FAILED:
        reason = f": {queue.dead.reason} (dead letter {queue.dead.id})" if queue.dead else ""
        return "failed", f"Workers failed on it, so that it is served as it is{reason}.{doubt}"
    why = _WHY_KEPT.get(decided.verdict or "", decided.verdict or "").format(
        saving=config.encoding.minimum_saving, ssim=config.encoding.ssim_target
    )
    return "original", f"The original is best: {why}.{doubt}"


def _converted(variant: VariantModel, original: OriginalModel) -> str:
    before, after = variant.made_from_bytes or 0, variant.bytes or 0
    how = "without loss" if not variant.quality else f"at quality {variant.quality}"
    like = "" if variant.ssim is None else f", SSIM {variant.ssim:.4f}"
    if after > before:
        return (
            f"It is WebP {how}{like} for browsers that can't show AVIF: {after:,} bytes; the others get AVIF."
        )
    saved = formatting.share(before - after, before)
    return f"It is WebP {how}{like}: {after:,} bytes instead of {before:,}, {saved} less."


def _undecided(path: bytes, variants: list[VariantModel], queue: Queued, config: Config) -> tuple[str, str]:
    began = "Nothing is decided yet"
    if any(variant.state == "stale" for variant in variants):
        began = "It has changed since it was converted, and nothing is decided about what it is now"
    elif is_evicted(path):
        began = "Its variants were removed, as they were not read for long"
    if queue.problem:
        return "pending", f"{began}; whether it is queued can't be told, as Redis is away."
    states: dict[str, Callable[[], str]] = {
        "waiting": lambda: f"it waits in the queue ({queue.stream}).",
        "running": lambda: "it is being worked on.",
        "running-again": lambda: "it is being worked on, and will be once more.",
        "put-off": lambda: f"it was put off, and is due in {formatting.duration(queue.due_s)}.",
    }
    following = states.get(queue.state)
    if following:
        return "pending", f"{began}: {following()}"
    return "pending", f"{began}, and it isn't queued: the next visitor or scan has it converted."
