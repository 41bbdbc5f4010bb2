"""Uploads real photographs through the PHP site, and shows the CDN host's variants."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bitrix_cdn.settings import Settings
from dev.demo.photographs import photographs
from dev.lab import state
from dev.lab.errors import LabError
from dev.lab.site import EXACT, PROPORTIONAL, Resized, Site

# The sizes of the site's gallery: width, height, how they are fitted.
SIZES = ((450, 450, PROPORTIONAL), (120, 120, EXACT))
# What a current browser sends.
BROWSER = "image/avif,image/webp,image/apng,*/*;q=0.8"
# Longer than the daemon lets Bitrix's intermediates rest, should one have been missed.
PATIENCE = 60.0

SETTINGS = Settings()


class DemoError(LabError):
    """The demo can't go on."""


@dataclass(frozen=True)
class Outcome:
    """What a browser gets for a resized picture.

    `variant` is the answer's `X-Image-Variant`, `milliseconds` the time from PHP's last close to
    the variant's publication as the daemon measured it, None when there is none.
    """

    picture: Resized
    variant: str
    served: int
    milliseconds: float | None


@dataclass(frozen=True)
class Shown:
    """What was shown, and where it is to be seen."""

    lab: state.Lab
    outcomes: list[Outcome]

    def url(self, host: str) -> str:
        return f"http://{self.lab.host(host).address}"

    def data(self) -> dict[str, Any]:
        """The same for programs."""
        pictures = [
            {**asdict(one.picture), "variant": one.variant, "served": one.served, "ms": one.milliseconds}
            for one in self.outcomes
        ]
        return {"shop": self.url("bitrix"), "cdn": self.url("cdn"), "pictures": pictures}


def run(console: Console) -> Shown:
    """Runs the demo on the lab.

    :raises DemoError: it can't be shown.
    """
    lab = state.load()
    for host in lab.hosts:
        if host.state != "running":
            raise DemoError(f"{host.name} is {host.state}: `make down`, then `make demo`")
    with Site(f"http://{lab.host('bitrix').address}") as site:
        site.health()
        return Shown(lab, show(console, site, f"http://{lab.host('cdn').address}"))


def closing(shown: Shown) -> str:
    """What there is to see, and how to end it."""
    lab = shown.lab
    port = SETTINGS.converter.api.port
    ssh = f"ssh -i {lab.ssh_key} -o UserKnownHostsFile={lab.known_hosts} root@{lab.host('cdn').address}"
    down = "make down" if lab.name == "lab" else f"LAB_NAME={lab.name} make down"
    return (
        f"\nThe shop's page, its pictures from the CDN host:  [bold]{shown.url('bitrix')}/[/]"
        f"\nThe converter's status page:                      [bold]http://127.0.0.1:{port}/[/], while this"
        f" runs:\n  [bold]{ssh} -N -L {port}:127.0.0.1:{port}[/]"
        f"\nStop the lab and remove all of it:                [bold]{down}[/]\n"
    )


def show(console: Console, site: Site, cdn: str) -> list[Outcome]:
    """Upload the photographs, have them resized, and wait until each is decided on the CDN host."""
    pictures = list(photographs())
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[now]}"),
        console=console,
    ) as progress:
        total = len(pictures) * len(SIZES)
        uploading = progress.add_task("uploaded to the site", total=len(pictures), now="")
        resizing = progress.add_task("resized through the mount", total=total, now="", start=False)
        deciding = progress.add_task("answered by the CDN host", total=total, now="", start=False)

        resized: list[Resized] = []
        for picture in pictures:
            progress.update(uploading, now=picture.name)
            original = site.upload(picture.name, picture.content)
            # What an earlier demo left must not be shown as the work of this one.
            site.delete(original)
            original = site.upload(picture.name, picture.content)
            progress.advance(uploading)
            progress.start_task(resizing)
            for width, height, how in SIZES:
                progress.update(resizing, now=f"{picture.name} {width}x{height}")
                resized.append(site.resize(original, width, height, how))
                progress.advance(resizing)
            if not console.is_terminal:
                # Bars are shown on terminals only.
                console.print(f"uploaded and resized {picture.name}")
        for task in (uploading, resizing):
            progress.update(task, now="")
        answers = _answers(cdn, resized, progress, deciding)

    latencies = _latencies(picture.path for picture in resized)
    return [
        Outcome(
            picture,
            variant=answer.headers["X-Image-Variant"],
            served=len(answer.content),
            milliseconds=latencies.get(picture.path),
        )
        for picture, answer in zip(resized, answers, strict=True)
    ]


