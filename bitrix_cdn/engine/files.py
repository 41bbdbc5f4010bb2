"""Writes whole trees of files: one query and at most one command a host, checked before they are in place."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import shlex
import tarfile
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jinja2
from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine import differences
from bitrix_cdn.engine.cache import CACHE
from bitrix_cdn.engine.errors import RefusalError
from bitrix_cdn.engine.findings import RefusedFile, SurplusFile, WrongFile
from bitrix_cdn.engine.journal import record_script
from bitrix_cdn.engine.prefetch import BatchedFact, together

TEMPLATES = Path(__file__).parents[2] / "templates"

_BRACKETED = "[[ managed ]]"
"""In the first line of a template: it uses `[[ ]]` and `[% %]`, as its own language has the braces."""


@dataclass(frozen=True)
class File:
    """A file as it must be on a host."""

    path: str
    content: str = field(repr=False)
    """Never shown: it may hold secrets."""
    mode: str = "644"
    user: str = "root"
    group: str = "root"

    @property
    def state(self) -> tuple[str, str, str, str]:
        """What :class:`Paths` reports when the file is right."""
        return hashlib.sha256(self.content.encode()).hexdigest(), self.mode, self.user, self.group


def rendered(
    role: str,
    *,
    owners: Mapping[str, tuple[str, str, str]] | None = None,
    only: Collection[str] = (),
    **variables: Any,
) -> list[File]:
    """Renders the templates of a role; a file's path below `templates/<role>/` is its path on the host.

    Where the first line says `[[ managed ]]`, what Jinja is to do stands in square brackets throughout.

    :param owners: mode, user and group of the files that aren't 644 root:root, by path on the host.
    :param only: paths on the host of the files wanted; by default all of the role's.
    :raises PyinfraError: a variable is undefined or the template can't be read; no host was touched yet.
    """
    root = TEMPLATES / role
    environment, bracketed = _environments(root)
    files = []
    for template in sorted(root.glob("**/*.j2")):
        name = template.relative_to(root).as_posix()
        path = "/" + name.removesuffix(".j2")
        if only and path not in only:
            continue
        with template.open() as source:
            syntax = bracketed if _BRACKETED in source.readline() else environment
        try:
            content = syntax.get_template(name).render(
                managed=f"Managed by bitrix-cdn from templates/{role}/{name}: edit that, not this.",
                **variables,
            )
        except jinja2.TemplateError as error:
            raise PyinfraError(f"templates/{role}/{name}: {error}") from None
        mode, user, group = (owners or {}).get(path, ("644", "root", "root"))
        files.append(File(path, content, mode, user, group))
    if missing := {*(owners or {}), *only} - {file.path for file in files}:
        raise PyinfraError(f"templates/{role}: no template for {', '.join(sorted(missing))}")
    return files


def brackets(root: Path) -> jinja2.Environment:
    """What renders the files below a directory, with `[[ ]]` and `[% %]`."""
    return _environments(root)[1]


@functools.cache
def _environments(root: Path) -> tuple[jinja2.Environment, jinja2.Environment]:
    """What renders the templates below a directory: the usual one, and the one for brackets."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([root, TEMPLATES / "shared"]),
        # To compile all of them takes a third of a second.
        bytecode_cache=_compiled(),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 -- configuration files, not HTML
    )
    environment.filters["toml"] = _toml
    bracketed = environment.overlay(
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
    )
    return environment, bracketed


def _compiled() -> jinja2.BytecodeCache | None:
    """Where compiled templates are kept; None: they can't be."""
    try:
        place = CACHE / "templates"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return jinja2.FileSystemBytecodeCache(str(place))
    except OSError:
        return None


