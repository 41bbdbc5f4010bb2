"""The lab's two hosts, as `python -m dev.lab up` started them; LAB_NAME says which lab.

LAB_RECEIVER is the address of a webhook, for tests that listen there; without it alerts are sent to no one.
"""

import os
from pathlib import Path

from bitrix_cdn.engine.keys import fingerprint
from bitrix_cdn.settings import SettingsError, groups
from dev.lab import state
from dev.lab.errors import LabError

try:
    _lab = state.load()
except LabError as error:
    raise SettingsError(str(error)) from None


def _entry(name: str) -> dict[str, object]:
    return {
        "address": _lab.host(name).address,
        "ssh_hostname": _lab.host(name).address,
        "ssh_key": str(_lab.ssh_key),
        "ssh_known_hosts_file": str(_lab.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }


# This machine, as the hosts see it.
_machine = _lab.host("cdn").address.rsplit(".", 1)[0] + ".1"
_receiver = os.environ.get("LAB_RECEIVER")

_settings = {
    "lab_site": {"enabled": True, "cdn_url": f"http://{_lab.host('cdn').address}"},
    # This machine stands for all visitors at once.
    "tls": {"mode": "self-signed", "redirect": False},
    "nginx": {"unlimited": [_machine]},
    "baseline": {"operators": [_machine]},
    "monitoring": {
        "alertmanager": {
            "webhook": {"urls": [_receiver]},
            "watchdog": {"url": _receiver, "interval_s": 10},
        }
        if _receiver
        else {},
        # Not the gallery: it makes the pictures of its page, which tests want to be the first to ask for.
        "exporters": {"probe_site": f"http://{_lab.host('bitrix').address}/health.php"},
    },
    # The lab's shop has nothing but what the deploy brings there.
    "drift": {
        "keys": [fingerprint(Path(f"{_lab.ssh_key}.pub").read_text())],
        "site_ports": [],
        "site_accounts": [],
    },
    "converter": {
        # Tests don't wait a minute to see a cut off picture removed,
        "watch": {"damaged_rest_s": 10.0},
        # and compare variants that don't change meanwhile.
        "encoding": {"second_pass_idle_s": 120.0},
    },
}

bitrix, cdn, edge, balancer, monitoring = groups(
    bitrix={"bitrix": _entry("bitrix")},
    cdn={"cdn": _entry("cdn")},
    settings=_settings,
)