def _answers(cdn: str, pictures: Sequence[Resized], progress: Progress, task: TaskID) -> list[httpx.Response]:
    """Ask for each picture as a browser does until the answer is final."""
    progress.start_task(task)
    answers = []
    with httpx.Client(base_url=cdn, headers={"Accept": BROWSER}, timeout=10) as client:
        for picture in pictures:
            progress.update(task, now=_name(picture))
            answers.append(_final_answer(client, picture))
            progress.advance(task)
    progress.update(task, now="")
    return answers


def _final_answer(client: httpx.Client, picture: Resized) -> httpx.Response:
    deadline = time.monotonic() + PATIENCE
    seen = "no answer"
    while time.monotonic() < deadline:
        try:
            response = client.get(picture.url_path)
        except httpx.HTTPError as error:
            seen = str(error) or type(error).__name__
        else:
            variant = response.headers.get("X-Image-Variant")
            if response.status_code == httpx.codes.OK and variant not in {None, "pending"}:
                return response
            seen = f"{response.status_code}, X-Image-Variant: {variant}"
        time.sleep(0.1)
    raise DemoError(
        f"{client.base_url}{picture.url_path} is not decided after {PATIENCE:.0f} s (last: {seen}); "
        "see `python -m dev.lab exec cdn -- journalctl -u webp-converter -n 50`"
    )


# Runs on the CDN host, where the daemon's API listens.
_ASK_THE_DAEMON = """
import json, sys, urllib.error, urllib.parse, urllib.request
latencies = {}
for path in json.load(sys.stdin):
    query = urllib.parse.urlencode({"path": sys.argv[2] + path})
    try:
        with urllib.request.urlopen(f"{sys.argv[1]}/api/pictures?{query}", timeout=10) as answer:
            latencies[path] = json.load(answer)["latency_ms"]
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
print(json.dumps(latencies))
"""


def _latencies(paths: Iterable[str]) -> dict[str, float]:
    """Milliseconds from the last close-write to the publication, as the daemon measured them."""
    api = f"http://127.0.0.1:{SETTINGS.converter.api.port}"
    command = ["python3", "-c", _ASK_THE_DAEMON, api, SETTINGS.cdn.root]
    result = subprocess.run(
        [sys.executable, "-m", "dev.lab", "exec", "cdn", "--", *command],
        input=json.dumps(list(paths)),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise DemoError(f"can't ask the converter on cdn: {reason}")
    return {path: float(latency) for path, latency in json.loads(result.stdout).items()}


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return the result, a row a picture, totals at the end."""
    before = sum(outcome.picture.bytes for outcome in outcomes)
    after = sum(outcome.served for outcome in outcomes)
    known = [outcome.milliseconds for outcome in outcomes if outcome.milliseconds is not None]
    result = Table(
        show_footer=True, caption="bytes; published: milliseconds from PHP's close to the variant in place"
    )
    result.add_column("picture", footer=f"{len(outcomes)} pictures", overflow="fold")
    result.add_column("size", justify="right")
    result.add_column("original", justify="right", footer=f"{before:,}")
    result.add_column("as WebP", justify="right", footer=f"{after:,}")
    result.add_column("saved", justify="right", footer=_saved(before, after))
    median = f"median {statistics.median(known):.0f}" if known else "-"
    result.add_column("published", justify="right", footer=median)
    for outcome in outcomes:
        picture = outcome.picture
        better = outcome.variant != "original"
        result.add_row(
            escape(_name(picture)),
            f"{picture.width}x{picture.height}",
            f"{picture.bytes:,}",
            f"{outcome.served:,}" if better else "kept",
            _saved(picture.bytes, outcome.served) if better else "-",
            "-" if outcome.milliseconds is None else f"{outcome.milliseconds:.0f}",
        )
    return result


def _name(picture: Resized) -> str:
    return picture.path.rsplit("/", 1)[1]


def _saved(before: int, after: int) -> str:
    return f"{100 * (1 - after / before):.1f} %"
