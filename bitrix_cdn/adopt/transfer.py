"""The access between the hosts that exists only while pictures are moved.

The sftp account can't run rsync, and programs that move files over sftp rename those whose names it can't
write. So the CDN host gets a second account for this time. Its only key is the one that the site's host
already has, and it may only run rsync below `/var/www/cdn`, where the sftp account may write as well. A
killed run leaves the account behind; the next run takes it over.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bitrix_cdn.adopt import rsync
from bitrix_cdn.adopt.errors import MigrationError
from bitrix_cdn.engine.distribution import DEBIAN, LOOK, read
from bitrix_cdn.engine.services import start_script
from bitrix_cdn.fleet import Inventory, Output, Remote
from bitrix_cdn.fleet.progress import Display
from roles.mounts import RESIZE_CACHE, SSH_CONFIG, explanation, inputs, ready, unit_of
from roles.sftp import KEY

ACCOUNT = "bitrix-transfer"
ACCOUNT_HOME = "/var/lib/bitrix-cdn/transfer-account"
HOME = "/var/lib/bitrix-cdn/transfer"
"""On both hosts: what an interrupted run must know again."""

RUN = "/run/bitrix-cdn-transfer"
UNIT = "bitrix-cdn-transfer.service"
MOUNT = unit_of(RESIZE_CACHE)

# Pauses before further tries of a copy that broke; a host that reboots is back within their sum.
_PAUSES = (2, 5, 10, 20, 30, 30)


@dataclass(frozen=True)
class Content:
    """What a directory tree holds."""

    files: int
    bytes: int
    """Sizes of the files, added up."""
    directories: int
    others: int
    """Symbolic links, sockets and such, which are not copied."""


@dataclass(frozen=True)
class Mount:
    """The site's mount, as it is now."""

    mounted: bool
    wanted: bool
    """Its unit is enabled: the site belongs to the CDN, even if the mount is away just now."""


