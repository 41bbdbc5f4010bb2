"""Makes the settings that allow what isn't declared, for a person to review and paste. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bitrix_cdn.drift.report import HostReport, Report


def settings_section(report: Report) -> str:
    """What to add to the section `drift` of the settings, as an inventory writes it.

    :param report: of a check that judged everything.
    """
    # With these, even if empty, the shop's host and all keys are judged from then on.
    found: dict[str, list[str]] = {"keys": [], "site_accounts": [], "site_ports": []}
    for host in report.hosts:
        for key, value in _entries(host):
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    lines = [f'    "{key}": {json.dumps(sorted(found[key]))},' for key in sorted(found)]
    return "\n".join(['"drift": {', *lines, "},"])


def _entries(host: HostReport) -> Iterator[tuple[str, str]]:
    site = "site_" if "bitrix" in host.groups else ""
    keys = {"port": f"{site}ports", "account": f"{site}accounts", "key": "keys", "unknown-file": "files"}
    for difference in host.differences:
        # A line that is no key, and what is wrong with an account whoever it is, can't be allowed.
        if difference.kind in keys and difference.what:
            yield keys[difference.kind], difference.what
