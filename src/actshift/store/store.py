"""Everything that sweeps keep, as files below one folder: their names, and what state a run is in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actshift.config.identity import identity_of
from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.schema.config import SWEEP_NAME
from actshift.store.locks import RunLock, RunLocks
from actshift.store.pauses import Pause, read_pause, write_pause
from actshift.store.records import IDENTITY, SPLITS, Record, read_json, read_record, read_records, write_record


class Store:
    """The results folder. Any number of processes on any number of machines may use one at the same time.

    `records/`, `pauses/`, `manifests/`, `selected/` and `tables/` are small and worth committing; `runs/` holds what
    belongs to one run (adapter, curves, predictions, locks, its failure) and `cache/` what can be made again. `expiry`
    is the number of seconds after which a silent owner on another machine has lost its lock.
    """

    def __init__(self, root: Path | str, *, expiry: float = 120.0) -> None:
        if not expiry > 0:
            raise ActshiftError(f"a lock's expiry must be a positive number of seconds, got {expiry}")
        self.root = Path(root)
        self._locks = RunLocks(self.root / "runs", expiry=expiry)

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def record_path(self, identity: str, split: str) -> Path:
        return self.root / "records" / f"{_identity(identity)}.{_split(split)}.json"

    def run_folder(self, identity: str) -> Path:
        """The folder of one run's own files; it need not exist yet."""
        return self.root / "runs" / _identity(identity)

    def manifest_path(self, sweep: str, stage: str) -> Path:
        return self.root / "manifests" / f"{_sweep(sweep)}.{stage}.jsonl"

    def planned(self) -> list[str]:
        """The sweeps whose grid stage is planned, by name."""
        return [path.name.removesuffix(".grid.jsonl") for path in sorted(self.root.glob("manifests/*.grid.jsonl"))]

    def selected_path(self, sweep: str) -> Path:
        return self.root / "selected" / f"{_sweep(sweep)}.json"

    def state(self, identity: str, split: str) -> str:
        """ "done", "running", "failed" or "missing", from files alone and without waiting.

        "running" is an estimate: somebody seems to have the lock, for whichever split. `lock` is the proof.
        """
        record = self.record_path(identity, split)
        if record.exists():
            return "done"
        if self._locks.held(identity):
            return "running"
        # An owner publishes before it lets go, so a record can have come between the two looks.
        if record.exists():
            return "done"
        return "failed" if self.failure(identity, split) else "missing"

    def stale(self, identity: str) -> bool:
        """Whether a run was claimed by a process that neither finished it nor gave it back, and is silent now."""
        return self._locks.abandoned(identity)

    def lock(self, identity: str) -> RunLock | None:
        """The exclusive right to work on a run, or None where another process has it.

        Look at the state again after winning: the record may have appeared meanwhile. Waits (a third of the expiry
        at most) only where the owner is on another machine and seems to be dead.
        """
        return self._locks.acquire(_identity(identity))

    def holder(self, identity: str) -> str:
        """Who works on a run and what to do where that process no longer runs, as a message says it."""
        return (
            f"{self._locks.holder(_identity(identity))}. Wait for it; if it no longer runs, the same command takes the "
            f"run over once the heartbeat is older than {self._locks.expiry:.0f} s"
        )

    def publish(self, record: Record, *, lock: RunLock | None = None) -> bool:
        """Write the record that makes a run done; False where one is there already, which stays.

        Raises ActshiftError where the record's config is not the run that its identity says, or the lock was lost.
        """
        _check_content(record)
        if lock is not None and (lock.lost or lock.identity != record.identity):
            raise ActshiftError(
                f"the lock on run {lock.identity} was lost to another process, which makes the record; "
                "nothing was written. A machine that stalls longer than the lock's expiry loses its runs."
            )
        path = self.record_path(record.identity, record.split)
        fresh = not path.exists()
        if fresh:
            write_record(path, record)
        self._failure_path(record.identity, record.split).unlink(missing_ok=True)
        return fresh

    def record(self, identity: str, split: str) -> Record | None:
        """The record of one run and split, or None where it is not done."""
        path = self.record_path(identity, split)
        return read_record(path) if path.exists() else None

    def records(self, split: str | None = None) -> list[Record]:
        """All records, or those of one split, by cell, lr and seed."""
        return read_records(self.root / "records", split=split)

    def pause(self, pause: Pause) -> None:
        """Note how far a run has come, in place of an earlier note."""
        write_pause(self._pause_path(pause.identity), pause)

    def paused(self, identity: str) -> Pause | None:
        """How far a run had come when it last paused, or None where it never did."""
        return read_pause(self._pause_path(identity))

    def _pause_path(self, identity: str) -> Path:
        return self.root / "pauses" / f"{_identity(identity)}.json"

    def fail(self, identity: str, split: str, error: str, *, died: bool = False) -> None:
        """Note that a run failed, with its traceback as text. The number of attempts goes up by one.

        `died`: it ran out of memory, or took its process down with it; `deaths` counts these.
        """
        lines = [line.strip() for line in error.splitlines() if line.strip()]
        note = {
            "split": split,
            "last_line": lines[-1] if lines else "",
            "error": error,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "attempts": self._noted(identity, split, "attempts") + 1,
            "deaths": self.deaths(identity, split) + died,
            "cleared": False,
        }
        self._write_failure(identity, split, note)

    def failure(self, identity: str, split: str) -> dict[str, Any] | None:
        """The last failure (`error`, `last_line`, `time`, `attempts`), or None where there is none to be retried."""
        note = self._read_failure(identity, split)
        return None if note is None or note["cleared"] else note

    def clear_failure(self, identity: str, split: str) -> None:
        """Make a failed run missing again. The number of attempts is kept and goes on counting."""
        note = self.failure(identity, split)
        if note is not None:
            self._write_failure(identity, split, note | {"cleared": True})

    def deaths(self, identity: str, split: str) -> int:
        """How often a run has run out of memory or taken its process down, cleared failures counted in."""
        return self._noted(identity, split, "deaths")

    def _noted(self, identity: str, split: str, name: str) -> int:
        note = self._read_failure(identity, split)
        return int(note.get(name, 0)) if note else 0

    def _failure_path(self, identity: str, split: str) -> Path:
        return self.run_folder(identity) / f"failed.{_split(split)}.json"

    def _read_failure(self, identity: str, split: str) -> dict[str, Any] | None:
        path = self._failure_path(identity, split)
        try:
            note = read_json(path)
        except FileNotFoundError:
            return None
        if not isinstance(note, dict) or not {"cleared", "attempts", "last_line"} <= note.keys():
            raise ActshiftError(f"{path} is not a failure note: delete it to run this again")
        return note

    def _write_failure(self, identity: str, split: str, note: dict[str, Any]) -> None:
        write_file(self._failure_path(identity, split), json.dumps(note, sort_keys=True, indent=1) + "\n")


