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


def adopt(way: Transfer, *, dry_run: bool = False) -> int:
    """Adopts a shop; returns the exit status.

    :raises MigrationError: it can't go on; run again, it goes on where it was.
    """
    say = way.display.say
    way.enter()
    mount = way.mount_state()
    here = way.content(way.bitrix, way.local)
    if mount.mounted and not here.files:
        say(f"nothing to do: {way.settings.site.resize_cache} is the CDN host's already")
        if not dry_run:
            way.close(done=True)
        return 0
    _survey(way, here, mount_up=mount.wanted)
    if dry_run:
        way.close(done=False)
        return 0

    way.open()
    if not mount.wanted:
        here = _copy(way, here)
        way.cdn.run(f"touch {SWITCHED}")
    if not mount.mounted:
        say(f"starting {MOUNT}")
        way.mount(wanted=mount.wanted)
        say("the site is on the CDN host now")
    _finish(way, of=here.files, known=_knows_its_past(way))
    way.close(done=True)
    say("adopted: the site's pictures are on the CDN host; deploy again for the rest")
    return 0


def _survey(way: Transfer, here: Content, *, mount_up: bool) -> None:
    there = way.content(way.cdn, way.served)
    way.display.say(
        f"{way.bitrix.name}: {here.files:,} files, {size(here.bytes)}, in {here.directories:,} directories; "
        f"{way.cdn.name}: {there.files:,} files, {size(there.bytes)}"
    )
    if here.others:
        way.display.say(f"{way.bitrix.name}: {here.others:,} symbolic links and special files are not copied")
    if not mount_up:
        free = way.free(way.cdn, way.served)
        need_space(way.display, way.cdn.name, free, here, there, variants=True)


def _copy(way: Transfer, here: Content) -> Content:
    """Copies until little is left, and compares everything once."""
    way.cdn.run(f"rm -f {SWITCHED}")
    compared = False
    for number in range(1, PASSES + 1):
        way.bitrix.run(f"touch {PASS}.new")
        list_local(way, "list")
        way.bitrix.run(
            f"cd {HOME} && touch seen && LC_ALL=C sort -zmu seen list > seen.new && mv seen.new seen"
        )
        started = time.monotonic()
        files, copied = way.copy_all("copying" if number == 1 else "copying what is new", here)
        seconds = time.monotonic() - started
        way.bitrix.run(f"mv {PASS}.new {PASS}")
        way.display.say(
            f"copied {files:,} files, {size(copied)}, in {seconds:.0f} s ({size(copied / seconds)}/s)"
        )
        if compared and few(files, here.files):
            break
        if not compared:
            started = time.monotonic()
            different = way.differences("comparing", here.bytes)
            way.display.say(
                f"compared all contents in {time.monotonic() - started:.0f} s: "
                f"{len(different):,} differ by now"
            )
            compared = True
            if not different:
                break
    return here


def _knows_its_past(way: Transfer) -> bool:
    """Whether both sides have the marks of the adoption that started the mount.

    Without them it isn't known what the site wrote since on which side: files are then only added.
    """
    return (
        way.exists(way.bitrix, PASS)
        and way.exists(way.bitrix, f"{HOME}/seen")
        and way.exists(way.cdn, SWITCHED)
    )


def _finish(way: Transfer, *, of: int, known: bool) -> None:
    """With the mount over it, copies what was written late, compares all and empties the directory.

    :param of: how many files there were.
    :raises MigrationError: some are left, or more are gone from the CDN host than can be.
    """
    aside = f"resize_cache.before-cdn-{time.strftime('%Y-%m-%d')}"
    kept_aside = 0
    for _ in range(_ROUNDS):
        way.until_written()
        if known:
            _push_late(way)
            _forget_removed(way)
        else:
            _add_missing(way)
        left, set_aside, unverified = _empty(way, aside, known=known)
        kept_aside += set_aside
        if not left or unverified:
            break
    path, upload = way.settings.site.resize_cache, way.settings.site.upload
    if kept_aside:
        way.display.say(
            f"{kept_aside:,} files that the site changed or removed on the CDN host since are kept in "
            f"{upload}/{aside}"
        )
    others = way.content(way.bitrix, way.local).others
    if others:
        way.display.say(f"{others:,} symbolic links and special files stay below {path}, out of sight")
    if left:
        raise MigrationError(
            f"{left:,} files below {path} are not on {way.cdn.name} as they are here and were left alone "
            f"({unverified:,} differ for no known reason); the site works on the mount"
        )
    if suspicious(kept_aside, of):
        raise MigrationError(
            f"{kept_aside:,} of {of:,} files are gone from {way.cdn.name}, more than a site removes "
            f"meanwhile: look there; all of them are kept in {upload}/{aside}"
        )


