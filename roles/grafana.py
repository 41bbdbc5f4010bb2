"""Grafana, which shows Prometheus' data: from the repository of Grafana Labs, if that can be reached."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FactBase, StringCommand, deploy, operation
from pyinfra.operations import apt

from bitrix_cdn.dashboards import Options
from bitrix_cdn.dashboards import files as dashboards_of
from bitrix_cdn.dashboards.panels import DATASOURCE
from bitrix_cdn.dashboards.targets import Levels
from bitrix_cdn.engine.certificates import self_signed_certificate
from bitrix_cdn.engine.files import File, rendered, tree
from bitrix_cdn.engine.footprint import Footprint, Place, Port
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.keys import token
from bitrix_cdn.engine.services import STAMPS, running
from bitrix_cdn.settings import Settings
from bitrix_cdn.settings.grafana import GrafanaRepository, GrafanaSettings
from roles.nginx import CERTIFICATE, KEY
from roles.preflight import machine
from roles.topology import BEHIND, everybody

UNIT = "grafana-server.service"
KEYRING = "/etc/apt/keyrings/grafana.gpg"
SOURCES = "/etc/apt/sources.list.d/grafana.sources"
PREFERENCES = "/etc/apt/preferences.d/grafana"
INI = "/etc/grafana/grafana.ini"
DATASOURCES = "/etc/grafana/provisioning/datasources/bitrix-cdn.yaml"
PROVIDER = "/etc/grafana/provisioning/dashboards/bitrix-cdn.yaml"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/bitrix-cdn.conf"
SITE = "/etc/nginx/conf.d/grafana.conf"
ACCESS = ("640", "root", "grafana")
"""To what lies below /etc/grafana, as the package sets it with each upgrade."""
DASHBOARDS = "/etc/grafana/dashboards"
PASSWORD = "/etc/bitrix-cdn/grafana/admin-password"  # noqa: S105 -- where it is, not what
SECRET = "/etc/bitrix-cdn/grafana/secret-key"  # noqa: S105
STAMP = f"{STAMPS}/nginx-grafana"
# A separate one, where the edge has none: Grafana is never reached without TLS.
OWN_CERTIFICATE = "/etc/nginx/tls/grafana.pem"
OWN_KEY = "/etc/nginx/tls/grafana.key"

PATIENCE_S = 4
"""Seconds that a repository has to answer. A deploy with nothing to do must not wait long for it."""


def footprint(place: Place) -> Footprint:
    """What this role takes of a host."""
    own = place.settings.monitoring.grafana
    if not place.among("monitoring"):
        return Footprint()
    trees = ("/etc/grafana/provisioning", "/etc/grafana/dashboards")
    if not own.enabled:
        return Footprint(trees=trees, saved=("/etc/grafana",))
    ports = [Port(own.port, "host", "Grafana", page=True, gate=("/",))]
    ports += [Port(own.https_port, "everybody", "Grafana over HTTPS")] if place.among("cdn", "edge") else []
    return Footprint(
        tuple(ports),
        trees=trees,
        saved=("/etc/grafana",),
        packages=("gpg", "grafana"),
        owned=("/etc/grafana/dashboards",),
    )


@deploy("Grafana")
def grafana(settings: Settings) -> None:
    monitoring = settings.monitoring
    own: GrafanaSettings = monitoring.grafana
    repository = own.repository
    if not host.get_fact(Available, url=repository.url, suite=repository.suite):
        logger.warning(left_out(host.name, repository))
        return

    behind_nginx = "cdn" in host.groups
    files = {
        file.path: file
        for file in configuration(
            own,
            domain=domain(own, settings.nginx.server_names, host.data.address),
            https=behind_nginx,
            allowed=allowed(own, [one.data.address for one in everybody()]),
            # The edge's own, if it has one.
            certificate=settings.tls.certificate
            or (CERTIFICATE if settings.tls.enabled else OWN_CERTIFICATE),
            key=settings.tls.key or (KEY if settings.tls.enabled else OWN_KEY),
            modern=int(machine(settings)["version"]) >= 13,
            prometheus_port=monitoring.prometheus.port,
            interval_s=monitoring.prometheus.interval_s,
        )
    }

    apt.packages(name="Install gpg to check the repository's key", packages=["gpg"], no_recommends=True)
    trusted_key(
        name="Install the key of Grafana's repository",
        source=repository.key_url,
        content=Path(repository.key_file).expanduser().read_text() if repository.key_file else "",
        fingerprint=repository.fingerprint,
        keyring=KEYRING,
    )
    tree(
        name="Add Grafana's repository to apt, for Grafana alone",
        files=[files[SOURCES], files[PREFERENCES]],
        root="/etc/apt",
    )
    # Before the package: it never runs without.
    tree(name="Write Grafana's systemd sandbox", files=[files[DROP_IN]], root="/etc/systemd")
    for path, what in ((PASSWORD, "the administrator's password"), (SECRET, "the key of its secrets")):
        token(name=f"Create {what}", path=path, owner="root")
    listed(name="Update the package list of Grafana's repository", package="grafana", source=SOURCES)
    apt.packages(name="Install Grafana", packages=["grafana"], no_recommends=True)
    tree(
        name="Write Grafana's configuration and data source",
        files=[files[INI], files[DATASOURCES], files[PROVIDER]],
    )
    tree(
        name="Write the dashboards",
        files=dashboards(
            Options(
                runbooks=monitoring.alertmanager.runbooks_url and monitoring.runbooks,
                price=own.price_per_gb,
                levels=Levels(**monitoring.levels.model_dump()),
            )
        ),
    )
    running(
        name="Run Grafana",
        unit=UNIT,
        start=[DROP_IN, INI, DATASOURCES, PROVIDER],
        ready=f"ss -Hltn sport = :{own.port} | grep -q .",
    )
    if behind_nginx:
        if not settings.tls.enabled:
            self_signed_certificate(
                name="Create a self-signed certificate",
                certificate=OWN_CERTIFICATE,
                key=OWN_KEY,
                names=[own.domain or host.name],
                address=host.data.address,
            )
        tree(
            name="Write nginx's site for Grafana (checked by nginx)",
            files=[files[SITE]],
            root="/etc/nginx",
            check="nginx -t -q",
        )
        taken(
            name="Reload nginx",
            unit="nginx.service",
            paths=[SITE, *([] if settings.tls.enabled else [OWN_CERTIFICATE])],
            stamp=STAMP,
        )


def left_out(name: str, repository: GrafanaRepository) -> str:
    """The one line that an operator reads where Grafana can't be installed."""
    return (
        f"{name}: Grafana is left out, as {repository.url} can't be reached from there; the rest is "
        "deployed. monitoring.grafana.repository names a mirror (docs/dashboards.md)"
    )


