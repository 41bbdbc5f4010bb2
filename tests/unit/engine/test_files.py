"""Rendering templates, and the script that brings a set of files to a host."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api.exceptions import PyinfraError

from bitrix_cdn.engine import files as module
from bitrix_cdn.engine.errors import RefusalError
from bitrix_cdn.engine.files import (
    File,
    Places,
    Refusal,
    Refused,
    _install,
    _packed,
    _toml,
    directory,
    impassable,
    rendered,
    tree,
)
from tests.unit.engine.machines import GROUP, OWNER, machines


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    monkeypatch.setattr(module, "TEMPLATES", tmp_path)

    def write(path: str, text: str) -> None:
        file = tmp_path / "role" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


def test_the_path_below_the_role_is_the_path_on_the_host(template: Callable[[str, str], None]) -> None:
    template("etc/a/b.conf.j2", "# {{ managed }}\nport {{ port }}\n")
    [file] = rendered("role", port=80, owners={"/etc/a/b.conf": ("600", "redis", "redis")})
    assert file.path == "/etc/a/b.conf"
    assert file.content.splitlines()[1] == "port 80"
    assert "templates/role/etc/a/b.conf.j2" in file.content
    assert (file.mode, file.user, file.group) == ("600", "redis", "redis")


def test_a_file_whose_language_has_braces_is_written_with_brackets(
    template: Callable[[str, str], None],
) -> None:
    template(
        "etc/a.yml.j2",
        "# [[ managed ]]\n[% if on %]\nsaid: '{{ $value }} of [[ limit ]] in {% x %}'\n[% endif %]\n",
    )
    template("etc/b.yml.j2", "# {{ managed }}\nsaid: '[[ limit ]] {{ limit }}'\n")
    bracketed, braced = rendered("role", on=True, limit=5)
    assert bracketed.content.splitlines()[1:] == ["said: '{{ $value }} of 5 in {% x %}'"]
    assert braced.content.splitlines()[1:] == ["said: '[[ limit ]] 5'"]


def test_what_is_in_a_file_never_shows() -> None:
    assert "s3cret" not in repr([File("/etc/x", "s3cret\n")])


def test_a_misspelt_variable_names_the_template(template: Callable[[str, str], None]) -> None:
    template("etc/a.conf.j2", "{{ prot }}\n")
    with pytest.raises(PyinfraError, match=r"templates/role/etc/a\.conf\.j2: 'prot' is undefined"):
        rendered("role", port=80)


def test_an_owner_of_a_file_that_is_not_there_is_a_mistake(template: Callable[[str, str], None]) -> None:
    template("etc/a.conf.j2", "x\n")
    with pytest.raises(PyinfraError, match="/etc/b"):
        rendered("role", owners={"/etc/b": ("600", "root", "root")})


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    )
)
def test_values_survive_toml(value: object) -> None:
    assert tomllib.loads(f"x = {_toml(value)}")["x"] == value


def file(path: Path, content: str, mode: str = "640") -> File:
    return File(str(path), content, mode, OWNER, GROUP)


def install(files: list[File], absent: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", _install(files, absent or [], "/etc", None)],
        input=_packed(files),
        capture_output=True,
        text=True,
        check=False,
    )


def test_files_arrive_with_their_modes_and_others_go(tmp_path: Path) -> None:
    old, target = tmp_path / "old.conf", tmp_path / "new dir" / "it's.conf"
    old.write_text("x")
    result = install([file(target, "Привет\n", "600")], [str(old)])
    assert result.returncode == 0, result.stderr
    assert target.read_text() == "Привет\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert not old.exists()
    assert [path.name for path in target.parent.iterdir()] == ["it's.conf"]


def test_a_file_is_replaced_not_rewritten(tmp_path: Path) -> None:
    # Who has it open goes on reading the old one whole.
    target = tmp_path / "a.conf"
    target.write_text("old")
    with target.open() as reader:
        assert install([file(target, "new\n")]).returncode == 0
        assert reader.read() == "old"
    assert target.read_text() == "new\n"


def test_what_paths_reports_is_what_a_right_file_compares_with() -> None:
    wanted = File("/etc/x y", "content\n", "644", "root", "root")
    found = module.Paths().process(["/etc/x y 644 root root", f"sum {wanted.state[0]}  /etc/x y"])
    assert found == {"/etc/x y": wanted.state}


def test_files_asked_together_are_what_each_is_by_itself(tmp_path: Path) -> None:
    names = ["plain", "other", "with space", "empty"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        Path(path).write_text("" if path.endswith("empty") else f"{path}\n")
        Path(path).chmod(0o644)
    missing, link = tmp_path / "missing", tmp_path / "link"
    link.symlink_to(paths[0])
    several: list[dict[str, Any]] = [
        {"paths": [paths[0], str(missing)]},
        {"paths": []},
        {"paths": [str(link)]},
        {"paths": [paths[1], paths[0]]},
        {"paths": paths},
    ]
    fact = module.Paths()
    with machines("one") as state:
        here = state.inventory.get_host("one")
        alone = [here.get_fact(module.Paths, **one) for one in several]
        _, output = here.run_shell_command(fact.together(several))
        together = [fact.process(part) for part in fact.parts(output.stdout_lines, several)]
    assert together == alone
    assert [sorted(found) for found in alone] == [
        [paths[0]],
        [],
        [],
        sorted(paths[:2]),
        sorted(paths),
    ]
    owner, group = Path(paths[0]).owner(), Path(paths[0]).group()
    assert alone[4][paths[0]] == File(paths[0], f"{paths[0]}\n", "644", owner, group).state


def places(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Has hosts answer what their directories are."""
    said = "\\n".join(line.replace(" ", "\\t").replace("\\t", " ", 2) for line in lines)
    monkeypatch.setattr(Places, "command", lambda self, paths: f"printf '{said}\\n'" if lines else "true")


