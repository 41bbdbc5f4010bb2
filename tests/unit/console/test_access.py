"""Who may do what: each role and each token against each route, made from the routes; forged requests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from web_kit.access import SAFE, Needs, refusal
from web_kit.account_pages import local
from web_kit.roles import Role

from tests.kit.console import BASE, PASSWORD, Console, csrf, log_in, post

VIEWER, OPERATOR, APPROVER, ADMIN = Role

ROUTES: dict[str, tuple[Role, str] | None] = {
    "GET /static/{version}/{name}": None,
    "GET /login": None,
    "POST /login": None,
    "GET /invitation/{secret}": None,
    "POST /invitation/{secret}": None,
    "POST /logout": (VIEWER, "account"),
    "GET /account": (VIEWER, "account"),
    "POST /account/password": (VIEWER, "account"),
    "POST /account/authenticator": (VIEWER, "account"),
    "POST /account/language": (VIEWER, "account"),
    "POST /account/sessions/{digest}/end": (VIEWER, "account"),
    "POST /account/tokens": (VIEWER, "account"),
    "POST /account/tokens/{id}/end": (VIEWER, "account"),
    "GET /users": (ADMIN, "users"),
    "POST /users": (ADMIN, "users"),
    "POST /users/{id}": (ADMIN, "users"),
    "GET /audit": (OPERATOR, "audit"),
    "POST /audit/verify": (OPERATOR, "audit"),
    "GET /audit/export": (OPERATOR, "audit"),
    "GET /api/openapi.json": (VIEWER, "status"),
    "GET /api/me": (VIEWER, "status"),
    "GET /api/users": (ADMIN, "users"),
    "POST /api/users": (ADMIN, "users"),
    "GET /api/audit": (OPERATOR, "audit"),
    "GET /api/audit/verify": (OPERATOR, "audit"),
    "GET /": (VIEWER, "status"),
    "GET /alerts": (VIEWER, "status"),
    "GET /alerts/{fingerprint}": (VIEWER, "status"),
    "GET /runbooks/{page}/{section}": (VIEWER, "status"),
    "POST /alerts/{fingerprint}/silence": (OPERATOR, "alerts"),
    "POST /silences/{id}/end": (OPERATOR, "alerts"),
    "GET /api/status": (VIEWER, "status"),
    "GET /api/alerts/past": (VIEWER, "status"),
    "POST /api/alerts/{fingerprint}/silence": (OPERATOR, "alerts"),
    "GET /pictures": (VIEWER, "status"),
    "GET /api/pictures": (VIEWER, "status"),
    "GET /jobs": (OPERATOR, "jobs"),
    "POST /jobs": (OPERATOR, "jobs"),
    "GET /jobs/{id}": (OPERATOR, "jobs"),
    "GET /jobs/{id}/live": (OPERATOR, "jobs"),
    "POST /jobs/{id}/approve": (APPROVER, "approve"),
    "POST /jobs/{id}/withdraw": (OPERATOR, "jobs"),
    "GET /api/jobs": (OPERATOR, "jobs"),
    "POST /api/jobs": (OPERATOR, "jobs"),
    "GET /api/jobs/{id}": (OPERATOR, "jobs"),
    "POST /api/jobs/{id}/approve": (APPROVER, "approve"),
    "POST /api/jobs/{id}/withdraw": (OPERATOR, "jobs"),
}
"""The lowest role and the scope of each route; None: open to everybody."""


def routes(console: Console) -> Iterator[tuple[str, str, Needs | None]]:
    """Method, path and need of all that the application answers."""
    for route in console.app.routes:
        assert isinstance(route, APIRoute), route
        needs = [one.call for one in route.dependant.dependencies if isinstance(one.call, Needs)]
        for method in sorted(route.methods or ()):
            yield method, route.path, needs[0] if needs else None


def asked(browser: TestClient, method: str, path: str, **more: Any) -> int:
    filled = re.sub(r"{id}", "999", re.sub(r"{(?!id)\w+}", "x", path))
    status: int = browser.request(method, filled, **more).status_code
    return status


def test_no_route_is_forgotten(console: Console) -> None:
    found = {
        f"{m} {path}": (needs.role, needs.scope) if needs else None for m, path, needs in routes(console)
    }
    assert found == ROUTES


@pytest.mark.parametrize("role", Role)
def test_each_role_gets_what_it_may_and_nothing_else(console: Console, role: Role) -> None:
    browser = console.logged_in("somebody", role)
    wrong = []
    token = csrf(browser)
    for route, need in ROUTES.items():
        method, path = route.split()
        if need is None or path == "/logout":
            continue
        headers = {} if method in SAFE else {"X-CSRF-Token": token}
        refused = asked(browser, method, path, headers=headers) == 403
        # Of one's own account 403 is also what a wrong password gets.
        allowed = role.includes(need[0])
        if refused == allowed and not (allowed and path in ("/account/password", "/account/authenticator")):
            wrong.append(f"{route}: {'refused' if refused else 'allowed'}")
    assert not wrong


def test_nobody_gets_in_without_a_session(console: Console) -> None:
    browser = console.browser()
    for route, need in ROUTES.items():
        method, path = route.split()
        if need:
            wanted = {303} if method == "GET" and not path.startswith("/api/") else {401}
            assert {asked(browser, method, path)} == wanted, route


def test_a_token_is_good_for_its_scopes_only_and_never_for_the_account(console: Console) -> None:
    browser = console.logged_in("ann", ADMIN)
    for scope in ("status", "alerts", "users", "audit", "jobs", "approve"):
        made = post(browser, "/account/tokens", name=scope, days="1", **{f"scope-{scope}": "on"})
        found = re.search(r'id="token">([^<]+)<', made.text)
        assert found
        program = TestClient(console.app, base_url=BASE, headers={"Authorization": f"Bearer {found[1]}"})
        for route, need in ROUTES.items():
            method, path = route.split()
            if need:
                refused = asked(program, method, path) == 403
                assert refused == (need[1] != scope), f"{scope}: {route}"


def test_a_form_without_the_token_of_its_session_is_refused(console: Console) -> None:
    browser = console.logged_in("ann", ADMIN)
    others = csrf(console.logged_in("bob", ADMIN))
    for route, need in ROUTES.items():
        if need and route.startswith("POST"):
            for given in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": others}):
                assert asked(browser, "POST", route.split()[1], headers=given) == 403, route


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": BASE}, None),
        ({"sec-fetch-site": "same-origin"}, None),
        ({}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9090"}, 403),
        ({"origin": BASE, "sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": BASE, "host": "evil.example:8090"}, 421),
        ({"origin": BASE, "host": ""}, 421),
        ({"origin": BASE, "transfer-encoding": "chunked"}, 411),
        ({"origin": BASE, "content-length": "65537"}, 413),
        ({"origin": BASE, "content-length": "x"}, 411),
        ({"authorization": "Bearer x"}, None),
        ({"authorization": "Basic x"}, 403),
    ],
)
def test_what_was_not_sent_from_here_is_refused(headers: dict[str, str], status: int | None) -> None:
    found = refusal("POST", {"host": "127.0.0.1:8090", **headers}, frozenset({"127.0.0.1", "localhost"}))
    assert (found[0] if found else None) == status


def test_a_name_that_was_made_to_lead_here_gets_no_page(console: Console) -> None:
    browser = console.browser()
    assert browser.get("/login", headers={"Host": "rebound.example"}).status_code == 421
    assert browser.get("/login", headers={"Host": "localhost:8090"}).status_code == 200


def test_headers_keep_frames_scripts_and_caches_away(console: Console) -> None:
    for answer in (console.browser().get("/login"), console.browser().get("/nowhere")):
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "<script>" not in answer.text
        assert " style=" not in answer.text


def test_a_session_of_before_the_login_is_not_the_one_after_it(console: Console) -> None:
    console.add("ann", VIEWER)
    browser = console.browser()
    name = "bitrix_console_session"
    browser.cookies.set(name, "chosen-by-somebody-else", domain="127.0.0.1")
    answer = log_in(browser, "ann")
    assert answer.status_code == 303
    [cookie] = answer.headers.get_list("set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    assert value != "chosen-by-somebody-else"
    stranger = console.browser()
    stranger.cookies.set(name, "chosen-by-somebody-else", domain="127.0.0.1")
    assert stranger.get("/").headers["location"] == "/login"
    # A second login leaves the first session as it is, and makes another.
    again = log_in(browser, "ann").headers["set-cookie"]
    assert value not in again


def test_logging_out_ends_the_session_also_for_whoever_copied_the_cookie(console: Console) -> None:
    browser = console.logged_in("ann", VIEWER)
    copy = console.browser()
    copy.cookies.update(browser.cookies)
    assert copy.get("/").status_code == 200
    assert post(browser, "/logout").status_code == 303
    assert copy.get("/").status_code == 303


@pytest.mark.parametrize(
    ("asked_for", "led_to"),
    [
        ("/alerts?x=1", "/alerts?x=1"),
        ("", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("/\t/evil.example", "/"),
    ],
)
def test_a_login_leads_nowhere_else(asked_for: str, led_to: str) -> None:
    assert local(asked_for) == led_to


HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</script>"


def test_hostile_text_is_shown_as_text(console: Console) -> None:
    from dataclasses import replace

    from tests.kit.console import ALERT

    worst = replace(
        ALERT, name=HOSTILE, summary=HOSTILE, description=HOSTILE, host=HOSTILE, labels={"a": HOSTILE}
    )
    console.hosts.alerts = (worst,)
    console.hosts.statuses = tuple(
        replace(one, name=HOSTILE, release=HOSTILE, held=HOSTILE) for one in console.hosts.statuses
    )
    console.watcher.look()
    browser = console.logged_in("ann", ADMIN)
    console.audit.write(HOSTILE, HOSTILE, HOSTILE, HOSTILE, detail=HOSTILE)
    bad = console.browser()
    bad.headers["User-Agent"] = HOSTILE
    log_in(bad, "ann")
    pages = [browser.get(path).text for path in ("/", "/alerts", "/alerts/abc123", "/audit", "/account")]
    pages.append(browser.get("/audit", params={"q": HOSTILE}).text)
    pages.append(browser.get("/login", params={"next": HOSTILE}).text)
    pages.append(log_in(console.browser(), HOSTILE).text)
    for page in pages:
        assert "<img" not in page
        assert "49" not in re.findall(r"'(\d+)</script>", page)
    assert sum("&lt;img" in page for page in pages) >= 6


def test_brute_force_is_stopped_and_recorded(console: Console) -> None:
    console.add("ann", ADMIN)
    browser = console.browser()
    found = [log_in(browser, "ann", f"wrong password {number}").status_code for number in range(8)]
    assert found == [401] * 5 + [429] * 3
    # Now also the right one is refused, here; the wait is told.
    refused = log_in(browser, "ann")
    assert refused.status_code == 429
    assert "15 min" in refused.text
    console.clock.now += 901
    assert log_in(browser, "ann").status_code == 303
    assert sum(one.what == "login" and one.result == "refused" for one in console.audit.search()) == 5


def test_many_names_from_one_address_are_stopped(console: Console) -> None:
    browser = console.browser()
    found = [log_in(browser, f"name{number}").status_code for number in range(32)]
    assert found == [401] * 30 + [429] * 2


def test_a_name_that_nobody_has_is_not_told_apart_and_not_recorded(console: Console) -> None:
    console.add("ann", ADMIN)
    texts = [
        re.sub(r'value="[^"]*"', "", log_in(console.browser(), name, "wrong").text)
        for name in ("ann", "hunter2")
    ]
    assert texts[0] == texts[1]
    assert not [one for one in console.audit.search() if "hunter2" in one.who + one.target + one.detail]


def test_a_disabled_account_and_a_lower_role_count_at_once(console: Console) -> None:
    admin, other = console.logged_in("ann", ADMIN), console.logged_in("bob", ADMIN)
    number = next(one.id for one in console.accounts.all() if one.name == "bob")
    post(admin, f"/users/{number}", role="viewer")
    assert other.get("/users").status_code == 403
    post(admin, f"/users/{number}", role="viewer", disabled="on")
    assert other.get("/").status_code == 303
    assert log_in(console.browser(), "bob").status_code == 401


def test_the_last_admin_stays(console: Console) -> None:
    admin = console.logged_in("ann", ADMIN)
    [one] = console.accounts.all()
    assert post(admin, f"/users/{one.id}", role="viewer").status_code == 409
    assert post(admin, f"/users/{one.id}", role="admin", disabled="on").status_code == 409
    assert admin.get("/users").status_code == 200


def test_a_link_is_good_once_and_sets_role_and_password(console: Console) -> None:
    admin = console.logged_in("ann", ADMIN)
    page = post(admin, "/users", name="bob", role="operator").text
    found = re.search(r'id="link">http://127\.0\.0\.1:8090(/invitation/[^<]+)<', page)
    assert found
    browser = console.browser()
    assert "bob" in browser.get(found[1]).text
    fields = {"password": PASSWORD, "again": PASSWORD}
    assert browser.post(found[1], data={**fields, "again": "other"}).status_code == 422
    assert browser.post(found[1], data={"password": "short", "again": "short"}).status_code == 422
    assert browser.post(found[1], data=fields).status_code == 303
    assert browser.get("/audit").status_code == 200
    assert browser.get("/users").status_code == 403
    assert console.browser().post(found[1], data=fields).status_code == 404


def test_a_program_is_told_in_json(console: Console, tmp_path: Path) -> None:
    answer = console.browser().get("/api/status")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json() == {"error": "log in first"}
    admin = console.logged_in("ann", ADMIN)
    wrong = admin.post("/api/users", json={"name": 5}, headers={"X-CSRF-Token": csrf(admin)})
    assert wrong.status_code == 422
    assert wrong.json()["error"].startswith("body.name: ")
    made = admin.post("/api/users", json={"name": "bob"}, headers={"X-CSRF-Token": csrf(admin)})
    assert made.json()["path"].startswith("/invitation/")
    document = admin.get("/api/openapi.json").json()
    documented = {f"{m.upper()} {path}" for path, found in document["paths"].items() for m in found}
    assert documented == {one for one in ROUTES if " /api/" in one} - {"GET /api/openapi.json"}