class Transfer:
    """Moves and compares files of `resize_cache/` between both hosts, whatever lies over it."""

    def __init__(self, inventory: Inventory, display: Display, bandwidth: str | None = None) -> None:
        self.bitrix, self.cdn = (inventory.hosts[inventory.groups[group][0]] for group in ("bitrix", "cdn"))
        self.settings = inventory.settings
        self.display = display
        self.bandwidth = bandwidth
        self.upload = f"{RUN}/upload"
        self.local = f"{self.upload}/resize_cache"
        """The site's own directory, on the site's host."""
        self.unfinished = f"{self.upload}/.bitrix-cdn-transfer"
        """On the site's host: unfinished files, on the file system of the pictures."""
        self.served = self.settings.cdn.resize_cache
        """The CDN host's directory, there."""
        self.exchange = f"{self.settings.cdn.root}/.transfer"
        """On the CDN host: lists and unfinished files, on the file system of the pictures."""

    # The site's side.

    def enter(self) -> None:
        """Checks both hosts, ends what a killed run left running, and reaches below the mount.

        :raises MigrationError: a host isn't what the deploy leaves behind.
        """
        self.bitrix.connect()
        self.cdn.connect()
        path, upload = self.settings.site.resize_cache, self.settings.site.upload
        needed = " ".join(path for path in [*inputs(RESIZE_CACHE), KEY])
        self.bitrix.run(
            f"""
            for file in {needed}; do
                [ -e $file ] || {{ echo "there is no $file: deploy first" >&2; exit 1; }}
            done
            systemctl stop {UNIT} 2>/dev/null
            [ -d {upload} ] || {{ echo "there is no directory {upload}" >&2; exit 1; }}
            [ ! -L {path} ] || {{ echo "{path} is a symbolic link: make it a directory" >&2; exit 1; }}
            type=$(findmnt -n -o FSTYPE --mountpoint {path} | tail -n 1)
            case "$type" in
                ''|fuse.sshfs) ;;
                *) echo "{path} is a separate file system ($type), which the mount would hide" >&2
                   exit 1 ;;
            esac
            set -e
            install -d -m 700 {RUN} {HOME}
            mkdir -p {self.upload}
            while mountpoint -q {self.upload}; do umount -l {self.upload}; done
            mount -o bind,private {upload} {self.upload}
            [ -d {self.local} ] || install -d -m 755 -o {self.settings.site.user} \\
                -g {self.settings.site.group} {self.local}
            """
        )
        self.cdn.run(
            f"""
            getent passwd {self.settings.sftp.cache_account} >/dev/null && [ -d {self.served} ] ||
                {{ echo "there is no {self.served} of {self.settings.sftp.cache_account}: deploy first" >&2
                   exit 1; }}
            """
        )

    def open(self) -> None:
        """Installs rsync where it is missing and lets the site's host in.

        :raises MigrationError: a package can't be had, or the login fails.
        """
        here = read(self.bitrix.run(LOOK).text)
        if here is None:
            raise MigrationError(f"{self.bitrix.name}: its distribution is unknown: deploy first")
        rsync_there = here.install_script(["rsync"], commands=["rsync"])
        self.bitrix.run(f"set -e\n{rsync_there}\ninstall -d -m 700 {self.unfinished}")
        key = self.bitrix.run(f"cat {KEY}.pub").text
        root = self.settings.cdn.root
        allowed = f'restrict,command="exec nice -n 10 rrsync -no-lock {root}" {key}\n'
        self.cdn.run(
            f"""
            set -e
            {DEBIAN.install_script(["rsync", "python3"], commands=["rsync", "rrsync", "python3"])}
            getent passwd {ACCOUNT} >/dev/null || useradd --non-unique --uid $(id -u www-data) \\
                --gid www-data --no-create-home --home-dir {ACCOUNT_HOME} --shell /bin/sh \\
                --comment "Bitrix CDN, while pictures move" {ACCOUNT} 2>/dev/null
            install -d -m 755 {ACCOUNT_HOME} {ACCOUNT_HOME}/.ssh
            cat > {ACCOUNT_HOME}/.ssh/authorized_keys
            install -d -m 700 {HOME}
            install -d -m 700 -o www-data -g www-data {self.exchange}
            """,
            stdin=allowed.encode(),
        )
        login = self.bitrix.run(f"{rsync_shell()} -n peer true", check=False)
        if login.status:
            raise MigrationError(
                f"{self.bitrix.name} can't log in to {self.cdn.name} as {ACCOUNT} ({login.reason}): "
                "does the SSH server there allow only some accounts?"
            )

    def close(self, *, done: bool) -> None:
        """Takes everything away that moving needed; what a later run must know only when `done`."""
        forget = f"rm -rf {HOME};" if done else ""
        self.bitrix.run(
            f"systemctl stop {UNIT} 2>/dev/null; {forget} rm -rf {self.unfinished}; "
            f"while mountpoint -q {self.upload}; do umount -l {self.upload} || exit 0; done; rm -rf {RUN}"
        )
        # -f: www-data's processes have the same uid.
        self.cdn.run(f"userdel -f {ACCOUNT} 2>/dev/null; {forget} rm -rf {ACCOUNT_HOME} {self.exchange}")

    def mount_state(self) -> Mount:
        path = self.settings.site.resize_cache
        output = self.bitrix.run(
            f"{{ {ready(path)} ; }} >/dev/null 2>&1 && echo mounted; "
            f"systemctl is-enabled -q {MOUNT} && echo wanted; true"
        ).text
        return Mount("mounted" in output, "wanted" in output)

    def mount(self, *, wanted: bool) -> None:
        """Starts the site's mount as a deploy does, so that the next deploy finds nothing to change.

        :param wanted: the site belonged to the CDN before; then its unit goes on trying.
        :raises MigrationError: it doesn't come up; the site sees its own directory.
        """
        path = self.settings.site.resize_cache
        script = start_script(
            MOUNT, start=inputs(RESIZE_CACHE), ready=ready(path), explain=explanation(RESIZE_CACHE)
        )
        result = self.bitrix.run(script, check=False)
        if result.status:
            if not wanted:
                self.bitrix.run(f"systemctl disable -q --now {MOUNT}")
            raise MigrationError(f"{self.bitrix.name}: the mount does not come up: {result.reason}")

    def unmount(self) -> None:
        """Stops the mount for good: the site sees its own directory from now on."""
        path = self.settings.site.resize_cache
        self.bitrix.run(
            f"systemctl disable -q --now {MOUNT} && ! mountpoint -q {path} || "
            f"{{ echo '{path} is still mounted' >&2; exit 1; }}"
        )

    def until_written(self, patience: int = 30) -> None:
        """Waits until no process writes to a file below the mount any more: such a file was opened before.

        :raises MigrationError: somebody goes on writing.
        """
        path = self.settings.site.resize_cache
        result = self.bitrix.run(
            f"""
            below=$(stat -c %d {self.local}); path=$(readlink -f {path})
            for second in $(seq {patience}); do
                writer=
                for link in $(find /proc/[0-9]*/fd -lname "$path/*" ! -lname '* (deleted)' 2>/dev/null); do
                    [ "$(stat -L -c %d $link 2>/dev/null)" = "$below" ] || continue
                    # The last octal digit of the flags: 1 is write-only, 2 is read and write.
                    info=${{link%/fd/*}}/fdinfo/${{link##*/}}
                    case "$(sed -n 's/^flags://p' $info 2>/dev/null)" in *[12])
                        writer=${{link#/proc/}}; writer=${{writer%%/*}}; break ;;
                    esac
                done
                [ "$writer" ] || exit 0
                sleep 1
            done
            echo "process $writer ($(cat /proc/$writer/comm)) goes on writing to a file below the mount" >&2
            exit 1
            """,
            check=False,
        )
        if result.status:
            raise MigrationError(f"{self.bitrix.name}: {result.reason}; run the same command again")

    # Looking.

    def exists(self, remote: Remote, path: str) -> bool:
        return not remote.run(f"test -e {path}", check=False).status

    def content(self, remote: Remote, directory: str) -> Content:
        """Counts what is below a directory."""
        output = remote.run(
            f"""find {directory} -mindepth 1 -printf '%y %s\\n' | LC_ALL=C awk '
                $1 == "f" {{ files++; bytes += $2 }} $1 == "d" {{ directories++ }} $1 !~ /[fd]/ {{ others++ }}
                END {{ printf "%d %.0f %d %d", files, bytes, directories, others }}'"""
        ).text
        return Content(*map(int, output.split()))

    def free(self, remote: Remote, directory: str) -> tuple[int, int]:
        """Free bytes and inodes; no inodes are counted where the file system makes them as it goes."""
        size, inodes = remote.run(f"df --output=avail,iavail -B1 {directory} | tail -n 1").text.split()
        return int(size), int(inodes) if inodes.isdigit() and int(inodes) else 1 << 62

    # Moving.

    def copy_all(self, title: str, expected: Content) -> tuple[int, int]:
        """Brings the CDN host all that the site's directory holds; returns files and bytes copied."""
        arguments = ["-r", *self._push(), f"{self.local}/", PEER_DIRECTORY]
        return self._copy(title, arguments, expected.files + expected.directories)

    def push(self, title: str, names: str) -> tuple[int, int]:
        """Brings the CDN host the files of a list."""
        arguments = [*self._push(), *_from_list(names), f"{self.local}/", PEER_DIRECTORY]
        return self._copy(title, arguments, self.count(names))

    def pull(self, title: str, names: str, *, newer: bool = False) -> tuple[int, int]:
        """Brings the site's directory the files of a list.

        :param newer: only over files that are older.
        """
        arguments = [*self._pull(newer), *_from_list(names), PEER_DIRECTORY, f"{self.local}/"]
        return self._copy(title, arguments, self.count(names))

    def fetch(self, name: str) -> None:
        """Brings the site's host a list that was made in the CDN host's exchange directory."""
        self._run([f"peer:.transfer/{name}", f"{HOME}/{name}"])

    def send(self, name: str) -> None:
        """Brings the CDN host a list."""
        self._run([f"{HOME}/{name}", f"peer:.transfer/{name}"])

    def differences(self, title: str, total: int, *, newer: bool = False) -> list[rsync.Item]:
        """Compares all files of the site with the CDN host's, by checksums that each host makes itself.

        :param total: bytes to read, for the display.
        :param newer: only files that aren't younger on the CDN host.
        """
        arguments = ["-n", "-r", "-c", "--out-format=item %i %n", *self._push(), *(["-u"] if newer else [])]
        found: list[rsync.Item] = []
        with self.display.meter(title, total_bytes=total) as meter:

            def line(text: bytes) -> None:
                if text.startswith(b"read "):
                    meter.read(int(text[5:]))
                elif item := rsync.parse_item(text):
                    found.append(item)

            self._run([*arguments, f"{self.local}/", PEER_DIRECTORY], line, watch="reads", again=found.clear)
        return found

    def count(self, names: str) -> int:
        """How many names a list has."""
        return int(self.bitrix.run(f"tr -dc '\\0' < {HOME}/{names} | wc -c").text)

    def _push(self) -> list[str]:
        # The account is www-data; the directories' times would change with every file.
        return ["-tpO", "--chmod=D755,F644", "--temp-dir=/.transfer", "--ignore-missing-args"]

    def _pull(self, newer: bool) -> list[str]:
        site = self.settings.site
        return [
            "-tpogO",
            f"--chown={site.user}:{site.group}",
            "--chmod=D755,F644",
            f"--temp-dir={self.unfinished}",
            "--ignore-missing-args",
            *(["-u"] if newer else []),
        ]

    def _copy(self, title: str, arguments: list[str], entries: int) -> tuple[int, int]:
        lines: list[bytes] = []
        with self.display.meter(title, total_entries=entries) as meter:

            def line(text: bytes) -> None:
                if progress := rsync.parse_progress(text):
                    meter.copied(progress)
                else:
                    lines.append(text)

            self._run(["--stats", "--info=name0,nonreg0", *arguments], line, watch="progress")
            meter.finish()
        return rsync.parse_stats(lines)

    def _run(
        self,
        arguments: Sequence[str],
        line: Callable[[bytes], None] = lambda text: None,
        *,
        watch: str = "",
        again: Callable[[], object] = lambda: None,
    ) -> None:
        """Runs rsync on the site's host, with low priority; tries again when the connection breaks.

        :raises MigrationError: rsync can't do it.
        """
        limit = [f"--bwlimit={self.bandwidth}"] if self.bandwidth else []
        command = ["rsync", "-e", rsync_shell(), "--timeout=60", "--info=nonreg0", *limit, *arguments]
        for pause in (*_PAUSES, None):
            again()
            end: list[Output] = []
            for text in self.bitrix.follow(_RUN, stdin=job(command, watch).encode(), end=end):
                line(text)
            [result] = end
            if result.status in rsync.SUCCESS:
                return
            if result.status not in rsync.RETRIABLE or pause is None:
                said = next((text for text in result.errors.splitlines() if text.strip()), "")
                raise MigrationError(
                    f"{self.bitrix.name}: rsync: {rsync.meaning(result.status)}"
                    f"{f' ({said.strip()})' if said else ''}; run the same command again to continue"
                )
            self.display.say(f"{rsync.meaning(result.status)}; trying again in {pause} s")
            time.sleep(pause)


