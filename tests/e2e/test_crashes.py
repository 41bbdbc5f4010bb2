"""The daemon dies in the middle of its work."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.e2e.conftest import Cdn, Shop
from tests.e2e.test_hostile_files import all_are_published
from tests.support import wait_until

HUNDRED = 100

# On the host itself: over SSH the moment would have passed.
_KILL_IN_THE_MIDDLE = """
import os, signal, time
pid, directory, enough = arguments
def done():
    return sum(name.endswith(".webp") for name in os.listdir(directory))
deadline = time.monotonic() + 30
while done() < enough and time.monotonic() < deadline:
    time.sleep(0.002)
os.kill(pid, signal.SIGKILL)
result = done()
"""


@pytest.mark.both
def test_the_daemon_killed_in_the_middle_of_a_hundred_conversions_finishes_them_after_its_restart(
    shop: Shop, cdn: Cdn
) -> None:
    directory = shop.directory("640_640_1")
    pictures = [f"{directory}/{number}.jpg" for number in range(HUNDRED)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        # Large enough that the daemon takes seconds for all of them.
        for picture in pictures:
            content = shop.photo(640, 480)
            info = tarfile.TarInfo(picture.rsplit("/", 1)[1])
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    user = shop.settings.site.user
    shop.bitrix.run("mkdir", "-p", shop.mounted(directory), user=user)
    pid, restarts = cdn.daemon()

    # Written on cdn's own disk: the daemon would keep up with what comes through the mount.
    cdn.remote.run(
        *("tar", "-x", "--no-same-owner", "-C", cdn.file(directory)),
        input=archive.getvalue(),
        user=cdn.settings.converter.store.owner,
    )
    done = cdn.remote.python(_KILL_IN_THE_MIDDLE, pid, cdn.file(directory), HUNDRED // 10)
    assert 0 < done < HUNDRED, f"{done} of {HUNDRED} were done when it was killed: not the middle"

    wait_until(
        "systemd to start the daemon again",
        cdn.daemon,
        lambda daemon: daemon[0] not in {0, pid} and daemon[1] == restarts + 1,
    )
    wait_until("a healthy daemon", cdn.daemon_ready)
    all_are_published(cdn, pictures)
    # Nothing unfinished is left lying about either.
    temporary = str(cdn.settings.converter.store.temporary)
    wait_until(
        f"an empty {temporary}",
        lambda: cdn.remote.run("find", temporary, "-type", "f", check=False).split(),
        lambda files: not files,
    )