def configuration(
    own: GrafanaSettings,
    *,
    domain: str,
    https: bool,
    allowed: Sequence[str],
    certificate: str,
    key: str,
    modern: bool,
    prometheus_port: int,
    interval_s: int,
) -> list[File]:
    """All files of the role but the dashboards.

    :param https: whether nginx brings it to the outside.
    :param modern: whether nginx is Debian 13's.
    :param interval_s: seconds between two questions of Prometheus to the same target.
    """
    root_url = f"https://{domain}:{own.https_port}/" if https else f"http://127.0.0.1:{own.port}/"
    return rendered(
        "grafana",
        owners=dict.fromkeys((INI, DATASOURCES, PROVIDER), ACCESS),
        own=own,
        keyring=KEYRING,
        domain=domain,
        https=https,
        root_url=root_url,
        credentials=f"/run/credentials/{UNIT}",
        password=PASSWORD,
        secret=SECRET,
        home=f"{DASHBOARDS}/bitrix-cdn-overview.json",
        dashboards=DASHBOARDS,
        datasource=DATASOURCE,
        prometheus_port=prometheus_port,
        behind=BEHIND,
        interval_s=interval_s,
        allowed=allowed,
        certificate=certificate,
        key=key,
        modern=modern,
    )


def dashboards(options: Options) -> list[File]:
    """The dashboards as files of the host."""
    made = dashboards_of(options)
    return [File(f"{DASHBOARDS}/{name}", content, *ACCESS) for name, content in made.items()]


def domain(own: GrafanaSettings, server_names: Sequence[str], address: str) -> str:
    """The name that Grafana is reached by."""
    name = own.domain or next((name for name in server_names if not set(name) & set("_*")), address)
    return f"[{name}]" if ":" in name else name


def allowed(own: GrafanaSettings, addresses: Iterable[str]) -> list[str]:
    """Who may reach Grafana: this host, the hosts' private addresses, and whom the settings name.

    :param addresses: of the hosts; a name among them is left out, as nginx allows addresses only.
    """
    private = []
    for address in addresses:
        try:
            if ipaddress.ip_address(address).is_private:
                private.append(address)
        except ValueError:
            continue
    return list(dict.fromkeys(["127.0.0.1", "::1", *private, *own.allowed]))


class Available(FactBase[bool]):
    """Whether Grafana is installed, or could be: its repository answers, through apt's own proxy if any."""

    default = bool

    def command(self, url: str, suite: str) -> str:
        release = shlex.quote(f"{url.rstrip('/')}/dists/{suite}/InRelease")
        installed = "dpkg-query -W -f '${db:Status-Status}' grafana 2>/dev/null | grep -qx installed"
        # What comes is not trusted: on a bare host there are no authorities to verify it with yet, and apt
        # will judge it by its signature.
        fetched = (
            f"timeout {PATIENCE_S} /usr/lib/apt/apt-helper -o Acquire::Retries=0 "
            f"-o Acquire::https::Verify-Peer=false download-file {release} $d/InRelease >/dev/null 2>&1"
        )
        return (
            f"if {installed}; then echo yes; else d=$(mktemp -d); "
            f"if {fetched} && grep -qs '^SHA256:' $d/InRelease; then echo yes; fi; rm -rf $d; fi"
        )

    def process(self, output: Iterable[str]) -> bool:
        return "yes" in list(output)


