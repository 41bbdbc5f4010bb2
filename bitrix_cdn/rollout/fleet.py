"""The hosts of a rollout: the queries and actions on one."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from bitrix_cdn.engine.journal import begin_script, commit_script, undo_script
from bitrix_cdn.fleet import HostError, Inventory, Output, lock
from bitrix_cdn.rollout import balancer, pictures, rates
from bitrix_cdn.rollout.deploys import Pyinfra
from bitrix_cdn.rollout.errors import RefusedError, RolloutError
from bitrix_cdn.rollout.exporters import expositions
from bitrix_cdn.rollout.http import Door, ask
from bitrix_cdn.rollout.record import Record
from bitrix_cdn.rollout.run import Found
from host_agent.journal import JOURNAL
from host_agent.json_output import Status
from host_agent.lock import Holder, parse
from roles.exporters import probe_picture, visible_name
from roles.mounts import ready
from roles.nginx import DRAIN

# What a rollout writes into it; one that an operator made by hand has anything else in it, and stays.
_OURS = "rollout"

# Seconds without a word from a host after which it is given up.
_SILENCE = 60.0
# Of that, an undo may need more: it waits for what still runs there, and for units.
_UNDO_SILENCE = 600.0
# Until an undone host works, or the balancer has an undrained one again.
_PATIENCE = 60.0

_FIND = f"""
[ -e /etc/bitrix-cdn ] || [ -d /var/lib/bitrix-cdn/applied ] && echo deployed
[ ! -d {JOURNAL} ] || echo journal
[ ! -e {DRAIN} ] || echo "drained $(head -c 200 {DRAIN} | head -n 1)"
true
"""

# A connection that is there twice is a visitor's; the balancer's checks are over in milliseconds.
_BUSY = """
look() { ss -Htn state established "( %(ports)s )" | awk '{ print $4 }' | grep -E %(peers)s | sort; }
first=$(look)
sleep 1.5
second=$(look)
printf '%%s\\n' "$first" "$second" | sort | uniq -d | grep -c . || true
"""


class Fleet:
    """The hosts of an inventory during one rollout."""

    def __init__(self, inventory: Inventory, record: Record, holder: Holder, *, idle: float) -> None:
        self._inventory = inventory
        self._record = record
        self._holder = holder
        self._idle = idle
        self._settings = inventory.settings
        self._pyinfra = Pyinfra(inventory.file, holder.token)
        self._balancers = inventory.groups.get("balancer", ())

    # All of them.

    def connect(self) -> None:
        """Logs in everywhere.

        :raises HostError: a host refuses the login.
        """
        for remote in self._inventory.hosts.values():
            remote.connect()

    def take(self, broken: Mapping[str, Holder] | None = None) -> dict[str, Holder]:
        """Takes the lock of every host, or of none; returns who holds those that somebody else has.

        :param broken: by host, whose lock is taken away.
        """
        taken: list[str] = []
        # In the order of their names: of two operators at once, one is first at the first host.
        for name in sorted(self._inventory.hosts):
            script = lock.take_script(self._holder, instead_of=(broken or {}).get(name))
            output = self._run(name, script, check=False)
            if output.status == Status.HELD:
                self.release(taken)
                return {name: Holder(**json.loads(output.text.splitlines()[-1])["holder"])}
            if output.status:
                self.release(taken)
                raise RefusedError(f"{name}: {output.reason}")
            taken.append(name)
        return {}

    def holders(self) -> dict[str, Holder]:
        """Who holds the hosts that are held by anybody else."""
        found = {}
        for name in self._inventory.hosts:
            holder = parse(self._run(name, lock.holder_script(), check=False).text)
            if holder and holder.token != self._holder.token:
                found[name] = holder
        return found

    def release(self, names: Sequence[str] | None = None) -> list[str]:
        """Gives the locks back; returns the hosts where that could not be done."""
        failed = []
        for name in self._inventory.hosts if names is None else names:
            try:
                self._run(name, lock.give_back_script(self._holder.token))
            except HostError:
                failed.append(name)
        return failed

    def rehearse(self, hosts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return self._pyinfra.rehearse(hosts, self._record.log("rehearsal"), self._record.work)

    def deploy(self, hosts: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        log = self._record.log(f"deploy-{'-'.join(hosts)}")
        return self._pyinfra.deploy(hosts, log, self._record.work).changed

    def smoke(self, hosts: Sequence[str]) -> None:
        """Runs the tests marked `smoke` that concern these hosts, and asks for a picture as visitors do.

        :raises RolloutError: one fails, or a host has none.
        """
        for host in hosts:
            self._pictures(host)
        log = self._record.log(f"smoke-{'-'.join(hosts)}")
        report = log.with_suffix(".xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "smoke", "-p", "no:cacheprovider"]
        command += ["--inventory", self._inventory.file, f"--junitxml={report}"]
        command += [f"--host={host}" for host in hosts]
        with log.open("w") as output:
            result = subprocess.run(
                [*command, "tests/testinfra"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                pass_fds=(self._record.work,),
            )
        failed, passed = results(report)
        report.unlink(missing_ok=True)
        if failed:
            more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise RolloutError(f"{', '.join(hosts)}: {failed[0]}{more} (all of it: {log})")
        if result.returncode or not passed:
            raise RolloutError(f"{', '.join(hosts)}: the tests could not be run (all of it: {log})")

    # One.

    def find(self, host: str) -> Found:
        lines = self._run(host, _FIND).text.splitlines()
        if "deployed" not in lines:
            raise RefusedError(
                f"{host}: nothing was ever deployed there; do that first: pyinfra INVENTORY deploy.py"
            )
        drained = next((line.partition(" ")[2] for line in lines if line.startswith("drained")), None)
        who = "" if drained is None else "rollout" if drained.split(" ")[0] == _OURS else "operator"
        return Found("journal" in lines, who)

    def can_be_drained(self, host: str) -> bool:
        return host in self._inventory.groups.get("edge", ())

    def others_serve(self, batch: Sequence[str]) -> None:
        """Makes sure that visitors have somewhere to go while a batch is drained.

        :raises RolloutError: none of the other edges works.
        """
        for name in self._balancers:
            states = self._states(name)
            if not balancer.enough(states, batch):
                told = ", ".join(f"{edge} is {state}" for edge, state in sorted(states.items()))
                raise RolloutError(
                    f"{', '.join(batch)}: can't be drained: no other host would serve the visitors ({told})"
                )

    def drain(self, host: str) -> None:
        mark = f"{_OURS} by {self._holder}"
        self._run(host, f"[ -e {DRAIN} ] || printf '%s\\n' {shlex.quote(mark)} > {DRAIN}")

    def undrain(self, host: str) -> None:
        self._run(host, f"rm -f {DRAIN}")

    def wait_until_idle(self, host: str) -> None:
        """Until no visitor's connection is left.

        :raises RolloutError: some are, after the time that was given for it.
        """
        nginx, tls = self._settings.nginx, self._settings.tls
        ports = [nginx.http_port] + ([tls.port] if tls.enabled else [])
        # Without a balancer everybody counts who isn't the host itself.
        peers = "|".join(map(re.escape, self._addresses(host)))
        script = _BUSY % {
            "ports": " or ".join(f"sport = :{port}" for port in ports),
            "peers": shlex.quote(rf"^\[?({peers})\]?:[0-9]+$") if peers else r"-v '^(127\.|\[::1)'",
        }
        deadline = time.monotonic() + self._idle
        self._wait_until_led_past(host)
        while left := int(self._run(host, script).text):
            if time.monotonic() > deadline:
                raise RolloutError(
                    f"{host}: still has {left} connections of visitors {self._idle:.0f} s after draining"
                )

    def wait_until_back(self, host: str) -> None:
        """Until the balancer leads visitors to it.

        :raises RolloutError: it does not, for a minute.
        """
        self._wait_for_balancer(host, up=True)

    def _wait_until_led_past(self, host: str) -> None:
        self._wait_for_balancer(host, up=False)

    def _wait_for_balancer(self, host: str, *, up: bool) -> None:
        for name in self._balancers:
            deadline = time.monotonic() + _PATIENCE
            while (state := self._states(name).get(host, "missing")) and (balancer.serves(state) != up):
                if time.monotonic() > deadline:
                    wanted = "leads no visitors to it" if up else "still leads visitors to it"
                    raise RolloutError(
                        f"{host}: {name} {wanted} after {_PATIENCE:.0f} s (it is {state} there)"
                    )
                time.sleep(0.5)

    def begin(self, host: str) -> None:
        self._run(host, begin_script())

    def commit(self, host: str) -> None:
        self._run(host, commit_script(), silence=_UNDO_SILENCE)

    def undo(self, host: str) -> str:
        output = self._run(host, undo_script(), silence=_UNDO_SILENCE)
        done = json.loads(output.text.splitlines()[-1])
        return f"put back {done['paths']} paths" if done["was_open"] else "nothing was to be put back"

    def kinds(self, host: str) -> list[str]:
        """What a host's exporters should tell of."""
        return list(self._counted(host))

    def counters(self, host: str) -> dict[str, rates.Count]:
        ports = self._counted(host)
        if not ports:
            return {}
        told = expositions(self._inventory.hosts[host], list(ports.values()))
        try:
            return rates.counters({kind: told[port] for kind, port in ports.items() if port in told})
        except ValueError as error:
            raise RolloutError(f"{host}: its exporters can't be understood: {error}") from None

    def wait_until_healthy(self, host: str) -> None:
        """Until a host does what it is for.

        :raises RolloutError: it does not, for a minute.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._works(host)
                return
            except RolloutError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def _states(self, name: str) -> dict[str, str]:
        port = self._settings.monitoring.exporters.haproxy_port
        return balancer.states(self._inventory.hosts[name], port)

    # What it is for.

    def _works(self, host: str) -> None:
        groups, settings = self._inventory.groups, self._settings
        self._pictures(host, patience=0)
        if host in groups.get("cdn", ()):
            door = Door(settings.converter.api.port, "localhost", tls=False)
            answer = ask(self._inventory.hosts[host], door, "/health", "*/*")
            if answer.status != 200:
                raise RolloutError(
                    f"{host}: the converter is not healthy: {answer.body.decode(errors='replace')}"
                )
        mount = next((p for g, p in self._mounts() if host in groups.get(g, ())), None)
        if mount and self._run(host, f"{ready(mount)} >/dev/null", check=False).status:
            raise RolloutError(f"{host}: the mount of {mount} does not answer")

    def _mounts(self) -> tuple[tuple[str, str], ...]:
        return ("bitrix", self._settings.site.resize_cache), ("cdn", self._settings.cdn.originals)

    def _pictures(self, host: str, patience: float = 30) -> None:
        if not any(host in self._inventory.groups.get(group, ()) for group in ("edge", "cdn", "balancer")):
            return
        settings = self._settings
        path = probe_picture(settings).removeprefix(settings.cdn.root)
        # Behind a balancer TLS ends there.
        tls = settings.tls.redirects and not (self._balancers and self.can_be_drained(host))
        port = settings.tls.port if tls else settings.nginx.http_port
        door = Door(port, visible_name(settings) or "localhost", tls=tls)
        pictures.check(self._inventory.hosts[host], door, path, patience=patience)

    def _counted(self, host: str) -> dict[str, int]:
        groups, ports = self._inventory.groups, {}
        if any(host in groups.get(group, ()) for group in ("edge", "cdn")):
            ports["requests"] = self._settings.monitoring.exporters.edge_port
        if host in groups.get("cdn", ()):
            ports["conversions"] = self._settings.converter.metrics.port
        return ports

    def _addresses(self, host: str) -> list[str]:
        """The balancers' addresses, as a host sees them; none: there is no balancer."""
        names = [self._inventory.address(name) for name in self._balancers]
        if not names:
            return []
        quoted = " ".join(map(shlex.quote, names))
        return self._run(host, f"getent ahosts {quoted} | cut -d' ' -f1 | sort -u").text.split()

    def _run(self, host: str, script: str, *, check: bool = True, silence: float = _SILENCE) -> Output:
        return self._inventory.hosts[host].run(script, check=check, silence=silence)


def results(report: Path) -> tuple[list[str], int]:
    """Of a run of pytest the failures, each as name and reason, and how many tests passed."""
    failed, passed = [], 0
    try:
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 -- this run of pytest has just written it
    except (OSError, ET.ParseError):
        return [], 0
    for case in cases:
        bad = next((child for child in case if child.tag in {"failure", "error"}), None)
        if bad is not None:
            reason = (bad.get("message") or "").splitlines()
            failed.append(f"{case.get('name')}: {reason[0] if reason else 'failed'}")
        elif case.find("skipped") is None:
            passed += 1
    return failed, passed
