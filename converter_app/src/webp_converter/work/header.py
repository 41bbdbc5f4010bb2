"""What a picture's header says: its bytes on standard input, JSON on standard output.

A process of its own, within limits: the bytes are a stranger's, and who wants to know may be root.
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


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from webp_converter.picture import inputs  # within these limits

    told: dict[str, object]
    try:
        data = sys.stdin.buffer.read()
        name = inputs.signature(data)
        if name is None or not inputs.is_decoded(name):
            told = {"problem": f"{name or 'no picture'}: left alone"}
        else:
            header = inputs.opened(data, name, Encoding().maximum_frames).header
            told = {"format": header.format, "width": header.width, "height": header.height}
    except Exception as error:  # whatever a stranger's bytes cause
        told = {"problem": f"{type(error).__name__}: {error}"}
    print(json.dumps(told))


def header_of(data: bytes, config: Config) -> dict[str, object]:
    """`format`, `width` and `height` of a picture, or the `problem` with it."""
    owner = owner_of(config)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "webp_converter.work.header"],
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
    main()
