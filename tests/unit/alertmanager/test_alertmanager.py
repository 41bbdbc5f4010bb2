"""Alertmanager's configuration: who is told what, and what isn't told because something else is."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.settings.alerting import AlertmanagerSettings, LevelSettings, secret
from roles.alertmanager import CONFIG, DROP_IN, INHIBITIONS, SEVERITIES, configuration
from tests.kit.alerting import names
from tests.kit.deployment import ROOT
from tests.kit.receiver import Receiver, receiving
from tests.kit.support import wait_until
from tests.kit.tools import needs, said

ALL: dict[str, Any] = {
    "email": {
        "to": ["shop@example.com", "night@example.com"],
        "sender": "cdn@example.com",
        "smarthost": "smtp.example.com:587",
        "username": "cdn",
        "password": "env:TEST_PASSWORD",
    },
    "telegram": {"chats": [-100200], "token": "env:TEST_TOKEN", "proxy": "socks5://192.0.2.1:1080"},
    "webhook": {"urls": ["https://hooks.example.com/a", "env:TEST_HOOK"]},
    "watchdog": {"url": "env:TEST_WATCHDOG", "interval_s": 30},
}

SECRETS = {
    "TEST_PASSWORD": "pass\"word: '#1",
    "TEST_TOKEN": "123456:token-of-the-bot",
    "TEST_HOOK": "https://hooks.example.com/secret?a=1&b=2",
    "TEST_WATCHDOG": "https://watch.example.com/secret",
}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def written(place: Path, settings: dict[str, Any], language: str = "en") -> Path:
    """The configuration in files below `place`; returns the main one's path."""
    for file in configuration(AlertmanagerSettings.model_validate(settings), language):
        content = file.content.replace("/etc/prometheus/alertmanager_templates", str(place))
        (place / Path(file.path).name).write_text(content)
    return place / Path(CONFIG).name


@pytest.mark.parametrize("kinds", [set(), {"email"}, {"telegram"}, {"webhook"}, {"watchdog"}, set(ALL)])
def test_alertmanager_takes_it(secrets: None, tmp_path: Path, kinds: set[str]) -> None:
    needs("amtool", "prometheus-alertmanager")
    config = written(tmp_path, {kind: ALL[kind] for kind in kinds})
    assert "SUCCESS" in said("amtool", "check-config", config)


def test_one_without_a_password_for_mail_is_taken(tmp_path: Path) -> None:
    needs("amtool", "prometheus-alertmanager")
    email = {"to": ["a@example.com"], "sender": "b@example.com", "smarthost": "localhost:25"}
    config = written(tmp_path, {"email": {**email, "require_tls": False}})
    assert "SUCCESS" in said("amtool", "check-config", config)
    assert "auth_" not in config.read_text()


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        *(([f"severity={severity}", "alertname=X", "host=cdn"], severity) for severity in SEVERITIES),
        (["severity=none", "alertname=Watchdog"], "watchdog"),
        (["severity=none", "alertname=X"], "nobody"),
        (["alertname=X"], "nobody"),
    ],
)
def test_an_alert_goes_to_the_receiver_of_its_severity(
    tmp_path: Path, labels: list[str], receiver: str
) -> None:
    needs("amtool", "prometheus-alertmanager")
    config = written(tmp_path, {})
    assert receiver in said("amtool", "config", "routes", "test", f"--config.file={config}", *labels).split()


@pytest.mark.parametrize("kind", ["email", "telegram", "webhook"])
def test_each_way_takes_the_severities_that_were_chosen(secrets: None, tmp_path: Path, kind: str) -> None:
    text = written(tmp_path, {kind: {**ALL[kind], "severities": ["critical"]}}).read_text()
    parts = dict(re.findall(r"^ {2}- name: (\w+)\n((?: {4}.*\n)*)", text, re.M))
    assert set(parts) == {"nobody", "critical", "warning", "info", "watchdog"}
    assert [name for name, part in parts.items() if "_configs:" in part] == ["critical"]