def test_directories_are_seen_with_all_that_a_link_in_their_path_leads_through(tmp_path: Path) -> None:
    disk, link = tmp_path / "disk" / "www", tmp_path / "www"
    disk.mkdir(parents=True)
    disk.parent.chmod(0o700)
    disk.chmod(0o750)
    link.symlink_to(disk)
    command = Places().command([str(link), str(disk), str(tmp_path / "missing")])
    found = Places().process(subprocess.check_output(command, shell=True, text=True).splitlines())
    assert found[str(disk)] == [(0o750, OWNER, GROUP, str(disk))]
    assert found[str(link)][:2] == [
        (0o750, OWNER, GROUP, str(disk)),
        (0o700, OWNER, GROUP, str(disk.parent)),
    ]
    assert found.keys() == {str(link), str(disk)}


def test_roots_directories_that_keep_others_out_or_let_them_write_are_put_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places(
        monkeypatch,
        "700 root root /a /a",
        "755 root root /a/b /a/b",
        "777 root root /a/c /a/c",
        "1777 root root /tmp /tmp",
        "700 somebody root /home/x /home/x",
        "700 root root /root /root",
        "700 root root /var/www /data",
    )
    with machines("one"):
        assert impassable(["/a/b/file"]) == {"/a": 0o755, "/a/c": 0o755, "/data": 0o755}
        closed, written = tree._inner(files=[File("/a/b/file", "text\n")])
        assert "chmod 755 /a" in str(closed)
        assert "/a/b/file" in str(written)
        # What only root may read has nothing to ask for.
        [written] = tree._inner(files=[File("/a/b/file", "text\n", "600")])
        assert "chmod 755 /a" not in str(written)


@pytest.mark.parametrize(
    ("state", "right"),
    [
        ("755 root root", True),
        ("700 root root", False),
        ("755 www-data root", False),
        ("2755 root root", False),
    ],
)
def test_a_directory_is_changed_when_it_differs(
    monkeypatch: pytest.MonkeyPatch, state: str, right: bool
) -> None:
    places(monkeypatch, f"{state} /a/b /a/b")
    with machines("one"):
        assert bool(list(directory._inner(path="/a/b", user="root"))) is not right


