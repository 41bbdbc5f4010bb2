"""What hosts answer, in HTTP, as an exporter, as a test report."""

from pathlib import Path

import pytest

from bitrix_cdn.rollout import balancer, http
from bitrix_cdn.rollout.fleet import results

HAPROXY = """\
# HELP haproxy_server_status Current status of the service, per state label value.
# TYPE haproxy_server_status gauge
haproxy_server_status{proxy="edges",server="edge1",state="DOWN"} 0
haproxy_server_status{proxy="edges",server="edge1",state="UP"} 1
haproxy_server_status{proxy="edges",server="edge2",state="DOWN"} 1
haproxy_server_status{proxy="edges",server="edge2",state="UP"} 0
haproxy_server_status{proxy="edges",server="cdn",state="UP"} 1
haproxy_server_status{proxy="other",server="cdn",state="MAINT"} 1
haproxy_server_check_status{proxy="edges",server="edge1",state="L7OK"} 1
"""


def test_the_balancer_says_how_its_servers_are() -> None:
    states = balancer.parse(HAPROXY)
    # In the worst of its backends.
    assert states == {"edge1": "UP", "edge2": "DOWN", "cdn": "MAINT"}


def test_somebody_must_serve_while_others_are_drained() -> None:
    states = {"edge1": "UP", "edge2": "UP", "cdn": "DOWN"}
    assert balancer.enough(states, ["edge1"])
    assert not balancer.enough(states, ["edge1", "edge2"])
    assert balancer.enough({**states, "cdn": "UP"}, ["edge1", "edge2"])
    assert not balancer.enough({"edge1": "UP", "edge2": "DRAIN"}, ["edge1"])
    assert not balancer.enough({}, [])


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 5\r\n\r\nbytes",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n",
        b"Connection: close\r\n\r\nbytes",
    ],
)
def test_an_answer_is_read_however_it_is_sent(data: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Type: image/webp\r\n" + data
    assert http.parse(data) == http.Answer(200, "image/webp", b"bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbyt",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nby",
    ],
)
def test_one_that_is_cut_short_is_none(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        http.parse(data)


def test_failures_are_read_out_of_a_report(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase name="test_good"/>'
        '<testcase name="test_bad"><failure message="AssertionError: one&#10;two">x</failure></testcase>'
        '<testcase name="test_broken"><error message="failed on setup">x</error></testcase>'
        '<testcase name="test_left_out"><skipped message="concerns cdn"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert results(report) == (["test_bad: AssertionError: one", "test_broken: failed on setup"], 1)
    assert results(tmp_path / "none") == ([], 0)
