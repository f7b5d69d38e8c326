"""Commands that make the runs of a sweep by stages, here or as jobs of a cluster."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands.baselines import make_baselines
from actshift.commands.reports import print_tables
from actshift.commands.requests import console, planned_grid, results_folder, split_options, stages_of, sweep_request
from actshift.config.cached import CachedComposer
from actshift.config.overrides import text_of
from actshift.errors import ActshiftError
from actshift.planning.expand import expand_final, expand_grid
from actshift.planning.extend import extend
from actshift.planning.halving import dropped
from actshift.planning.halving import states as states_of
from actshift.planning.manifests import Manifest, freeze
from actshift.planning.selection import Selection, select, write_selection
from actshift.schema.config import Config
from actshift.store.store import Store

if TYPE_CHECKING:
    from actshift.sweeps.local import LocalEngine

EXTENSIONS = 3
"""How often `sweep --extend` widens a grid."""


def sweep_command(request: Namespace) -> int:
    """Plan, grid, select, final, tables; whatever is done already is not done again."""
    from actshift.planning import prefetch
    from actshift.runtime.reuse import refuse_changed_plan
    from actshift.sweeps.devices import Devices
    from actshift.sweeps.local import LocalEngine

    wanted, compose_cell = sweep_request(request), CachedComposer()
    config, store = wanted.config, wanted.store
    grid = wanted.grid(compose_cell, replan=request.replan, check=partial(_refuse_impossible, config=config))
    refuse_changed_plan(grid, store, compose=compose_cell, overrides=wanted.launch)
    if request.retry:
        _clear_failures(store, grid)
    prefetch.require(grid, store=store, compose=compose_cell)
    with LocalEngine(store, devices=Devices(config.hardware), overrides=wanted.launch) as engine:
        grid, selection = _tuned(engine, store, grid, extensions=EXTENSIONS if request.extend else 0)
        if selection is None:
            return _report_failures(store, grid)
        write_selection(store, selection)
        final = freeze(store, expand_final(grid, selection), replan=request.replan or bool(grid.extended))
        refuse_changed_plan(final, store, compose=compose_cell, overrides=wanted.launch)
        if request.retry:
            _clear_failures(store, final)
        prefetch.require(final, store=store, compose=compose_cell)
        states = engine.do(final)
    make_baselines(wanted, final, compose_cell)
    print_tables(store, final, selection)
    return _report_failures(store, final) if states["failed"] else 0


def _tuned(engine: LocalEngine, store: Store, grid: Manifest, *, extensions: int) -> tuple[Manifest, Selection | None]:
    """The grid stage done, and what it chooses; extended at most so often where choices lie at edges.

    No selection where runs failed. A cell whose rates are all equally good is not extended.
    """
    for left in range(extensions, -1, -1):
        if engine.do(grid)["failed"]:
            return grid, None
        selection = select(grid, store.records("validation"), dropped=dropped(grid, store))
        larger = extend(grid, selection, flat=False) if left else grid
        if larger.runs == grid.runs:
            break
        print(f"choices at an edge of their grid: {len(larger.runs) - len(grid.runs)} runs are added", flush=True)
        grid = freeze(store, larger, replan=True)
    return grid, selection


def plan_command(request: Namespace) -> int:
    """Freeze the grid stage and say how much it is, before anything is spent."""
    from actshift.commands.terminal import plan_table
    from actshift.estimates.sweep import Estimates

    wanted, compose_cell = sweep_request(request), CachedComposer()
    store, grid = wanted.store, wanted.grid(compose_cell, replan=request.replan)
    if request.extend:
        grid = _extended(store, grid)
    estimates = Estimates(store, grid, compose=compose_cell, hardware=_hardware(request, grid))
    print(f"{grid.title}: {len(grid.cells)} cells, {len(grid.exclusions)} excluded")
    console().print(plan_table(estimates))
    print(store.manifest_path(grid.sweep, "grid"))
    return 0


def prefetch_command(request: Namespace) -> int:
    """Bring what a sweep reads from the hub to its cache, or name what is not there."""
    from actshift.planning import prefetch

    wanted, compose_cell = sweep_request(request), CachedComposer()
    sweep = wanted.config.sweep  # not frozen: it may be planned on another machine
    grid = wanted.grid(compose_cell) if sweep is None else expand_grid(sweep, compose_cell, extra=wanted.frozen)
    configs = prefetch.configs_of(grid, compose_cell)
    if not prefetch.needs(configs):
        print(f"nothing of '{request.sweep}' comes from the hub")
        return 0
    problems = (
        prefetch.missing(*configs) if request.check else prefetch.prefetch(configs, say=partial(print, flush=True))
    )
    for problem in problems:
        print(f"missing: {problem}", file=sys.stderr)
    if not problems:
        print(f"all that '{request.sweep}' takes from the hub is here: its runs need no network")
    return 1 if problems else 0


def submit_command(request: Namespace) -> int:
    """Submit what a table still needs as SLURM jobs: grid arrays, the selection, final arrays."""
    from actshift.paths import slurm_dir
    from actshift.planning import prefetch
    from actshift.runtime.reuse import refuse_changed_plan
    from actshift.sweeps import slurm
    from actshift.sweeps.submission import Submission

    options, request.overrides = split_options(request.overrides, ["profile"])
    wanted, compose_cell = sweep_request(request), CachedComposer()
    config, store = wanted.config, wanted.store
    grid = wanted.grid(compose_cell, replan=request.replan, check=partial(_refuse_impossible, config=config))
    submission = Submission(
        store,
        grid,
        compose=compose_cell,
        folder=Path(request.slurm) if request.slurm else slurm_dir(),
        profile=options.get("profile"),
        overrides=wanted.launch,
        dry=request.dry_run,
    )
    stages = stages_of(store, grid)
    if not request.dry_run:
        refuse_changed_plan(stages[-1], store, compose=compose_cell, overrides=wanted.launch)
        prefetch.require(stages[-1], store=store, compose=compose_cell)
    size = 1000 if request.dry_run else slurm.array_size()
    selected = len(stages) > 1 and set(states_of(grid, store)) <= {"done", "dropped"}
    queued = set() if request.dry_run else slurm.queued(store, grid.sweep)
    jobs = submission.jobs(stages[-1], selected=selected, queued=queued, size=size)
    if request.dry_run:
        print(submission.text(jobs))
    elif not jobs:
        print("nothing to submit: every run is done, failed (`actshift retry`), running or in the queue")
    else:
        submission.submit(jobs, print)
    return 0


def retry_command(request: Namespace) -> int:
    """Make failed runs missing again; the next sweep or submit does them."""
    store, grid = planned_grid(request)
    for manifest in stages_of(store, grid):
        failed = [run for run in manifest.runs if store.state(run.identity, run.split) == "failed"]
        _clear_failures(store, manifest)
        print(f"{manifest.sweep} {manifest.stage}: {len(failed)} failed runs are to be done again")
    return 0


def select_command(request: Namespace) -> int:
    """Choose each cell's learning rate from the validation records and freeze the final stage."""
    store, grid = planned_grid(request)
    records, lagging = store.records("validation"), dropped(grid, store)
    selection = select(grid, records, allow_missing=request.allow_missing, dropped=lagging)
    write_selection(store, selection)
    freeze(store, expand_final(grid, selection), replan=request.allow_missing or bool(grid.extended))
    for choice in selection.choices:
        notes = [f"edge of the grid: {choice.edge}"] if choice.edge else []
        notes += [f"tied: {', '.join(choice.tie)}"] if choice.tie else []
        rate = "none" if choice.lr is None else f"{choice.lr:g} {choice.variant}".rstrip()
        print(f"{choice.cell}: lr {rate}{' (' + '; '.join(notes) + ')' if notes else ''}")
    print(store.selected_path(selection.sweep))
    return 0


