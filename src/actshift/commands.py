"""What each subcommand of `actshift` does, in terms of the rooms of the package."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actshift.composition import compose, groups
from actshift.errors import ActshiftError, unknown
from actshift.identity import ignored_keys
from actshift.paths import conf_dir
from actshift.planning import Manifest, expand_final, expand_grid, freeze, read_manifest
from actshift.product import ProductComposer
from actshift.selection import Selection, read_selection, select, write_selection
from actshift.store import Store

HYDRA_FLAGS = ("--cfg", "-c", "--resolve", "--package", "-p", "--info", "-i", "--hydra-help")


def run_command(arguments: Sequence[str]) -> int:
    """`actshift run`: one run, or with -m a Hydra multirun, every job of which is checked before the first starts."""
    from actshift import hydra_run

    flags = [argument for argument in arguments if argument.startswith("-")]
    overrides = hydra_run.overrides_of(arguments)
    if "-h" in flags or "--help" in flags:
        print(hydra_run.HELP)
        return 0
    if "-m" in flags or "--multirun" in flags:
        return hydra_run.multirun(arguments, overrides=overrides)
    if any(flag.split("=")[0] in HYDRA_FLAGS for flag in flags):
        return hydra_run.through_hydra(arguments, overrides=overrides)
    if flags:
        raise unknown("option", flags[0], ["-m", "--multirun", *HYDRA_FLAGS], where="actshift run --help")
    return hydra_run.single(overrides)


def sweep_command(request: Namespace) -> int:
    """Plan, grid, select, final, tables; whatever is done already is not done again."""
    from actshift.sweeps.local import LocalEngine

    config, launch, frozen = _request(request)
    store = Store(Path(config["results"]))
    grid = freeze(store, expand_grid(config["sweep"], ProductComposer(), extra=frozen), replan=request.replan)
    if request.retry:
        _clear_failures(store, grid)
    with LocalEngine(store, workers=config["hardware"]["workers"], overrides=launch) as engine:
        states = engine.do(grid)
        if states["failed"]:
            return _report_failures(store, grid)
        selection = select(grid, store.records("validation"))
        write_selection(store, selection)
        final = freeze(store, expand_final(grid, selection), replan=request.replan)
        if request.retry:
            _clear_failures(store, final)
        states = engine.do(final)
    _print_tables(store, final, selection)
    return _report_failures(store, final) if states["failed"] else 0


def plan_command(request: Namespace) -> int:
    """Freeze the grid stage and say how much it is."""
    config, _, frozen = _request(request)
    store = Store(Path(config["results"]))
    grid = freeze(store, expand_grid(config["sweep"], ProductComposer(), extra=frozen), replan=request.replan)
    finals = sum(len(planned.seeds) for planned in grid.cells)
    reused = sum(len(planned.candidates) > 1 for planned in grid.cells)
    print(f"{grid.title}")
    print(f"{len(grid.cells)} cells, {len(grid.exclusions)} excluded")
    print(f"grid: {len(grid.runs)} runs on validation")
    print(f"final: {finals} runs on test, {reused} of them trained by the grid")
    print(store.manifest_path(grid.sweep, "grid"))
    return 0


def select_command(request: Namespace) -> int:
    """Choose each cell's learning rate from the validation records and freeze the final stage."""
    store, grid = _planned(request)
    selection = select(grid, store.records("validation"), allow_missing=request.allow_missing)
    write_selection(store, selection)
    freeze(store, expand_final(grid, selection), replan=request.allow_missing)
    for choice in selection.choices:
        notes = [f"edge of the grid: {choice.edge}"] if choice.edge else []
        notes += [f"tied: {', '.join(choice.tie)}"] if choice.tie else []
        rate = "none" if choice.lr is None else f"{choice.lr:g} {choice.variant}".rstrip()
        print(f"{choice.cell}: lr {rate}{' (' + '; '.join(notes) + ')' if notes else ''}")
    print(store.selected_path(selection.sweep))
    return 0


def status_command(request: Namespace) -> int:
    """How many runs of each stage are in which state, and the last line of each failure."""
    store, grid = _planned(request)
    for manifest in _stages(store, grid):
        states = Counter(store.state(run.identity, run.split) for run in manifest.runs)
        counts = ", ".join(f"{states[state]} {state}" for state in ("done", "running", "failed", "missing"))
        print(f"{manifest.sweep} {manifest.stage}: {len(manifest.runs)} runs: {counts}")
        _report_failures(store, manifest)
    return 0


def tables_command(request: Namespace) -> int:
    """Write the table of a sweep from its records and print it."""
    store, grid = _planned(request)
    selection = read_selection(store, grid.sweep) if store.selected_path(grid.sweep).exists() else None
    _print_tables(store, _stages(store, grid)[-1], selection)
    return 0


def list_command(request: Namespace) -> int:
    """Every option of the config groups with the first line of its file."""
    there = groups()
    if request.group is not None and request.group not in there:
        raise unknown("group", request.group, there, where="actshift list <group>")
    for group in [request.group] if request.group else there:
        print(group)
        for option in there[group]:
            first = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
            about = next((line[2:] for line in first if line.startswith("# ") and "@package" not in line), "")
            print(f"  {option:<22} {about}")
    return 0


def _request(request: Namespace) -> tuple[dict[str, Any], list[str], list[str]]:
    """A sweep's config, and its overrides apart: those of this launch alone, and those that the plan freezes.

    What does not count towards an identity (hardware, results, data.dir) may differ from launch to launch.
    """
    config = compose([f"sweep={request.sweep}", *request.overrides])
    ignored = tuple(ignored_keys())
    launch: list[str] = []
    frozen: list[str] = []
    for override in request.overrides:
        key = override.lstrip("+~").split("=")[0]
        counts = not any(key == name or key.startswith(f"{name}.") for name in ignored)
        (frozen if counts else launch).append(override)
    own = ("results=", "sweep.")  # said to the workers by path, and used up by the expansion
    return config, [override for override in launch if not override.startswith(own)], frozen


def _planned(request: Namespace) -> tuple[Store, Manifest]:
    """The store and the frozen grid of a sweep. Errors: a sweep that was never planned there."""
    config, _, _ = _request(request)
    store = Store(Path(config["results"]))
    path = store.manifest_path(config["sweep"]["name"], "grid")
    if not path.exists():
        raise ActshiftError(
            f"'{request.sweep}' has not been planned in {store.root.resolve()}: run `actshift sweep {request.sweep}` "
            f"or `actshift plan {request.sweep}`, or name another results folder with results=..."
        )
    return store, read_manifest(path)


def _stages(store: Store, grid: Manifest) -> list[Manifest]:
    """The grid, and the final stage: the frozen one, or as far as it is known before a selection, without runs."""
    path = store.manifest_path(grid.sweep, "final")
    return [grid, read_manifest(path)] if path.exists() else [grid]


def _print_tables(store: Store, manifest: Manifest, selection: Selection | None) -> None:
    from rich.console import Console

    from actshift.report.frame import cells
    from actshift.report.tables import terminal, write

    frame = cells(manifest, store.records("test"), selection)
    paths = write(frame, manifest, store.tables)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(terminal(frame, manifest))
    for path in paths:
        print(path)


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
