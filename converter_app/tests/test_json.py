"""What programs read: each answer of the API and of `--json` has these names in this order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from converter_app.tests.harness import TOKEN, DaemonProcess, RedisServer, decided, wait_until
from tests.kit import pictures

from webp_converter.config import Queue
from webp_converter.queue.jobs import Done, Job, Jobs, Priority

PARTS = " ".join(f"{part}(status reason)" for part in ("queue", "cache", "watch", "pool", "disk"))
HEALTH = f"status parts({PARTS}) scanning directories running queue(high normal low later dead)"
COUNTS, FOLLOWING = "converted kept failed original_bytes variant_bytes", "saved_bytes success_rate"
SUMS = f"{COUNTS} {FOLLOWING}"
EVICTION = "pictures age_files age_bytes space_files space_bytes refused missing_bytes seconds"
LETTER = "id path reason tries given_up_at consumer"
WAITING = "length under_way oldest_s"
QUEUE = (
    f"streams(high({WAITING}) normal({WAITING}) low({WAITING})) consumers(name under_way idle_s) "
    "running(path priority consumer idle_s) later next(path due_s tries) dead"
)
CLEANUP = (
    "dry_run stale(files bytes) unfinished(files bytes) evicted(age(files bytes) space(files bytes)) refused "
    "missing_bytes queued missed seconds"
)
EXPLANATION = (
    "asked url kind state why original(path present bytes modified_at format width height problem) directory "
    "variants(name state bytes verdict quality ssim mark_version encode_ms made_from_bytes "
    "made_from_modified_at) "
    f"queue(state stream age_s due_s tries consumer dead({LETTER}) problem) varnish "
    "visitors(who accept status type bytes variant cache_control cache age_s problem) notes"
)
PICTURE = "verdict format original_bytes variant_bytes ssim encode_ms latency_ms path evicted avif_bytes"
FORMATS = f"evicted evicted_bytes formats(*({SUMS}))"
WORK = "decisions again evicted evicted_bytes"


def shape(value: Any) -> str:
    """The names in a value, in order; of a list, those of its first member; `*` for what isn't fixed."""
    if isinstance(value, list):
        return shape(value[0]) if value and isinstance(value[0], dict) else ""
    if not isinstance(value, dict):
        return ""
    inner = {name: shape(below) for name, below in value.items()}
    told = [
        f"{'*' if name[:1].isdigit() or name == 'jpeg' else name}{f'({below})' if below else ''}"
        for name, below in inner.items()
    ]
    return " ".join(told)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon that has converted, and whose queue holds something of each kind."""
    directory = tmp_path_factory.mktemp("json")
    server = RedisServer(directory / "redis")
    server.start()
    (directory / "token").write_text(TOKEN)
    api = {"token_file": str(directory / "token")}
    daemon = DaemonProcess(
        directory / "cdn", server.url, api=api, store={"high_water": 1.0, "low_water": 1.0}
    )
    try:
        daemon.start()
        path = daemon.root / "photo.jpg"
        path.write_bytes(pictures.jpeg())
        wait_until(lambda: decided(path))
        jobs = Jobs(Queue(url=server.url, consumer="other"))
        # The daemon is stopped meanwhile, so that it takes none of these.
        assert daemon.stop() == 0
        jobs.push(
            [
                Job(bytes(daemon.root / name), 1, Priority.HIGH)
                for name in ("dead.jpg", "later.jpg", "now.jpg")
            ]
        )
        dead, later, _ = jobs.fetch(3, 0)
        jobs.finish([Done(dead, dead="worker crashed"), Done(later, later, after_s=3600)])
        daemon.start()
        urlopen(order(daemon, "/api/cleanup")).read()
        yield daemon
    finally:
        daemon.kill()
        server.kill()


def order(daemon: DaemonProcess, path: str, body: bytes = b"") -> Request:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    return Request(f"http://127.0.0.1:{daemon.api_port}{path}", body, headers, method="POST")


def answered(daemon: DaemonProcess, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{daemon.api_port}{path}") as answer:
        return json.load(answer)


def printed(daemon: DaemonProcess, *arguments: str) -> Any:
    command = [str(Path(sys.executable).parent / "webp-converter"), *arguments, "--json"]
    command += ["--config", str(daemon.config_file)]
    return json.loads(subprocess.run(command, capture_output=True, check=False).stdout)


def letter_of(daemon: DaemonProcess) -> str:
    return str(answered(daemon, "/api/dead")[0]["id"])


def test_of_the_api(daemon: DaemonProcess) -> None:
    wait_until(lambda: answered(daemon, "/health")["queue"])
    expected = {
        "/health": HEALTH,
        "/api/status": f"health({HEALTH}) consumer version release uptime_s "
        "disks(tree used_bytes available_bytes share) originals(tried_at problem) "
        "last_scan(finished_at originals queued removed complete seconds) "
        f"last_eviction(finished_at {EVICTION})",
        "/api/queue": QUEUE,
        "/api/dead": LETTER,
        f"/api/dead/{letter_of(daemon)}": f"{LETTER} traceback asked_at command",
        "/api/statistics": f"{SUMS} since {FORMATS} days(*({SUMS} {WORK}))",
        f"/api/pictures?path={daemon.root}/photo.jpg": PICTURE,
        f"/api/explain?target={daemon.root}/dead.jpg": EXPLANATION,
    }
    assert {path: shape(answered(daemon, path)) for path in expected} == expected


def test_of_the_last_conversions(daemon: DaemonProcess) -> None:
    path = daemon.root / "latest.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: answered(daemon, "/api/recent")["conversions"])
    assert shape(answered(daemon, "/api/recent")) == (
        "decided_minute decided_hour conversions(id path format original_bytes variant_bytes avif_bytes "
        "verdict ssim encode_ms latency_ms published_at)"
    )


def test_of_orders(daemon: DaemonProcess) -> None:
    wish = json.dumps({"paths": [str(daemon.root / "photo.jpg")]}).encode()
    answers = {
        path: json.loads(urlopen(order(daemon, path, body)).read())
        for path, body in (("/api/convert", wish), ("/api/scan", b""), ("/api/cleanup?dry_run=true", b""))
    }
    assert {path: shape(answer) for path, answer in answers.items()} == {
        "/api/convert": "pictures(path state)",
        "/api/scan": "asked",
        "/api/cleanup?dry_run=true": CLEANUP,
    }


def test_of_the_command(daemon: DaemonProcess) -> None:
    wait_until(lambda: answered(daemon, "/health")["queue"])
    expected = {
        ("status",): HEALTH,
        ("queue",): QUEUE,
        ("dead", "list"): LETTER,
        ("dead", "show", letter_of(daemon)): f"{LETTER} traceback asked_at command",
        ("stats",): f"since {SUMS} {FORMATS} days(*({COUNTS} {WORK} {FOLLOWING}))",
        ("explain", str(daemon.root / "dead.jpg")): EXPLANATION,
        ("cleanup", "--dry-run"): CLEANUP,
        ("scan",): "originals queued removed removed_bytes evicted missed seconds",
    }
    assert {words: shape(printed(daemon, *words)) for words in expected} == expected
