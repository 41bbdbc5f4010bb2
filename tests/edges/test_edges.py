"""What edges and the balancer promise to visitors, whatever becomes of a host."""

from __future__ import annotations

import time
from collections import Counter

import httpx
import pytest

from dev.lab import state
from tests.kit.deployment import Deployment, Run
from tests.kit.drift import CLEAN, DRIFT, check
from tests.kit.edges import EDGES, Balancer, Expected, drained, logged, visitors
from tests.kit.hosts import BROWSER, OLD_BROWSER, SHORT_LIVED, Cdn, Shop
from tests.kit.lab import lab_command, partitioned
from tests.kit.support import Figure, Remote, never, wait_until

pytestmark = pytest.mark.edges

# Of the connection, of the cache that answered, and of the moment; the rest must be equal.
OWN = {"connection", "keep-alive", "date", "age", "x-cache", "accept-ranges", "server", "alt-svc"}


def seen(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """What a visitor notices of an answer."""
    headers = {name: value for name, value in answer.headers.items() if name not in OWN}
    if answer.status_code == httpx.codes.NOT_MODIFIED:
        headers.pop("content-type", None)  # Varnish repeats it
    if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        headers = {}  # nginx says some of them twice there
    return answer.status_code, answer.content, headers


def test_the_same_deploy_again_changes_nothing(deployment: Deployment, rehearsal: Run, second: Run) -> None:
    assert deployment.first is not None
    assert deployment.first.hosts() == {"bitrix", "cdn", *EDGES, "balancer"}
    assert rehearsal.planned()
    assert second.changed() == {}


def test_hosts_as_deployed_show_no_drift(deployment: Deployment, lab: state.Lab, figure: Figure) -> None:
    checked = check(deployment, lab)
    assert checked.status == CLEAN, checked.report
    assert {one["name"] for one in checked.report["hosts"]} == {"bitrix", "cdn", *EDGES, "balancer"}
    figure(f"{lab.suite}: drift check of five hosts {checked.seconds:.1f} s")


def test_what_was_changed_by_hand_at_an_edge_and_the_balancer_is_drift(
    deployment: Deployment, lab: state.Lab, balancer: Balancer, edges: dict[str, Remote]
) -> None:
    by_hand = (edges["edge2"], "/etc/varnish/default.vcl"), (balancer.remote, "/etc/haproxy/haproxy.cfg")
    try:
        for remote, path in by_hand:
            remote.run("sh", "-c", f"cp -p {path} /root/before; echo '# by hand' >> {path}")
        checked = check(deployment, lab)
    finally:
        for remote, path in by_hand:
            remote.run("mv", "/root/before", path)
    assert checked.status == DRIFT
    for remote, path in by_hand:
        assert "-# by hand" in checked.found(remote.name)["file", path]["diff"]
    for name in ("bitrix", "cdn", "edge1"):
        assert checked.found(name) == {}
    assert check(deployment, lab).status == CLEAN


@pytest.mark.parametrize("accept", [BROWSER, OLD_BROWSER, "image/avif,image/webp", "*/*"])
def test_answers_are_those_of_the_cdn_host(
    accept: str, balancer: Balancer, cdn: Cdn, gallery: list[Expected]
) -> None:
    paths = sorted({one.path for one in gallery})
    for path in (paths[0], paths[-1]):
        headers = {"Accept": accept}
        for method in ("GET", "HEAD", "OPTIONS", "POST", "PURGE", "DELETE"):
            here, there = (
                seen(client.request(method, path, headers=headers))
                for client in (balancer.client, cdn.client)
            )
            assert here == there, f"{method} {path}"
        etag = cdn.client.get(path, headers=headers).headers["ETag"]
        for more in ({"If-None-Match": etag}, {"Range": "bytes=10-19"}, {"Range": "bytes=9999999-"}):
            here, there = (
                seen(client.get(path, headers={**headers, **more}))
                for client in (balancer.client, cdn.client)
            )
            assert here == there, f"{more} {path}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index.php",
        "/upload/iblock/none.jpg",
        "/upload/resize_cache/none.jpg",
        "/upload/1c_exchange/a.jpg",
        "/upload/.hidden.jpg",
        "/upload/iblock/",
        "/upload/iblock/../../etc/passwd",
    ],
)
def test_refusals_are_those_of_the_cdn_host(path: str, balancer: Balancer, cdn: Cdn) -> None:
    here, there = seen(balancer.get(path)), seen(cdn.client.get(path, headers={"Accept": BROWSER}))
    assert here == there
    assert here[0] == httpx.codes.NOT_FOUND