def test_all_that_is_made_above_a_directory_can_be_passed_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places(monkeypatch)
    path, file = tmp_path / "a/b/c", tmp_path / "d/e/f"
    with machines("one"):
        [script] = directory._inner(path=str(path), mode="750", user=OWNER, group=GROUP)
    subprocess.run(["sh", "-c", f"umask 077\n{script}"], check=True)
    assert [mode(place) for place in (tmp_path / "a", path.parent, path)] == [0o755, 0o755, 0o750]
    install([File(str(file), "text\n", user=OWNER, group=GROUP)])
    assert [mode(place) for place in (tmp_path / "d", file.parent, file)] == [0o755, 0o755, 0o644]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("directory", "directory is a directory, and a file must be there"),
        ("file/below", "file is no directory, and one must be there"),
        ("dangling/below", "dangling is no directory, and one must be there"),
        ("file/deep/below", "file is no directory, and one must be there"),
        ("link", ""),
        ("file", ""),
        ("missing/below", ""),
    ],
)
def test_what_is_of_another_kind_is_refused(tmp_path: Path, path: str, told: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("directory")
    with machines("one"):
        written = tree._inner(files=[File(str(tmp_path / path), "text\n", "600")])
        if not told:
            assert list(written)
            return
        with pytest.raises(RefusalError, match=f"^one: {tmp_path}/{told}"):
            next(written)


def test_a_directory_is_refused_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with (
            machines("one"),
            pytest.raises(RefusalError, match="/file is no directory, and one must be there"),
        ):
            next(directory._inner(path=str(path)))


CHECKER = """#!/bin/sh
for f in DIRECTORY/*; do
    grep -q nonsense $f || continue
    printf '%s\\n' "[warn] in DIRECTORY/a:1" "nginx: [emerg] bad in $f:1" >&2
    exit 1
done
"""


@pytest.mark.parametrize(
    ("mine", "foreign", "refused"),
    [
        ("# Managed by bitrix-cdn\n", "right\n", False),
        ("# Managed by bitrix-cdn\n", "nonsense\n", True),
        # What is ours is put right by the run itself.
        ("# Managed by bitrix-cdn\nnonsense\n", "right\n", False),
    ],
)
def test_a_foreign_file_that_the_checker_refuses_is_told(
    tmp_path: Path, mine: str, foreign: str, refused: bool
) -> None:
    checker, root = tmp_path / "checker", tmp_path / "etc"
    checker.write_text(CHECKER.replace("DIRECTORY", str(root)))
    checker.chmod(0o755)
    root.mkdir()
    (root / "mine").write_text(mine)
    (root / "theirs").write_text(foreign)
    (root / "mine").chmod(0o600)
    file = File(str(root / "mine"), "# Managed by bitrix-cdn\n", "600", OWNER, GROUP)
    with machines("one"):
        changes = tree._inner(files=[file], root=str(root), check=str(checker), shared=True)
        if refused:
            with pytest.raises(RefusalError, match=rf"nginx: \[emerg\] bad in {root}/theirs:1; .* ours$"):
                next(changes)
        else:
            assert len(list(changes)) == (mine != file.content)


def test_a_checker_that_is_not_installed_refuses_nothing() -> None:
    command = Refused().command(root="/etc/x", check="no-such-checker -t")
    assert subprocess.check_output(["sh", "-c", command], text=True) == ""
    assert Refused().process([]) is None
    found = Refused().process(["bad in /etc/x/a and /etc/x/b", "known /etc/x/a", "foreign /etc/x/b"])
    assert found == Refusal("bad in /etc/x/a and /etc/x/b", ["/etc/x/a", "/etc/x/b"], ["/etc/x/b"])
