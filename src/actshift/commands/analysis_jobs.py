"""`actshift analyze NAME --plan` and `--submit`: what an analysis costs, and the analysis as a job of a cluster."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands.requests import anywhere, console
from actshift.config.composition import compose
from actshift.config.groups import groups
from actshift.config.overrides import override
from actshift.errors import ActshiftError
from actshift.paths import config_dir_flags, slurm_dir
from actshift.schema.analysis import AnalysisConfig, SweepAnalysisConfig
from actshift.schema.config import Config
from actshift.store.store import Store

if TYPE_CHECKING:
    from actshift.analysis.adapters import Needed
    from actshift.estimates.analyses import AnalysisCost
    from actshift.sweeps.profiles import ClusterProfile
    from actshift.sweeps.slurm import Job

SEEDS = 5
"""Seeds of a sweep that is neither planned nor in conf/sweep."""


@dataclass(frozen=True)
class Plan:
    """What an analysis costs on a hardware profile, and the adapters that it needs of sweeps."""

    config: Config
    needs: tuple[Needed, ...]

    @cached_property
    def adapters(self) -> int:
        """How many adapters there will be; those of a sweep that is not planned yet by its seeds."""
        return sum(
            len(each.methods) * _seeds(each.sweep) if each.planned is None else each.planned for each in self.needs
        )

    @cached_property
    def cost(self) -> AnalysisCost:
        from actshift.estimates.analyses import estimate_analysis

        return estimate_analysis(self.config, adapters=self.adapters)

    @property
    def missing(self) -> list[Needed]:
        return [each for each in self.needs if not each.complete]

    def remedy(self) -> str:
        """What makes it fit its device; empty where it does."""
        from actshift.estimates.analyses import fitting, has_rows

        room = self.config.hardware.speed.memory_bytes
        if self.cost.peak_bytes <= room:
            return ""
        rows = fitting(self.config, room, adapters=self.adapters) if has_rows(self.config) else None
        how = "choose another device" if rows is None else f"fits with analysis.rows={rows}"
        return f"over {room / 1e9:.0f} GB: {how}"


def plan_analysis(config: Config, overrides: Sequence[str]) -> int:
    """Print what an analysis costs, on the named hardware or on what suits the model, and which adapters it lacks."""
    from actshift.commands.terminal import text_table
    from actshift.estimates.sweep import planned_hardware

    named = any(each.startswith("hardware=") for each in overrides)
    hardware = None if named else planned_hardware(config.model.scale)
    plan = _plan(config, hardware=hardware)
    cost, shown = plan.cost, plan.config
    columns = ("analysis", "model", "data set", "hardware", "adapters", "hours", "peak GB", "host GB", "")
    numbers = f"{cost.seconds / 3600:.2f}", f"{cost.peak_bytes / 1e9:.1f}", f"{cost.host_bytes / 1e9:.1f}"
    name = config.analysis_as(AnalysisConfig).name
    row = (name, shown.model.name, shown.dataset.name, shown.hardware.name, str(plan.adapters), *numbers, plan.remedy())
    legend = "From sizes alone. Peak: tensors on the device. Host: float64 arrays beside them."
    console().print(text_table(columns, [row], legend=legend))
    for each in plan.needs:
        print(f"adapters of {each}" + ("" if each.complete else f"; `actshift plan {each.sweep}` says what they cost"))
    return 0


def submit_analysis(request: Namespace, config: Config, *, profile: str | None, overrides: Sequence[str]) -> int:
    """Hand an analysis to sbatch as one job, after the jobs that train its adapters; with --dry-run print the call.

    Errors: it would take longer than the profile allows; adapters are missing that no job in the queue will leave.
    """
    from actshift.sweeps import slurm
    from actshift.sweeps.profiles import profile_of, read_profiles

    folder = Path(request.slurm) if request.slurm else slurm_dir()
    script = slurm.script_in(folder)
    chosen = profile_of(config.model.scale, read_profiles(folder / "profiles"), chosen=profile)
    plan = _plan(config, hardware=chosen.hardware)
    _refuse_long(plan, chosen)
    if plan.remedy():
        print(f"{plan.config.hardware.name}: {plan.remedy()}")
    store, name = Store(config.results), config.analysis_as(AnalysisConfig).name
    if request.train and not request.dry_run:
        _submit_sweeps(request, config, profile=profile)
    job = slurm.Job(
        f"{slurm.NAME}-analyze-{name}",
        chosen,
        _arguments(name, config, overrides, chosen),
        device=True,
        after_jobs=() if request.dry_run else tuple(_training(plan, store)),
    )
    if request.dry_run:
        return _show(job, plan, script.resolve(), store, train=request.train)
    files = f"analyze-{name}"
    there = [number for number, given in slurm.in_queue(store, files).items() if tuple(given) == job.arguments]
    if there:
        print(f"nothing to submit: job {there[0]} is this analysis, and waits or runs")
        return 0
    slurm.submit([job], store=store, sweep=files, script=script.resolve(), say=print)
    return 0


def missing_adapters(config: Config) -> list[Needed]:
    """The sweeps of which an analysis lacks adapters, ready to be done again. Errors: an analysis of no sweep.

    A run that has a test record and no adapter any more (records are kept in git, adapters are not) loses the record
    first: the sweep then does it again, and writes the record of the same run.
    """
    from actshift.analysis.adapters import needed

    analysis, store = config.analysis_as(AnalysisConfig), Store(config.results)
    if not isinstance(analysis, SweepAnalysisConfig):
        raise ActshiftError(f"the analysis '{analysis.name}' looks at no sweep's adapters: leave --train out")
    found = [each for each in needed(config) if not each.complete]
    for each in found:
        for identity in each.without_adapter:
            store.record_path(identity, "test").unlink(missing_ok=True)
    return found


def sweep_overrides(config: Config) -> list[str]:
    """What a sweep is told that trains the adapters of an analysis: where results and data lie."""
    data = [f"data.dir={config.data.dir}"] if config.data.dir else []
    return [f"results={config.results}", *data]


def _plan(config: Config, *, hardware: str | None) -> Plan:
    from actshift.analysis.adapters import needed

    if hardware is not None:
        config = replace(config, hardware=compose([f"hardware={hardware}"]).hardware)
    return Plan(config, tuple(needed(config)))


def _seeds(sweep: str) -> int:
    found = compose([f"sweep={sweep}"]).sweep if sweep in groups()["sweep"] else None
    return len(found.seeds) if found is not None else SEEDS


def _refuse_long(plan: Plan, profile: ClusterProfile) -> None:
    """An analysis has no checkpoints: what a time limit cuts off begins anew."""
    from actshift.sweeps.slurm import FILL

    if plan.cost.seconds > FILL * profile.seconds:
        raise ActshiftError(
            f"the analysis is estimated to take {plan.cost.seconds / 3600:.1f} h, and profile {profile.name} ends a "
            f"job after {profile.seconds / 3600:.1f} h: give it fewer rows (analysis.rows=...), raise `time` in the "
            "profile's file, or name another with profile=..."
        )


def _arguments(name: str, config: Config, overrides: Sequence[str], profile: ClusterProfile) -> tuple[str, ...]:
    """What the job runs: this very command, where results and data mean the same folders wherever it starts."""
    given = [anywhere(each) for each in overrides if not each.lstrip("+").startswith(("hardware=", "results="))]
    where = [override("results", Path(config.results).absolute()), f"hardware={profile.hardware}"]
    return ("actshift.cli", "analyze", name, *given, *where, *config_dir_flags())


def _submit_sweeps(request: Namespace, config: Config, *, profile: str | None) -> None:
    """Submit the sweeps whose adapters are missing, as `actshift submit` does."""
    from actshift.commands.runs import submit_command

    for each in missing_adapters(config):
        overrides = [*sweep_overrides(config), *([f"profile={profile}"] if profile else [])]
        submit_command(
            Namespace(sweep=each.sweep, overrides=overrides, replan=False, slurm=request.slurm, dry_run=False)
        )


def _training(plan: Plan, store: Store) -> list[str]:
    """The jobs in the queue that train the adapters that are missing. Errors: a sweep that has none there."""
    from actshift.sweeps import slurm

    found: list[str] = []
    for each in plan.missing:
        jobs = slurm.in_queue(store, each.sweep)
        if not jobs:
            raise ActshiftError(
                f"the analysis needs adapters of {each}, and no job in the queue will make them. Submit them first "
                f"with `actshift submit {each.sweep} results={store.root}`, or with this command and --train"
            )
        found += jobs
    return found


def _show(job: Job, plan: Plan, script: Path, store: Store, *, train: bool) -> int:
    from actshift.sweeps import slurm

    folder = f"analyze-{plan.config.analysis_as(AnalysisConfig).name}"
    logs = slurm.jobs_folder(store, folder).resolve() / "logs"
    ids = tuple(f"<jobs of {each.sweep}>" for each in plan.missing)
    for each in plan.missing:
        how = "would be submitted first" if train else "must be there or in the queue first"
        print(f"adapters of {each}: `actshift submit {each.sweep} results={store.root}` {how}")
    print(shlex.join(replace(job, after_jobs=ids).command(script=script, logs=logs, ids=[])))
    return 0
