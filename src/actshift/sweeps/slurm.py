"""The SLURM engine: a manifest's runs packed into tasks, and the jobs that do them.

Grid arrays, then a small job that selects, then final arrays, submitted together as dependent jobs. Nothing here
decides what is done: tasks claim runs as every worker does, so jobs may be submitted twice, die, or be late.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actshift.errors import ActshiftError
from actshift.files import append_line, write_new_file
from actshift.paths import user_conf_dir
from actshift.planning.manifests import Manifest
from actshift.store.store import Store
from actshift.sweeps.profiles import ClusterProfile

FILL = 0.7
"""The share of a profile's time limit that a task is packed up to: estimates err, and a requeue costs a start."""
NAME = "actshift"


@dataclass(frozen=True)
class Work:
    """One run as a task names it; `lr` and `variant` are null where the selection is still to come."""

    model: str
    method: str
    dataset: str
    protocol: str
    seed: int
    lr: float | None
    variant: str | None
    seconds: float
    """How long it is estimated to take."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.model, self.method, self.dataset, self.protocol, self.seed, self.lr, self.variant

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"seconds": round(self.seconds, 1)}


@dataclass(frozen=True)
class Job:
    """One call of sbatch. `after` names the jobs, by their index in the list, that must have ended before."""

    name: str
    profile: ClusterProfile
    arguments: tuple[str, ...]
    tasks: int = 0
    """Tasks of an array; 0 is a job without an array."""
    device: bool = False
    """Whether a job without an array asks for a node as the tasks of one do; false is a small job without a GPU."""
    after: tuple[int, ...] = ()
    strictly: bool = False
    """Whether the jobs before must have succeeded."""
    after_jobs: tuple[str, ...] = ()
    """Numbers of jobs of another submission that must have ended before, well or not."""

    def command(self, *, script: Path, logs: Path, ids: Sequence[str]) -> list[str]:
        """The arguments of sbatch, `ids` being those of the jobs submitted so far."""
        options = [f"--job-name={self.name}", *self.profile.options(gpu=self.tasks > 0 or self.device)]
        if self.tasks:
            options.append(f"--array=0-{self.tasks - 1}%{self.profile.throttle}")
            options.append(f"--signal=B:USR1@{self.profile.warning_seconds}")
        folder = str(logs).replace("%", "%%")  # sbatch fills in what follows a single one
        options.append(f"--output={folder}/{'%A_%a.log' if self.tasks else '%j.log'}")
        if self.after or self.after_jobs:
            kind = "afterok" if self.strictly else "afterany"
            before = [*(ids[index] for index in self.after), *self.after_jobs]
            options.append(f"--dependency={kind}:{':'.join(before)}")
            options.append("--kill-on-invalid-dep=yes")
        return ["sbatch", "--parsable", *options, str(script), sys.executable, *self.arguments]


def pack(
    work: Iterable[Work], profiles: Mapping[str, ClusterProfile], *, whole_cells: bool = False
) -> list[tuple[ClusterProfile, list[Work]]]:
    """Tasks of one model and profile each, filled in order up to `FILL` of the time limit (one run at least).

    With `whole_cells` all runs of a cell are one task's, however long they take: a task that is out of time goes on.
    """
    by_model: dict[str, dict[Any, list[Work]]] = defaultdict(dict)
    for number, each in enumerate(work):
        unit = each.key[:4] if whole_cells else number
        by_model[each.model].setdefault(unit, []).append(each)
    tasks: list[tuple[ClusterProfile, list[Work]]] = []
    for model, units in by_model.items():
        room = FILL * profiles[model].seconds
        spent = 0.0
        for index, runs in enumerate(units.values()):
            seconds = sum(each.seconds for each in runs)
            if index == 0 or spent + seconds > room:
                tasks.append((profiles[model], []))
                spent = 0.0
            tasks[-1][1].extend(runs)
            spent += seconds
    return tasks


def arrays(
    tasks: Sequence[tuple[ClusterProfile, list[Work]]], *, name: str, file: Path, size: int, **order: Any
) -> list[Job]:
    """The array jobs of some tasks, none larger than the site's `size`; tasks of one profile must stand together."""
    jobs, start = [], 0
    while start < len(tasks):
        profile, stop = tasks[start][0], start
        while stop < len(tasks) and tasks[stop][0] == profile and stop - start < size:
            stop += 1
        arguments = ("actshift.sweeps.task", str(file), str(start))
        jobs.append(Job(name, profile, arguments, tasks=stop - start, **order))
        start = stop
    return jobs


def write_tasks(
    store: Store,
    manifest: Manifest,
    stage: str,
    tasks: Sequence[tuple[ClusterProfile, list[Work]]],
    overrides: Sequence[str],
) -> Path:
    """Write a submission's tasks as JSON Lines under a number of its own: a header, then a line a task."""
    lines = [task_header(store, manifest, stage, overrides)] + [
        {"hardware": profile.hardware, "runs": [each.to_json() for each in runs]} for profile, runs in tasks
    ]
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    folder = jobs_folder(store, manifest.sweep)
    number = len(list(folder.glob(f"{stage}-*.jsonl")))
    while not write_new_file(path := folder / f"{stage}-{number:04d}.jsonl", text):
        number += 1
    return path