def test_changes_from_outside_are_refused(
    balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected]
) -> None:
    fronts = [str(balancer.client.base_url), *(f"http://{edge.address}" for edge in edges.values())]
    for front in fronts:
        with httpx.Client(base_url=front, timeout=10) as client:
            for method in ("PURGE", "POST", "PUT", "DELETE", "BAN"):
                answer = client.request(method, gallery[0].path)
                assert answer.status_code == httpx.codes.METHOD_NOT_ALLOWED, f"{front}: {method}"
            assert client.get(gallery[0].path).status_code == httpx.codes.OK


def test_what_hosts_ask_each_other_is_no_visitors_business(balancer: Balancer) -> None:
    for path in ("/bitrix-cdn/health", "/bitrix-cdn/shield"):
        assert balancer.get(path).status_code == httpx.codes.NOT_FOUND


def test_a_picture_has_its_edge_and_each_edge_its_share(
    balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected]
) -> None:
    # The log knows whole seconds, in which others asked as well.
    mark = f"share-{time.time()}"
    for number in range(3):
        for one in gallery:
            # Neither a query nor the browser's kind makes another edge of it.
            balancer.get(f"{one.path}?{mark}", one.accept)
            balancer.get(f"{one.path}?{mark}-{number}", "*/*")
    shares = {
        name: {uri.partition("?")[0] for uri in logged(edge) if mark in uri} for name, edge in edges.items()
    }
    assert set.union(*shares.values()) == {one.path for one in gallery}
    assert set.intersection(*shares.values()) == set()
    assert all(len(share) >= 5 for share in shares.values()), shares


def test_a_client_is_who_the_connection_says(
    balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected]
) -> None:
    path = f"{gallery[0].path}?who-{time.time()}"
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Real-IP": "203.0.113.9",
        "CF-Connecting-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
    }
    balancer.client.get(path, headers=claims)
    for edge in edges.values():
        httpx.get(f"http://{edge.address}{path}", headers=claims, timeout=10)
    machine = balancer.remote.address.rsplit(".", 1)[0] + ".1"
    lines = []
    for edge in edges.values():
        logged(edge)
        lines += edge.run("grep", "-F", path, "/var/log/nginx/access.log").splitlines()
    assert len(lines) == 3
    assert all(f'"client":"{machine}"' in line for line in lines), lines


def test_a_new_variant_is_at_the_edges_in_time(
    shop: Shop, cdn: Cdn, balancer: Balancer, figure: Figure
) -> None:
    original = shop.upload()
    # The edge's question is what queues the conversion: no client has asked the CDN host.
    first = balancer.get(original)
    assert first.headers["X-Image-Variant"] == "pending"
    assert first.headers["Cache-Control"] == SHORT_LIVED
    assert first.content == shop.site.get(original)
    cdn.as_webp(original)
    there = time.monotonic()
    answer = wait_until("the variant at the edge", lambda: balancer.get(original), is_webp, timeout=60)
    late = time.monotonic() - there
    assert answer.content == cdn.get(original).content
    assert late <= cdn.settings.edges.pending_s + 1
    figure(f"a new variant at an edge {late:.1f} s after the CDN host had it (figure: pending_s, 5)")


