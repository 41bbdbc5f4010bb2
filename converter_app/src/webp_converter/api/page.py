"""The status page: the data of the API, for people. Values in, HTML out by `page.html.j2`; no I/O."""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from webp_converter.api.background_query import QueryResult
from webp_converter.api.language import Language
from webp_converter.api.models import Status
from webp_converter.api.service import retry_command
from webp_converter.base.formatting import moment, printable
from webp_converter.queue.jobs import Letter, Overview
from webp_converter.queue.latest_jobs import Conversion
from webp_converter.variants.statistics import Day, Totals

DAYS = 30
CONVERSIONS = 12
LETTERS = 20
REFRESH_S = 30
PICTURE_BYTES = 8 * 1024 * 1024
"""Above this size a picture is not shown."""

SHOWN_FORMATS = ("jpeg", "png", "gif", "webp")
"""Of originals, that browsers show."""

_STYLE = Markup(files("webp_converter.api").joinpath("page.css").read_text("utf-8"))  # noqa: S704 -- the program's own
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

POLICY = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: it has neither scripts nor anything from elsewhere."""


class Queue(NamedTuple):
    """The data from the queue's Redis."""

    view: Overview
    letters: list[Letter]
    """Some dead letters, the oldest first."""


@dataclass(frozen=True)
class Notice:
    """The result of a submitted form."""

    done: str
    """`signed-in`, `signed-out`, `retried` or `refused`."""

    count: int = 0
    """Of the pictures that are tried again."""

    reason: str = ""
    """Why the order was refused."""

    @property
    def role(self) -> str:
        """The ARIA role, for screen readers."""
        failed = self.done == "refused" or (self.done == "retried" and not self.count)
        return "alert" if failed else "status"


class Bar(NamedTuple):
    """One day of the plot."""

    day: date
    work: Day
    saved: int
    """Bytes."""

    height: float
    """0 to 100."""


class Plot(NamedTuple):
    """Saved bytes by day, the earliest first."""

    bars: list[Bar]
    most: int
    """Bytes of the best day."""

    sum: int


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    now: float
    """Seconds of the wall clock."""

    status: Status
    queue: QueryResult[Queue]
    totals: QueryResult[Totals]
    rates: tuple[int, int]
    """Decisions within the last minute, and within the last hour."""

    conversions: list[Conversion]
    trees: tuple[bytes, ...]
    """What is left out at the start of paths."""

    signed_in: bool
    refresh_s: int = 0
    """Seconds after which a browser shall ask again; 0: never."""

    notice: Notice | None = None


def page(view: View, language: Language) -> str:
    """The whole page."""
    template = _environment(language).get_template("page.html.j2")
    return template.render(view=view, plot=_plot(view), below=lambda path: _below(path, view.trees)) + "\n"


def icon(status: str) -> str:
    """A picture for the browser's tab, SVG."""
    colour = {"ok": "#1a7f4b", "degraded": "#d98e04"}.get(status, "#c4302b")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        f'<circle cx="8" cy="8" r="7" fill="{colour}"></circle></svg>'
    )


@cache
def _environment(language: Language) -> jinja2.Environment:
    """The renderer of the page in a language, which escapes all values in a template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("webp_converter.api", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fsencode"] = os.fsencode
    environment.globals |= {
        # Of a sentence: its values are escaped as those of the template are.
        "_": lambda message, **values: _filled(language.message(message), values),
        "ngettext": lambda one, many, count, **values: _filled(
            language.counted(one, many, count), {"count": language.number(count), **values}
        ),
        "language": language,
        **{
            name: getattr(language, name)
            for name in ("ago", "day", "decimal", "duration", "number", "reason", "share", "size")
        },
        "gain": lambda before, after: f"-{1 - after / before:.0%}",
        "iso": lambda seconds: datetime.fromtimestamp(seconds, UTC).isoformat("T", "seconds"),
        "moment": moment,
        "picture_bytes": PICTURE_BYTES,
        "plot_days": DAYS,
        "refresh_s": REFRESH_S,
        "retry_command": retry_command,
        "sentence": lambda text: f"{text[0].upper()}{text[1:]}.",
        "shown_formats": SHOWN_FORMATS,
        "style": _STYLE,
    }
    return environment


def shown(value: object) -> object:
    """A value as the page shows it, before it is escaped: text may be of any bytes, such as a path's."""
    if value is None or isinstance(value, Markup):
        return "" if value is None else value
    return printable(value) if isinstance(value, (str, bytes)) else value


def _filled(message: str, values: dict[str, object]) -> Markup:
    """A message of the program's own, with values that are escaped."""
    return Markup(message).format(  # noqa: S704
        **{name: shown(value) for name, value in values.items()}
    )


def _below(shown: str, trees: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """A path below its tree: its directory, and its last part."""
    path = os.fsencode(shown)
    tree = next((tree for tree in trees if path.startswith(tree + b"/")), None)
    directory, slash, name = path[len(tree) + 1 if tree else 0 :].rpartition(b"/")
    return directory + slash, name


def _plot(view: View) -> Plot | None:
    """Saved bytes of the last days; None: they aren't known."""
    if view.totals.value is None:
        return None
    today = datetime.fromtimestamp(view.now, UTC).date()
    dates = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    days = [view.totals.value.days.get(day.isoformat(), Day()) for day in dates]
    saved = [day.saved_bytes for day in days]
    most = max(*saved, 1)
    bars = [
        Bar(day, work, bytes_, max(1.0 if bytes_ > 0 else 0.0, 100 * max(0, bytes_) / most))
        for day, work, bytes_ in zip(dates, days, saved, strict=True)
    ]
    return Plot(bars, max(saved), sum(saved))
