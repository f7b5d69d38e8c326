"""A warm worker: one process that does run after run of a manifest, its base model loaded once."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from actshift.config.overrides import override
from actshift.observe.progress import Progress
from actshift.planning.halving import Halving, with_losses
from actshift.planning.manifests import Manifest, Run, read_manifest, verify
from actshift.schema.config import Config
from actshift.store.records import Cell
from actshift.store.store import Store

ALIKE = 3
"""How many runs in a row, of at least two cells, fail for one cause before a worker takes no more of a manifest."""


@dataclass(frozen=True)
class Event:
    """What a worker tells its launcher.

    `kind`: started, note, done, paused, failed, again, apart, stopped, interrupted, idle; and queued, where no worker
    has a device.
    """

    kind: str
    run: Run | None = None
    outcome: str = ""
    seconds: float = 0.0
    error: str = ""


def serve(commands: Connection, results: str, overrides: Sequence[str]) -> None:
    """Work on each manifest whose path comes in, tell what happens, end on None or when the launcher no longer runs.

    Ctrl-C reaches the whole group of processes: the launcher answers it, and stops its workers by SIGTERM, upon which
    the run at hand checkpoints.
    """
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    worker = Worker(Path(results), overrides=overrides, tell=commands.send, stop=stop)
    while not stop.is_set() and (path := commands.recv()) is not None:
        worker.work(read_manifest(Path(path)))
        commands.send(Event("idle"))


class Worker:
    """Does the runs of a manifest that nobody else has done or is doing, until `stop` is set."""

    def __init__(
        self,
        results: Path,
        *,
        overrides: Sequence[str],
        tell: Callable[[Event], None],
        stop: threading.Event | None = None,
    ) -> None:
        from actshift.runtime.session import Session

        self._store = Store(results)
        self._overrides = [*overrides, override("results", results)]
        self._tell = tell
        self._session = Session(stop=stop)
        self._composed: dict[tuple[Cell, str], Config] = {}
        self._failed_alike: list[tuple[str, Cell]] = []

    def work(self, manifest: Manifest, *, runs: Sequence[Run] | None = None) -> None:
        """Pass over the manifest, or some of its runs, until each is done, failed, or in other hands.

        Once several runs in a row have failed for one cause (no network, a package that is missing), the rest is left:
        it would fail as well.
        """
        self._composed.clear()
        self._failed_alike.clear()
        chosen = manifest.runs if runs is None else runs
        # A list: all of them, not up to the first.
        while any([self._attempt_all(group, manifest) for group in _by_variant(chosen)]):
            pass

    def _attempt_all(self, group: Sequence[Run], manifest: Manifest) -> bool:
        """Do those of a group that are there to be done: at once where it pays, and apart where that went wrong."""
        from actshift.runtime.run import Busy

        if manifest.halves:
            return self._attempt_due(group, manifest)
        missing = [run for run in group if self._store.state(run.identity, run.split) == "missing"]
        try:
            together, rows = self._together(missing, manifest)
            if rows:
                self._do(together, manifest, micro_batch=rows)
                return True
        except Busy:
            return False
        except Exception as error:
            self._tell(Event("apart", group[0], error=f"{type(error).__name__}: {error}"))
        return any([self._attempt(run, manifest) for run in missing])

    def _attempt_due(self, group: Sequence[Run], manifest: Manifest) -> bool:
        """Train those of a group that are due as far as the others of their cell; drop what lags behind for good."""
        from actshift.training.checkpoints import Checkpoints

        halving = Halving(manifest, self._store)
        tried = False
        for run in group:
            now = halving.standing(run.cell)  # others may have trained some of the group meanwhile
            tried |= run in now.due and self._attempt(run, manifest, share=now.share)
        for run in halving.standing(group[0].cell).dropped:
            Checkpoints(self._store.run_folder(run.identity), every=0).clear()
        return tried

    def _together(self, missing: Sequence[Run], manifest: Manifest) -> tuple[list[Run], int]:
        """Which missing runs of a group to train at once, and by how many rows of each; 0 rows where none are."""
        from actshift.estimates.costs import replica_rows

        # One that took its process down before is tried alone.
        sound = [run for run in missing if not self._store.deaths(run.identity, run.split)]
        if len(sound) < 2 or self._ends:
            return [], 0
        config = self._config(sound[0], manifest)
        return sound, replica_rows(config, len(sound)) if config.execution == "replicas" else 0

    def _attempt(self, run: Run, manifest: Manifest, *, share: float = 1.0) -> bool:
        """Do one run, or a share of it, if it is there to be done; whether it was."""
        from actshift.runtime.run import Busy

        if self._ends or self._store.state(run.identity, run.split) != "missing":
            return False
        try:
            self._do([run], manifest, share=share)
            self._failed_alike.clear()
        except Busy:
            return False
        except Exception as error:
            if self._store.failure(run.identity, run.split) is None:
                self._store.fail(run.identity, run.split, traceback.format_exc())
            again = retry_smaller(self._store, run)
            why = f"{type(error).__name__}: {error}"
            self._tell(Event("again" if again else "failed", run, error=why))
            if not again:
                self._note_cause(run, why)
        return True

    @property
    def _ends(self) -> bool:
        """Whether no further run is to be begun."""
        return self._session.stop.is_set() or self._repeated

    @property
    def _repeated(self) -> bool:
        return len(self._failed_alike) >= ALIKE and len({cell for _, cell in self._failed_alike}) > 1

    def _note_cause(self, run: Run, error: str) -> None:
        """Remember why a run failed, among those right before it that failed for the same cause."""
        cause = re.sub(r"[0-9a-f]{16}|\d+", "#", error)  # one cause may name each run's own numbers
        alike = [each for each in self._failed_alike if each[0] == cause]
        self._failed_alike = [*alike, (cause, run.cell)]
        if self._repeated:
            count, why = len(self._failed_alike), error.rstrip(".")
            self._tell(Event("stopped", run, error=f"{count} runs in a row failed for one cause: {why}."))

    def _do(
        self, runs: Sequence[Run], manifest: Manifest, *, micro_batch: int | None = None, share: float = 1.0
    ) -> None:
        from actshift.runtime.run import run_together
        from actshift.runtime.session import Interrupted, Paused

        started = time.monotonic()
        self._tell(Event("started", runs[0]))
        configs = [self._config(run, manifest) for run in runs]
        for run, config in zip(runs, configs, strict=True):
            verify(run, config, manifest)
        if micro_batch is not None:
            configs = [
                replace(config, hardware=replace(config.hardware, micro_batch=micro_batch)) for config in configs
            ]
        try:
            notes = _Notes(runs[0], self._tell)
            records = run_together(configs, session=self._session, progress=notes, share=share)
        except (Interrupted, Paused) as ended:
            seconds = time.monotonic() - started
            self._tell(Event("paused" if isinstance(ended, Paused) else "interrupted", runs[0], seconds=seconds))
            return
        seconds = (time.monotonic() - started) / len(runs)
        for run, record in zip(runs, records, strict=True):
            self._tell(Event("done", run, outcome=record.outcome, seconds=seconds))

    def _config(self, run: Run, manifest: Manifest) -> Config:
        """The config of a run as the files say now; a variant is composed once, its rates and seeds put into copies."""
        from actshift.config.composition import compose

        key = run.cell, run.variant
        if key not in self._composed:
            planned = manifest.planned(run.cell).variant(run.variant)
            self._composed[key] = compose([*planned.overrides, *self._overrides])
        config = self._composed[key]
        halved = max(1, config.hardware.micro_batch // 2 ** self._store.deaths(run.identity, run.split))
        return replace(
            config,
            hardware=replace(config.hardware, micro_batch=halved),
            logger=replace(config.logger, sweep=manifest.sweep),
            training=with_losses(config.training) if manifest.halves else config.training,
            lr=run.lr,
            seed=run.seed,
            stage=manifest.stage,
        )


class _Notes(Progress):
    """Of a run's progress, only what is worth a line of its own reaches the launcher."""

    def __init__(self, run: Run, tell: Callable[[Event], None]) -> None:
        self._run, self._tell = run, tell

    def note(self, text: str) -> None:
        self._tell(Event("note", self._run, error=text))


def _by_variant(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by cell and variant, in the order of their first ones: within a group only rates and seeds differ."""
    groups: dict[tuple[Cell, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.cell, run.variant), []).append(run)
    return list(groups.values())


def retry_smaller(store: Store, run: Run) -> bool:
    """Clear the failure of a run that died for the first time: its next attempt halves the micro-batch."""
    again = store.failure(run.identity, run.split) is not None and store.deaths(run.identity, run.split) == 1
    if again:
        store.clear_failure(run.identity, run.split)
    return again


def _end_with_launcher() -> None:
    """A worker whose launcher was killed has nobody to tell and must not go on by itself."""
    launcher = parent_process()
    if launcher is not None:
        launcher.join()
        os._exit(1)
