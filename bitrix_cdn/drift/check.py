"""The dry run of pyinfra for `bitrix-cdn drift` and `plan`: the deploy, and an inspection of the host.

Everything is reported through :mod:`bitrix_cdn.engine.differences`. A host for which no
:class:`Checked` is reported was not checked.
"""

from pyinfra import host, local, state
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.drift.comparison import undeclared_in
from bitrix_cdn.drift.deployment import report_deployment
from bitrix_cdn.drift.expected import expected
from bitrix_cdn.drift.inspection import Inspection
from bitrix_cdn.drift.run import EVERYTHING, Checked, Unchecked
from bitrix_cdn.engine import differences
from bitrix_cdn.engine.findings import Commands
from bitrix_cdn.fleet.hold import HeldError
from bitrix_cdn.fleet.ssh import LoginError
from roles.footprints import place_of
from roles.preflight import settings_of
from roles.topology import asked_from_elsewhere


def report_undeclared() -> None:
    """Reports what this host has that is not declared."""
    settings = settings_of(host)
    managed = differences.managed()
    may_have = expected(
        place_of(host, settings),
        managed.units,
        ssh_user=host.data.get("ssh_user", "root"),
        asked=asked_from_elsewhere(host, settings),
        everything=bool(host.data.get(EVERYTHING)),
    )
    seen = host.get_fact(
        Inspection,
        trees=may_have.trees,
        directories=may_have.directories,
        known=sorted(managed.files),
        ports=may_have.udp,
    )
    for undeclared in undeclared_in(seen, may_have):
        differences.report(undeclared)


def explain() -> None:
    """Tells which commands stand for a change that its operation has told nothing of."""
    for operation, data in state.ops[host].items():
        conditional = data.global_arguments["_if"]
        if data.operation_meta.will_change and not conditional and not differences.reported(operation):
            commands = tuple(str(command) for command in data.command_generator())
            differences.report(Commands(commands), operation=operation)


try:
    report_deployment()
    local.include("deploy.py")
    report_undeclared()
    explain()
    if host not in state.failed_hosts:
        differences.report(Checked(tuple(state.ops[host])))
except PyinfraError as error:
    if isinstance(error, LoginError):
        # As one that can't be connected to: the other hosts are compared without it.
        state.failed_hosts.add(host)
    differences.report(Unchecked(str(error), held=isinstance(error, HeldError)))