def test_each_secret_is_in_the_file_that_only_alertmanager_reads(secrets: None, tmp_path: Path) -> None:
    files = configuration(AlertmanagerSettings.model_validate(ALL))
    [config] = [file for file in files if file.path == CONFIG]
    assert (config.mode, config.user, config.group) == ("640", "root", "alertmanager")
    assert "User=alertmanager" in next(file.content for file in files if file.path == DROP_IN)
    for value in (SECRETS["TEST_TOKEN"], SECRETS["TEST_WATCHDOG"]):
        assert value in config.content
        assert all(value not in file.content for file in files if file is not config)
        assert value not in repr(files)


_DEPLOY = """
from bitrix_cdn.engine.files import tree
from roles.alertmanager import CONFIG, configuration
from bitrix_cdn.settings.alerting import AlertmanagerSettings
from bitrix_cdn.engine.files import File
import getpass, grp, os, pathlib
place = pathlib.Path({place!r})
user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
files = [
    File(str(place / file.path.rpartition("/")[2]), file.content, "640", user, group)
    for file in configuration(AlertmanagerSettings.model_validate({settings!r})) if file.path == CONFIG
]
tree(name="Write who is told what", files=files)
"""


@pytest.mark.parametrize(
    "run",
    [["--dry"], ["--dry", "--debug-operations"], ["-y"]],
    ids=["a rehearsal", "its operations", "a deploy"],
)
def test_pyinfra_never_shows_a_secret(secrets: None, tmp_path: Path, run: list[str]) -> None:
    target = tmp_path / "target"
    deploy = tmp_path / "deploy.py"
    deploy.write_text(_DEPLOY.format(place=str(target), settings=ALL))
    pyinfra = Path(sys.executable).parent / "pyinfra"
    result = subprocess.run(
        [pyinfra, *run, "-vvv", "--debug", "--diff", "@local", str(deploy)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "Write who is told what" in output
    for value in SECRETS.values():
        assert value not in output
        assert json.dumps(value) not in output
    if run == ["-y"]:
        assert SECRETS["TEST_TOKEN"] in (target / Path(CONFIG).name).read_text()


def test_settings_hold_no_secret(secrets: None) -> None:
    shown = AlertmanagerSettings.model_validate(ALL).model_dump_json()
    for value in SECRETS.values():
        assert value not in shown


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("env:TEST_NOT_SET", "the environment variable TEST_NOT_SET is not set"),
        ("file:/nowhere/at/all", "No such file or directory"),
    ],
)
def test_a_secret_that_is_not_there_is_one_line(source: str, words: str) -> None:
    with pytest.raises(PyinfraError, match=words) as caught:
        secret(source)
    assert str(caught.value).startswith(f"{source}: ")
    assert "\n" not in str(caught.value)


def test_a_secret_is_read_from_its_file_without_the_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert secret(f"file:{file}") == "abc"
    for content in ("", "two\nlines\n"):
        file.write_text(content)
        with pytest.raises(PyinfraError, match=re.escape(f"file:{file}")):
            secret(f"file:{file}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"email": {"to": ["a@example.com"]}}, "to needs sender and smarthost"),
        ({"email": {"username": "a"}}, "username and password need each other"),
        ({"email": {"username": "a", "password": "123"}}, "file:PATH or env:NAME is allowed"),
        ({"telegram": {"chats": [1]}}, "chats and token need each other"),
        ({"webhook": {"urls": ["ftp://x"]}}, "file:PATH or env:NAME is allowed"),
        ({"webhook": {"severities": ["bad"]}}, "critical"),
        ({"runbooks_url": "https://x.example.com/y"}, "pattern"),
    ],
)
def test_what_can_not_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AlertmanagerSettings.model_validate(settings)


def test_only_levels_that_are_counted_by_are_taken() -> None:
    assert LevelSettings(ssim=0.96).ssim == 0.96
    with pytest.raises(ValidationError, match=r"0\.90, 0\.92"):
        LevelSettings(ssim=0.955)


def test_inhibitions_name_alerts_that_exist() -> None:
    known = set(names())
    for rule in INHIBITIONS:
        for matcher in (*rule.source, *rule.target):
            if found := re.fullmatch(r'alertname!?=~"(.*)"', matcher):
                assert set(found[1].split("|")) <= known, matcher


# A real one, with the times as short as they can be.


