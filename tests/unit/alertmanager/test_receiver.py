"""The receiver that other tests hear alerts with."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.kit.receiver import receiving


def payload(status: str, **labels: str) -> dict[str, Any]:
    alert = {"status": status, "labels": labels, "annotations": {"summary": "so it is"}}
    return {"version": "4", "receiver": "critical", "status": status, "alerts": [alert]}


def post(url: str, body: bytes) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_arrives_is_found_by_name_status_and_labels() -> None:
    with receiving() as receiver:
        for status, host in (("firing", "shop"), ("firing", "cdn"), ("resolved", "cdn")):
            body = json.dumps(payload(status, alertname="MountDown", host=host)).encode()
            assert post(receiver.url(), body) == 200
        notice = receiver.wait_for("MountDown", "firing", host="cdn", timeout=5)
        assert (notice.labels["host"], notice.receiver) == ("cdn", "critical")
        assert notice.annotations == {"summary": "so it is"}
        assert receiver.wait_for("MountDown", "resolved", timeout=5).labels["host"] == "cdn"
        assert len(receiver.notices()) == 3


def test_what_comes_later_is_waited_for() -> None:
    with receiving() as receiver:
        late = threading.Timer(
            0.2, lambda: post(receiver.url(), json.dumps(payload("firing", alertname="A")).encode())
        )
        late.start()
        assert receiver.wait_for("A", timeout=30).status == "firing"
        late.join()


def test_what_never_comes_is_said_so_with_what_did() -> None:
    with receiving() as receiver:
        receiver.take(payload("firing", alertname="A", host="shop"))
        with pytest.raises(AssertionError, match=r"A \{'host': 'cdn'\} firing did not arrive.*'A firing'"):
            receiver.wait_for("A", host="cdn", timeout=0.05)
        with pytest.raises(AssertionError, match=r"came: \[\]"):
            receiver.wait_for("A", since=time.time() + 60, timeout=0.05)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"alerts": [1], "receiver": "x"}'])
def test_nonsense_is_refused_and_forgotten(body: bytes) -> None:
    with receiving() as receiver:
        assert post(receiver.url(), body) == 400
        assert receiver.notices() == []


def test_it_refuses_as_long_as_it_is_told_to() -> None:
    body = json.dumps(payload("firing", alertname="A")).encode()
    with receiving() as receiver:
        receiver.refuses = True
        assert post(receiver.url(), body) == 400
        assert receiver.notices() == []
        receiver.refuses = False
        assert post(receiver.url(), body) == 200
        assert len(receiver.notices()) == 1
