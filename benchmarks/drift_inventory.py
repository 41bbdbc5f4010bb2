"""The lab's inventory with more names for its `cdn` host: `BENCH_HOSTS` says how many hosts in all.

Each name is a host to pyinfra, with a connection and facts of its own.
"""

import os
import runpy

_lab = runpy.run_path("inventories/lab.py")
bitrix, cdn, monitoring = _lab["bitrix"], _lab["cdn"], _lab["monitoring"]

_settings = cdn[1]["settings"]
_settings["drift"]["files"].append(os.environ["BENCH_ALLOWED"])
# A certificate of the host's own would be for its name.
_tls = {"certificate": "/etc/nginx/tls/certificate.pem", "key": "/etc/nginx/tls/key.pem"}
_settings["tls"].update(mode="files", **_tls)

_data = cdn[0][0][1]
cdn[0].extend((f"edge{_number}", dict(_data)) for _number in range(3, int(os.environ["BENCH_HOSTS"]) + 1))
