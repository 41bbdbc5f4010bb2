"""The same answers over TLS, and what only TLS has."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dev.lab import state
from dev.lab.site import EXACT
from tests.kit.deployment import ROOT, pyinfra
from tests.kit.hosts import BROWSER, OLD_BROWSER, Cdn, Shop
from tests.kit.support import Remote, wait_until

CERTIFICATE = "/etc/nginx/tls/certificate.pem"


@pytest.fixture(scope="module")
def trusted(cdn: Cdn, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A client that trusts the host's own certificate and no other."""
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    file.write_text(cdn.remote.run("cat", CERTIFICATE))
    return ssl.create_default_context(cafile=str(file))


@pytest.fixture(scope="module")
def secure(cdn: Cdn, trusted: ssl.SSLContext) -> Iterator[httpx.Client]:
    base_url = f"https://{cdn.remote.address}:{cdn.settings.tls.port}"
    with httpx.Client(base_url=base_url, verify=trusted, timeout=10) as client:
        yield client


def handshake(cdn: Cdn, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    connection = socket.create_connection((cdn.remote.address, cdn.settings.tls.port), timeout=5)
    return context.wrap_socket(connection, server_hostname=cdn.remote.address, session=session)


@pytest.mark.both
def test_pictures_are_answered_as_over_http(shop: Shop, cdn: Cdn, secure: httpx.Client) -> None:
    resized, original = shop.resized(), shop.upload()
    for picture in (resized, original):
        cdn.as_webp(picture)
        for accept in (BROWSER, OLD_BROWSER):
            plain = cdn.get(picture, accept)
            answer = secure.get(picture.url_path, headers={"Accept": accept})
            assert (answer.status_code, answer.content) == (200, plain.content)
            for name in ("Content-Type", "Vary", "Cache-Control", "ETag", "X-Image-Variant"):
                assert answer.headers[name] == plain.headers[name], name


@pytest.mark.parametrize(
    "path", ["/", "/upload/1c_exchange/import.xml", "/upload/tmp/a.jpg", "/upload/.git/a.jpg", "/status"]
)
def test_refusals_are_the_same(secure: httpx.Client, path: str) -> None:
    assert secure.get(path).status_code in {403, 404}


def test_methods_are_the_same(shop: Shop, secure: httpx.Client) -> None:
    picture = shop.resized(120, 120, EXACT)
    assert secure.request("PURGE", picture.url_path).status_code == 405
    assert secure.options(picture.url_path).status_code == 204


@pytest.mark.both
def test_http_2_is_spoken(cdn: Cdn) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with handshake(cdn, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_the_versions_before_1_2_are_not(cdn: Cdn) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(cdn, context)


@pytest.mark.both
def test_tls_1_2_only_with_forward_secrecy(cdn: Cdn) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with handshake(cdn, context) as connection:
        cipher = connection.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
    context.set_ciphers("AES128-SHA:AES256-SHA:AES128-GCM-SHA256")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(cdn, context)


def test_sessions_are_resumed(cdn: Cdn) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with handshake(cdn, context) as first:
        session = first.session
    assert session is not None
    with handshake(cdn, context, session) as second:
        assert second.session_reused


def test_the_key_is_roots_alone(cdn: Cdn) -> None:
    shown = cdn.remote.run("stat", "-c", "%a %U", "/etc/nginx/tls/key.pem")
    assert shown == "600 root\n"


def test_http_3_is_spoken_where_nginx_has_it(
    cdn: Cdn, bitrix: Remote, secure: httpx.Client, shop: Shop
) -> None:
    picture = shop.resized(120, 120, EXACT)
    has_it = "http_v3_module" in cdn.remote.run("sh", "-c", "nginx -V 2>&1")
    listening = cdn.remote.run("ss", "-Hlun", f"sport = :{cdn.settings.tls.port}")
    offered = secure.get(picture.url_path).headers.get("Alt-Svc", "")
    assert bool(listening) == has_it
    assert offered.startswith(f'h3=":{cdn.settings.tls.port}"') == has_it
    assert "Alt-Svc" not in cdn.client.get(picture.url_path).headers
    if not has_it:
        return
    expected = cdn.as_webp(picture).content
    # Debian's curl speaks it wherever Debian's nginx does.
    bitrix.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "curl", timeout=120)
    url = f"https://{cdn.remote.address}:{cdn.settings.tls.port}{picture.url_path}"
    ask = ("curl", "-sk", "--http3-only", "-H", f"Accept: {BROWSER}", "-o", "/tmp/answer.webp")
    told = bitrix.run(*ask, "-w", "%{http_version} %{http_code} %{content_type}", url)
    assert told == "3 200 image/webp"
    assert bitrix.run("sh", "-c", "sha256sum < /tmp/answer.webp; rm /tmp/answer.webp").split()[0] == (
        hashlib.sha256(expected).hexdigest()
    )


def test_a_renewed_certificate_is_taken_at_once(lab: state.Lab, cdn: Cdn, tmp_path: Path) -> None:
    """What certbot does after each renewal; the authority itself has no place in a lab."""
    operations = tmp_path / "hook.py"
    operations.write_text(
        "from bitrix_cdn.engine.files import rendered, tree\n"
        "from roles.acme import HOOK\n"
        "from roles.nginx import CERTIFICATE, KEY\n"
        "files = rendered('acme', certificate=CERTIFICATE, key=KEY, owners={HOOK: ('755', 'root', 'root')})\n"
        "tree(name='Write the hook', root='/etc/letsencrypt', files=files)\n"
    )
    run = pyinfra("-y", "--limit", "cdn", operations=str(operations), lab=lab.name)
    assert run.status == 0, run.output
    renew = """
        set -e
        mkdir -p /etc/letsencrypt/live/renewed
        cd /etc/letsencrypt/live/renewed
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=renewed \\
            -keyout privkey.pem -out fullchain.pem 2>/dev/null
        cp -a /etc/nginx/tls /etc/nginx/tls.before
        RENEWED_LINEAGE=$PWD /etc/letsencrypt/renewal-hooks/deploy/bitrix-cdn
        cat fullchain.pem
    """
    before = served_certificate(cdn)
    try:
        renewed = cdn.remote.run("sh", "-c", renew)
        now = wait_until("another certificate", lambda: served_certificate(cdn), lambda pem: pem != before)
        assert now.split() == renewed.split()
        assert cdn.remote.run("stat", "-c", "%a %U", "/etc/nginx/tls/key.pem") == "600 root\n"
    finally:
        restore = "rm -rf /etc/nginx/tls /etc/letsencrypt; mv /etc/nginx/tls.before /etc/nginx/tls"
        cdn.remote.run("sh", "-c", f"{restore}; systemctl reload nginx")
    wait_until("the old one", lambda: served_certificate(cdn), lambda pem: pem == before)


def served_certificate(cdn: Cdn) -> str:
    return ssl.get_server_certificate((cdn.remote.address, cdn.settings.tls.port), timeout=5)


@pytest.fixture
def strict(lab: state.Lab, cdn: Cdn, tmp_path: Path) -> Iterator[None]:
    """The lab with a redirect, HSTS, a proxy in front and tight limits, and as before again afterwards."""
    inventory = tmp_path / "strict.py"
    text = (ROOT / "inventories/lab.py").read_text()
    tight = (
        '"nginx": {"requests_per_second": 1, "burst": 5, "proxies": ["127.0.0.1"], '
        '"real_ip_header": "CF-Connecting-IP"},'
    )
    changed = re.sub(
        r'"nginx": \{.*?\},', tight, text.replace('"redirect": False', '"hsts_seconds": 31536000')
    )
    assert changed.count("31536000") == changed.count("CF-Connecting-IP") == 1
    inventory.write_text(changed)
    run = pyinfra("-y", inventory=str(inventory), lab=lab.name)
    assert run.status == 0, run.output[-3000:]
    try:
        yield
    finally:
        assert pyinfra("-y", lab=lab.name).status == 0


_ASK = """
import collections, http.client, ssl
path, client, times = arguments
statuses = collections.Counter()
context = ssl._create_unverified_context()
for _ in range(times):
    connection = http.client.HTTPSConnection("127.0.0.1", context=context, timeout=10)
    connection.request("GET", path, headers={"CF-Connecting-IP": client})
    answer = connection.getresponse()
    answer.read()
    statuses[answer.status] += 1
    connection.close()
result = dict(statuses)
"""


def test_redirect_hsts_limits_and_the_proxys_word(
    shop: Shop, cdn: Cdn, strict: None, secure: httpx.Client
) -> None:
    path = shop.upload(200, 200).url_path

    redirected = cdn.client.get(f"{path}?a=b")
    assert redirected.status_code == 308
    assert redirected.headers["Location"] == f"https://{cdn.remote.address}{path}?a=b"

    # Faster than a client may be. What it claims to be doesn't help it: only the proxy's word counts.
    answers = [secure.get(path, headers={"CF-Connecting-IP": f"198.51.100.{i}"}) for i in range(12)]
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    assert statuses.count(429) >= 3
    assert {answer.headers["Strict-Transport-Security"] for answer in answers} == {"max-age=31536000"}
    assert "nginx" not in answers[-1].text

    # Behind the proxy each client has a separate count, and its own address in the log.
    for client in ("203.0.113.1", "203.0.113.2"):
        assert cdn.remote.python(_ASK, path, client, 5) == {"200": 5}
    wait_until(
        "the client in the log",
        lambda: cdn.remote.run(
            "grep", "-c", '"client":"203.0.113.2"', "/var/log/nginx/access.log", check=False
        ),
        lambda count: int(count) >= 5,
        timeout=15,
        interval=1,
    )