class Fingerprints(FactBase[Iterable[str]]):
    """The fingerprints of the keys in a keyring; none: there is no such file, or nothing to read it with."""

    default = list

    def command(self, keyring: str) -> str:
        shown = f"gpg --show-keys --with-colons {shlex.quote(keyring)} 2>/dev/null"
        return f'{shown} | awk -F: \'$1 == "pub" {{ p = 1 }} p && $1 == "fpr" {{ print $10; p = 0 }}\'; true'

    def process(self, output: Iterable[str]) -> Iterable[str]:
        return list(output)


@operation()
def trusted_key(
    source: str, content: str, fingerprint: str, keyring: str
) -> Generator[StringCommand, None, None]:
    """Makes a keyring of one key, and of no other that came along.

    + source: where the host gets the key
    + content: the key itself; empty: got from the source
    + fingerprint: of the key, 40 hexadecimal digits
    + keyring: path of the keyring
    """
    if list(host.get_fact(Fingerprints, keyring=keyring)) == [fingerprint]:
        host.noop(f"{keyring} has the key {fingerprint}")
        return
    yield StringCommand(key_script(source, fingerprint, keyring, given=bool(content)), _stdin=content)


def key_script(source: str, fingerprint: str, keyring: str, *, given: bool) -> str:
    """The shell script of :func:`trusted_key`.

    :param given: the key comes on standard input.
    """
    q = shlex.quote
    get = f"/usr/lib/apt/apt-helper -o Acquire::Retries=2 download-file {q(source)} $d/key >/dev/null"
    origin = "the file given" if given else source
    return "\n".join(
        [
            "set -e; umask 077; d=$(mktemp -d); trap 'rm -rf $d' EXIT",
            "cat > $d/key" if given else get,
            'keys() { gpg --homedir $d --no-default-keyring --keyring $d/ring.gpg --batch -q "$@"; }',
            "keys --import $d/key 2>/dev/null || :",
            f"keys --export {fingerprint} > $d/one 2>/dev/null || :",
            f"[ -s $d/one ] || {{ echo {q(f'{origin} has no key {fingerprint}')} >&2; exit 1; }}",
            f"(umask 022; mkdir -p $(dirname {q(keyring)}))",
            f"install -m 644 $d/one {q(keyring)}.new; mv -f {q(keyring)}.new {q(keyring)}",
        ]
    )


class Candidate(FactBase[str]):
    """The version of a package that apt would install, or has; empty: it knows none."""

    default = str

    def command(self, package: str) -> str:
        return f"LC_ALL=C apt-cache policy {shlex.quote(package)} | sed -n 's/^  Candidate: //p'; true"

    def process(self, output: Iterable[str]) -> str:
        return next(iter(output), "").replace("(none)", "")


@operation()
def listed(package: str, source: str) -> Generator[StringCommand, None, None]:
    """Makes a package known to apt, by reading the one repository that has it.

    + package: its name
    + source: the repository's file below `/etc/apt/sources.list.d`
    """
    if host.get_fact(Candidate, package=package):
        host.noop(f"apt knows {package}")
        return
    yield StringCommand(update_command(source))


def update_command(source: str) -> str:
    """The command that asks one repository and leaves what apt knows of the others."""
    return (
        f"apt-get update -q -o Dir::Etc::SourceList={shlex.quote(source)} -o Dir::Etc::SourceParts=- "
        "-o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any"
    )


class Taken(FactBase[bool]):
    """Whether a service has been reloaded since files became what they are."""

    default = bool

    def command(self, paths: Sequence[str], stamp: str) -> str:
        return f"{_checksums(paths)} | cmp -s - {stamp} && echo yes; true"

    def process(self, output: Iterable[str]) -> bool:
        return "yes" in list(output)


@operation()
def taken(unit: str, paths: Sequence[str], stamp: str) -> Generator[StringCommand, None, None]:
    """Reloads a service that another role runs when files of ours changed, also in a run that was cut short.

    + unit: name of the systemd unit
    + paths: the files
    + stamp: where their checksums are kept
    """
    if host.get_fact(Taken, paths=paths, stamp=stamp):
        host.noop(f"{unit} runs with these files as they are")
        return
    recorded = record_script(late=[stamp], unit=unit, action="reload")
    reload = f"systemctl reload {shlex.quote(unit)}"
    yield StringCommand(f"set -e\n{recorded}\n{taken_script(reload, paths, stamp)}")


def taken_script(reload: str, paths: Sequence[str], stamp: str) -> str:
    """The shell script of :func:`taken`."""
    return (
        f"set -e; {reload}; mkdir -p $(dirname {stamp}); "
        f"{{ {_checksums(paths)} || :; }} > {stamp}.new; mv -f {stamp}.new {stamp}"
    )


def _checksums(paths: Sequence[str]) -> str:
    return f"sha256sum {' '.join(map(shlex.quote, paths))} 2>/dev/null"
