"""Reads a picture's header: the picture on standard input, JSON on standard output.

A separate process without any secrets, with a decoder below it: the bytes are a stranger's, and who wants to
know may be root.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from webp_converter.config import Config, Encoding
from webp_converter.variants.store import owner_of

_MEMORY_BYTES = 1 << 30
_CPU_S = 5
_PATIENCE_S = 10


def main(required: bool) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from webp_converter.picture.images import Keep  # within these limits
    from webp_converter.work.decoder import Decoder, Task

    told: dict[str, object]
    try:
        with Decoder(Encoding(), _CPU_S, required) as decode:
            header, decision, _ = decode(Task(sys.stdin.buffer.read(), header_only=True))
        if header:
            told = {"format": header.format, "width": header.width, "height": header.height}
        else:
            told = {"problem": decision.reason.value if isinstance(decision, Keep) else str(decision)}
    except Exception as error:  # whatever a stranger's bytes cause
        told = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


def header_of(data: bytes, config: Config) -> dict[str, object]:
    """`format`, `width` and `height` of a picture, or the `problem` with it."""
    owner = owner_of(config)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "webp_converter.work.header", config.workers.sandbox],
            input=data,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            cwd="/",
            env={"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"},
            user=owner[0] if owner else None,
            group=owner[1] if owner else None,
            extra_groups=[] if owner else None,
        )
        told: dict[str, object] = json.loads(done.stdout)
        return told
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return {"problem": f"its header can't be read: {error}"}


if __name__ == "__main__":
    main(required=sys.argv[1] == "required")
