"""What is known of the Python packages of the locks, and what a release consists of."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from dev.audit.figures import Figure
from dev.audit.limits import Limits

ROOT = Path(__file__).parents[2]


def locks() -> list[Path]:
    """Those of this machine's commands and of the hosts."""
    return [ROOT / "requirements.lock", *sorted((ROOT / "converter_app").glob("requirements-*.lock"))]


def advisories(limits: Limits, tools: Path) -> Iterator[Figure]:
    """Published weaknesses of what the locks name."""
    for lock in locks():
        asked = [tools / "pip-audit", "--disable-pip", "--require-hashes", "-f", "json", "-r", lock]
        run = subprocess.run([*map(str, asked)], capture_output=True, text=True, check=False)
        try:
            told = json.loads(run.stdout)["dependencies"]
        except (ValueError, KeyError):
            told = []
        judged = [one for one in told if "skip_reason" not in one]
        weak = [
            f"{one['name']} {one['version']}: {found['id']}, mended in {', '.join(found['fix_versions'])}"
            for one in judged
            for found in one["vulns"]
        ]
        why = f"{len(told)} packages, and no advisories of any can be reached from here"
        yield Figure(
            "pip-audit, weaknesses",
            lock.name.removeprefix("requirements").removesuffix(".lock").lstrip("-"),
            len(weak) if judged else None,
            limits.findings["advisories"],
            details=weak if judged else [why],
            optional=True,
        )


def bill_of_materials(directory: Path, tools: Path) -> Iterator[str]:
    """Writes what a release consists of, as CycloneDX, a file a lock; yields a line for each."""
    directory.mkdir(parents=True, exist_ok=True)
    for lock in locks():
        file = directory / f"{lock.stem}.cdx.json"
        project = lock.parent / "pyproject.toml"
        subprocess.run(
            [
                *(tools / "cyclonedx-py", "requirements", "--output-reproducible", "--of", "JSON"),
                *("--pyproject", project, "-o", file, lock),
            ],
            check=True,
            capture_output=True,
        )
        count = len(json.loads(file.read_text())["components"])
        yield f"{file}: {count} packages, CycloneDX"
