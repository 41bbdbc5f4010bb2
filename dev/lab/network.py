"""One bridge and one /24 of 198.18.0.0/15 for each lab, and the cutting of hosts.

198.18.0.0/15 is set aside for benchmarks (RFC 2544) and routed nowhere. A lab's index,
0 to 511, chooses its /24 and names its bridge; the machine has .1 on it.

A *partitioned* host can't exchange a packet with any other host of the lab nor with
anything outside: what it sends and what is sent to it is dropped without RST or ICMP.
Only the machine itself still reaches it, so that tests can look inside; `lab exec`
needs no network at all. The cut outlives `kill`, `start` and `reset`. ARP passes: a
neighbour that doesn't resolve would make the sender's own kernel report "no route to
host", which a host behind routers never sees. (A *killed* host does give its neighbours
that, after about 3 s, as a dead server in the same rack does.)
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import zlib
from collections.abc import Iterable

from dev.lab.errors import LabError
from dev.lab.machine import run
from dev.lab.state import HostRecord, Record

RANGE = ipaddress.IPv4Network("198.18.0.0/15")
SUBNETS = tuple(RANGE.subnets(new_prefix=24))
GATEWAY_NUMBER = 1
FIRST_HOST_NUMBER = 2
LAST_HOST_NUMBER = 254
_BRIDGE_PREFIX = "bxlab"


def subnet(index: int) -> ipaddress.IPv4Network:
    """Return the /24 of the lab with this index (0 to 511)."""
    return SUBNETS[index]


def address(index: int, number: int) -> str:
    """Return the address of host `number` (2 to 254; 1 is the machine) in lab `index`."""
    return str(subnet(index)[number])


def bridge(index: int) -> str:
    """Return the bridge's name: at most 8 of the 15 characters an interface may have."""
    return f"{_BRIDGE_PREFIX}{index}"


def machine_name(index: int, number: int) -> str:
    """Return the name nspawn knows a host by; it names the host's interface on our side too."""
    return f"{bridge(index)}-{number}"


def port(index: int, number: int) -> str:
    """Return the interface that joins host `number` to the bridge."""
    return f"vb-{machine_name(index, number)}"


def table(name: str) -> str:
    """Return the name of the lab's nftables tables (families `ip` and `bridge`)."""
    return f"bitrix-cdn-lab-{name}"


def choose_index(name: str, taken: Iterable[int], routed: Iterable[ipaddress.IPv4Network]) -> int:
    """Return a free index for lab `name`: the same one each time unless it is in use.

    :param taken: the indices of other labs.
    :param routed: the networks that this machine knows.
    :raises LabError: all 512 are in use.
    """
    used = set(taken)
    networks = [network for network in routed if network.prefixlen > 0]
    start = zlib.crc32(name.encode()) % len(SUBNETS)
    for offset in range(len(SUBNETS)):
        index = (start + offset) % len(SUBNETS)
        if index not in used and not any(subnet(index).overlaps(network) for network in networks):
            return index
    raise LabError(f"no free subnet in {RANGE} for lab {name}")


def routed_networks() -> list[ipaddress.IPv4Network]:
    """Return the networks in this machine's routing tables and on its interfaces."""
    found = []
    for route in json.loads(run("ip", "-json", "-4", "route", "show", "table", "all") or "[]"):
        destination = route.get("dst", "default")
        if destination != "default":
            found.append(ipaddress.IPv4Network(destination, strict=False))
    return found


def _ruleset(record: Record) -> str:
    name, net, link = table(record.name), subnet(record.index), bridge(record.index)
    # Other labs are no part of the outside.
    bridge_prefix = _BRIDGE_PREFIX
    # No policy but accept: the machine's own firewall is none of our business.
    return f"""\
table ip {name} {{
    set cut {{
        type ipv4_addr
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {net} ip daddr != {net} oifname != "{link}" masquerade
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ip saddr @cut drop
        ip daddr @cut drop
        iifname "{link}" oifname "{bridge_prefix}*" oifname != "{link}" drop
    }}
}}
table bridge {name} {{
    set cut {{
        type ifname
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        meta protocol {{ ip, ip6 }} iifname @cut drop
        meta protocol {{ ip, ip6 }} oifname @cut drop
    }}
}}
"""


def _tables() -> set[tuple[str, str]]:
    listing = json.loads(run("nft", "--json", "list", "tables"))
    return {(t["table"]["family"], t["table"]["name"]) for t in listing["nftables"] if "table" in t}


def _links() -> list[dict[str, str]]:
    links: list[dict[str, str]] = json.loads(run("ip", "-json", "link", "show"))
    return links