def status_command(request: Namespace) -> int:
    """States by cell, failures with their last line, and what is left; from files, and from squeue where it answers."""
    import json
    import time

    from actshift.commands.terminal import status_table
    from actshift.estimates.sweep import Estimates
    from actshift.planning.status import headline, status_of
    from actshift.sweeps import slurm

    store, grid = planned_grid(request)
    try:
        seconds = Estimates(store, grid, compose=CachedComposer(), hardware=_hardware(request, grid)).seconds()
    except ActshiftError as error:  # such as a folder of configs that another command was given; files say the rest
        seconds = {}
        print(f"time left is not estimated: {error}", file=sys.stderr)
    screen = console()
    while True:
        stages = stages_of(store, grid)
        status = status_of(store, stages, seconds=seconds, queue=slurm.queue_states(store, grid.sweep))
        if request.json:
            print(json.dumps(status.to_json(), sort_keys=True))
            return 0
        if request.watch:
            screen.clear()
        print(headline(status))
        screen.print(status_table(status))
        for manifest in stages:
            _report_failures(store, manifest)
        if not request.watch or not status.unfinished:
            return 0
        time.sleep(5)


def sync_command(request: Namespace) -> int:
    """Send the offline mirrors of runs to Weights & Biases, from where there is a network."""
    from actshift.observe.trackers import sync

    root = results_folder(request)
    count = sync(root)
    print(
        f"{count} runs of {root.resolve()} were handed to wandb" if count else f"no offline mirrors in {root.resolve()}"
    )
    return 0


def _refuse_impossible(manifest: Manifest, *, config: Config) -> None:
    """Refuse, before any trains, a sweep whose data or optimizer is not here."""
    from actshift.config.packages import validate_installed
    from actshift.config.validation import validate_folder

    for planned in manifest.cells:
        named = [text_of(each) for each in planned.variants[0].overrides if each.startswith("data.dir=")]
        validate_folder(config.data.dir or next(iter(named), None), source=planned.settings.data.source)
        validate_installed(replace(planned.settings, logger=config.logger))


def _extended(store: Store, grid: Manifest) -> Manifest:
    """The grid with a rate more beyond every edge that was chosen, frozen; the next sweep does the runs it adds."""
    larger = extend(grid, select(grid, store.records("validation"), dropped=dropped(grid, store)))
    edges = sum(old.rates != new.rates for old, new in zip(grid.cells, larger.cells, strict=True))
    added = len(larger.runs) - len(grid.runs)
    print(f"{edges} of {len(grid.cells)} cells chose an edge of their grid: {added} runs are added")
    return freeze(store, larger, replan=True)


def _hardware(request: Namespace, grid: Manifest) -> dict[str, str]:
    """The hardware profile that a request names, by model; nothing where it leaves that to the model's size."""
    named, _ = split_options(request.overrides, ["hardware"])
    return dict.fromkeys(grid.models, named["hardware"]) if named else {}


def _clear_failures(store: Store, manifest: Manifest) -> None:
    for run in manifest.runs:
        store.clear_failure(run.identity, run.split)


def _report_failures(store: Store, manifest: Manifest) -> int:
    """Name each failed run of a manifest; the exit code that goes with that."""
    failed = [(run, store.failure(run.identity, run.split)) for run in manifest.runs]
    for run, note in failed:
        if note is not None:
            print(f"failed: {run.cell} lr={run.lr:g} seed={run.seed}: {note['last_line']}", file=sys.stderr)
            print(f"        {store.run_folder(run.identity)}", file=sys.stderr)
    if any(note is not None for _, note in failed):
        print("`actshift sweep ... --retry` tries them again", file=sys.stderr)
        return 1
    return 0
