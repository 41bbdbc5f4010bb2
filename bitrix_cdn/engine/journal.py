"""What a host was before a change, kept on the host itself, so that the change can be taken back there.

While the directory of a journal exists, the scripts that change files, releases and units record first
what each was: the first record of a thing is the one that counts. A record is whole or not there, also
when the host loses power, and it is there before the change is made. Where no journal is open, all this
costs one look for its directory.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from typing import Literal

JOURNAL = "/var/lib/bitrix-cdn/journal"
"""The journal of a rollout: while it is there, a deploy can be undone."""

# A record of a file is a directory with `path`, and `was` or (it did not exist) `made`: the directories
# that did not exist either, the deepest first. `late` marks what goes back after the units. A record of a
# unit has `active`, `enabled`, its place in the `order`, and `restart` or `reload` if that was done to it.
_FUNCTIONS = r"""
recording() { [ ! -d "$1" ] || { exec 8> "$1.lock"; flock -s -w 300 8 && [ -d "$1" ]; } ||
    { echo "$1 is being undone" >&2; exit 1; }; }
record_file() {
    [ -d "$1" ] || return 0
    [ ! -d "$1/files/$2" ] || return 0
    new="$1/new.$$"
    rm -rf "$new"
    mkdir -p "$1/files" "$new"
    printf '%s\n' "$4" > "$new/path"
    if [ "$3" = late ]; then : > "$new/late"; fi
    if [ -e "$4" ] || [ -L "$4" ]; then
        cp -a -- "$4" "$new/was"
    else
        d=$(dirname -- "$4")
        while [ ! -d "$d" ]; do printf '%s\n' "$d"; d=$(dirname -- "$d"); done > "$new/made"
    fi
    find "$new" -type f -exec sync -- {} +
    mv -T "$new" "$1/files/$2"
    sync -- "$1/files"
}
record_unit() {
    [ -d "$1" ] || return 0
    if [ ! -d "$1/units/$2" ]; then
        new="$1/new.$$"
        rm -rf "$new"
        mkdir -p "$1/units" "$new"
        systemctl is-active "$2" > "$new/active" || :
        systemctl is-enabled "$2" > "$new/enabled" 2>/dev/null || :
        ls "$1/units" | wc -l > "$new/order"
        find "$new" -type f -exec sync -- {} +
        mv -T "$new" "$1/units/$2"
    fi
    if [ -n "$3" ]; then : > "$1/units/$2/$3"; fi
    sync -- "$1/units/$2" "$1/units"
}
"""


def record_script(
    paths: Sequence[str] = (),
    *,
    late: Sequence[str] = (),
    unit: str = "",
    action: Literal["", "reload", "restart"] = "",
    trial: str = "",
    journal: str = JOURNAL,
) -> str:
    """The part of a shell script that records what is about to be changed; it runs under `set -e`.

    :param paths: files and symbolic links that are about to be written or removed.
    :param late: of those, the ones that go back last: stamps of what a unit runs with, and directories,
        which are only ever removed again.
    :param unit: systemd unit that is about to be enabled.
    :param action: what is about to be done to it besides.
    :param trial: directory of a journal for this one change, which is opened here; see `roles/converter.py`.
    """
    j, t = shlex.quote(journal), shlex.quote(trial)
    lines = [_FUNCTIONS, f"recording {j}"]
    if trial:
        lines.append(f"if [ ! -d {t} ]; then record_file {j} {_id(trial)} late {t}; mkdir -p {t}; fi")
    for each in (j, t) if trial else (j,):
        lines += [f"record_file {each} {_id(path)} early {shlex.quote(path)}" for path in paths]
        lines += [f"record_file {each} {_id(path)} late {shlex.quote(path)}" for path in late]
        if unit:
            lines.append(f"record_unit {each} {shlex.quote(unit)} {shlex.quote(action)}")
    return "\n".join(lines)


def _id(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def recorded(path: str, journal: str = JOURNAL) -> str:
    """Where a journal keeps what a path was; nothing is there if the path isn't recorded or was nothing."""
    return f"{journal}/files/{_id(path)}/was"


def begin_script(journal: str = JOURNAL) -> str:
    """A shell script that opens the journal; one that is open stays as it is."""
    j = shlex.quote(journal)
    return f"set -e; rm -rf {j}.gone; mkdir -p {j}; sync -- $(dirname {j})"


def commit_script(journal: str = JOURNAL) -> str:
    """A shell script that closes the journal and keeps what was changed."""
    j = shlex.quote(journal)
    return "\n".join(["set -e", _locked(j), _gone(j)])


