"""The local engine: warm workers on this machine, from a plan to its records."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import TextIO

from actshift.observe.progress import duration
from actshift.planning.halving import states as states_of
from actshift.planning.manifests import Manifest, Run
from actshift.store.store import Store
from actshift.sweeps.devices import Claim, Devices
from actshift.sweeps.worker import Event, retry_smaller, serve

STOP_SECONDS = 30.0
"""How long a worker that is told to stop may take to reach its next step and write a checkpoint."""
POLL_SECONDS = 1.0
"""How often the launcher looks at runs that are in other launchers' hands."""


@dataclass
class _WorkerHandle:
    """One worker process as its launcher sees it."""

    process: SpawnProcess
    pipe: Connection
    claim: Claim
    run: Run | None = None
    idle: bool = True


class LocalEngine:
    """A pool of warm workers; a context manager. Workers start with the first manifest that has work to do."""

    def __init__(
        self, store: Store, *, devices: Devices, overrides: Sequence[str], stream: TextIO | None = None
    ) -> None:
        self._store = store
        self._devices = devices
        self._overrides = list(overrides)
        self._stream = stream or sys.stdout
        self._hands: list[_WorkerHandle] = []
        self._stopped = False

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hand in self._hands:
            if kind is None and hand.idle:
                hand.pipe.send(None)
            else:
                hand.process.terminate()
        for hand in self._hands:
            hand.process.join(timeout=STOP_SECONDS)
            if hand.process.is_alive():
                hand.process.kill()
            hand.claim.release()

    def do(self, manifest: Manifest) -> Counter[str]:
        """Do the missing runs of a manifest and return how many of its runs are in which state in the end.

        Runs that other launchers hold are waited for, and so is a GPU where they hold all. A worker that dies takes
        down the run it was at, which is noted as failed, and is replaced. Where a worker stops because runs fail for
        one cause, missing runs are left.
        """
        self._stopped = False
        self._progress = _SweepProgress(manifest, states=self._states(manifest), stream=self._stream)
        path = self._store.manifest_path(manifest.sweep, manifest.stage)
        while True:
            states = Counter(self._states(manifest))
            if self._stopped:
                return states
            if states["missing"] and self._staffed(min(self._devices.count, states["missing"])):
                self._round(path)
            elif states["missing"] or states["running"] or states["waiting"]:
                if states["missing"]:
                    self._progress.hear(Event("queued"))
                time.sleep(POLL_SECONDS)
            else:
                return states

    def _states(self, manifest: Manifest) -> list[str]:
        return states_of(manifest, self._store)

    def _staffed(self, count: int) -> bool:
        """Whether there are workers, after starting as many up to `count` as there are free devices for."""
        while len(self._hands) < count and (claim := self._devices.claim()) is not None:
            self._hands.append(self._start(claim))
        return bool(self._hands)

    def _round(self, path: Path) -> None:
        """Set the workers to work and listen to them until all are idle again."""
        for hand in self._hands:
            hand.idle = False
            hand.pipe.send(str(path))
        while not all(hand.idle for hand in self._hands):
            for ready in wait([hand.pipe for hand in self._hands if not hand.idle]):
                hand = next(hand for hand in self._hands if hand.pipe is ready)
                try:
                    self._on_event(hand, hand.pipe.recv())
                except EOFError:
                    self._on_worker_death(hand)

    def _start(self, claim: Claim) -> _WorkerHandle:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, str(self._store.root), self._overrides), daemon=True)
        with _environment(claim.environment):
            process.start()
        theirs.close()
        return _WorkerHandle(process, ours, claim)

    def _on_event(self, hand: _WorkerHandle, event: Event) -> None:
        hand.run, hand.idle = event.run if event.kind in ("started", "note") else None, event.kind == "idle"
        self._stopped |= event.kind == "stopped"
        self._progress.hear(event)

    def _on_worker_death(self, hand: _WorkerHandle) -> None:
        """A worker died: its run failed, or is tried again once, and the next round starts another in its place."""
        hand.process.join()
        hand.claim.release()
        self._hands.remove(hand)
        if hand.run is not None:
            error = f"the worker process died with exit code {hand.process.exitcode} (out of memory, or killed)"
            self._store.fail(hand.run.identity, hand.run.split, error, died=True)
            again = retry_smaller(self._store, hand.run)
            self._progress.hear(Event("again" if again else "failed", hand.run, error=error))


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """This process's environment with some variables more, which a child that starts inside inherits."""
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _SweepProgress:
    """A line for each run that ends, with the rate and the remaining time of the whole manifest."""

    def __init__(self, manifest: Manifest, *, states: list[str], stream: TextIO) -> None:
        self._total = len(manifest.runs)
        pairs = zip(manifest.runs, states, strict=True)
        self._ended = {run.identity for run, state in pairs if state in ("done", "failed", "dropped")}
        self._here, self._started, self._queued = 0, time.monotonic(), False
        self._stream = stream
        if len(self._ended) < self._total:
            self._say(f"{manifest.sweep} {manifest.stage}: {len(self._ended)} of {self._total} runs are done")

    def hear(self, event: Event) -> None:
        run = event.run
        if event.kind == "queued" and not self._queued:
            self._queued = True
            self._say("other launchers of this machine hold all GPUs: waiting for one")
        if event.kind == "again" and run is not None:
            self._say(f"again with half the micro-batch: {run.cell} lr={run.lr:g} seed={run.seed}: {event.error}")
        if event.kind == "apart" and run is not None:
            self._say(f"one by one instead of at once: {run.cell}: {event.error}")
        if event.kind == "note" and run is not None:
            self._say(f"{run.cell} lr={run.lr:g} seed={run.seed}: {event.error}")
        if event.kind == "stopped":
            self._say(f"stopped: {event.error} Mend the cause; the same command with --retry then goes on.")
        if event.kind == "paused" and run is not None:
            what = f"{run.cell.model} {run.cell.method} {run.cell.dataset} lr={run.lr:g}"
            self._say(f"{what}: paused after {event.seconds:.1f}s, to be compared with the other rates of its cell")
        # Two workers may have looked at a run at once: the second one finds its record and says done as well.
        if event.kind not in ("done", "failed") or run is None or run.identity in self._ended:
            return
        self._ended.add(run.identity)
        self._here += 1
        ahead = self._total - len(self._ended)
        left = f", {duration((time.monotonic() - self._started) / self._here * ahead)} left" if ahead else ""
        what = f"{run.cell.model} {run.cell.method} {run.cell.dataset} lr={run.lr:g} seed={run.seed}"
        if event.kind == "done":
            outcome = f"{run.split} {event.outcome} in {event.seconds:.1f}s"
        else:
            outcome = f"FAILED: {event.error.splitlines()[0] if event.error else 'unknown'}"
        self._say(f"[{len(self._ended)}/{self._total}] {what}: {outcome}{left}")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