def _toml(value: object) -> str:
    """A scalar or a list of scalars as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in escaped) + '"'
    if isinstance(value, Iterable):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    raise jinja2.TemplateRuntimeError(f"TOML has no form for {value!r}")


class Paths(BatchedFact[dict[str, tuple[str, str, str, str]]]):
    """The content and ownership of any number of files, in one command.

    Returns `{path: (sha256, mode, user, group)}`; a path that isn't a regular file is left out.
    """

    default = dict

    def command(self, paths: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, paths))
        return (
            f"export LC_ALL=C; set --; for f in {quoted}; do "
            '[ -f "$f" ] && [ ! -L "$f" ] && set -- "$@" "$f"; done; '
            "[ $# = 0 ] || { stat -c '%n %a %U %G' -- \"$@\"; sha256sum -- \"$@\" | sed 's/^/sum /'; }; true"
        )

    def process(self, output: Iterable[str]) -> dict[str, tuple[str, str, str, str]]:
        found = {}
        for path, lines in self._by_path(output).items():
            # A file that went away between the two is not there.
            if len(lines) == 2:
                _, mode, user, group = lines[0].rsplit(" ", 3)
                found[path] = (lines[1].split(" ", 2)[1], mode, user, group)
        return found

    def together(self, several: Sequence[Mapping[str, Any]]) -> str:
        return self.command(list(dict.fromkeys(path for given in several for path in given["paths"])))

    def parts(self, output: Sequence[str], several: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
        found = self._by_path(output)
        return [[line for path in given["paths"] for line in found.get(path, ())] for given in several]

    @staticmethod
    def _by_path(output: Iterable[str]) -> dict[str, list[str]]:
        """The lines of `stat` and `sha256sum`, in this order, for each path."""
        found: dict[str, list[str]] = {}
        for line in output:
            path = line.split("  ", 1)[1] if line.startswith("sum ") else line.rsplit(" ", 3)[0]
            found.setdefault(path, []).append(line)
        return found


class Places(BatchedFact[dict[str, list[tuple[int, str, str, str]]]]):
    """What any number of directories are, in one command.

    Returns `{path: [(mode, user, group, path), ...]}`: the directory itself, and if its path is a symbolic
    link, each directory on the way to where that leads. What isn't there is left out.
    """

    default = dict

    def command(self, paths: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, paths))
        return (
            f'export LC_ALL=C; set --; for d in {quoted}; do [ -d "$d" ] || continue; '
            'if [ ! -L "$d" ]; then set -- "$@" "$d"; continue; fi; r=$(readlink -f "$d"); '
            'while [ -n "$r" ]; do stat --printf "%a %U %G\\t$d\\t%n\\n" "$r"; r=${r%/*}; done; done; '
            '[ $# = 0 ] || stat --printf "%a %U %G\\t%n\\t%n\\n" -- "$@"; true'
        )

    def process(self, output: Iterable[str]) -> dict[str, list[tuple[int, str, str, str]]]:
        found: dict[str, list[tuple[int, str, str, str]]] = {}
        for line in output:
            access, asked, path = line.split("\t")
            mode, user, group = access.split(" ")
            found.setdefault(asked, []).append((int(mode, 8), user, group, path))
        return found

    def together(self, several: Sequence[Mapping[str, Any]]) -> str:
        return self.command(list(dict.fromkeys(path for given in several for path in given["paths"])))

    def parts(self, output: Sequence[str], several: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
        lines = list(output)
        return [[line for line in lines if line.split("\t")[1] in given["paths"]] for given in several]


def above(paths: Iterable[str]) -> list[str]:
    """The directories that the paths are in, but `/`."""
    return list(dict.fromkeys(str(up) for path in paths for up in list(Path(path).parents)[:-1]))


def impassable(paths: Sequence[str]) -> dict[str, int]:
    """The directories above the paths that keep others out or let others write, and the modes to be.

    Only root's: what belongs to an account is that account's to close. One question.
    """
    found = host.get_fact(Places, paths=above(paths)) if paths else {}
    wrong = {}
    for mode, user, _, path in (place for places in found.values() for place in places):
        open_to_write = mode & 0o002 and not mode & 0o1000
        if user == "root" and path != "/root" and (not mode & 0o001 or open_to_write):
            wrong[path] = (mode & ~0o022 if open_to_write else mode) | 0o555
    return wrong


@operation()
def directory(
    path: str, mode: str = "755", user: str = "", group: str = ""
) -> Generator[StringCommand, None, None]:
    """Makes a directory, or puts its mode and owner right; whatever umask made them, others can pass those
    above it.

    + path: the directory; a symbolic link to one will do
    + mode: its mode, as `chmod` takes it
    + user: its owner; by default whoever has it
    + group: its group; likewise
    """
    places, wrong, _ = together(
        lambda: host.get_fact(Places, paths=[path]),
        lambda: impassable([path]),
        lambda: refuse_obstacles(directories=[path, *above([path])]),
    )
    found = places.get(path, [])
    wanted = (int(mode, 8), user, group)
    right = found and all(wish in ("", is_) for wish, is_ in zip(wanted, found[0], strict=False))
    if right and not wrong:
        host.noop(f"{path} is as it must be")
        return
    q = shlex.quote(path)
    script = ["set -e", *_passable(wrong), f"[ -d {q} ] || {{ {_made_above(path)}; mkdir -m {mode} {q}; }}"]
    owner = [f"chown {user}:{group} {q}"] if user or group else []
    yield StringCommand("\n".join([*script, *owner, f"chmod {mode} {q}"]))


def _passable(wrong: Mapping[str, int]) -> list[str]:
    return [f"chmod {mode:o} {shlex.quote(path)}" for path, mode in wrong.items()]


def _made_above(path: str) -> str:
    """A command that makes the directories above a path; `mkdir -m` is about the last one only."""
    return f"(umask 022; mkdir -p {shlex.quote(str(Path(path).parent))})"


class RealPath(FactBase[str]):
    """Where a path leads, symbolic links followed; it need not be there yet."""

    def command(self, path: str) -> str:
        return f"readlink -m {shlex.quote(path)}"

    def process(self, output: Sequence[str]) -> str:
        return output[0]


class Contents(FactBase[list[tuple[str, bytes | None]]]):
    """What any number of paths are, in one command: for each, in their order, its kind and its content.

    The kind is `file`, `link to X`, `nothing`, or what `stat` calls it; the content is None if it isn't a
    file, or one of more than :data:`LIMIT` bytes.
    """

    LIMIT = 128 * 1024
    default = list

    def command(self, paths: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, paths))
        return (
            f'export LC_ALL=C; for f in {quoted}; do c=-; if [ -L "$f" ]; then k="link to $(readlink "$f")"; '
            'elif [ -f "$f" ]; then k=file; '
            f'[ $(stat -c %s "$f") -gt {self.LIMIT} ] || c=$(base64 -w 0 "$f"); '
            'elif [ -e "$f" ]; then k=$(stat -c %F "$f"); else k=nothing; fi; '
            'echo "$c $k" | tr "\n" " "; echo; done; true'
        )

    def process(self, output: Iterable[str]) -> list[tuple[str, bytes | None]]:
        lines = [line.partition(" ") for line in output]
        return [(kind.strip(), None if c == "-" else base64.b64decode(c)) for c, _, kind in lines]


class Existing(FactBase[list[str]]):
    """Those of the given paths that exist, as anything; dangling links count."""

    default = list

    def command(self, paths: Sequence[str]) -> str:
        quoted = " ".join(map(shlex.quote, paths))
        return f'for f in {quoted}; do if [ -e "$f" ] || [ -L "$f" ]; then echo "$f"; fi; done; true'

    def process(self, output: Iterable[str]) -> list[str]:
        return list(output)


class Obstacles(BatchedFact[list[tuple[str, str]]]):
    """What of another kind lies where files and directories must be, in one command.

    Returns `[(kind, path), ...]` with the kind that must be there, `file` or `directory`.
    """

    default = list

    def command(self, files: Sequence[str], directories: Sequence[str]) -> str:
        for_files, for_directories = (" ".join(map(shlex.quote, paths)) for paths in (files, directories))
        return (
            f'for f in {for_files}; do if [ -d "$f" ] && [ ! -L "$f" ]; then echo "file $f"; fi; done; '
            f'for d in {for_directories}; do if [ ! -d "$d" ] && {{ [ -e "$d" ] || [ -L "$d" ]; }}; '
            'then echo "directory $d"; fi; done; true'
        )

    def process(self, output: Iterable[str]) -> list[tuple[str, str]]:
        return [(kind, path) for kind, _, path in (line.partition(" ") for line in output)]

    def together(self, several: Sequence[Mapping[str, Any]]) -> str:
        files, directories = (
            list(dict.fromkeys(path for given in several for path in given[kind]))
            for kind in ("files", "directories")
        )
        return self.command(files, directories)

    def parts(self, output: Sequence[str], several: Sequence[Mapping[str, Any]]) -> Iterable[list[str]]:
        lists = {"file": "files", "directory": "directories"}
        found = list(zip(output, self.process(output), strict=True))
        return [[line for line, (kind, path) in found if path in given[lists[kind]]] for given in several]


def refuse_obstacles(*, files: Sequence[str] = (), directories: Sequence[str] = ()) -> None:
    """Ends the run if something of another kind lies where files and directories must be; one question.

    :raises RefusalError: it does; a drift check tells of it otherwise.
    """
    if differences.wanted():
        return
    if found := host.get_fact(Obstacles, files=files, directories=directories):
        kind, path = found[0]
        is_ = "a directory, and a file" if kind == "file" else "no directory, and one"
        raise RefusalError(f"{host.name}: {path} is {is_} must be there; move it away, then run this again")


def stale(files: Sequence[File]) -> list[File]:
    """Those of the files that this host doesn't have as they must be; one trip."""
    paths = [file.path for file in files]
    present, _ = together(
        lambda: host.get_fact(Paths, paths=paths),
        lambda: refuse_obstacles(files=paths, directories=above(paths)),
    )
    found = [file for file in files if present.get(file.path) != file.state]
    differences.manage(files=[file.path for file in files])
    if found and differences.wanted():
        contents = host.get_fact(Contents, paths=[file.path for file in found])
        for file, (kind, content) in zip(found, contents, strict=True):
            sha256, *access = present.get(file.path, ("",))
            wrong = WrongFile(file.path, kind, tuple(access), file.state[1:], same=sha256 == file.state[0])
            if not wrong.same:
                there = None if content is None else content.decode(errors="replace")
                wrong = replace(wrong, content=there, must_content=file.content)
            differences.report(wrong)
    return found