def task_header(store: Store, manifest: Manifest, stage: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What all tasks of a submission have in common: the sweep, its folder of results, the overrides of the launch."""
    user_folder = user_conf_dir()
    return {
        "sweep": manifest.sweep,
        "stage": stage,
        "results": str(store.root.resolve()),
        "overrides": list(overrides),
        **({"config_dir": str(user_folder)} if user_folder else {}),
    }


def read_tasks(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A submission's header and its tasks. Errors: no such file, or one that is not whole."""
    try:
        head, *tasks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for task in tasks:
            task["runs"] = [Work(**run) for run in task["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ActshiftError(f"{path} is not a list of tasks ({error}): submit the sweep again") from error
    return head, tasks


def script_in(folder: Path) -> Path:
    """The script that sbatch is given. Errors: a folder without it."""
    script = folder / "array.sbatch"
    if not script.is_file():
        raise ActshiftError(f"there is no {script}: name the folder of the SLURM files with --slurm")
    return script


def jobs_folder(store: Store, sweep: str) -> Path:
    """Where a sweep's submissions lie: task lists, logs, and the numbers of its jobs."""
    return store.root / "slurm" / sweep


def submit(jobs: Sequence[Job], *, store: Store, sweep: str, script: Path, say: Callable[[str], None]) -> list[str]:
    """Submit jobs in order and return their numbers, each noted at once in ``jobs.jsonl``.

    Errors: sbatch is not there or refuses; what was submitted before stays, and its runs are not doubled.
    """
    folder = jobs_folder(store, sweep).resolve()
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    ids: list[str] = []
    for job in jobs:
        number = _call(job.command(script=script, logs=logs, ids=ids)).split(";")[0].strip()
        ids.append(number)
        note = {"job": number, "name": job.name, "arguments": list(job.arguments), "tasks": job.tasks}
        append_line(folder / "jobs.jsonl", json.dumps(note, sort_keys=True))
        say(f"{number}: {job.name}, {job.profile.name}" + (f", {job.tasks} tasks" if job.tasks else ""))
    return ids


def queued(store: Store, sweep: str) -> set[tuple[Any, ...]]:
    """The keys of the runs that jobs of this sweep, waiting or running, have still before them.

    Errors: squeue does not answer, so that nobody knows whether these runs would be submitted twice.
    """
    path = jobs_folder(store, sweep) / "jobs.jsonl"
    if not path.exists():
        return set()
    alive = _alive()
    keys: set[tuple[Any, ...]] = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        job = json.loads(line)
        if not job["tasks"]:
            continue
        _, file, start = job["arguments"]
        _, tasks = read_tasks(Path(file))
        for index in range(job["tasks"]):
            if (job["job"], str(index)) in alive:
                keys.update(run.key for run in tasks[int(start) + index]["runs"])
    return keys


def waiting(store: Store, sweep: str, module: str) -> bool:
    """Whether a job that runs `module` for this sweep is in the queue."""
    return any(arguments[0] == module for arguments in in_queue(store, sweep).values())


def in_queue(store: Store, sweep: str) -> dict[str, list[str]]:
    """The jobs of this sweep that wait or run: by number, what each runs. Errors: squeue does not answer."""
    path = jobs_folder(store, sweep) / "jobs.jsonl"
    if not path.exists():
        return {}
    alive = {job for job, _ in _alive()}
    notes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {note["job"]: note["arguments"] for note in notes if note["job"] in alive}


def queue_states(store: Store, sweep: str) -> dict[str, int]:
    """How many elements of this sweep's jobs are in which state of SLURM's; empty where squeue does not answer."""
    path = jobs_folder(store, sweep) / "jobs.jsonl"
    if not path.exists():
        return {}
    ours = {json.loads(line)["job"] for line in path.read_text(encoding="utf-8").splitlines()}
    try:
        lines = _call(["squeue", "-h", "-r", "-o", "%F|%T"]).splitlines()
    except ActshiftError:
        return {}
    return dict(Counter(state for job, _, state in (line.strip().partition("|") for line in lines) if job in ours))


def array_size() -> int:
    """How many tasks an array may have here (`MaxArraySize` is one more than the highest index).

    Errors: a scheduler that does not say, or that allows no arrays: neither is the same as no limit.
    """
    found = _call(["scontrol", "show", "config"])
    for line in found.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit() and int(value) > 0:
            return int(value)
        if name.strip() == "MaxArraySize":
            raise ActshiftError(
                f"this cluster allows no job arrays (MaxArraySize = {value.strip()}): ask its operators"
            )
    raise ActshiftError(
        "scontrol does not say how many tasks an array may have ("
        + (f"its answer begins with {found.strip()[:60]!r}" if found.strip() else "it answered nothing")
        + "): try again when the controller answers"
    )


def _alive() -> set[tuple[str, str]]:
    """(job, index) of every array element, and (job, N/A) of every other job, that waits or runs."""
    lines = _call(["squeue", "-h", "-r", "-o", "%F|%K"]).splitlines()
    return {(job, index) for job, _, index in (line.strip().partition("|") for line in lines)}


def _call(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ActshiftError(
            f"'{command[0]}' is not here: submit on a login node of a SLURM cluster, or use `actshift sweep` "
            "(--dry-run prints what would be submitted)"
        ) from error
    if done.returncode:
        raise ActshiftError(f"{command[0]} refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
