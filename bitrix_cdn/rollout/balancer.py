"""The state of the edges, as the balancer sees it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prometheus_client.parser import text_string_to_metric_families

from bitrix_cdn.fleet import Remote
from bitrix_cdn.rollout.errors import RolloutError
from bitrix_cdn.rollout.exporters import expositions


def states(remote: Remote, port: int) -> dict[str, str]:
    """The state of each server behind a balancer, in HAProxy's words, such as `UP` or `DOWN`.

    A server that stands in several backends counts as what it is in the worst of them.

    :param port: of HAProxy's own exporter.
    :raises RolloutError: it does not say.
    :raises HostError: the host can't be reached.
    """
    told = expositions(remote, [port]).get(port)
    if told is None:
        raise RolloutError(f"{remote.name}: HAProxy does not report the state of its servers, at port {port}")
    try:
        return parse(told)
    except ValueError as error:
        raise RolloutError(f"{remote.name}: HAProxy's exporter can't be understood: {error}") from None


def parse(exposition: str) -> dict[str, str]:
    """The states in what HAProxy's exporter says.

    :raises ValueError: it isn't in Prometheus' text format.
    """
    found: dict[str, str] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == "haproxy_server_status" and sample.value == 1:
                server, state = sample.labels["server"], sample.labels["state"]
                if server not in found or serves(found[server]):
                    found[server] = state
    return found


def serves(state: str) -> bool:
    """Whether a server in that state gets visitors."""
    return state == "UP"


def enough(states: Mapping[str, str], without: Collection[str]) -> bool:
    """Whether visitors are served while some servers are drained."""
    return any(serves(state) for server, state in states.items() if server not in without)
