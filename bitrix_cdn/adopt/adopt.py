"""Moves a live shop's pictures to the CDN host and mounts it in their place."""

from __future__ import annotations

import time

from bitrix_cdn.adopt import rsync
from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.adopt.reconcile import (
    PASSES,
    Verdicts,
    classify,
    combine,
    few,
    join,
    list_local,
    names,
    need_space,
    suspicious,
)
from bitrix_cdn.adopt.transfer import HOME, MOUNT, Content, Transfer
from bitrix_cdn.fleet.progress import size

# `pass` is touched when the last complete copy begins, `switched` before the mount is started: what is
# younger was written meanwhile. Each is compared only with times of the same host.
PASS = f"{HOME}/pass"
SWITCHED = f"{HOME}/switched"

# Times that what was written late is looked for again before adopting gives up.
_ROUNDS = 3


def adopt(move: Transfer, *, dry_run: bool = False) -> int:
    """Adopts a shop; returns the exit status.

    :raises MigrationError: it can't go on; run again, it goes on where it was.
    """
    say = move.display.say
    move.enter()
    mount = move.mount_state()
    here = move.content(move.bitrix, move.local)
    if mount.mounted and not here.files:
        say(f"nothing to do: {move.settings.site.resize_cache} is the CDN host's already")
        if not dry_run:
            move.close(done=True)
        return 0
    _survey(move, here, mount_up=mount.wanted)
    if dry_run:
        move.close(done=False)
        return 0

    move.open()
    if not mount.wanted:
        here = _copy(move, here)
        move.cdn.run(f"touch {SWITCHED}")
    if not mount.mounted:
        say(f"starting {MOUNT}")
        move.mount(wanted=mount.wanted)
        say("the site is on the CDN host now")
    _finish(move, of=here.files, known=_knows_its_past(move))
    move.close(done=True)
    say("adopted: the site's pictures are on the CDN host; deploy again for the rest")
    return 0


def _survey(move: Transfer, here: Content, *, mount_up: bool) -> None:
    there = move.content(move.cdn, move.served)
    move.display.say(
        f"{move.bitrix.name}: {here.files:,} files, {size(here.bytes)}, in {here.directories:,} directories; "
        f"{move.cdn.name}: {there.files:,} files, {size(there.bytes)}"
    )
    if here.others:
        move.display.say(
            f"{move.bitrix.name}: {here.others:,} symbolic links and special files are not copied"
        )
    if not mount_up:
        free = move.free(move.cdn, move.served)
        need_space(move.display, move.cdn.name, free, here, there, variants=True)


def _copy(move: Transfer, here: Content) -> Content:
    """Copies until little is left, and compares everything once."""
    move.cdn.run(f"rm -f {SWITCHED}")
    compared = False
    for number in range(1, PASSES + 1):
        move.bitrix.run(f"touch {PASS}.new")
        list_local(move, "list")
        move.bitrix.run(
            f"cd {HOME} && touch seen && LC_ALL=C sort -zmu seen list > seen.new && mv seen.new seen"
        )
        started = time.monotonic()
        files, copied = move.copy_all("copying" if number == 1 else "copying what is new", here)
        seconds = time.monotonic() - started
        move.bitrix.run(f"mv {PASS}.new {PASS}")
        move.display.say(
            f"copied {files:,} files, {size(copied)}, in {seconds:.0f} s ({size(copied / seconds)}/s)"
        )
        if compared and few(files, here.files):
            break
        if not compared:
            started = time.monotonic()
            different = move.differences("comparing", here.bytes)
            move.display.say(
                f"compared all contents in {time.monotonic() - started:.0f} s: "
                f"{len(different):,} differ by now"
            )
            compared = True
            if not different:
                break
    return here


def _knows_its_past(move: Transfer) -> bool:
    """Whether both sides have the marks of the adoption that started the mount.

    Without them it isn't known what the site wrote since on which side: files are then only added.
    """
    return (
        move.exists(move.bitrix, PASS)
        and move.exists(move.bitrix, f"{HOME}/seen")
        and move.exists(move.cdn, SWITCHED)
    )


def _finish(move: Transfer, *, of: int, known: bool) -> None:
    """With the mount over it, copies what was written late, compares all and empties the directory.

    :param of: how many files there were.
    :raises MigrationError: some are left, or more are gone from the CDN host than can be.
    """
    aside = f"resize_cache.before-cdn-{time.strftime('%Y-%m-%d')}"
    kept_aside = 0
    for _ in range(_ROUNDS):
        move.until_written()
        if known:
            _push_late(move)
            _forget_removed(move)
        else:
            _add_missing(move)
        left, set_aside, unverified = _empty(move, aside, known=known)
        kept_aside += set_aside
        if not left or unverified:
            break
    path, upload = move.settings.site.resize_cache, move.settings.site.upload
    if kept_aside:
        move.display.say(
            f"{kept_aside:,} files that the site changed or removed on the CDN host since are kept in "
            f"{upload}/{aside}"
        )
    others = move.content(move.bitrix, move.local).others
    if others:
        move.display.say(f"{others:,} symbolic links and special files stay below {path}, out of sight")
    if left:
        raise MigrationError(
            f"{left:,} files below {path} are not on {move.cdn.name} as they are here and were left alone "
            f"({unverified:,} differ for no known reason); the site works on the mount"
        )
    if suspicious(kept_aside, of):
        raise MigrationError(
            f"{kept_aside:,} of {of:,} files are gone from {move.cdn.name}, more than a site removes "
            f"meanwhile: look there; all of them are kept in {upload}/{aside}"
        )