def ensure(record: Record) -> None:
    """Make the lab's bridge and tables where they are missing.

    :raises LabError: `ip` or `nft` refuses.
    """
    link = bridge(record.index)
    links = {entry["ifname"]: entry for entry in _links()}
    if link not in links:
        # A fixed address: a bridge otherwise takes its ports' lowest, which changes under the hosts.
        mac = f"02:62:78:00:{record.index >> 8:02x}:{record.index & 255:02x}"
        run("ip", "link", "add", "name", link, "address", mac, "type", "bridge")
    # The alias lets `down` find the bridge when the lab's record is lost.
    run("ip", "link", "set", "dev", link, "alias", table(record.name), "up")
    run(
        "ip",
        "address",
        "replace",
        f"{address(record.index, GATEWAY_NUMBER)}/{subnet(record.index).prefixlen}",
        "dev",
        link,
    )
    for host in record.hosts:
        name = port(record.index, host.number)
        if name in links and links[name].get("master") != link:
            run("ip", "link", "set", "dev", name, "master", link, "up")
    if not {("ip", table(record.name)), ("bridge", table(record.name))} <= _tables():
        _delete_tables(record.name)
        run("nft", "-f", "-", stdin=_ruleset(record))
    _pass_firewall(record)


def _chains_that_drop() -> list[tuple[str, str, str]]:
    """Return the forward chains, not ours, that drop what no rule accepts: Docker's, ufw's."""
    listing = json.loads(run("nft", "--json", "list", "chains"))
    chains = (entry["chain"] for entry in listing["nftables"] if "chain" in entry)
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain["family"] in {"ip", "inet"}
        and chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
    ]


def _accepting_rules(name: str, chain: tuple[str, str, str]) -> list[int]:
    """Return the handles of the rules that :func:`_pass_firewall` put into `chain` for lab `name`."""
    listing = json.loads(run("nft", "--json", "list", "chain", *chain))
    rules = (entry["rule"] for entry in listing["nftables"] if "rule" in entry)
    return [rule["handle"] for rule in rules if rule.get("comment") == table(name)]


def _pass_firewall(record: Record) -> None:
    """Let the lab's packets through where the machine forwards nothing by default."""
    for chain in _chains_that_drop():
        if not _accepting_rules(record.name, chain):
            for direction in ("iifname", "oifname"):
                match = (direction, bridge(record.index), "accept", "comment", f'"{table(record.name)}"')
                run("nft", "insert", "rule", *chain, *match)


def ready(record: Record) -> bool:
    """Tell whether the bridge and the tables are there."""
    names = {entry["ifname"] for entry in _links()}
    wanted = {("ip", table(record.name)), ("bridge", table(record.name))}
    return bridge(record.index) in names and wanted <= _tables()


def _delete_tables(name: str) -> None:
    for family, found in _tables():
        if found == table(name):
            run("nft", "delete", "table", family, found)


def remove(name: str, record: Record | None) -> None:
    """Remove the interfaces and tables of lab `name`, with or without its record."""
    _delete_tables(name)
    for chain in _chains_that_drop():
        for handle in _accepting_rules(name, chain):
            run("nft", "delete", "rule", *chain, "handle", str(handle))
    links = _links()
    doomed = {entry["ifname"] for entry in links if entry.get("ifalias") == table(name)}
    if record is not None:
        doomed.add(bridge(record.index))
    doomed |= {entry["ifname"] for entry in links if entry.get("master") in doomed}
    for link in doomed & {entry["ifname"] for entry in links}:
        _remove_link(link)


def remove_port(record: Record, host: HostRecord) -> None:
    """Remove what a killed host left on our side of its network: nspawn refuses to start over it.

    The kernel removes it by itself, but only soon after the host is gone.
    """
    link = port(record.index, host.number)
    if link in {entry["ifname"] for entry in _links()}:
        _remove_link(link)


def _remove_link(link: str) -> None:
    """Remove an interface; one that the kernel removes meanwhile is no error."""
    result = subprocess.run(
        ["ip", "link", "delete", "dev", link], capture_output=True, text=True, check=False
    )
    if result.returncode != 0 and link in {entry["ifname"] for entry in _links()}:
        raise LabError(f"interface {link} can't be removed: {result.stderr.strip()}")


def partition(record: Record, host: HostRecord) -> None:
    """Cut `host` off, silently; twice is no error."""
    _change_cut("add", record, host)


def heal(record: Record, host: HostRecord) -> None:
    """Join `host` again; a host that isn't cut is no error."""
    if host.number in partitioned(record):
        _change_cut("delete", record, host)


def _change_cut(verb: str, record: Record, host: HostRecord) -> None:
    name = table(record.name)
    run(
        "nft",
        "-f",
        "-",
        stdin=f"{verb} element ip {name} cut {{ {address(record.index, host.number)} }}\n"
        f'{verb} element bridge {name} cut {{ "{port(record.index, host.number)}" }}\n',
    )


def partitioned(record: Record) -> set[int]:
    """Return the numbers of the hosts that are cut off."""
    result = subprocess.run(
        ["nft", "--json", "list", "set", "ip", table(record.name), "cut"],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:  # no table: nothing runs
        return set()
    numbers = set()
    for entry in json.loads(result.stdout)["nftables"]:
        for element in entry.get("set", {}).get("elem", []):
            numbers.add(int(str(element).rsplit(".", 1)[1]))
    return numbers