def surplus(paths: Sequence[str]) -> list[str]:
    """Those of the paths that exist on this host and must not."""
    found = host.get_fact(Existing, paths=paths) if paths else []
    if differences.wanted():
        for path in found:
            differences.report(SurplusFile(path))
    return found


@dataclass(frozen=True)
class Refusal:
    """What a service's checker has against its configuration as it lies there."""

    words: str
    named: list[str]
    """The files of the configuration that it names."""
    foreign: list[str]
    """Those of them that neither we nor a package brought."""


class Refused(FactBase[Refusal | None]):
    """What a checker has against the configuration below a directory.

    None: nothing, or it isn't installed.
    """

    default = type(None)

    def command(self, root: str, check: str) -> str:
        return (
            f"command -v {check.split()[0]} >/dev/null || exit 0; said=$({{ {check} ; }} 2>&1) && exit 0; "
            'said=$(echo "$said" | grep -m 1 -F "[emerg]" || echo "$said" | head -n 1); echo "$said"; '
            f'for f in $(echo "$said" | grep -o \'{root}/[^ :"]*\' | sort -u); do '
            'if grep -qs "Managed by bitrix-cdn" "$f" || dpkg-query -S "$(readlink -f "$f")"; '
            'then echo "known $f" >&3; else echo "foreign $f" >&3; fi; done 3>&1 >/dev/null 2>&1; true'
        )

    def process(self, output: Sequence[str]) -> Refusal | None:
        if not output:
            return None
        named = [line.partition(" ") for line in output[1:]]
        return Refusal(
            output[0].strip(),
            [path for _, _, path in named],
            [path for kind, _, path in named if kind == "foreign"],
        )


