"""The one place that writes: whole or not at all, whatever fails, and nobody else writes."""

from __future__ import annotations

import ast
import errno
import os
from pathlib import Path

import pytest

import actshift
from actshift import files
from actshift.files import append_line, new_folder, write_file, write_new_file

SOURCE = Path(actshift.__file__).parent


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(params=["fsync", "replace", "rename"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A disk that is full at one of the steps of a write."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if request.param == "rename":
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(files.os, request.param, full)
    return str(request.param)


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    if failing == "rename":
        pytest.skip("a file takes its place by os.replace")
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"
    monkeypatch.undo()
    write_file(tmp_path / "file", "new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "new"


def test_a_folder_that_cannot_be_finished_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "folder") as partial:
        write_file(partial / "a", b"1")
    assert names(tmp_path) == []
    monkeypatch.undo()
    with new_folder(tmp_path / "folder") as partial:
        write_file(partial / "a", b"1")
    assert names(tmp_path) == ["folder", "folder/a"]


def test_a_folder_whose_block_fails_leaves_the_old_one(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("old")
    with pytest.raises(KeyError), new_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("new")
        raise KeyError
    assert names(tmp_path) == ["folder", "folder/a"] and (tmp_path / "folder" / "a").read_text() == "old"


def test_a_folder_of_the_same_content_may_stay(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with new_folder(tmp_path / "folder", replace=False) as partial:
            (partial / "a").write_text(text)
    assert names(tmp_path) == ["folder", "folder/a"] and (tmp_path / "folder" / "a").read_text() == "first"


def test_of_two_writers_of_a_new_file_one_writes(tmp_path: Path) -> None:
    assert write_new_file(tmp_path / "file", "first") and not write_new_file(tmp_path / "file", "second")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "first"


def test_lines_are_added(tmp_path: Path) -> None:
    for line in ("one", "two ü"):
        append_line(tmp_path / "below" / "lines", line)
    assert (tmp_path / "below" / "lines").read_text(encoding="utf-8") == "one\ntwo ü\n"


def test_a_folder_that_cannot_be_synchronised_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""
    real = os.fsync

    def sync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", sync)
    write_file(tmp_path / "file", "x")
    with new_folder(tmp_path / "folder") as partial:
        (partial / "a").write_text("x")
    assert names(tmp_path) == ["file", "folder", "folder/a"]


WRITERS = {"write_text", "write_bytes", "replace", "rename", "fsync"}
ELSEWHERE = {
    "files.py": "the place",
    "cli.py": "the null device, where output goes once the reader of a pipe has seen enough",
    "sweeps/devices.py": "a GPU is claimed by the operating system's lock on a file that stays empty",
    "store/locks.py": "locks are made by exclusive creation and kept by a heartbeat, which no rename can do",
}


def writes(call: ast.Call) -> bool:
    """Whether a call writes a file: of `os`, of a path, or `open` with a mode that is not for reading."""
    if isinstance(call.func, ast.Attribute):
        of_os = isinstance(call.func.value, ast.Name) and call.func.value.id == "os"
        if call.func.attr in {"write_text", "write_bytes"} or (of_os and call.func.attr in WRITERS | {"open"}):
            return True
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    modes = [each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return name == "open" and any(set(mode) <= set("rwxabt+") and set(mode) & set("wxa+") for mode in modes)


def test_no_other_module_writes_files() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        if lines := [call.lineno for call in calls if writes(call)]:
            found[str(path.relative_to(SOURCE))] = lines
    assert set(found) == set(ELSEWHERE), found