def test_a_changed_picture_is_at_the_edges_in_time(
    shop: Shop, cdn: Cdn, balancer: Balancer, figure: Figure
) -> None:
    picture = shop.resized()
    cdn.as_webp(picture)
    old = wait_until("the variant at the edge", lambda: balancer.get(picture), is_webp, timeout=30).content
    shop.write(picture.path, shop.photo(picture.width, picture.height))
    changed = wait_until(
        "the change at the CDN host", lambda: cdn.get(picture), lambda answer: answer.content != old
    )
    there = time.monotonic()
    assert changed.status_code == httpx.codes.OK
    wait_until(
        "the change at the edge", lambda: balancer.get(picture), lambda now: now.content != old, timeout=60
    )
    late = time.monotonic() - there
    assert late <= cdn.settings.edges.fresh_s + 1
    wait_until(
        "the new variant at the edge",
        lambda: balancer.get(picture),
        lambda now: is_webp(now) and now.content == cdn.get(picture).content,
        timeout=cdn.settings.edges.fresh_s + 5,
    )
    figure(f"a changed picture at an edge {late:.1f} s after the CDN host had it (figure: fresh_s, 10)")


def is_webp(answer: httpx.Response) -> bool:
    return bool(answer.headers.get("Content-Type") == "image/webp")


def test_a_drained_edge_gets_no_requests_and_none_fails(
    balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected], figure: Figure
) -> None:
    edge = edges["edge1"]
    with visitors(balancer, gallery) as load:
        time.sleep(1)
        with drained(edge):
            begun = time.time()
            noticed = balancer.wait_for(edge1="DOWN")
            # What was on its way when it was noticed; the log knows whole seconds.
            quiet = int(noticed) + 2
            time.sleep(5)
            assert logged(edge, quiet) == Counter()
            # It works all the same, for whoever has to look at it.
            assert httpx.get(f"http://{edge.address}{gallery[0].path}", timeout=10).status_code == 200
        back = time.time()
        returned = balancer.wait_for(edge1="UP")
        time.sleep(2)
        assert logged(edge, int(returned) + 1)
    assert load.failed == []
    assert noticed - begun < 5
    figure(
        f"draining an edge under load: {load}; drained after {noticed - begun:.1f} s, "
        f"back after {returned - back:.1f} s"
    )


def test_an_edge_that_loses_power_costs_no_request(
    lab: state.Lab, balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected], figure: Figure
) -> None:
    with visitors(balancer, gallery) as load:
        time.sleep(1)
        edges["edge2"].disconnect()
        lab_command("kill", "edge2")
        balancer.wait_for(edge2="DOWN")
        time.sleep(1)
    lab_command("start", "edge2")
    balancer.wait_for(edge2="UP")
    # An answer that had begun can't be taken back; one for each visitor at most.
    cut = [failure for failure in load.failed if "incomplete" in failure or "peer closed" in failure]
    assert [failure for failure in load.failed if failure not in cut] == []
    assert len(cut) <= 8
    figure(f"an edge killed under load: {load}, but for answers that had begun")


def test_an_edge_that_vanishes_costs_no_request(
    lab: state.Lab, balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected], figure: Figure
) -> None:
    with visitors(balancer, gallery) as load:
        time.sleep(1)
        with partitioned("edge1"):
            balancer.wait_for(edge1="DOWN")
            time.sleep(9)
    assert load.failed == []
    figure(f"an edge cut off under load: {load}")


