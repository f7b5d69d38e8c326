"""Who is working on a run: claims that need no lock, no rename and no agreement between clocks.

The claims of a run are numbered files that are never removed, so a number is created at most once, whatever stale
listing a network file system shows; the highest is the current one. Exclusive creation decides every race.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import TracebackType

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
GENERATION = re.compile(r"(\d{6})\.json")
BEATS = 6  # heartbeats within one expiry
WATCH = 3  # a lock that looks stale is watched for expiry / WATCH: two heartbeats


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. `started` (clock ticks since boot) tells it from others of its pid."""

    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    started: int | None
    token: str

    @classmethod
    def here(cls) -> Owner:
        boot_id, namespace = _machine()
        stat = _process(os.getpid())
        started = stat[1] if stat else None
        return cls(socket.gethostname(), boot_id, namespace, os.getpid(), started, secrets.token_hex(8))

    def running(self) -> bool | None:
        """Whether the process runs, or None where that cannot be told from here: another machine or container.

        None also for a process that is stopped: it may never go on, so its heartbeat decides.
        """
        boot_id, namespace = _machine()
        if None in (boot_id, namespace, self.started):
            return None
        if (self.host, self.boot_id, self.pid_namespace) != (socket.gethostname(), boot_id, namespace):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's, and there
        stat = _process(self.pid)
        if stat is None:  # hidden from other users, or gone this very moment
            return None
        state, started = stat
        if started != self.started or state in "ZX":
            return False
        return None if state in "Tt" else True


class Clock:
    """The time by the stamps of one file system, from a file written there; no machine's own clock is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: tuple[float, float] | None = None  # monotonic seconds, stamp

    def now(self) -> float | None:
        """Seconds on the file system's time line, at most a second old; None where nothing can be written."""
        if self._read is None or time.monotonic() - self._read[0] > 1.0:
            self._read = None if (stamp := self._probe()) is None else (time.monotonic(), stamp)
        return self._read[1] if self._read else None

    def _probe(self) -> float | None:
        path = self.folder / f".clock.{socket.gethostname()}.{os.getpid()}-{secrets.token_hex(4)}"
        try:
            path.touch(exist_ok=False)
            try:
                os.utime(path)  # the call that a heartbeat makes, stamped by whoever stamps a heartbeat
                return path.stat().st_mtime
            finally:
                path.unlink(missing_ok=True)
        except OSError:
            return None  # a reader without write access, or a full disk: then no lock is judged stale


