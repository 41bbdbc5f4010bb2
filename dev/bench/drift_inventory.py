"""The lab with one edge, and more names for that edge: `BENCH_HOSTS` says how many hosts in all.

Each name is a host to pyinfra, with its own connection and facts.
"""

import os

from bitrix_cdn.settings import groups
from inventories.lab import _entry, _settings

_edges = [f"edge{number}" for number in range(1, int(os.environ["BENCH_HOSTS"]) - 1)]

bitrix, cdn, edge, balancer, monitoring = groups(
    bitrix={"bitrix": _entry("bitrix")},
    cdn={"cdn": _entry("cdn")},
    edge={name: _entry("edge1") for name in _edges},
    settings={
        **_settings,
        # A certificate of a host's own would be for its name.
        "tls": {"mode": "off"},
        "drift": {"files": [os.environ["BENCH_ALLOWED"]]},
    },
)