PEER_DIRECTORY = "peer:upload/resize_cache/"

# A transient unit: the kernel schedules it behind everything else, and the next run can find and end it.
_RUN = f"""
cat > {RUN}/job.sh
exec systemd-run -q --pipe --wait --collect --unit={UNIT} --slice=bitrix-cdn-transfer.slice \\
    -p Nice=19 -p IOSchedulingClass=idle -p CPUWeight=10 -p IOWeight=10 \\
    sh {RUN}/job.sh </dev/null
"""


def rsync_shell() -> str:
    """The ssh command by which rsync reaches the CDN host, with the mount's key and pinned host key.

    A busy line isn't a dead one, so the connection is given more time than the mount has.
    """
    return (
        f"ssh -F {SSH_CONFIG} -l {ACCOUNT} -o ServerAliveInterval=10 -o ServerAliveCountMax=6 "
        "-o ConnectTimeout=15"
    )


def job(arguments: Iterable[str], watch: str) -> str:
    """The script that runs rsync and says twice a second how far it is.

    :param watch: `progress`: rsync tells when it is signalled; `reads`: bytes that it has read.
    """
    command = shlex.join(arguments)
    if not watch:
        return f"LC_ALL=C exec {command}\n"
    look = {
        "progress": """for process in $pid $(cat /proc/$pid/task/$pid/children); do
        read -r name < /proc/$process/comm && [ "$name" = rsync ] && kill -VTALRM $process
    done 2>/dev/null""",
        "reads": "sed -n 's/^rchar: /read /p' /proc/$pid/io 2>/dev/null",
    }[watch]
    return f"""
export LC_ALL=C
{command} &
pid=$!
trap 'kill $pid' TERM INT HUP PIPE
while sleep 0.5 && kill -0 $pid 2>/dev/null; do
    {look}
done
wait $pid
"""


def _from_list(names: str) -> list[str]:
    return ["--from0", f"--files-from={HOME}/{names}"]
