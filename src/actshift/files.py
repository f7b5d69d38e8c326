"""The one place that writes files.

Whatever happens while it is written, a reader meets a whole file or folder, or none. What is new is written under a
hidden name beside its place, forced to disk, and renamed. After a failure (a full disk, a quota, a kill that can be
caught) the hidden remains are removed, and what stood there before is still there.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".tmp"
"""The end of the name of a file or folder that is being written."""


def write_file(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step that a kill or a power cut cannot halve; text is UTF-8.

    Its mode follows the umask, so that colleagues on a shared file system can read it.
    Errors: OSError where the folder cannot be written or has no room; UnicodeEncodeError for text that has no UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        _write_new(temporary, content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_new_file(path: Path, content: str | bytes) -> bool:
    """Write `path` unless it exists already; whether this call wrote it. Of two writers at once, one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        _write_new(temporary, content)
        os.link(temporary, path)  # unlike a rename, a link never replaces
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)
    return True


def append_line(path: Path, line: str) -> None:
    """Add a line to a file in one write, forced to disk; the file is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """A folder to be filled in a ``with``; it takes its place at `path`, forced to disk, once the block ends.

    An older folder of that name is replaced; with ``replace=False`` it stays, and the new one is removed instead, which
    is for content that is the same whoever writes it. Where the block fails, nothing of the new folder is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _flush(file)
        _flush_folder(partial)
        if path.exists() and replace:
            # A reader that comes at this moment sees no folder, which is a state it knows.
            shutil.rmtree(path)
        try:
            partial.rename(path)
        except OSError as error:
            if replace or error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _flush_folder(path.parent)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, hence on the same file system, that no other writer has."""
    return path.with_name(f".{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}")


def _write_new(path: Path, content: str | bytes) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Force a folder's entries to disk, where its file system can: some network file systems cannot."""
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
