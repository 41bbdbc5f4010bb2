"""Takes a shop off the CDN: copies all its pictures back, then stops the mount."""

from __future__ import annotations

import time

from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.adopt.reconcile import (
    PASSES,
    combine,
    few,
    list_local,
    names,
    need_space,
    suspicious,
)
from bitrix_cdn.adopt.transfer import HOME, MOUNT, Content, Transfer
from bitrix_cdn.fleet.progress import size
from roles.exporters import PROBES

# As in adopt.py, with the hosts' parts exchanged: `pass` is the CDN host's, `left` the site's.
PASS = f"{HOME}/leave-pass"
LEFT = f"{HOME}/left"
BLIND = f"{HOME}/left-blind"

_OURS = """
import os, sys
root, marker, out, skipped = os.fsencode(sys.argv[1]), sys.argv[2], sys.argv[3], os.fsencode(sys.argv[4])
since = os.stat(marker).st_mtime_ns if marker else -1
found, size = [], 0

def walk(path, below):
    global size
    with os.scandir(path) as entries:
        for entry in entries:
            name = below + entry.name
            try:
                if name == skipped:
                    continue  # the monitoring's own picture
                if entry.is_dir(follow_symlinks=False):
                    walk(entry.path, name + b"/")
                elif entry.is_file(follow_symlinks=False):
                    try:
                        os.getxattr(entry.path, "user.webp-converter", follow_symlinks=False)
                        continue  # a variant or a verdict of the converter's
                    except OSError:
                        pass
                    status = entry.stat(follow_symlinks=False)
                    if status.st_ctime_ns > since:
                        found.append(name)
                        size += status.st_size
            except FileNotFoundError:
                pass  # removed meanwhile

walk(root, b"")
found.sort()
with open(out, "wb") as file:
    file.writelines(name + b"\\0" for name in found)
print(len(found), size)
"""


def leave(move: Transfer, *, dry_run: bool = False) -> int:
    """Takes the site off the CDN; returns the exit status.

    :raises MigrationError: it can't go on; run again, it goes on where it was.
    """
    say = move.display.say
    move.enter()
    mount = move.mount_state()
    half_done = move.exists(move.bitrix, LEFT)
    if not mount.wanted and not half_done:
        say(f"nothing to do: {move.settings.site.resize_cache} is the site's own already")
        move.close(done=True)
        return 0
    # The site wrote into its own directory while the mount was down, and it isn't known since when: of two
    # different files the one with the younger time stays.
    blind = move.exists(move.bitrix, BLIND) or (not mount.mounted and not half_done)
    there = _survey(move, dry_run=dry_run)
    if dry_run:
        move.close(done=False)
        return 0

    move.open()
    if blind:
        say("the mount is away; the site has been using its own directory, and its newer files stay")
        move.bitrix.run(f"touch {BLIND} && {{ [ -e {LEFT} ] || touch {LEFT}; }}")
        move.unmount()
    if blind or not half_done:
        _copy(move, blind=blind)
    if not blind:
        # In this order: what is younger than the mark was written by the site into its own directory.
        move.bitrix.run(f"[ -e {LEFT} ] || touch {LEFT}")
        say(f"stopping {MOUNT}")
        move.unmount()
        say("the site is on its own directory now")
    _finish(move, blind=blind)
    move.close(done=True)
    say(
        f"left: all {there.files:,} pictures are local again; the CDN host keeps its copy. "
        "The next deploy refuses to mount over them until bitrix-cdn adopt"
    )
    return 0


def _survey(move: Transfer, *, dry_run: bool) -> Content:
    move.cdn.run(f"mkdir -p {move.exchange}")
    files, total = _list(move, "list")
    here = move.content(move.bitrix, move.local)
    move.display.say(
        f"{move.cdn.name}: {files:,} files, {size(total)}; {move.bitrix.name}: {here.files:,} files, "
        f"{size(here.bytes)}"
    )
    there = Content(files, total, here.directories, 0)
    need_space(
        move.display, move.bitrix.name, move.free(move.bitrix, move.local), there, here, variants=False
    )
    return there


