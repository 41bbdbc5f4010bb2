"""The labs that the tests run on.

Without options, each suite of Debian gets a separate lab, booted from bare hosts, deployed and
taken down at the end; tests that are marked with `edges` get one of five hosts, of the newest suite unless
`--suite` says otherwise. With `--lab NAME` the tests run on that lab as it is, and with `--inventory FILE`
those of `tests/testinfra` ask the hosts of that inventory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from dev.lab import state
from dev.lab.errors import LabError
from tests.kit.deployment import INVENTORY, INVENTORY_OF_EDGES, ROOT, Deployment, Run, deploy, pyinfra
from tests.kit.lab import lab_command
from tests.kit.ports import listening
from tests.kit.support import Figure

SUITES = ("trixie", "bookworm")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab")
    group.addoption("--inventory", help="ask the hosts of this inventory (tests/testinfra only)")
    group.addoption(
        "--host", action="append", help="only what concerns this host of the inventory (may be repeated)"
    )
    group.addoption("--lab", help="run on this lab, which is up and deployed, and leave it up")
    group.addoption(
        "--suite", action="append", choices=SUITES, help="boot labs of this suite only (may be repeated)"
    )
    group.addoption("--prefix", default="test", help="begins the names of the labs that are booted")
    group.addoption(
        "--odd",
        action="store_true",
        help="boot hosts with a symbolic link at /var/www, another number of www-data, and root's umask 077",
    )


_ODDITIES = """
set -e
echo umask 077 > /root/.bashrc
sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs
echo 'session optional pam_umask.so' >> /etc/pam.d/common-session
[ "$(hostname)" = bitrix ] || usermod -u 1001 www-data
mkdir -p -m 755 /data/www
rm -rf /var/www
ln -s /data/www /var/www
"""

# Tests write as root, too: only the deploys have to bear its umask.
_EVEN = "rm /root/.bashrc; sed -i 's/^UMASK.*/UMASK 022/' /etc/login.defs"

WITH_EDGES = "edges-"
"""Before the name of a suite: its lab with two edges and a balancer."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "deployment" not in metafunc.fixturenames:
        return
    given = metafunc.config.getoption("--inventory") or metafunc.config.getoption("--lab")
    suites = metafunc.config.getoption("--suite")
    if given:
        names = [given]
    elif metafunc.definition.get_closest_marker("edges"):
        names = [WITH_EDGES + suite for suite in suites or SUITES[:1]]
    else:
        names = suites or list(SUITES)
    metafunc.parametrize("deployment", names, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True, specname="pytest_collection_modifyitems")
def pytest_mark_roles(items: list[pytest.Item]) -> None:
    """The checks of the roles are for both suites, without anybody's saying so in each."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/testinfra"):
            item.add_marker("both")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One lab after another: pytest groups tests by the place of a parameter in its list, not by its name."""
    order = ["", *SUITES, *(WITH_EDGES + suite for suite in SUITES)]

    def lab_of(item: pytest.Item) -> int:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        name = parameters.get("deployment", "")
        return order.index(name) if name in order else 0

    items.sort(key=lab_of)


_figures = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest, figure: Figure) -> Iterator[Deployment]:
    """The lab of one suite, from bare hosts to deployed; rehearsed before, where a test asks for that."""
    name: str = request.param
    if request.config.getoption("--inventory"):
        yield Deployment(name, None)
        return
    if request.config.getoption("--lab"):
        os.environ["LAB_NAME"] = name
        there = _loaded()
        edges = any(host.name == "balancer" for host in there.hosts)
        yield Deployment(INVENTORY_OF_EDGES if edges else INVENTORY, there)
        return

    edges, suite = name.startswith(WITH_EDGES), name.removeprefix(WITH_EDGES)
    inventory = INVENTORY_OF_EDGES if edges else INVENTORY
    odd = request.config.getoption("--odd")
    lab = f"{request.config.getoption('--prefix')}-{name}"
    os.environ["LAB_NAME"] = lab
    _lab("down")
    _lab("up", "--suite", suite, *(("--host", "edge1", "edge2", "balancer") if edges else ()))
    try:
        if odd:
            _on_all_hosts(lab, _ODDITIES)
        try:
            asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
            rehearsal = (
                pyinfra("--dry", "--json", inventory=inventory, lab=lab) if "rehearsal" in asked else None
            )
            with listening(lab, [host.name for host in _loaded().hosts]) as ports:
                first = deploy(lab, inventory)
        except AssertionError as error:
            # Once, and not for each of the tests that need it.
            print(error)
            reason, _, output = str(error).partition("\n")
            line = " ".join([f"the lab {lab}: {reason}", *output.split()[-40:]])
            raise pytest.fail.Exception(line, pytrace=False) from None
        if odd:
            _on_all_hosts(lab, _EVEN)
        what = "five hosts" if edges else "bare hosts"
        limit = "" if edges else " (figure: 240)"
        figure(f"{suite}: {what} to a working CDN {first.seconds:.0f} s{limit}")
        yield Deployment(inventory, _loaded(), rehearsal, first, ports)
    finally:
        _lab("down")


@pytest.fixture(scope="session")
def rehearsal(deployment: Deployment) -> Run:
    """`--dry` on the bare hosts."""
    if deployment.rehearsal is None:
        pytest.skip("these hosts were deployed before")
    return deployment.rehearsal


@pytest.fixture(scope="session")
def second(deployment: Deployment, lab: state.Lab, figure: Figure) -> Run:
    """The same deploy again."""
    run = deploy(lab.name, deployment.inventory)
    limit = "" if deployment.inventory == INVENTORY_OF_EDGES else " (figure: 15)"
    changes = sum(map(len, run.changed().values()))
    figure(
        f"{lab.suite}: the same deploy again {run.seconds:.1f} s{limit} with {changes} changes (figure: 0)"
    )
    return run


@pytest.fixture(scope="session")
def lab(deployment: Deployment) -> state.Lab:
    """The lab, for tests that break hosts."""
    if deployment.lab is None:
        pytest.skip("needs a lab: these are somebody's hosts")
    return deployment.lab


@pytest.fixture(scope="session")
def figure(
    request: pytest.FixtureRequest, record_testsuite_property: Callable[[str, object], None]
) -> Figure:
    """Takes a line for the summary of the run, and for its report."""

    def take(line: str) -> None:
        request.config.stash.setdefault(_figures, []).append(line)
        record_testsuite_property("figure", line)

    return take


def _on_all_hosts(lab: str, script: str) -> None:
    for host in state.load(lab).hosts:
        _lab("exec", host.name, "--", "bash", "-c", script)


def _loaded() -> state.Lab:
    try:
        return state.load()
    except LabError as error:
        pytest.fail(str(error), pytrace=False)


def _lab(*arguments: str) -> None:
    try:
        lab_command(*arguments)
    except AssertionError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_terminal_summary")
def pytest_tell_once(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """A lab that isn't there is told once, and counted for each of the tests that need it."""
    stats = terminalreporter.stats
    errors = stats.get("error", [])
    first = {str(report.longrepr): report for report in reversed(errors)}
    if errors:
        stats["error"] = [report for report in errors if report in first.values()]
    try:
        yield
    finally:
        if errors:
            stats["error"] = errors


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash.get(_figures, [])
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)
