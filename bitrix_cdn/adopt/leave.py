"""Takes a shop back off the CDN: all its pictures local again, then the mount stopped."""

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


def leave(way: Transfer, *, dry_run: bool = False) -> int:
    """Takes the site off the CDN; returns the exit status.

    :raises MigrationError: it can't go on; run again, it goes on where it was.
    """
    say = way.display.say
    way.enter()
    mount = way.mount_state()
    half_done = way.exists(way.bitrix, LEFT)
    if not mount.wanted and not half_done:
        say(f"nothing to do: {way.settings.site.resize_cache} is the site's own already")
        way.close(done=True)
        return 0
    # The site wrote into its own directory while the mount was down, and it isn't known since when: of two
    # different files the one with the younger time stays.
    blind = way.exists(way.bitrix, BLIND) or (not mount.mounted and not half_done)
    there = _survey(way, dry_run=dry_run)
    if dry_run:
        way.close(done=False)
        return 0

    way.open()
    if blind:
        say("the mount is away; the site has been using its own directory, and its newer files stay")
        way.bitrix.run(f"touch {BLIND} && {{ [ -e {LEFT} ] || touch {LEFT}; }}")
        way.unmount()
    if blind or not half_done:
        _copy(way, blind=blind)
    if not blind:
        # In this order: what is younger than the mark was written by the site into its own directory.
        way.bitrix.run(f"[ -e {LEFT} ] || touch {LEFT}")
        say(f"stopping {MOUNT}")
        way.unmount()
        say("the site is on its own directory now")
    _finish(way, blind=blind)
    way.close(done=True)
    say(
        f"left: all {there.files:,} pictures are local again; the CDN host keeps its copy. "
        "The next deploy refuses to mount over them until bitrix-cdn adopt"
    )
    return 0


def _survey(way: Transfer, *, dry_run: bool) -> Content:
    way.cdn.run(f"mkdir -p {way.exchange}")
    files, total = _list(way, "list")
    here = way.content(way.bitrix, way.local)
    way.display.say(
        f"{way.cdn.name}: {files:,} files, {size(total)}; {way.bitrix.name}: {here.files:,} files, "
        f"{size(here.bytes)}"
    )
    there = Content(files, total, here.directories, 0)
    need_space(way.display, way.bitrix.name, way.free(way.bitrix, way.local), there, here, variants=False)
    return there


def _list(way: Transfer, to: str, since: str = "") -> tuple[int, int]:
    """Lists the CDN host's files but the converter's own; returns how many they are and their size."""
    output = way.cdn.run(
        f"python3 - {way.served} '{since}' {way.exchange}/{to} {PROBES} && chmod 644 {way.exchange}/{to}",
        stdin=_OURS.encode(),
    ).text
    files, total = output.split()
    return int(files), int(total)


def _copy(way: Transfer, *, blind: bool) -> None:
    """Copies until little is left, and compares everything once."""
    compared = False
    for number in range(1, PASSES + 1):
        way.cdn.run(f"touch {PASS}.new")
        _, total = _list(way, "list")
        way.fetch("list")
        way.bitrix.run(
            f"cd {HOME} && touch seen && LC_ALL=C sort -zmu seen list > seen.new && mv seen.new seen"
        )
        started = time.monotonic()
        title = "copying" if number == 1 else "copying what is new"
        files, copied = way.pull(title, "list", newer=blind)
        seconds = time.monotonic() - started
        way.cdn.run(f"mv {PASS}.new {PASS}")
        way.display.say(
            f"copied {files:,} files, {size(copied)}, in {seconds:.0f} s ({size(copied / seconds)}/s)"
        )
        if compared and few(files, way.count("list")):
            return
        if not compared:
            started = time.monotonic()
            different = [
                item for item in way.differences("comparing", total, newer=blind) if not item.missing
            ]
            way.display.say(
                f"compared all contents in {time.monotonic() - started:.0f} s: "
                f"{len(different):,} differ by now"
            )
            compared = True
            if not different:
                return


def _finish(way: Transfer, *, blind: bool) -> None:
    """With the mount gone, copies what was written late and compares all."""
    _list(way, "late", PASS if way.exists(way.cdn, PASS) else "")
    way.fetch("late")
    list_local(way, "written", f"-cnewer {LEFT}")
    count = combine(way, "todo", "comm -z -23 late written")
    if count:
        way.pull("copying what was written last", "todo", newer=blind)
    way.display.say(f"copied {count:,} files that were written last")

    _, total = _list(way, "list")
    way.fetch("list")
    _forget_removed(way)
    different = way.differences("comparing", total, newer=blind)
    list_local(way, "written", f"-cnewer {LEFT}")
    written = names(way.bitrix.run(f"cat {HOME}/written").out) if different else set()
    # What is missing on the CDN host is the site's own, made or kept here; what is missing here, see below.
    wrong = [
        item.name
        for item in different
        if not (item.missing or item.name in written or (blind and not item.same_time))
    ]
    list_local(way, "here")
    missing = combine(way, "missing", "comm -z -23 list here")
    if wrong or suspicious(missing, way.count("list")):
        raise MigrationError(
            f"{way.bitrix.name}: {len(wrong):,} files differ from the CDN host's and {missing:,} are "
            "missing; the site works on what is there, the CDN host keeps all: run the same command again"
        )


def _forget_removed(way: Transfer) -> None:
    """Removes what was brought here and then removed by the site, through the mount, before the switch."""
    gone = combine(way, "gone", "comm -z -23 seen list | comm -z -23 - written")
    if not gone:
        return
    if suspicious(gone, way.count("seen")):
        way.display.say(f"{gone:,} files vanished from the CDN host meanwhile; they are kept here")
        return
    way.bitrix.run(
        f"cd {way.local} && sed -z 's|^|./|' {HOME}/gone | xargs -0 -r sh -c "
        f"'find \"$@\" -maxdepth 0 -type f ! -cnewer {LEFT} -delete 2>/dev/null; true' sh"
    )