class Running:
    """Alertmanager, and who hears from it."""

    def __init__(self, url: str, receiver: Receiver) -> None:
        self.receiver = receiver
        self._amtool = ["amtool", f"--alertmanager.url={url}", "--timeout=5s"]

    def tell(self, *labels: str, over: bool = False, annotations: dict[str, str] | None = None) -> None:
        """Says what Prometheus would: this fires, or is over."""
        end = ["--end=2020-01-01T00:00:00Z", "--start=2019-12-31T00:00:00Z"] if over else []
        notes = [
            f"--annotation={name}={value}" for name, value in (annotations or {"summary": "so it is"}).items()
        ]
        said(*self._amtool, "alert", "add", *notes, *end, *labels)

    def suppressed(self) -> set[str]:
        """The alerts that it knows and doesn't tell of."""
        everything = said(*self._amtool, "-o", "json", "alert", "query", "--active", "--inhibited")
        told = said(*self._amtool, "-o", "json", "alert", "query", "--active")
        pattern = r'"alertname":\s*"(\w+)"'
        return set(re.findall(pattern, everything)) - set(re.findall(pattern, told))


@contextmanager
def alertmanager(
    place: Path, settings: Callable[[str], dict[str, Any]], language: str = "en"
) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with receiving() as receiver, (place / "log").open("w") as log:
        config = written(place, settings(receiver.url()), language)
        command = [
            "prometheus-alertmanager",
            f"--config.file={config}",
            f"--storage.path={place / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            query = ["amtool", f"--alertmanager.url={url}", "--timeout=1s", "alert", "query"]
            wait_until(
                "Alertmanager to answer",
                lambda: subprocess.run(query, capture_output=True, check=False).returncode,
                lambda status: status == 0,
                timeout=60,
            )
            yield Running(url, receiver)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    needs("prometheus-alertmanager", "prometheus-alertmanager")
    quick = {"critical_wait_s": 0, "warning_wait_s": 1}
    with alertmanager(
        tmp_path,
        lambda url: {**quick, "webhook": {"urls": [url]}, "watchdog": {"url": url, "interval_s": 10}},
    ) as running:
        yield running


def test_an_alert_arrives_and_so_does_its_end(running: Running) -> None:
    labels = {"severity": "critical", "host": "shop", "mount": "resize-cache"}
    told = [f"{name}={value}" for name, value in labels.items()]
    running.tell("alertname=MountDown", *told)
    notice = running.receiver.wait_for("MountDown", host="shop", mount="resize-cache")
    assert (notice.receiver, notice.annotations["summary"]) == ("critical", "so it is")
    running.tell("alertname=MountDown", *told, over=True)
    running.receiver.wait_for("MountDown", "resolved", host="shop", mount="resize-cache")


def test_the_watchdog_is_told_again_and_again(running: Running) -> None:
    running.tell("alertname=Watchdog", "severity=none")
    first = running.receiver.wait_for("Watchdog")
    running.receiver.wait_for("Watchdog", since=first.arrived + 1, timeout=60)


def test_what_follows_from_something_worse_is_not_told(running: Running) -> None:
    running.tell("alertname=HostDown", "severity=critical", "host=shop")
    running.tell("alertname=DiskLow", "severity=critical", "host=cdn", "mountpoint=/")
    running.receiver.wait_for("HostDown")
    running.receiver.wait_for("DiskLow")
    # All on that host, what the other host needs of it, and the same matter as a warning; not another disk.
    running.tell("alertname=TargetDown", "severity=warning", "host=shop", "job=node")
    running.tell("alertname=MountDown", "severity=critical", "host=cdn", "mount=originals")
    running.tell("alertname=DiskLow", "severity=warning", "host=cdn", "mountpoint=/")
    running.tell("alertname=DiskLow", "severity=warning", "host=cdn", "mountpoint=/srv")
    running.tell("alertname=DeadLetters", "severity=warning", "host=cdn")
    running.receiver.wait_for("DeadLetters", host="cdn")
    running.receiver.wait_for("DiskLow", severity="warning", mountpoint="/srv")
    assert {"TargetDown", "MountDown"} <= running.suppressed()
    told = {(n.labels["alertname"], n.labels.get("mountpoint")) for n in running.receiver.notices()}
    assert told == {("HostDown", None), ("DiskLow", "/"), ("DiskLow", "/srv"), ("DeadLetters", None)}
    assert {
        n.labels["severity"] for n in running.receiver.notices() if n.labels.get("mountpoint") == "/"
    } == {"critical"}


LIST = "amtool --alertmanager.url=http://127.0.0.1:9093 alert query"

TOLD = {
    "summary": "resize-cache is not mounted on shop; 5 < 7 files wait",
    "description": "The hosts don't reach each other's files.",
    "runbook_url": "https://git.example.com/docs/runbooks/mounts.md#mountdown",
}


def what_people_read(text: str) -> None:
    """What is wrong, how bad, where, since when, what to do: letter by letter, nothing escaped."""
    lines = text.replace("\r\n", "\n").strip().splitlines()
    assert lines[:2] == [f"CRITICAL MountDown: {TOLD['summary']}", TOLD["description"]]
    assert re.fullmatch(
        rf"Since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\. What to do: {re.escape(TOLD['runbook_url'])}", lines[2]
    )
    # A command that does what it says, and no page that Debian's Alertmanager doesn't have.
    command = re.fullmatch(
        r"All that rings, on the monitoring host: (amtool \S+=http://127.0.0.1:\d+ alert query)", lines[-1]
    )
    assert command
    assert "http" not in text.replace(TOLD["runbook_url"], "").replace(command[1], "")


def what_people_read_at_the_end(text: str) -> None:
    lines = text.strip().splitlines()
    assert lines[0] == f"OVER MountDown: {TOLD['summary']}"
    assert lines[1].startswith("From 20")
    assert lines[1].endswith(" UTC.")


def rung_and_ended(alertmanager: Running, arrived: Callable[[], Sequence[object]]) -> None:
    """Has an alert arrive by mail or by the bot, and its end."""
    labels = ["alertname=MountDown", "severity=critical", "host=shop"]
    alertmanager.tell(*labels, annotations=TOLD)
    wait_until("the message", arrived, lambda came: len(came) == 1, timeout=60)
    alertmanager.tell(*labels, over=True, annotations=TOLD)
    wait_until("the message of the end", arrived, lambda came: len(came) == 2, timeout=60)


def mailed(place: Path, language: str) -> list[EmailMessage]:
    """What a mail server gets of an alert: a mail when it rings, and one when it is over."""
    needs("prometheus-alertmanager", "prometheus-alertmanager")
    with mail_server() as (port, mails):
        email = {
            "to": ["night@example.com"],
            "sender": "cdn@example.com",
            "smarthost": f"localhost:{port}",
            "require_tls": False,
        }
        with alertmanager(place, lambda _: {"critical_wait_s": 0, "email": email}, language) as running:
            rung_and_ended(running, lambda: mails)
    return mails


def test_a_mail_in_russian_arrives_as_it_was_written(tmp_path: Path) -> None:
    firing, over = mailed(tmp_path, "ru")
    assert firing["Subject"] == "[ТРЕВОГА 1] критично: MountDown на shop"
    assert over["Subject"] == "[УСТРАНЕНО] критично: MountDown на shop"
    for mail, beginning in ((firing, "MountDown (критично)"), (over, "УСТРАНЕНО MountDown")):
        [part] = [part for part in mail.walk() if not part.is_multipart()]
        assert part.get_content().lstrip().startswith(f"{beginning}: {TOLD['summary']}")


def test_a_mail_server_gets_a_mail_that_says_all(tmp_path: Path) -> None:
    firing, over = mailed(tmp_path, "en")
    assert (firing["From"], firing["To"]) == ("cdn@example.com", "night@example.com")
    assert firing["Subject"] == "[FIRING 1] critical: MountDown on shop"
    assert over["Subject"] == "[RESOLVED] critical: MountDown on shop"
    for mail, looks in ((firing, what_people_read), (over, what_people_read_at_the_end)):
        parts = [part for part in mail.walk() if not part.is_multipart()]
        assert [part.get_content_type() for part in parts] == ["text/plain"]
        looks(parts[0].get_content())


def test_a_bot_writes_a_message_that_says_all(secrets: None, tmp_path: Path) -> None:
    needs("prometheus-alertmanager", "prometheus-alertmanager")
    with telegram() as (url, messages):
        bot = {"chats": [-100200], "token": "env:TEST_TOKEN", "api": url}
        with alertmanager(tmp_path, lambda _: {"critical_wait_s": 0, "telegram": bot}) as running:
            rung_and_ended(running, lambda: messages)
    assert {path for path, _ in messages} == {f"/bot{SECRETS['TEST_TOKEN']}/sendMessage"}
    firing, over = [message for _, message in messages]
    assert str(firing["chat_id"]) == "-100200"
    # As it is, without markup: what is in a path or a name must not be taken for it.
    assert not firing.get("parse_mode")
    what_people_read(str(firing["text"]))
    what_people_read_at_the_end(str(over["text"]))


@contextmanager
def mail_server() -> Iterator[tuple[int, list[EmailMessage]]]:
    """A mail server that takes everything: its port, and what came."""
    mails: list[EmailMessage] = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 sink\r\n")
            for line in self.rfile:
                command = line.split()[0].upper() if line.split() else b""
                if command == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    content = b"".join(line.removeprefix(b".") for line in lines)
                    mails.append(message_from_bytes(content, policy=policy.default))
                self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 sink\r\n")
                if command == b"QUIT":
                    break

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1], mails
        server.shutdown()


