"""Measures which sshfs options are fastest for small files.

    python -m dev.bench.sshfs [--files 10000] [--rounds 3]

On the lab that `LAB_NAME` names, deployed. The site's host mounts a directory of the CDN host with each
set of options in turn, writes pictures as PHP does, lists and reads them through a fresh mount, and reads
them again. Each round goes through all sets, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

BASE = "allow_other,default_permissions,uid=33,gid=33"
CIPHERS = "Ciphers"
VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    "baseline: sshfs's defaults": ("", {}),
    "dcache_timeout=2": ("dcache_timeout=2", {}),
    "dir_cache=no": ("dir_cache=no", {}),
    "no caches at all": ("dir_cache=no,attr_timeout=0,entry_timeout=0,negative_timeout=0", {}),
    "attr_timeout=10, entry_timeout=10": ("dcache_timeout=2,attr_timeout=10,entry_timeout=10", {}),
    "max_conns=2": ("dcache_timeout=2,max_conns=2", {}),
    "max_conns=4": ("dcache_timeout=2,max_conns=4", {}),
    "aes128-gcm": ("dcache_timeout=2", {CIPHERS: "aes128-gcm@openssh.com"}),
    "aes128-ctr": ("dcache_timeout=2", {CIPHERS: "aes128-ctr"}),
    "chacha20-poly1305": ("dcache_timeout=2", {CIPHERS: "chacha20-poly1305@openssh.com"}),
}
PHASES = ("write", "list", "read", "read again")

_SCRIPT = """
import concurrent.futures, json, os, subprocess, sys, time
options, ssh, files, processes = json.loads(sys.argv[1])
point, content = "/run/bench", os.urandom(15_000)
os.makedirs(point, exist_ok=True)

def mount():
    extra = [argument for key, value in ssh.items() for argument in ("-o", f"{key}={value}")]
    subprocess.run(["sshfs", "-F", "/etc/mount-guard/ssh_config", *extra, "peer:/resize_cache", point,
                    "-o", options], check=True)

def unmount():
    subprocess.run(["fusermount3", "-u", point], check=True)

def timed(work):
    started = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        list(pool.map(work, range(processes)))
    return time.monotonic() - started

def path(number):
    return f"{point}/.bench/{number % 100:02}/{number}.bin"

def write(share):
    # PHP's order: is it there? make the directory, write under the final name, set the mode.
    for number in range(share, files, processes):
        name = path(number)
        if not os.path.exists(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)

def look(share):
    if share == 0:
        found = sum(len([os.stat(f"{d}/{n}") for n in names]) for d, _, names in os.walk(f"{point}/.bench"))
        assert found == files, found

def read(share):
    for number in range(share, files, processes):
        with open(path(number), "rb") as file:
            assert len(file.read()) == len(content)

mount()
result = [timed(write)]
unmount()
mount()
result += [timed(look), timed(read), timed(read)]
subprocess.run(["rm", "-rf", f"{point}/.bench"], check=True)
unmount()
print(json.dumps(result))
"""


def measure(options: str, ssh: dict[str, str], files: int) -> list[float]:
    """Seconds of each phase; four processes at a time, as PHP's workers are."""
    arguments = json.dumps([f"{BASE},{options}".rstrip(","), ssh, files, 4])
    command = [sys.executable, "-m", "dev.lab", "exec", "bitrix", "--", "python3", "-c", _SCRIPT, arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds: list[float] = json.loads(output)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[str, list[list[float]]] = {name: [] for name in VARIANTS}
    for number in range(options.rounds):
        for name, (flags, ssh) in VARIANTS.items():
            seconds[name].append(measure(flags, ssh, options.files))
            print(f"round {number + 1}: {name}: {seconds[name][-1]}", file=sys.stderr)
    print(f"| options | {' | '.join(PHASES)} |\n|---|{'---|' * len(PHASES)}")
    base: list[float] = []
    for name, rounds in seconds.items():
        medians = [statistics.median(phase) for phase in zip(*rounds, strict=True)]
        base = base or medians
        cells = [f"{m:.1f} s ({m / b:.2f})" for m, b in zip(medians, base, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