def _check_content(record: Record) -> None:
    """The config in a record must be the run that it claims to be, or tables would show what never ran."""
    actual = identity_of(record.config, ignore=())
    if actual != record.identity:
        raise ActshiftError(f"record {record.file_name} holds the config of run {actual}; nothing was written")
    config = record.config
    cell = tuple(config.get(group, {}).get("name") for group in ("model", "method", "dataset", "protocol"))
    shown = (record.cell.model, record.cell.method, record.cell.dataset, record.cell.protocol)
    if (cell, config.get("lr"), config.get("seed")) != (shown, record.lr, record.seed):
        raise ActshiftError(
            f"record {record.file_name} says {shown} lr {record.lr} seed {record.seed}, its config says {cell} "
            f"lr {config.get('lr')} seed {config.get('seed')}; nothing was written"
        )


def _identity(identity: str) -> str:
    if not IDENTITY.fullmatch(identity):
        raise ActshiftError(f"'{identity}' is not a run's identity: 16 hex digits, as `actshift status` shows them")
    return identity


def _split(split: str) -> str:
    if split not in SPLITS:
        raise ActshiftError(f"unknown split '{split}'. Allowed: {', '.join(SPLITS)}.")
    return split


def _sweep(name: str) -> str:
    if not SWEEP_NAME.fullmatch(name):
        raise ActshiftError(f"'{name}' cannot name a sweep: letters, digits, '.', '_', '-'. Set it in conf/sweep/.")
    return name
