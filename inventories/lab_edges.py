"""The lab with two edges and a balancer in front of them; all else is as in inventories/lab.py.

python -m dev.lab up --host edge1 edge2 balancer
pyinfra inventories/lab_edges.py deploy.py
"""

from bitrix_cdn.settings import groups
from inventories.lab import _entry, _lab, _machine, _settings

bitrix, cdn, edge, balancer, monitoring = groups(
    bitrix={"bitrix": _entry("bitrix")},
    cdn={"cdn": _entry("cdn")},
    edge={"edge1": _entry("edge1"), "edge2": _entry("edge2")},
    balancer={"balancer": _entry("balancer")},
    settings={
        **_settings,
        # Bytes are compared for minutes on end.
        "converter": {**_settings["converter"], "encoding": {"second_pass_idle_s": 3600.0}},
        "lab_site": {"enabled": True, "cdn_url": f"http://{_lab.host('balancer').address}"},
        # Tests ask an edge directly, to compare, and don't wait a minute for news.
        "edges": {"allowed": [_machine], "fresh_s": 10, "pending_s": 5},
    },
)