def _push_late(way: Transfer) -> None:
    """Copies what the site wrote below, after the last pass looked, unless it was written above since."""
    list_local(way, "late", f"-cnewer {PASS}")
    _fetch_written(way)
    count = combine(way, "todo", "comm -z -23 late written")
    if count:
        way.push("copying what was written last", "todo")
    way.display.say(f"copied {count:,} files that were written last")


def _add_missing(way: Transfer) -> None:
    """Adds what the CDN host doesn't have at all, and changes nothing there."""
    missing = [item.name for item in _compare(way) if item.missing]
    way.bitrix.run(f"cat > {HOME}/todo; cd {HOME}; : > written; : > seen", stdin=join(missing))
    if missing:
        way.push("copying what is missing", "todo")


def _fetch_written(way: Transfer) -> None:
    """Lists what was written on the CDN host since the mount was started."""
    way.cdn.run(
        f"cd {way.served} && find . -type f -cnewer {SWITCHED} -printf '%P\\0' | LC_ALL=C sort -z "
        f"> {way.exchange}/written && chown www-data {way.exchange}/written"
    )
    way.fetch("written")


def _forget_removed(way: Transfer) -> None:
    """Removes from the CDN host what was copied there and then removed by the site, before the switch."""
    list_local(way, "list")
    gone = combine(way, "gone", "comm -z -23 seen list | comm -z -23 - written")
    if not gone:
        return
    if suspicious(gone, way.count("seen")):
        way.display.say(f"{gone:,} files vanished from the site meanwhile; the CDN host keeps them")
        return
    way.send("gone")
    # Once more with the host's own times: the site may have made one again just now.
    way.cdn.run(
        f"cd {way.served} && sed -z 's|^|./|' {way.exchange}/gone | xargs -0 -r sh -c "
        f"'find \"$@\" -maxdepth 0 -type f ! -cnewer {SWITCHED} -delete 2>/dev/null; true' sh"
    )
    combine(way, "seen", "comm -z -23 seen gone")


def _compare(way: Transfer) -> list[rsync.Item]:
    total = way.content(way.bitrix, way.local).bytes
    return way.differences("comparing before the local files go", total)


def _empty(way: Transfer, aside: str, *, known: bool) -> tuple[int, int, int]:
    """Removes what the CDN host has, byte by byte; returns files left, set aside and unverified."""
    way.bitrix.run(f"touch {HOME}/verify")
    different = _compare(way)
    if known:
        _fetch_written(way)
    written = names(way.bitrix.run(f"cat {HOME}/written").out) if different else set()
    verdicts: Verdicts = classify(different, written)
    if not way.mount_state().mounted:
        raise MigrationError(
            f"{way.bitrix.name}: the mount went away; nothing was removed, run the same command again"
        )
    way.bitrix.run(f"cat > {HOME}/aside", stdin=join(verdicts.superseded | verdicts.removed))
    way.bitrix.run(f"cat > {HOME}/unverified", stdin=join(verdicts.unverified))
    # What appeared after the comparison began wasn't compared: the mount may have been away for a moment.
    list_local(way, "old", f"! -cnewer {HOME}/verify")
    before = combine(way, "verified", "comm -z -23 old unverified | comm -z -23 - aside")
    moved = combine(way, "aside.old", "comm -z -12 aside old")
    # What goes from here now was not removed by the site.
    combine(way, "seen", "comm -z -23 seen verified | comm -z -23 - aside.old")
    way.bitrix.run(
        f"""
        set -e
        cd {way.local}
        xargs -0 -r rm -f -- < {HOME}/verified
        if [ -s {HOME}/aside.old ]; then
            mkdir -p ../{aside}
            xargs -0 -r cp --parents -p -t ../{aside}/ -- < {HOME}/aside.old
            xargs -0 -r rm -f -- < {HOME}/aside.old
        fi
        find . -mindepth 1 -depth -type d -empty -delete
        """
    )
    left = way.content(way.bitrix, way.local).files
    way.display.say(f"compared all contents and removed {before:,} local files; {left:,} are left")
    return left, moved, len(verdicts.unverified)