@contextmanager
def telegram() -> Iterator[tuple[str, list[tuple[str, dict[str, object]]]]]:
    """The server of the bots: its address, and what was asked of it, with the path."""
    messages: list[tuple[str, dict[str, object]]] = []

    class Bots(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            messages.append((self.path, json.loads(body)))
            chat = {"id": -100200, "type": "supergroup"}
            answer = json.dumps({"ok": True, "result": {"message_id": 1, "date": 1, "chat": chat}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Says nothing: what came is in the list."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Bots) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", messages
        server.shutdown()


MESSAGES = {
    "en": [
        "[FIRING 1] critical: MountDown on shop",
        "CRITICAL MountDown: 5 < 7 files",
        "It is away.",
        "Since 2026-01-01 00:00:00 UTC. What to do: docs/runbooks/mounts.md#mountdown",
        "",
        "OVER MountDown: 3 files",
        "From 2026-01-01 00:00:00 to 2026-01-01 00:10:00 UTC.",
        "",
        f"All that rings, on the monitoring host: {LIST}",
    ],
    "ru": [
        "[ТРЕВОГА 1] критично: MountDown на shop",
        "MountDown (критично): 5 < 7 files",
        "It is away.",
        "Началось 2026-01-01 00:00:00 UTC. Что делать: docs/runbooks/mounts.md#mountdown",
        "",
        "УСТРАНЕНО MountDown: 3 files",
        "С 2026-01-01 00:00:00 до 2026-01-01 00:10:00 UTC.",
        "",
        f"Все сработавшие оповещения показывает команда на сервере мониторинга: {LIST}",
    ],
}


@pytest.mark.parametrize("language", MESSAGES)
def test_messages_to_people_say_what_how_long_and_what_to_do(tmp_path: Path, language: str) -> None:
    needs("amtool", "prometheus-alertmanager")
    assert "SUCCESS" in said("amtool", "check-config", written(tmp_path, {}, language))
    data = tmp_path / "data.json"
    data.write_text(_DATA)

    def render(template: str) -> str:
        glob = f"--template.glob={tmp_path / 'bitrix-cdn.tmpl'}"
        text = f'--template.text={{{{ template "bitrix_cdn.{template}" . }}}}'
        return said("amtool", "template", "render", glob, text, f"--template.data={data}")

    assert [render("subject").strip(), *render("text").strip().splitlines()] == MESSAGES[language]


_DATA = """{
  "receiver": "critical", "status": "firing", "externalURL": "http://127.0.0.1:9093",
  "groupLabels": {"alertname": "MountDown", "host": "shop"},
  "commonLabels": {"severity": "critical"}, "commonAnnotations": {},
  "alerts": [
    {"status": "firing", "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
     "labels": {"alertname": "MountDown", "severity": "critical", "host": "shop"},
     "annotations": {"summary": "5 < 7 files", "description": "It is away.",
                     "runbook_url": "docs/runbooks/mounts.md#mountdown"}},
    {"status": "resolved", "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-01T00:10:00Z",
     "labels": {"alertname": "MountDown", "severity": "critical", "host": "shop"},
     "annotations": {"summary": "3 files", "description": "It was away.", "runbook_url": "x"}}
  ]
}"""
