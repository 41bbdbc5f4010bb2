"""The commands: each brings the lab from whatever state it is in to the one asked for."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev.lab import guest, image, layout, machine, network, packages, state
from dev.lab.errors import LabError, UsageError
from dev.lab.layout import Layout
from dev.lab.state import DEFAULT_HOSTS, SUITES, HostRecord, Record

_PATIENCE = 2.0  # seconds

Say = Callable[[str], None]


class Progress:
    """Says what is being done and, when it is done, how many seconds it took."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def note(self, text: str) -> None:
        """Say one thing."""
        self._say(text)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Time what is done inside."""
        self._say(f"{text} ...")
        started = time.monotonic()
        yield
        self._say(f"{text}: {time.monotonic() - started:.1f} s")


@contextlib.contextmanager
def _locked(files: Layout, progress: Progress) -> Iterator[None]:
    path = layout.state_root() / f".{files.name}.lock"
    with state.locked(path, lambda: progress.note(f"waiting for another command on lab {files.name}")):
        yield


def up(files: Layout, suite: str | None, extra_hosts: Sequence[str], progress: Progress) -> None:
    """Have all hosts of the lab running: `bitrix`, `cdn`, those recorded, and `extra_hosts`.

    Hosts that run are left alone, hosts that were stopped or killed are powered on with
    their files.
    :param suite: None means that of the lab, `trixie` for a new one.
    :raises LabError: a host doesn't boot, or the lab runs another suite.
    """
    for name in extra_hosts:
        layout.check_host_name(name)
    if suite is not None and suite not in SUITES:
        raise UsageError(f"suite {suite!r} isn't known: {' or '.join(SUITES)}")
    machine.require()
    with _locked(files, progress):
        record = state.read(files)
        if record is not None and suite not in {None, record.suite}:
            raise LabError(f"lab {files.name} is of {record.suite}: run `python -m dev.lab down` first")
        recorded = [host.name for host in record.hosts] if record else []
        wanted = dict.fromkeys([*DEFAULT_HOSTS, *recorded, *extra_hosts])
        if record is not None and set(wanted) == set(recorded) and _all_ready(files, record):
            return
        if record is None:
            # What a lab left whose record is lost: nothing tells what it is good for.
            guest.kill_all(files)
            network.remove(files.name, None)
            _discard(files.directory, progress)
        suite = suite or (record.suite if record else SUITES[0])
        record = _record(files, record, suite, list(wanted), progress)
        machine.raise_limits()
        network.ensure(record)
        guest.make_keys(files, record)
        stopped = [host for host in record.hosts if not guest.runs(files, host)]
        for host in stopped:
            if not files.host(host.name).directory.exists():
                guest.prepare(files, record, host)
            guest.start(files, record, host)
        for host in record.hosts:
            if host not in stopped:
                _tell_about_others(files, record, host)
        _wait(files, record, record.hosts, progress)


def _all_ready(files: Layout, record: Record) -> bool:
    def ready(host: HostRecord) -> bool:
        return guest.state(files, host, cut=False) == "running" and guest.answers_ssh(
            network.address(record.index, host.number)
        )

    return network.ready(record) and all(map(ready, record.hosts))


def _record(files: Layout, former: Record | None, suite: str, names: list[str], progress: Progress) -> Record:
    """Return the lab's record with hosts `names`, stored before anything of it exists."""
    with state.locked(
        layout.cache_directory() / ".lock", lambda: progress.note("waiting for another lab's base tree")
    ):
        known = {host.name: host for host in former.hosts} if former else {}
        base = None
        if any(not _usable(files, known.get(name)) for name in names):
            base = _base(suite, progress).name
        if former is None:
            taken = [record.index for record in state.all_records()]
            index = network.choose_index(files.name, taken, network.routed_networks())
        else:
            index = former.index
        hosts: list[HostRecord] = []
        free = iter(range(network.FIRST_HOST_NUMBER, network.LAST_HOST_NUMBER + 1))
        numbers = {host.number for host in known.values()}
        for name in names:
            host = known.get(name)
            if host is None:
                number = next((n for n in free if n not in numbers), None)
                if number is None:
                    raise LabError(f"a lab has room for {network.LAST_HOST_NUMBER - 1} hosts")
                host = HostRecord(name, number, base or "")
            elif not _usable(files, host) and not guest.runs(files, host):
                progress.note(f"{name}: its base tree is gone, it starts from a new one")
                packages.harvest(suite, files.host(name))
                _discard(files.host(name).directory, progress)
                host = HostRecord(name, host.number, base or "")
            hosts.append(host)
        record = Record(files.name, index, suite, tuple(hosts))
        state.write(files, record)
        if base is not None:
            image.prune(suite)
    return record


def _usable(files: Layout, host: HostRecord | None) -> bool:
    """Tell whether the host has a base tree to go on with."""
    return host is not None and (image.directory() / host.base).is_dir()


