from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.health.redis_mend import mend, tell
from tests.kit.tools import needs


def start(directory: Path, *then: str) -> str:
    """Runs a Redis on the directory, and commands against it; what it said when it came up, or didn't."""
    socket = f"{directory}/redis.sock"
    command = f"""
    redis-server --dir {directory} --port 0 --unixsocket {socket} --appendonly yes --save '' \\
        > {directory}/log &
    for i in $(seq 100); do redis-cli -s {socket} ping 2>/dev/null | grep -qx PONG && break
        kill -0 $! 2>/dev/null || exit 1; sleep 0.05; done
    {"; ".join(f"redis-cli -s {socket} {one}" for one in then)}
    kill -9 $!
    """
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a Redis with a base of some size and 200 keys since."""
    needs("redis-server", package="redis-server")
    directory = tmp_path / "queue"
    directory.mkdir()
    start(
        directory,
        "debug populate 100 base 50",
        "bgrewriteaof",
        *["-r 200 set key value >/dev/null"],
        "dbsize",
        "incr n",
    )
    return directory


def kept(aside: Path) -> list[Path]:
    return [path for path in aside.iterdir() if path.is_dir()]


def parts(directory: Path, kind: str) -> Path:
    return sorted((directory / "appendonlydir").glob(f"*.{kind}.*"))[-1]


def hole(file: Path, at: int, size: int, filled: bytes = b"\0") -> None:
    with file.open("r+b") as opened:
        opened.seek(at if at >= 0 else file.stat().st_size + at)
        opened.write(filled * size)


def replaced(file: Path, old: bytes, new: bytes) -> None:
    """The last of the old words is another of the same length: nothing is wrong for who only counts bytes."""
    before, found, after = file.read_bytes().rpartition(old)
    assert found
    file.write_bytes(before + new + after)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "zeros at its end": lambda d: hole(parts(d, "incr"), -1, 4096),
    "garbage at its end": lambda d: hole(parts(d, "incr"), -1, 500, b"\xa5"),
    "a hole": lambda d: hole(parts(d, "incr"), 2000, 512),
    "all zeros": lambda d: hole(parts(d, "incr"), 0, parts(d, "incr").stat().st_size),
    "cut": lambda d: parts(d, "incr").open("r+b").truncate(1000),
    "lengths that aren't any": lambda d: hole(parts(d, "incr"), 62, 3, b"x"),
    "a command that isn't one": lambda d: replaced(parts(d, "incr"), b"set", b"\0\0\0"),
    "a damaged base": lambda d: hole(parts(d, "base"), 20, 200),
    "a base that is gone": lambda d: parts(d, "base").unlink(),
    "a manifest of zeros": lambda d: hole(d / "appendonlydir/appendonly.aof.manifest", 0, 60),
    "an empty manifest": lambda d: (d / "appendonlydir/appendonly.aof.manifest").write_bytes(b""),
    "no manifest": lambda d: (d / "appendonlydir/appendonly.aof.manifest").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_mended_and_kept(
    damage: Callable[[Path], object], directory: Path, tmp_path: Path
) -> None:
    damage(directory)
    aside = tmp_path / "aside"
    done = mend(directory, aside)
    if done is None:
        # What only Redis itself notices has it fail once.
        assert "PONG" not in start(directory, "ping")
        done = mend(directory, aside)
    assert done is not None
    assert not (directory / "mend.sock").exists()
    assert len(kept(aside)) == 1
    assert "PONG" in start(directory, "ping", "set a b"), (directory / "log").read_text()
    assert mend(directory, aside) is None


def test_a_file_that_is_whole_stays_as_it_is(directory: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in (directory / "appendonlydir").iterdir()}
    for _ in range(2):
        assert mend(directory, tmp_path / "aside") is None
    assert {file.name: file.read_bytes() for file in (directory / "appendonlydir").iterdir()} == before


def test_a_redis_that_is_killed_while_it_reads_loses_nothing(directory: Path, tmp_path: Path) -> None:
    script = """
    if [ "$1" = redis-server ]; then echo "* Reading RDB base file on AOF loading..."; kill -KILL $$; fi
    exec "$@"
    """
    for _ in range(2):
        assert mend(directory, tmp_path / "aside", ["sh", "-c", script, "sh"]) is None


def test_few_damaged_states_are_kept(directory: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    for name in ("20260101T000000", "20260102T000000", "20260103T000000"):
        (aside / name).mkdir(parents=True)
    hole(parts(directory, "incr"), -1, 4096)
    assert mend(directory, aside) is not None
    assert len(kept(aside)) == 2


def test_the_loss_is_told(tmp_path: Path) -> None:
    tell(tmp_path, "queue", 17, 1000.4)
    told = (tmp_path / "redis-mended-queue.prom").read_text()
    assert 'redis_mended_timestamp_seconds{redis="queue"} 1000\n' in told
    assert 'redis_mended_lost_bytes{redis="queue"} 17\n' in told
