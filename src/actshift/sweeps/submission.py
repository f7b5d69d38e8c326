"""From a planned sweep to the jobs that finish it: what is missing, packed, in the order grid, selection, final."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actshift.config.overrides import override
from actshift.estimates.sweep import Compose, Estimates
from actshift.paths import config_dir_flags
from actshift.planning.halving import budget, states
from actshift.planning.manifests import Manifest, PlannedCell, Run
from actshift.schema.config import STAGES
from actshift.store.store import Store
from actshift.sweeps import slurm
from actshift.sweeps.profiles import profile_of, read_profiles
from actshift.sweeps.slurm import Job, Work


class Submission:
    """The jobs of one sweep: built from files, submitted or printed."""

    def __init__(
        self,
        store: Store,
        grid: Manifest,
        *,
        compose: Compose,
        folder: Path,
        profile: str | None,
        overrides: Sequence[str],
        dry: bool = False,
    ) -> None:
        self._store = store
        self._dry = dry
        self._grid = grid
        self._script = slurm.script_in(folder)
        profiles = read_profiles(folder / "profiles")
        scales = {planned.cell.model: _scale(planned, compose) for planned in grid.cells}
        self._profiles = {model: profile_of(scale, profiles, chosen=profile) for model, scale in scales.items()}
        hardware = {model: chosen.hardware for model, chosen in self._profiles.items()}
        self._estimates = Estimates(store, grid, compose=compose, hardware=hardware)
        self._overrides = [override for override in overrides if not override.startswith("hardware=")]

    def jobs(self, final: Manifest | None, *, selected: bool, queued: set[tuple[Any, ...]], size: int) -> list[Job]:
        """What is left to submit. `final` is the frozen final stage, `queued` the keys of runs that wait in jobs."""
        jobs: list[Job] = []
        if not selected:
            work = [self._work(run) for run in self._missing(self._grid)]
            jobs += self._arrays("grid", [each for each in work if each.key not in queued], size=size)
            if slurm.waiting(self._store, self._grid.sweep, "actshift.cli"):
                return jobs  # the selection that waits already, and the final stage after it, follow these as well
            jobs.append(self._selection(after=len(jobs)))
            ahead = [self._ahead(planned, seed) for planned in self._grid.cells for seed in planned.seeds]
            after = (len(jobs) - 1,)
            return jobs + self._arrays("final", ahead, size=size, after=after, strictly=True)
        assert final is not None
        left = [self._work(run) for run in self._missing(final)]
        left = [each for each in left if not {each.key, (*each.key[:5], None, None)} & queued]
        return self._arrays("final", left, size=size)

    def submit(self, jobs: Sequence[Job], say: Callable[[str], None]) -> list[str]:
        """Hand the jobs to sbatch."""
        return slurm.submit(jobs, store=self._store, sweep=self._grid.sweep, script=self._script.resolve(), say=say)

    def text(self, jobs: Sequence[Job]) -> str:
        """The script, what its tasks get, and every call of sbatch; numbers that do not exist yet as <n>."""
        logs = slurm.jobs_folder(self._store, self._grid.sweep).resolve() / "logs"
        ids = [f"<{index}>" for index in range(len(jobs))]
        calls = [shlex.join(job.command(script=self._script.resolve(), logs=logs, ids=ids)) for job in jobs]
        tasks = json.dumps(slurm.task_header(self._store, self._grid, "<stage>", self._overrides), sort_keys=True)
        head = f"# Every task reads from its list of runs: {tasks}"
        return "\n".join([self._script.read_text(encoding="utf-8"), head, *(calls or ["# nothing is left to submit"])])

    def _missing(self, manifest: Manifest) -> list[Run]:
        """The runs that nobody has done or is doing; failed ones wait for `actshift retry`."""
        found = zip(manifest.runs, states(manifest, self._store), strict=True)
        return [run for run, state in found if state in ("missing", "waiting")]

    def _arrays(self, stage: str, work: Sequence[Work], *, size: int, **order: Any) -> list[Job]:
        # Candidates that are compared on their way are one task's, which then need not wait for another.
        tasks = slurm.pack(work, self._profiles, whole_cells=stage == "grid" and self._grid.halves)
        tasks.sort(key=lambda task: task[0].name)  # an array has one profile; the order within a model stays
        if not tasks:
            return []
        file = slurm.jobs_folder(self._store, self._grid.sweep) / f"{stage}-<n>.jsonl"
        if not self._dry:
            file = slurm.write_tasks(self._store, self._grid, stage, tasks, self._overrides)
        name = f"{slurm.NAME}-{self._grid.sweep}-{stage}"
        return slurm.arrays(tasks, name=name, file=file.resolve(), size=size, **order)

    def _selection(self, *, after: int) -> Job:
        results = override("results", self._store.root.resolve())
        arguments = ("actshift.cli", "select", self._grid.sweep, results, *config_dir_flags())
        profile = next(iter(self._profiles.values()))
        return Job(f"{slurm.NAME}-{self._grid.sweep}-select", profile, arguments, after=tuple(range(after)))

    def _work(self, run: Run) -> Work:
        planned = self._grid.planned(run.cell)
        seconds = self._estimates.cost(planned, split=run.split, trained=self._trained(run)).seconds
        if self._grid.halves and run.split == self._grid.runs[0].split:
            seconds *= budget(len(planned.candidates))[0] / len(planned.candidates)
        cell = run.cell
        return Work(cell.model, cell.method, cell.dataset, cell.protocol, run.seed, run.lr, run.variant, seconds)

    def _ahead(self, planned: PlannedCell, seed: int) -> Work:
        """A final run before its rate is known; the first seed's adapter will be there from the grid."""
        trained = seed == planned.seeds[0] and len(planned.candidates) > 1
        seconds = self._estimates.cost(planned, split=STAGES["final"], trained=trained).seconds
        cell = planned.cell
        return Work(cell.model, cell.method, cell.dataset, cell.protocol, seed, None, None, seconds)

    def _trained(self, run: Run) -> bool:
        return (self._store.run_folder(run.identity) / "adapter").is_dir()


def _scale(planned: PlannedCell, compose: Compose) -> str:
    return compose([*planned.variants[0].overrides, "stage=grid"]).model.scale