def _list(move: Transfer, to: str, since: str = "") -> tuple[int, int]:
    """Lists the CDN host's files but the converter's own; returns how many they are and their size."""
    output = move.cdn.run(
        f"python3 - {move.served} '{since}' {move.exchange}/{to} {PROBES} && chmod 644 {move.exchange}/{to}",
        stdin=_OURS.encode(),
    ).text
    files, total = output.split()
    return int(files), int(total)


def _copy(move: Transfer, *, blind: bool) -> None:
    """Copies until little is left, and compares everything once."""
    compared = False
    for number in range(1, PASSES + 1):
        move.cdn.run(f"touch {PASS}.new")
        _, total = _list(move, "list")
        move.fetch("list")
        move.bitrix.run(
            f"cd {HOME} && touch seen && LC_ALL=C sort -zmu seen list > seen.new && mv seen.new seen"
        )
        started = time.monotonic()
        title = "copying" if number == 1 else "copying what is new"
        files, copied = move.pull(title, "list", newer=blind)
        seconds = time.monotonic() - started
        move.cdn.run(f"mv {PASS}.new {PASS}")
        move.display.say(
            f"copied {files:,} files, {size(copied)}, in {seconds:.0f} s ({size(copied / seconds)}/s)"
        )
        if compared and few(files, move.count("list")):
            return
        if not compared:
            started = time.monotonic()
            different = [
                item for item in move.differences("comparing", total, newer=blind) if not item.missing
            ]
            move.display.say(
                f"compared all contents in {time.monotonic() - started:.0f} s: "
                f"{len(different):,} differ by now"
            )
            compared = True
            if not different:
                return


def _finish(move: Transfer, *, blind: bool) -> None:
    """With the mount gone, copies what was written late and compares all."""
    _list(move, "late", PASS if move.exists(move.cdn, PASS) else "")
    move.fetch("late")
    list_local(move, "written", f"-cnewer {LEFT}")
    count = combine(move, "todo", "comm -z -23 late written")
    if count:
        move.pull("copying what was written last", "todo", newer=blind)
    move.display.say(f"copied {count:,} files that were written last")

    _, total = _list(move, "list")
    move.fetch("list")
    _forget_removed(move)
    different = move.differences("comparing", total, newer=blind)
    list_local(move, "written", f"-cnewer {LEFT}")
    written = names(move.bitrix.run(f"cat {HOME}/written").out) if different else set()
    # What is missing on the CDN host is the site's own, made or kept here; what is missing here, see below.
    wrong = [
        item.name
        for item in different
        if not (item.missing or item.name in written or (blind and not item.same_time))
    ]
    list_local(move, "here")
    missing = combine(move, "missing", "comm -z -23 list here")
    if wrong or suspicious(missing, move.count("list")):
        raise MigrationError(
            f"{move.bitrix.name}: {len(wrong):,} files differ from the CDN host's and {missing:,} are "
            "missing; the site works on what is there, the CDN host keeps all: run the same command again"
        )


def _forget_removed(move: Transfer) -> None:
    """Removes what was brought here and then removed by the site, through the mount, before the switch."""
    gone = combine(move, "gone", "comm -z -23 seen list | comm -z -23 - written")
    if not gone:
        return
    if suspicious(gone, move.count("seen")):
        move.display.say(f"{gone:,} files vanished from the CDN host meanwhile; they are kept here")
        return
    move.bitrix.run(
        f"cd {move.local} && sed -z 's|^|./|' {HOME}/gone | xargs -0 -r sh -c "
        f"'find \"$@\" -maxdepth 0 -type f ! -cnewer {LEFT} -delete 2>/dev/null; true' sh"
    )