def _push_late(move: Transfer) -> None:
    """Copies what the site wrote below, after the last pass looked, unless it was written above since."""
    list_local(move, "late", f"-cnewer {PASS}")
    _fetch_written(move)
    count = combine(move, "todo", "comm -z -23 late written")
    if count:
        move.push("copying what was written last", "todo")
    move.display.say(f"copied {count:,} files that were written last")


def _add_missing(move: Transfer) -> None:
    """Adds what the CDN host doesn't have at all, and changes nothing there."""
    missing = [item.name for item in _compare(move) if item.missing]
    move.bitrix.run(f"cat > {HOME}/todo; cd {HOME}; : > written; : > seen", stdin=join(missing))
    if missing:
        move.push("copying what is missing", "todo")


def _fetch_written(move: Transfer) -> None:
    """Lists what was written on the CDN host since the mount was started."""
    move.cdn.run(
        f"cd {move.served} && find . -type f -cnewer {SWITCHED} -printf '%P\\0' | LC_ALL=C sort -z "
        f"> {move.exchange}/written && chown www-data {move.exchange}/written"
    )
    move.fetch("written")


def _forget_removed(move: Transfer) -> None:
    """Removes from the CDN host what was copied there and then removed by the site, before the switch."""
    list_local(move, "list")
    gone = combine(move, "gone", "comm -z -23 seen list | comm -z -23 - written")
    if not gone:
        return
    if suspicious(gone, move.count("seen")):
        move.display.say(f"{gone:,} files vanished from the site meanwhile; the CDN host keeps them")
        return
    move.send("gone")
    # Once more with the host's own times: the site may have made one again just now.
    move.cdn.run(
        f"cd {move.served} && sed -z 's|^|./|' {move.exchange}/gone | xargs -0 -r sh -c "
        f"'find \"$@\" -maxdepth 0 -type f ! -cnewer {SWITCHED} -delete 2>/dev/null; true' sh"
    )
    combine(move, "seen", "comm -z -23 seen gone")


def _compare(move: Transfer) -> list[rsync.Item]:
    total = move.content(move.bitrix, move.local).bytes
    return move.differences("comparing before the local files go", total)


def _empty(move: Transfer, aside: str, *, known: bool) -> tuple[int, int, int]:
    """Removes what the CDN host has, byte by byte; returns files left, set aside and unverified."""
    move.bitrix.run(f"touch {HOME}/verify")
    different = _compare(move)
    if known:
        _fetch_written(move)
    written = names(move.bitrix.run(f"cat {HOME}/written").out) if different else set()
    verdicts: Verdicts = classify(different, written)
    if not move.mount_state().mounted:
        raise MigrationError(
            f"{move.bitrix.name}: the mount went away; nothing was removed, run the same command again"
        )
    move.bitrix.run(f"cat > {HOME}/aside", stdin=join(verdicts.superseded | verdicts.removed))
    move.bitrix.run(f"cat > {HOME}/unverified", stdin=join(verdicts.unverified))
    # What appeared after the comparison began wasn't compared: the mount may have been away for a moment.
    list_local(move, "old", f"! -cnewer {HOME}/verify")
    before = combine(move, "verified", "comm -z -23 old unverified | comm -z -23 - aside")
    moved = combine(move, "aside.old", "comm -z -12 aside old")
    # What goes from here now was not removed by the site.
    combine(move, "seen", "comm -z -23 seen verified | comm -z -23 - aside.old")
    move.bitrix.run(
        f"""
        set -e
        cd {move.local}
        xargs -0 -r rm -f -- < {HOME}/verified
        if [ -s {HOME}/aside.old ]; then
            mkdir -p ../{aside}
            xargs -0 -r cp --parents -p -t ../{aside}/ -- < {HOME}/aside.old
            xargs -0 -r rm -f -- < {HOME}/aside.old
        fi
        find . -mindepth 1 -depth -type d -empty -delete
        """
    )
    left = move.content(move.bitrix, move.local).files
    move.display.say(f"compared all contents and removed {before:,} local files; {left:,} are left")
    return left, moved, len(verdicts.unverified)