class RunLock:
    """The right to work on one run, kept by a heartbeat until it is released or lost. Use it in a `with`."""

    def __init__(self, path: Path, *, identity: str, generation: int, expiry: float) -> None:
        self.identity = identity
        self.generation = generation
        self._path = path
        self._next = path.with_name(f"{generation + 1:06d}.json")
        self._superseded = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(expiry / BEATS,), daemon=True, name=f"lock-{identity}")
        self._thread.start()

    @property
    def lost(self) -> bool:
        """Whether someone else took the run over (this process was silent for too long) or its folder was deleted."""
        if not self._superseded and (_exists(self._next) or not _exists(self._path)):
            self._superseded = True
        return self._superseded

    def release(self) -> None:
        """Stop the heartbeat and mark this generation as given back; harmless when lost or called twice."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            _write_new(self._path.with_suffix(".released"), "")

    def _beat(self, interval: float) -> None:
        while not self._ended.wait(interval):
            try:
                if self.lost:
                    return
                os.utime(self._path)
            except OSError:
                continue  # a server that does not answer now may answer at the next beat

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RunLocks:
    """The claims of all runs under one folder, as this process sees them.

    A lock is stale when its owner was on this machine and that process no longer runs, at once; an owner that runs here
    is never stale, however long the machine slept. Any other owner is stale when the heartbeat is older than
    `expiry` seconds by the file system's own stamps and then stays still while it is watched for a third of that.
    The watching makes the rule safe where stamps come from each client's clock instead of the server's.
    """

    def __init__(self, folder: Path, *, expiry: float) -> None:
        self.folder = folder
        self.expiry = expiry
        self._clock = Clock(folder)
        self._sightings: dict[Path, tuple[int, float]] = {}  # heartbeat, monotonic seconds when it was first seen

    def held(self, identity: str) -> bool:
        """Whether someone seems to work on the run: an estimate that waits for nothing; `acquire` is the proof."""
        path = self._current(identity)
        return path is not None and not _exists(path.with_suffix(".released")) and not self._looks_stale(path)

    def abandoned(self, identity: str) -> bool:
        """Whether the last owner seems to have ended without releasing the lock: an estimate, as `held` is."""
        path = self._current(identity)
        return path is not None and not _exists(path.with_suffix(".released")) and self._looks_stale(path)

    def holder(self, identity: str) -> str:
        """The process that has a run, in words: its number, its machine, and the age of its last heartbeat."""
        path, now = self._current(identity), self._clock.now()
        owner, beat = _read(path) if path is not None else (None, 0)
        who = f"process {owner.pid} on {owner.host}" if owner else "a process that left no name"
        return who if now is None else f"{who}, whose last heartbeat is {max(0.0, now - beat / 1e9):.0f} s old"

    def acquire(self, identity: str) -> RunLock | None:
        """The lock on a run, or None where another process has it or won the race for it.

        Waits only where the lock of another machine looks stale: a third of the expiry, less what it was already
        under watch.
        """
        path = self._current(identity)
        if path is None:
            path = self._folder(identity) / "000000.json"
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not _exists(path.with_suffix(".released")) and not (self._looks_stale(path) and self._stays_still(path)):
            return None
        generation = int(path.stem) + 1
        path = path.with_name(f"{generation:06d}.json")
        try:
            _create(path, json.dumps(asdict(Owner.here())))
        except FileExistsError:
            return None
        return RunLock(path, identity=identity, generation=generation, expiry=self.expiry)

    def _folder(self, identity: str) -> Path:
        return self.folder / identity / "claims"

    def _current(self, identity: str) -> Path | None:
        folder = self._folder(identity)
        try:
            names = [name for name in os.listdir(folder) if GENERATION.fullmatch(name)]
        except FileNotFoundError:
            return None
        return folder / max(names) if names else None

    def _looks_stale(self, path: Path) -> bool:
        owner, beat = _read(path)
        running = owner.running() if owner else None
        if running is not None:
            return not running
        now = self._clock.now()
        if now is None or now - beat / 1e9 <= self.expiry:
            return False
        if path not in self._sightings or self._sightings[path][0] != beat:
            self._sightings[path] = (beat, time.monotonic())
        return True

    def _stays_still(self, path: Path) -> bool:
        """Whether the heartbeat does not move while it is watched; at once for a process known to have ended."""
        if path not in self._sightings:
            return True
        beat, since = self._sightings[path]
        while (left := since + self.expiry / WATCH - time.monotonic()) > 0:
            time.sleep(min(left, self.expiry / BEATS))
            if _read(path)[1] != beat:
                return False
        return _read(path)[1] == beat


def _create(path: Path, text: str) -> None:
    """Create a file that must not exist, with all of its text from the first moment.

    A hard link to a finished file is exclusive and atomic at once. Where links are not to be had, exclusive creation
    decides as well, but a kill can leave the file empty: then only its heartbeat says whether someone has it.
    """
    finished = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _write_new(finished, text)
        os.link(finished, path)
    except FileExistsError:
        # A network file system may repeat a request whose answer got lost: the link is ours if there are two.
        if finished.stat().st_nlink != 2:
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _write_new(path, text)
    finally:
        finished.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: Path) -> tuple[Owner | None, int]:
    """The owner in a lock's file (None if half-written) and the heartbeat in nanoseconds.

    The heartbeat is read through an open file: opening makes a network file system ask its server.
    """
    with open(path, "rb") as file:
        beat = os.fstat(file.fileno()).st_mtime_ns
        try:
            data = json.loads(file.read())
        except ValueError:
            return None, beat
    whole = isinstance(data, dict) and data.keys() == {field.name for field in fields(Owner)}
    return (Owner(**data) if whole else None), beat


def _exists(path: Path) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _process(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process from /proc, or None where it cannot be read."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    values = line.rpartition(")")[2].split()  # the name before it may hold anything
    return values[0], int(values[19])


@cache
def _machine() -> tuple[str | None, str | None]:
    """This boot of this kernel and this process namespace; None where there is no Linux /proc."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return boot_id, os.readlink("/proc/self/ns/pid")
    except OSError:
        return None, None
