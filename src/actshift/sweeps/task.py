"""One task of a SLURM array: its runs in one process, and what to do when the time is up.

    python -m actshift.sweeps.task TASKS_FILE FIRST

SLURM_ARRAY_TASK_ID counts from FIRST. On the warning signal (USR1) the run at hand checkpoints and the task puts
itself, never the whole array, back into the queue. On SIGTERM (scancel, or a preemption that requeues by itself) it
checkpoints and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from actshift.errors import ActshiftError
from actshift.paths import use_config_dir
from actshift.planning.halving import states
from actshift.planning.manifests import Manifest, Run, read_manifest
from actshift.store.store import Store
from actshift.sweeps.slurm import Work, read_tasks
from actshift.sweeps.worker import Event, Worker


class Signals:
    """The signals that SLURM has sent so far: `stop` is set by either signal, `requeue` by the warning alone."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.requeue = False
        signal.signal(signal.SIGUSR1, self._heard)
        signal.signal(signal.SIGTERM, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.requeue |= number == signal.SIGUSR1
        self.stop.set()


def main(arguments: list[str]) -> int:
    """Do a task's runs; 0 if all are done, 1 if some failed, 3 if some are left."""
    file, first = arguments
    signals = Signals()
    head, tasks = read_tasks(Path(file))
    if "config_dir" in head:
        use_config_dir(head["config_dir"])
    task = tasks[int(first) + int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    store = Store(Path(head["results"]))
    manifest = read_manifest(store.manifest_path(head["sweep"], head["stage"]))
    runs = _runs(task["runs"], manifest)
    overrides = [*head["overrides"], f"hardware={task['hardware']}"]
    worker = Worker(Path(head["results"]), overrides=overrides, tell=_say, stop=signals.stop)
    worker.work(manifest, runs=runs)
    found = dict(zip(manifest.runs, states(manifest, store), strict=True))
    here = {found[run] for run in runs}
    if signals.stop.is_set() and here & {"missing", "waiting"}:
        if signals.requeue:
            _requeue()
        return 3
    return 1 if "failed" in here else 0 if here <= {"done", "dropped"} else 3


def _runs(wanted: list[Work], manifest: Manifest) -> list[Run]:
    """The runs that a task names; one without a rate is whatever the selection has made of its cell and seed."""
    return [run for work in wanted for run in manifest.runs if _fits(run, work)]


def _fits(run: Run, work: Work) -> bool:
    cell = run.cell
    return (cell.model, cell.method, cell.dataset, cell.protocol, run.seed) == work.key[:5] and (
        work.lr is None or (work.lr, work.variant) == (run.lr, run.variant)
    )


def _requeue() -> None:
    """Put this task back into the queue; SLURM ends the process while it does."""
    job = os.environ["SLURM_ARRAY_JOB_ID"] + "_" + os.environ["SLURM_ARRAY_TASK_ID"]
    print(f"requeueing {job}", flush=True)
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"scontrol refused: {done.stderr.strip()}; `actshift submit` takes it up again", flush=True)


def _say(event: Event) -> None:
    run = event.run
    if run is None:
        return
    parts: list[Any] = [event.kind, run.identity, run.cell, f"lr={run.lr:g}", f"seed={run.seed}"]
    parts += [f"{event.outcome} in {event.seconds:.1f}s"] if event.outcome else []
    parts += [event.error] if event.error else []
    print(*parts, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except ActshiftError as error:
        sys.exit(f"actshift: {error}")