def test_without_the_cdn_host_everything_asked_before_is_served(
    lab: state.Lab, balancer: Balancer, gallery: list[Expected], cdn: Cdn, figure: Figure
) -> None:
    for one in gallery:
        assert balancer.get(one.path, one.accept).content == one.content
    with partitioned("cdn"):
        # Older than what an edge believes without a question.
        with visitors(balancer, gallery) as load:
            time.sleep(cdn.settings.edges.fresh_s + 4)
        for one in gallery:
            answer = balancer.get(one.path, one.accept)
            assert (answer.status_code, answer.content) == (200, one.content), one.path
            assert answer.headers["X-Cache"] == "stale"
        # What was never requested is refused, and not for long.
        started = time.monotonic()
        assert balancer.get("/upload/resize_cache/never-asked.jpg").status_code == 503
        assert time.monotonic() - started < 5
    assert load.failed == []
    balancer.wait_for(cdn="UP")
    wait_until(
        "the CDN host at the edges", lambda: balancer.get("/upload/iblock/none.jpg").status_code == 404
    )
    figure(f"{cdn.settings.edges.fresh_s + 4} s without the CDN host: {load}")
    # The mounts have found each other again before the next test asks for an original.
    wait_until("a picture through the mount", lambda: cdn.daemon_ready(), timeout=60)


def test_without_edges_the_cdn_host_serves_by_itself(
    balancer: Balancer, edges: dict[str, Remote], gallery: list[Expected]
) -> None:
    with visitors(balancer, gallery) as load, drained(edges["edge1"]), drained(edges["edge2"]):
        balancer.wait_for(edge1="DOWN", edge2="DOWN")
        quiet = int(time.time()) + 2
        time.sleep(3)
        assert all(logged(edge, quiet) == Counter() for edge in edges.values())
    assert load.failed == []


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("balancer", "systemctl reload haproxy; sleep 1; systemctl reload haproxy"),
        ("edge1", "systemctl reload nginx; sleep 1; systemctl reload nginx"),
        ("edge1", "systemctl restart varnish"),
        ("edge2", "systemctl restart nginx"),
        ("cdn", "systemctl reload nginx; systemctl restart varnish"),
    ],
)
def test_a_service_that_takes_a_new_configuration_costs_no_request(
    name: str, command: str, remotes: dict[str, Remote], balancer: Balancer, gallery: list[Expected]
) -> None:
    with visitors(balancer, gallery) as load:
        time.sleep(0.5)
        remotes[name].run("sh", "-c", command)
        time.sleep(1.5)
    assert load.failed == []


def test_a_shop_that_is_away_changes_nothing(
    lab: state.Lab, balancer: Balancer, gallery: list[Expected]
) -> None:
    with partitioned("bitrix"):
        never(
            "an answer that is no picture",
            lambda: [balancer.get(one.path, one.accept).status_code for one in gallery[:10]],
            lambda statuses: set(statuses) != {200},
            during=4,
        )


@pytest.mark.long
def test_edges_that_are_down_ring(
    balancer: Balancer, edges: dict[str, Remote], cdn: Cdn, gallery: list[Expected]
) -> None:
    def firing() -> set[tuple[str, str]]:
        port = cdn.settings.monitoring.prometheus.port
        script = (
            "import json, urllib.parse, urllib.request\n"
            "query = urllib.parse.quote('ALERTS{alertstate=\"firing\"}')\n"
            "answer = urllib.request.urlopen(f'{arguments[0]}?query={query}', timeout=10)\n"
            "result = [one['metric'] for one in json.load(answer)['data']['result']]\n"
        )
        found = cdn.remote.python(script, f"http://127.0.0.1:{port}/api/v1/query")
        return {(one["alertname"], one.get("host", "")) for one in found}

    ringing = {
        ("EdgeDown", "edge1"),
        ("EdgeDown", "edge2"),
        ("NoEdgeLeft", "balancer"),
        ("ShieldUnreachable", "edge1"),
        ("ShieldUnreachable", "edge2"),
    }
    stopped = [*edges.values(), cdn.remote]
    assert not firing() & ringing
    try:
        for host in stopped:
            host.run("systemctl", "stop", "nginx")
        wait_until("the alerts", firing, lambda found: found >= ringing, timeout=180, interval=1)
    finally:
        for host in stopped:
            host.run("systemctl", "start", "nginx")
    wait_until("their end", firing, lambda found: not found & ringing, timeout=120, interval=1)
    assert balancer.get(gallery[0].path, gallery[0].accept).content == gallery[0].content
