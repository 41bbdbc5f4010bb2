"""The status page: what the API tells, for people. Values in, HTML out; no I/O."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import NamedTuple

from webp_converter.answers import Disk, Status
from webp_converter.jobs import Letter, Overview
from webp_converter.markup import Child, Markup, element
from webp_converter.recent import Conversion
from webp_converter.service import retry_command
from webp_converter.snapshot import Told
from webp_converter.statistics import Day, Totals
from webp_converter.wording import duration, moment, share, size

DAYS = 30
CONVERSIONS = 12
LETTERS = 20
REFRESH_S = 30
PICTURE_BYTES = 8 * 1024 * 1024
"""Above this size a picture is not shown."""

SHOWN_FORMATS = ("jpeg", "png", "gif", "webp")
"""Of originals, that browsers show."""

_STYLE = Markup(files("webp_converter").joinpath("page.css").read_text("utf-8"))
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: it has neither scripts nor anything from elsewhere."""

_HEADLINES = {"ok": "Everything works", "degraded": "Works, but not all of it", "failed": "Can't work"}
_MARKS = {"ok": "✓", "degraded": "!", "failed": "✕"}
_PARTS = {
    "queue": ("Queue", "Redis that evicts nothing"),
    "cache": ("Statistics", "Redis that may forget"),
    "watch": ("Watch", "of the resized pictures"),
    "pool": ("Workers", "that convert"),
    "disk": ("Disk", "where variants are published"),
}
_PRIORITIES = {
    "high": ("High", "a visitor asked"),
    "normal": ("Normal", "just written"),
    "low": ("Low", "found by a scan"),
}


class Queue(NamedTuple):
    """What the queue's Redis tells."""

    view: Overview
    letters: list[Letter]
    """Some dead letters, the oldest first."""


class Notice(NamedTuple):
    """What became of an order."""

    text: str
    is_error: bool = False


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    now: float
    """Seconds of the wall clock."""

    status: Status
    queue: Told[Queue]
    totals: Told[Totals]
    rates: tuple[int, int]
    """Decisions within the last minute, and within the last hour."""

    conversions: list[Conversion]
    trees: tuple[bytes, ...]
    """What is left out at the start of paths."""

    signed_in: bool
    refresh_s: int = 0
    """Seconds after which a browser shall ask again; 0: never."""

    notice: Notice | None = None