@operation()
def tree(
    files: Sequence[File],
    root: str = "/etc",
    check: str | None = None,
    absent: Sequence[str] = (),
    trial: str = "",
    shared: bool = False,
) -> Generator[StringCommand, None, None]:
    """Brings a set of files to the host, all or none, after the service's own checker agreed.

    The checker runs in its own mount namespace where `root` already is as it will be, so that it
    judges the whole configuration at its real paths while the running service still has the old one.

    + files: the files as they must be
    + root: the directory that the checker must see changed; all paths must be below it when checking
    + check: a command that exits non-zero when it refuses the configuration
    + absent: paths that must not exist, such as a distribution's example site
    + trial: directory of a journal that records this change as well; see :mod:`bitrix_cdn.engine.journal`
    + shared: whether others have files in `root` too: the checker judges it even if ours are right
    """
    wrong, too_many, closed, refused = together(
        lambda: stale(files),
        lambda: surplus(absent),
        # Who may read a file must be able to get to it.
        lambda: impassable([file.path for file in files if int(file.mode, 8) & 0o004]),
        lambda: host.get_fact(Refused, root=root, check=check) if shared else None,
    )
    if refused:
        foreign = next((path for path in refused.foreign if path not in absent), "")
        if differences.wanted():
            differences.report(RefusedFile(foreign or root, refused.words))
        elif foreign:
            raise RefusalError(f"{host.name}: {refused.words}; put it right or move it away: it isn't ours")
        if not wrong and not too_many and (foreign or not refused.named):
            yield StringCommand(f"echo {shlex.quote(refused.words)} >&2; exit 1")
            return
    if not wrong and not too_many and not closed:
        host.noop(f"all {len(files)} files are as they must be")
        return
    if closed:
        yield StringCommand("; ".join(["set -e", *_passable(closed)]))
    if wrong or too_many:
        yield StringCommand(_install(wrong, too_many, root, check, trial), _stdin=_packed(wrong))