def _base(suite: str, progress: Progress) -> Path:
    recipe = image.recipe(suite)
    tree = image.newest(recipe)
    if tree is not None and image.is_fresh(tree):
        return tree
    what = "base tree of" if tree is None else "newer base tree of"
    try:
        with progress.step(f"{what} {suite}"):
            return image.build(recipe)
    except LabError as error:
        if tree is None:
            raise
        progress.note(f"the base tree of {suite} is older than a day and goes on serving: {error}")
        return tree


def _tell_about_others(files: Layout, record: Record, host: HostRecord) -> None:
    """Add hosts that joined later to the /etc/hosts of one that runs already."""
    script = 'while read -r line; do grep -qxF "$line" /etc/hosts || echo "$line" >> /etc/hosts; done'
    command = guest.command_line(files, host, ["sh", "-c", script])
    subprocess.run(command, input=guest.hosts_lines(record), text=True, check=False)


def _wait(files: Layout, record: Record, hosts: Sequence[HostRecord], progress: Progress) -> None:
    def wait(host: HostRecord) -> None:
        started = time.monotonic()
        failed = guest.wait_until_ready(files, record, host)
        seconds = time.monotonic() - started
        line = f"{host.name}: {record.suite} at {network.address(record.index, host.number)}, {seconds:.1f} s"
        progress.note(line + (f", degraded: {', '.join(failed)}" if failed else ""))

    with ThreadPoolExecutor(max(1, len(hosts))) as pool:
        list(pool.map(wait, hosts))


def down(files: Layout, progress: Progress) -> None:
    """Remove all there is of the lab: processes, interfaces, tables, files. Not the cache.

    No lab, no error: what is found by the lab's name goes all the same.
    """
    machine.require_root()
    with _locked(files, progress):
        try:
            record = state.read(files)
        except LabError:
            record = None
        existed = files.directory.exists()
        guest.kill_all(files)
        network.remove(files.name, record)
        if record is not None:
            _harvest(files, record, record.hosts, progress)
        _discard(files.directory, progress)
        if not state.all_records():
            machine.restore_limits()
        if existed:
            progress.note(f"lab {files.name} is gone")


def _discard(directory: Path, progress: Progress) -> None:
    """Remove `directory`: it is all there under its name or it is gone.

    Its files are gone soon after: a busy disk may take longer to forget some hundred
    megabytes than anybody should wait.
    """
    prefix = f".discarded-{directory.name}-"
    if directory.exists():
        directory.rename(directory.with_name(f"{prefix}{time.time_ns()}"))
    # Also what a command left that was killed meanwhile.
    doomed = [str(path) for path in directory.parent.glob(f"{prefix}*")]
    if not doomed:
        return
    removal = subprocess.Popen(["rm", "-rf", "--", *doomed], start_new_session=True)
    try:
        removal.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        progress.note(f"the files of the former {directory.name} are being removed in the background")


def _harvest(files: Layout, record: Record, hosts: Sequence[HostRecord], progress: Progress) -> None:
    new = sum(packages.harvest(record.suite, files.host(host.name)) for host in hosts)
    if new:
        progress.note(f"{new} packages kept for the next lab")


@contextlib.contextmanager
def _host(files: Layout, name: str, progress: Progress) -> Iterator[tuple[Record, HostRecord]]:
    """Lock the lab and give its record and that of host `name`."""
    machine.require_root()
    state.existing(files).host(name)
    with _locked(files, progress):
        record = state.existing(files)
        yield record, record.host(name)


def partition(files: Layout, name: str, progress: Progress) -> None:
    """Cut host `name` off, see :mod:`dev.lab.network`."""
    with _host(files, name, progress) as (record, host):
        network.partition(record, host)


def heal(files: Layout, name: str, progress: Progress) -> None:
    """Join host `name` again."""
    with _host(files, name, progress) as (record, host):
        network.heal(record, host)


def kill(files: Layout, name: str, progress: Progress) -> None:
    """Take the power from host `name`, see :func:`dev.lab.guest.kill`; its files stay."""
    with _host(files, name, progress) as (_, host):
        guest.kill(files, [host])


def start(files: Layout, name: str, progress: Progress) -> None:
    """Power host `name` on and wait for it; one that runs is left alone."""
    machine.require()
    with _host(files, name, progress) as (record, host):
        machine.raise_limits()
        network.ensure(record)
        if not files.host(name).directory.exists():
            guest.make_keys(files, record)
            guest.prepare(files, record, host)
        if not guest.runs(files, host):
            guest.start(files, record, host)
            _wait(files, record, [host], progress)


def reset(files: Layout, name: str, progress: Progress) -> None:
    """Bring host `name` back as the bare base, with the same address and the same SSH host keys."""
    machine.require()
    with _host(files, name, progress) as (record, host):
        guest.kill(files, [host])
        _harvest(files, record, [host], progress)
        _discard(files.host(name).directory, progress)
        record = _record(files, record, record.suite, [h.name for h in record.hosts], progress)
        host = record.host(name)
        machine.raise_limits()
        network.ensure(record)
        guest.make_keys(files, record)
        guest.prepare(files, record, host)
        guest.start(files, record, host)
        _wait(files, record, [host], progress)