def undo_script(journal: str = JOURNAL) -> str:
    """A shell script that puts everything back as the journal has it, then closes it.

    Files first, then systemd's units: what was restarted is restarted, what was reloaded is reloaded, in the
    order of the deploy; what was not running before is stopped, and disabled if it was. When all run, the
    stamps go back and what is new in directories goes. Cut short anywhere, it can be run again; without a
    journal there is nothing to do. It exits 1, and keeps the journal, when a unit doesn't come back.
    """
    j = shlex.quote(journal)
    return "\n".join(["set -eu", _locked(j), f"J={j}", _UNDO, _gone(j)])


def _locked(journal: str) -> str:
    """Waits for what an earlier run left working on the host: it may still record, and change."""
    return (
        f"[ -d {journal} ] || {{ echo 'no journal is open: nothing to do'; exit 0; }}\n"
        f"exec 8> {journal}.lock\n"
        f"flock -w 300 8 || {{ echo {journal} is in use by another run >&2; exit 1; }}\n"
        f"[ -d {journal} ] || exit 0"
    )


def _gone(journal: str) -> str:
    """In one rename, as half a journal would undo half of the change."""
    return f"rm -rf {journal}.gone; mv -T {journal} {journal}.gone; rm -rf {journal}.gone"


_UNDO = r"""
failed=
fails() { failed=yes; { echo "$1 $2; its last lines:"; journalctl -u "$1" -n 15 --no-pager -o cat; } >&2; }
mkdir -p "$J/units" "$J/files"
ordered=$(cd "$J/units"; for u in *; do
    [ ! -d "$u" ] || printf '%s %s\n' "$(cat "$u/order")" "$u"
done | sort -n | cut -d' ' -f2-)
ran() { case $(cat "$J/units/$1/active") in active | reloading | activating) ;; *) return 1 ;; esac; }
worked() { case $(cat "$J/units/$1/active") in active | reloading) ;; *) return 1 ;; esac; }

back() {
    path=$(cat "$1/path")
    rm -rf -- "$path.bitrix-cdn-new" "$path.bitrix-cdn-undo"
    if [ -e "$1/was" ] || [ -L "$1/was" ]; then
        mkdir -p -- "$(dirname -- "$path")"
        cp -a -- "$1/was" "$path.bitrix-cdn-undo"
        mv -fT -- "$path.bitrix-cdn-undo" "$path"
    elif [ -e "$1/late" ]; then
        rm -rf -- "$path"
    else
        rm -f -- "$path"
    fi
}

# While their files are there.
for u in $(printf '%s\n' $ordered | tac); do
    ran "$u" || ! systemctl is-active -q "$u" || systemctl stop "$u" || fails "$u" "does not stop"
    case $(cat "$J/units/$u/enabled") in
        disabled | not-found | "") systemctl disable -q "$u" 2>/dev/null || : ;;
    esac
done
for r in "$J"/files/*; do
    if [ ! -d "$r" ] || [ -e "$r/late" ]; then continue; fi
    back "$r"
    # A container may not be allowed to set them.
    case $path in /etc/sysctl.d/*) [ ! -e "$path" ] || sysctl -q -p "$path" 2>/dev/null || : ;; esac
done
systemctl daemon-reload
for u in $ordered; do
    ran "$u" || continue
    verb=
    if [ -e "$J/units/$u/restart" ]; then verb=restart
    elif [ -e "$J/units/$u/reload" ]; then verb=reload-or-restart
    fi
    [ -n "$verb" ] || continue
    systemctl reset-failed "$u" 2>/dev/null || :
    # A host in need of this may be busy: what does not take its files at once may a moment later.
    for i in 1 2 3 4 5; do
        if systemctl "$verb" "$u"; then echo "$verb $u"; continue 2; fi
        sleep 3
    done
    ! worked "$u" || fails "$u" "does not come back"
done
[ -z "$failed" ] || exit 1
# Twice: one that ends at once has been active as well.
for again in 0 1; do
    sleep "$again"
    for u in $ordered; do
        worked "$u" || continue
        for i in $(seq 100); do ! systemctl is-active -q "$u" || break; sleep 0.2; done
        systemctl is-active -q "$u" || fails "$u" "does not stay active"
    done
done
[ -z "$failed" ] || exit 1
for r in "$J"/files/*; do [ ! -e "$r/late" ] || back "$r"; done
cat "$J"/files/*/made 2>/dev/null | sort -ru | while read -r d; do rmdir -- "$d" 2>/dev/null || :; done
echo "put back $(ls "$J/files" | wc -l) paths"
"""