def page(view: View) -> str:
    """The whole page."""
    health = view.status.health
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        _refreshing(view),
        element("link", rel="icon", type="image/svg+xml", href=f"/icons/{health.status}.svg"),
        element("title", f"{_MARKS.get(health.status, '?')} {health.status} · converter"),
        element("style", _STYLE),
    )
    body = element(
        "body",
        _header(view),
        element(
            "main",
            _notice(view.notice),
            _sums(view),
            _parts(view),
            element("div", _queue(view), _disks(view.status.disks), class_="column"),
            _letters(view),
            _saved(view),
            _conversions(view),
        ),
        _footer(view),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def icon(status: str) -> str:
    """A picture for the browser's tab, SVG."""
    colour = {"ok": "#1a7f4b", "degraded": "#d98e04"}.get(status, "#c4302b")
    disc = element("circle", cx=8, cy=8, r=7, fill=colour)
    return element("svg", disc, xmlns="http://www.w3.org/2000/svg", viewBox="0 0 16 16")


def _refreshing(view: View) -> Child:
    if not view.refresh_s:
        return None
    return element("meta", http_equiv="refresh", content=f"{view.refresh_s};url=/?refresh={view.refresh_s}")


# Above all


def _header(view: View) -> Markup:
    status = view.status
    health = status.health
    reasons = [
        element("li", element("b", _PARTS.get(name, (name,))[0]), f": {part.reason}")
        for name, part in health.parts.items()
        if part.reason
    ]
    about = ["converter", f"version {status.version}"]
    about += [f"release {status.release}"] if status.release else []
    about += [f"up {duration(status.uptime_s)}"]
    if view.refresh_s:
        refresh = element("a", "Stop refreshing", href="/")
    else:
        refresh = element("a", f"Refresh every {REFRESH_S} s", href=f"/?refresh={REFRESH_S}")
    return element(
        "header",
        element("p", element("b", status.consumer), " · ", " · ".join(about), class_="about"),
        element(
            "div",
            element("span", _MARKS.get(health.status, "?"), class_="mark", aria_hidden="true"),
            element(
                "div",
                element("h1", _HEADLINES.get(health.status, health.status)),
                element("ul", reasons) if reasons else None,
                class_="headline",
            ),
            class_=f"health {health.status if health.status in _MARKS else 'failed'}",
            id="health",
            data_status=health.status,
        ),
        element("p", "As of ", _moment(view.now), " · ", refresh, class_="about"),
    )


def _notice(notice: Notice | None) -> Child:
    if notice is None:
        return None
    role = "alert" if notice.is_error else "status"
    return element("p", notice.text, class_=f"notice {role}", role=role, id="notice")


def _sums(view: View) -> Markup:
    """The numbers that matter most."""
    tiles = []
    totals, queue = view.totals.value, view.queue.value
    if totals:
        old = _old(view.totals)
        saved = totals.all.original_bytes - totals.all.variant_bytes
        part = share(saved, totals.all.original_bytes)
        kept = f"{totals.all.kept:,} best as they are"
        tiles += [
            _tile("saved", "Saved", _bytes("saved-bytes", saved), old or part),
            _tile("pictures", "Converted", _number("converted", totals.all.converted), old or kept),
        ]
    else:
        tiles += [_tile("saved", "Saved", "?", view.totals.problem)]
    minute, hour = view.rates
    in_minute = ("last minute ", _number("decided-minute", minute))
    tiles += [_tile("rate", "Last hour", _number("decided-hour", hour), in_minute)]
    if queue:
        old = _old(view.queue)
        streams = queue.view.streams.values()
        ages = [stream.oldest_s for stream in streams if stream.oldest_s is not None]
        since = f"oldest {duration(max(ages))}" if ages else "nothing waits"
        dead = element("a", "see below", href="#dead-letters") if queue.view.dead else "none"
        waiting = _number("queued", sum(stream.length for stream in streams))
        tiles += [
            _tile("waiting", "In the queue", waiting, old or since),
            _tile("dead", "Given up", _number("dead", queue.view.dead), dead, is_bad=bool(queue.view.dead)),
        ]
    else:
        tiles += [_tile("waiting", "In the queue", "?", view.queue.problem)]
    return element(
        "section",
        element("h2", "At a glance", class_="hidden"),
        element("dl", tiles, class_="tiles"),
        class_="bare",
    )


def _old(told: Told[Queue] | Told[Totals]) -> str:
    """How old values are that aren't new; empty: they are."""
    return f"as of {duration(told.age_s)} ago" if told.problem else ""


def _tile(name: str, title: str, value: Child, below: Child, is_bad: bool = False) -> Markup:
    return element(
        "div",
        element("dt", title),
        element("dd", value, class_="value"),
        element("dd", below, class_="below"),
        class_=f"tile {name}{' bad' if is_bad else ''}",
    )


# The daemon


def _parts(view: View) -> Markup:
    health = view.status.health
    facts = {
        "queue": "reached",
        "cache": "reached",
        "watch": f"{health.directories:,} directories",
        "pool": f"{health.running:,} pictures under way",
        "disk": "has space, and can be published to",
    }
    rows = []
    for name, part in health.parts.items():
        title, below = _PARTS.get(name, (name, ""))
        state = "ok" if part.status == "ok" else "degraded"
        rows.append(_part(name, title, below, state, part.reason or facts.get(name, "works")))
    rows += [_originals(view), _scan(view), _eviction(view)]
    return element("section", element("h2", "Parts"), element("ul", rows, class_="parts"), id="parts")


def _part(name: str, title: str, below: str, state: str, text: Child) -> Markup:
    words = {"ok": "works", "degraded": "does not work", "idle": "has had nothing to do", "busy": "at work"}
    return element(
        "li",
        element(
            "span",
            element("span", f"{words[state]}: ", class_="hidden"),
            class_=f"dot {state}",
        ),
        element("span", element("b", title), " ", element("small", below), class_="name"),
        element("span", text, class_="fact"),
        id=f"part-{name}",
        data_state=state,
    )


def _originals(view: View) -> Markup:
    told = view.status.originals
    if told.tried_at is None:
        return _part("originals", "Originals", "of the mounted tree", "idle", "none was asked for yet")
    state = "degraded" if told.problem else "ok"
    text = (told.problem or "read", " ", _ago(told.tried_at, view.now))
    return _part("originals", "Originals", "of the mounted tree", state, text)


def _scan(view: View) -> Markup:
    last = view.status.last_scan
    name = ("scan", "Scan", "compares all with what is there")
    if view.status.health.scanning:
        return _part(*name, "busy", "running, or about to")
    if last is None:
        return _part(*name, "idle", "none since the start")
    text = f"{last.originals:,} originals in {duration(last.seconds)}, {last.queued:,} queued"
    if not last.complete:
        text += ", not all could be queued"
    return _part(*name, "ok" if last.complete else "degraded", (text, ", ", _ago(last.finished_at, view.now)))


def _eviction(view: View) -> Markup:
    last = view.status.last_eviction
    name = ("eviction", "Eviction", "of what nobody reads")
    if last is None:
        return _part(*name, "idle", "none since the start")
    text = f"{last.age_files + last.space_files:,} variants, {size(last.age_bytes + last.space_bytes)}"
    if last.missing_bytes:
        text += f"; {size(last.missing_bytes)} could not be freed"
    state = "degraded" if last.missing_bytes or last.refused else "ok"
    return _part(*name, state, (text, ", ", _ago(last.finished_at, view.now)))


def _queue(view: View) -> Markup:
    queue = view.queue.value
    if queue is None:
        return element("section", element("h2", "Queue"), _stale(view.queue), id="queue")
    rows = []
    for name, stream in queue.view.streams.items():
        title, below = _PRIORITIES.get(name, (name, ""))
        rows.append(
            element(
                "tr",
                element("th", title, " ", element("small", below), scope="row"),
                element("td", _number(f"queue-{name}", stream.length), class_="n"),
                element("td", f"{stream.under_way:,}", class_="n"),
                element("td", duration(stream.oldest_s) or "-", class_="n"),
            )
        )
    rows.append(
        element(
            "tr",
            element("th", "Put off ", element("small", "tried again later"), scope="row"),
            element("td", _number("queue-later", queue.view.later), class_="n"),
            element("td", "", class_="n"),
            element("td", _due(queue.view), class_="n"),
        )
    )
    head = _heads("Priority", "Jobs", "Under way", "Oldest")
    running = [
        element("li", _path(job.path, view.trees), " ", element("small", duration(job.idle_s)))
        for job in queue.view.running
    ]
    return element(
        "section",
        element("h2", "Queue"),
        _stale(view.queue),
        element("table", element("thead", head), element("tbody", rows)),
        element("details", element("summary", f"{len(running)} under way"), element("ul", running))
        if running
        else None,
        id="queue",
    )


def _due(view: Overview) -> str:
    return f"in {duration(view.next[0].due_s)}" if view.next else "-"


def _stale(told: Told[Queue] | Told[Totals]) -> Child:
    """What to say of values that aren't new."""
    if not told.problem:
        return None
    known = f" What is shown is {duration(told.age_s)} old." if told.value is not None else ""
    return element("p", f"{told.problem}.{known}", class_="stale")


# Dead letters


def _letters(view: View) -> Markup:
    queue = view.queue.value
    title = element("h2", "Dead letters")
    if queue is None:
        return element("section", title, _stale(view.queue), id="dead-letters")
    if not queue.letters:
        nothing = element("p", "No picture has been given up.", class_="nothing")
        return element("section", title, _stale(view.queue), nothing, _account(view), id="dead-letters")
    more = queue.view.dead - len(queue.letters)
    return element(
        "section",
        title,
        _stale(view.queue),
        element(
            "p",
            "Pictures that were given up after all tries. Visitors get their originals.",
            class_="nothing",
        ),
        element(
            "form",
            _hidden(view),
            _sign_in() if not view.signed_in else None,
            element("ol", [_letter(letter, view) for letter in queue.letters], class_="letters"),
            element(
                "p",
                f"{more:,} more: ",
                element("code", "webp-converter dead list"),
            )
            if more > 0
            else None,
            element("p", element("button", "Retry all", name="retry", value="all"), class_="all"),
            method="post",
            action="/",
        ),
        _account(view),
        id="dead-letters",
    )


def _hidden(view: View) -> Child:
    """What the page after an order has to know."""
    return element("input", type="hidden", name="refresh", value=view.refresh_s) if view.refresh_s else None


def _sign_in() -> Markup:
    return element(
        "p",
        # Whoever keeps passwords for people wants to know whose this is.
        element("input", name="user", value="webp-converter", autocomplete="username", hidden=True),
        element("label", "Token", for_="token"),
        element("input", type="password", name="token", id="token", autocomplete="current-password"),
        element("button", "Sign in", name="sign", value="in"),
        element("small", "to retry: the content of ", element("code", "api.token_file"), " on the host"),
        class_="sign",
    )


def _account(view: View) -> Child:
    if not view.signed_in:
        return None
    return element(
        "form",
        _hidden(view),
        element("small", "This browser may retry. "),
        element("button", "Sign out", name="sign", value="out", class_="quiet"),
        method="post",
        action="/",
        class_="account",
    )


def _letter(letter: Letter, view: View) -> Markup:
    tries = "1 try" if letter.tries == 1 else f"{letter.tries} tries"
    return element(
        "li",
        element(
            "div",
            _path(letter.path, view.trees),
            element("p", letter.reason, class_="reason"),
            element("p", tries, ", ", _ago(letter.given_up_at, view.now), class_="facts"),
            element("code", retry_command(letter), class_="command"),
        ),
        element(
            "button",
            "Retry",
            element("span", b" " + letter.path, class_="hidden"),
            name="retry",
            value=letter.id,
        ),
        id=f"letter-{letter.id}",
    )


# What it is good for


def _saved(view: View) -> Markup:
    totals = view.totals.value
    title = element("h2", "Saved bytes per day")
    if totals is None:
        return element("section", title, _stale(view.totals), id="saved")
    today = datetime.fromtimestamp(view.now, UTC).date()
    dates = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    days = [(day, totals.days.get(day.isoformat(), Day())) for day in dates]
    saved = [day.original_bytes - day.variant_bytes for _, day in days]
    most = max(*saved, 1)
    rows = [
        element(
            "tr",
            element("th", element("time", day.isoformat(), datetime=day.isoformat()), scope="row"),
            element("td", f"{work.converted:,}", class_="n"),
            element("td", _bytes(f"saved-{day}", bytes_saved), class_="n"),
            element("td", share(bytes_saved, work.original_bytes) or "-", class_="n"),
        )
        for (day, work), bytes_saved in zip(reversed(days), reversed(saved), strict=True)
        if work.decisions
    ]
    first, last = (element("time", _day(day), datetime=day.isoformat()) for day in (dates[0], dates[-1]))
    return element(
        "section",
        title,
        _stale(view.totals),
        element(
            "figure",
            element("p", size(max(saved)), class_="most"),
            _plot(days, saved, most),
            element("p", first, element("span", "UTC"), last, class_="axis"),
            element(
                "figcaption",
                f"{size(sum(saved))} in {DAYS} days: what the variants made on a day are smaller than their "
                "originals. A picture that is converted again counts again here; above it counts once.",
            ),
            class_="plot",
        ),
        element(
            "details",
            element("summary", "As a table"),
            element(
                "table",
                element("thead", _heads("Day (UTC)", "Converted", "Saved", "Share")),
                element("tbody", rows),
            )
            if rows
            else element("p", "Nothing was converted in these days.", class_="nothing"),
        ),
        id="saved",
    )


def _plot(days: list[tuple[date, Day]], saved: list[int], most: int) -> Markup:
    """Bars in a box of 10 units a day, 100 high. It has no text in it, so that it may be stretched."""
    bars = []
    for place, ((day, work), bytes_saved) in enumerate(zip(days, saved, strict=True)):
        height = max(1.0 if bytes_saved > 0 else 0.0, 100 * max(0, bytes_saved) / most)
        told = f"{day}: {size(bytes_saved)} saved, {work.converted:,} converted"
        bars.append(
            element(
                "g",
                element("title", told),
                _rectangle(place * 10, 0, 10, 100, "day"),
                _rectangle(place * 10 + 1, 100 - height, 8, height, "bar"),
            )
        )
    return element(
        "svg",
        bars,
        viewBox=f"0 0 {10 * len(days)} 100",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Bars of {len(days)} days, the highest {size(max(saved))}; the table has all numbers",
    )


def _rectangle(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    return element("rect", x=round(x, 2), y=round(y, 2), width=width, height=round(height, 2), class_=kind)


def _conversions(view: View) -> Markup:
    title = element("h2", "Last conversions")
    if not view.conversions:
        nothing = element("p", "None since the daemon started.", class_="nothing")
        return element("section", title, nothing, id="conversions")
    cards = [_conversion(conversion, view) for conversion in view.conversions]
    return element("section", title, element("ul", cards, class_="cards"), id="conversions")


def _conversion(conversion: Conversion, view: View) -> Markup:
    mark = conversion.mark
    quality = "lossless" if mark.verdict == "q0" else f"quality {mark.verdict.removeprefix('q')}"
    similarity = "not measured" if math.isnan(mark.similarity) else f"{mark.similarity:.4f}"
    facts: list[Child] = [quality, " · SSIM ", element("span", similarity, class_="ssim")]
    facts += [f" · {mark.encode_ms:,} ms"]
    if conversion.avif_bytes:
        link = element("a", "AVIF", href=f"/pictures/{conversion.id}/avif")
        facts += [" · ", link, f" {size(conversion.avif_bytes)}"]
    facts += [" · ", _ago(conversion.published_at, view.now)]
    return element(
        "li",
        element(
            "div",
            _picture(conversion, "before", conversion.format.upper(), mark.size, "", view),
            _picture(
                conversion,
                "webp",
                "WebP",
                conversion.variant_bytes,
                f"-{1 - conversion.variant_bytes / mark.size:.0%}",
                view,
            ),
            class_="pair",
        ),
        _path(conversion.path, view.trees),
        element("p", facts, class_="facts"),
        id=f"conversion-{conversion.id}",
    )


def _picture(conversion: Conversion, which: str, form: str, bytes_: int, saved: str, view: View) -> Markup:
    """One of two pictures side by side."""
    address = f"/pictures/{conversion.id}/{which}"
    name = conversion.path.rpartition(b"/")[2]
    is_shown = bytes_ <= PICTURE_BYTES and (which != "before" or conversion.format in SHOWN_FORMATS)
    what = "Before: " if which == "before" else "After: "
    shown: Child
    if is_shown:
        image = element("img", src=address, alt=what.encode() + name, loading="lazy", decoding="async")
        shown = element("a", image, href=address)
    else:
        shown = element("span", "not shown here", class_="unseen")
    return element(
        "figure",
        shown,
        element(
            "figcaption",
            element("b", form or "Original"),
            " ",
            element("data", size(bytes_), value=bytes_),
            " " if saved else None,
            element("span", saved, class_="gain") if saved else None,
        ),
    )


def _disks(disks: list[Disk]) -> Child:
    if not disks:
        return None
    rows = [
        element(
            "li",
            element("span", disk.tree, class_="tree"),
            element("meter", f"{disk.share:.1%}", min=0, max=1, value=disk.share, title="Share in use"),
            element("span", f"{disk.share:.1%} in use, {size(disk.available_bytes)} left", class_="fact"),
        )
        for disk in disks
    ]
    return element("section", element("h2", "File systems"), element("ul", rows, class_="disks"), id="disks")


def _footer(view: View) -> Markup:
    links = []
    for address in (
        "/health",
        "/api/status",
        "/api/queue",
        "/api/dead",
        f"/api/statistics?days={DAYS}",
        "/api/recent",
        "/openapi.json",
    ):
        links += [element("li", element("a", address, href=address))]
    return element("footer", element("p", "The same for programs:"), element("ul", links))


# Values


def _heads(first: str, *others: str) -> Markup:
    cells = [element("th", other, scope="col", class_="n") for other in others]
    return element("tr", element("th", first, scope="col"), cells)


def _number(name: str, count: int) -> Markup:
    return element("data", f"{count:,}", value=count, id=name)


def _bytes(name: str, count: int) -> Markup:
    return element("data", size(count), value=count, id=name)


def _path(path: bytes, trees: tuple[bytes, ...]) -> Markup:
    """A path below its tree, its last part the clearest."""
    for tree in trees:
        if path.startswith(tree + b"/"):
            path = path.removeprefix(tree + b"/")
            break
    directory, slash, name = path.rpartition(b"/")
    return element("p", element("span", directory + slash), element("b", name), class_="path")


def _moment(seconds: float) -> Markup:
    return element(
        "time", moment(seconds), datetime=datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds")
    )


def _ago(seconds: float, now: float) -> Markup:
    iso = datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds")
    age_s = max(0.0, now - seconds)
    text = f"{age_s / 86_400:.0f} days ago"
    for limit, divisor, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if age_s < limit:
            text = f"{age_s / divisor:.0f} {unit} ago"
            break
    return element("time", text, datetime=iso, title=moment(seconds))


def _day(day: date) -> str:
    return f"{day:%b} {day.day}"