def installation(files: Sequence[File]) -> tuple[str, str]:
    """A script that brings files to a host without pyinfra, and what its standard input must be."""
    return _install(files, (), "/", None), _packed(files)


def _packed(files: Sequence[File]) -> str:
    """The contents as base64 of a tar archive, since pyinfra's standard input is text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file in files:
            data = file.content.encode()
            info = tarfile.TarInfo(file.path.lstrip("/"))
            info.size, info.mode = len(data), int(file.mode, 8)
            archive.addfile(info, io.BytesIO(data))
    return base64.encodebytes(buffer.getvalue()).decode()


def _install(
    stale: Sequence[File], surplus: Sequence[str], root: str, check: str | None, trial: str = ""
) -> str:
    q = shlex.quote
    script = ["set -eu", "umask 077", "S=$(mktemp -d)", "trap 'rm -rf \"$S\"' EXIT", 'mkdir "$S/new"']
    # Only root gets as far as `$S`; below it, what a checker passes through is as open as it will be.
    script.append('(umask 022; base64 -d | tar -xz -C "$S/new")')
    if check:
        script += [f"(umask 022; mkdir -p {q(root)})", f'cp -a {q(root)} "$S/root"']
        script += [f'rm -f "$S/root"{q(path.removeprefix(root))}' for path in surplus]
        script += [f'cp -a "$S/new"{q(root)}/. "$S/root/"'] if stale else []
        # Owner and mode as they will be: sshd's checker looks at them, Varnish's reads as another user.
        for f in stale:
            new = f'"$S/root"{q(f.path.removeprefix(root))}'
            script.append(f"chown {f.user}:{f.group} {new}; chmod {f.mode} {new}")
        inner = f'mount --bind "$S/root" {q(root)} && {{ {check} ; }}'
        script.append(f"S=$S unshare --mount --propagation private sh -c {q(inner)}")
    script.append(record_script([*surplus, *(file.path for file in stale)], trial=trial))
    for path in surplus:
        script.append(f"rm -f {q(path)}")
    for file in stale:
        new = q(file.path + ".bitrix-cdn-new")
        script += [
            _made_above(file.path),
            f'install -m {file.mode} -o {file.user} -g {file.group} "$S/new"{q(file.path)} {new}',
            f"mv -fT {new} {q(file.path)}",
        ]
    return "\n".join(script)
