"""What each subcommand of `actshift` does, in terms of the rooms of the package."""

from __future__ import annotations

import sys
from argparse import Namespace
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

FED = ("dataset.", "protocol.", "method.", "model.")
"""Below these are keys that do not count themselves, but what counts is made from them (`data.origin`)."""
DEVIATIONS = {"table11": "table1", "table12": "table2", "table13": "table4"}
"""The paper's tables of standard deviations, and the sweeps that make them."""
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
    from actshift import prefetch
    from actshift.sweeps.local import LocalEngine

    config, launch, frozen = _request(request)
    store, compose_cell = Store(Path(config["results"])), ProductComposer()
    grid = freeze(store, expand_grid(config["sweep"], compose_cell, extra=frozen), replan=request.replan)
    _refuse_impossible(grid, config)
    if request.retry:
        _clear_failures(store, grid)
    prefetch.require(grid, store=store, compose=compose_cell)
    with LocalEngine(store, workers=config["hardware"]["workers"], overrides=launch) as engine:
        states = engine.do(grid)
        if states["failed"]:
            return _report_failures(store, grid)
        selection = select(grid, store.records("validation"))
        write_selection(store, selection)
        final = freeze(store, expand_final(grid, selection), replan=request.replan)
        if request.retry:
            _clear_failures(store, final)
        prefetch.require(final, store=store, compose=compose_cell)
        states = engine.do(final)
    _print_tables(store, final, selection)
    return _report_failures(store, final) if states["failed"] else 0


def plan_command(request: Namespace) -> int:
    """Freeze the grid stage and say how much it is, before anything is spent."""
    from rich.console import Console

    from actshift.estimates import Estimates

    config, _, frozen = _request(request)
    store, compose_cell = Store(Path(config["results"])), ProductComposer()
    grid = freeze(store, expand_grid(config["sweep"], compose_cell, extra=frozen), replan=request.replan)
    estimates = Estimates(store, grid, compose=compose_cell, hardware=_hardware(request, grid))
    console = Console(width=None if sys.stdout.isatty() else 160)
    print(f"{grid.title}: {len(grid.cells)} cells, {len(grid.exclusions)} excluded")
    console.print(estimates.table())
    print(store.manifest_path(grid.sweep, "grid"))
    return 0


def prefetch_command(request: Namespace) -> int:
    """Bring what a sweep reads from the hub to its cache, or name what is not there."""
    from functools import partial

    from actshift import prefetch

    config, _, frozen = _request(request)
    compose_cell = ProductComposer()
    configs = prefetch.configs_of(expand_grid(config["sweep"], compose_cell, extra=frozen), compose_cell)
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
    from actshift import prefetch
    from actshift.paths import slurm_dir
    from actshift.sweeps import slurm
    from actshift.sweeps.submission import Submission

    profile = next((given.split("=", 1)[1] for given in request.overrides if given.startswith("profile=")), None)
    request.overrides = [given for given in request.overrides if not given.startswith("profile=")]
    config, launch, frozen = _request(request)
    store, compose_cell = Store(Path(config["results"])), ProductComposer()
    grid = freeze(store, expand_grid(config["sweep"], compose_cell, extra=frozen), replan=request.replan)
    _refuse_impossible(grid, config)
    submission = Submission(
        store,
        grid,
        compose=compose_cell,
        folder=Path(request.slurm) if request.slurm else slurm_dir(),
        profile=profile,
        overrides=launch,
        dry=request.dry_run,
    )
    stages = _stages(store, grid)
    if not request.dry_run:
        prefetch.require(stages[-1], store=store, compose=compose_cell)
    selected = len(stages) > 1 and all(store.state(run.identity, run.split) == "done" for run in grid.runs)
    size = 1000 if request.dry_run else slurm.array_size()
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
    store, grid = _planned(request)
    for manifest in _stages(store, grid):
        failed = [run for run in manifest.runs if store.state(run.identity, run.split) == "failed"]
        _clear_failures(store, manifest)
        print(f"{manifest.sweep} {manifest.stage}: {len(failed)} failed runs are to be done again")
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
    """States by cell, failures with their last line, and what is left; from files, and from squeue where it answers."""
    import json
    import time

    from rich.console import Console

    from actshift.estimates import Estimates
    from actshift.status import headline, status_of, table
    from actshift.sweeps import slurm

    store, grid = _planned(request)
    seconds = Estimates(store, grid, compose=ProductComposer(), hardware=_hardware(request, grid)).seconds()
    console = Console(width=None if sys.stdout.isatty() else 160)
    while True:
        stages = _stages(store, grid)
        status = status_of(store, stages, seconds=seconds, queue=slurm.queue_states(store, grid.sweep))
        if request.json:
            print(json.dumps(status.to_json(), sort_keys=True))
            return 0
        if request.watch:
            console.clear()
        print(headline(status))
        console.print(table(status))
        for manifest in stages:
            _report_failures(store, manifest)
        if not request.watch or not status.unfinished:
            return 0
        time.sleep(5)


def _hardware(request: Namespace, grid: Manifest) -> dict[str, str]:
    """The hardware profile that a request names, by model; nothing where it leaves that to the model's size."""
    named = [given.split("=", 1)[1] for given in request.overrides if given.startswith("hardware=")]
    return dict.fromkeys(grid.models, named[-1]) if named else {}


def tables_command(request: Namespace) -> int:
    """Write every variant of a sweep's table from its records, and print one."""
    if request.sweep in DEVIATIONS:
        request.sweep, request.variant = DEVIATIONS[request.sweep], "std"
    store, grid = _planned(request)
    selection = read_selection(store, grid.sweep) if store.selected_path(grid.sweep).exists() else None
    _print_tables(store, _stages(store, grid)[-1], selection, variant=request.variant)
    return 0


def show_command(request: Namespace) -> int:
    """One row as the model will see it."""
    from rich.console import Console

    from actshift.show import shown, terminal

    own = {"row": "0", "split": "train"}
    overrides = []
    for given in request.overrides:
        key, _, value = given.partition("=")
        if key in own:
            own[key] = value
        else:
            overrides.append(given)
    if not own["row"].isdigit():
        raise ActshiftError(f"row={own['row']}: give a row's number, the first being 0")
    config = compose(overrides)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(terminal(shown(config, split=own["split"], row=int(own["row"])), method=config["method"]))
    return 0


def lengths_command(request: Namespace) -> int:
    """Rows and lengths in tokens of every data set and protocol, or of those named."""
    from rich.console import Console

    from actshift import lengths
    from actshift.records import write_atomically

    named = {key: list(groups()[key]) for key in ("dataset", "protocol")}
    overrides = []
    for given in request.overrides:
        key, _, value = given.partition("=")
        if key in named:
            named[key] = value.split(",")
        else:
            overrides.append(given)
    configs = [
        compose([f"dataset={dataset}", f"protocol={protocol}", *overrides])
        for dataset in named["dataset"]
        for protocol in named["protocol"]
    ]
    tokenizer = None if request.tokenizer is None else lengths.tokenizer_in(request.tokenizer)
    rows = list(lengths.lengths(configs, tokenizer=tokenizer))
    Console(width=None if sys.stdout.isatty() else 160).print(lengths.terminal(rows))
    for file, text in ((request.csv, lengths.csv), (request.markdown, lengths.markdown)):
        if file is not None:
            write_atomically(Path(file), text(rows))
            print(file)
    return 0


def overlaps_command(request: Namespace) -> int:
    """Questions that the splits of real data share, by their words alone; of all data sets, or of those named."""
    from rich.console import Console

    from actshift.tasks.overlaps import overlaps, real_keys, table

    named = [given.removeprefix("dataset=") for given in request.overrides if given.startswith("dataset=")]
    others = [given for given in request.overrides if not given.startswith("dataset=")]
    keys: dict[str, list[str]] = {}
    for name in named[-1].split(",") if named else groups()["dataset"]:
        config = compose([f"dataset={name}", *others])
        found = real_keys(config["dataset"], source=config["data"]["source"], directory=config["data"]["dir"])
        if not found:
            print(f"{name}: no split in {config['data']['dir']}")
        keys |= found
    Console(width=None if sys.stdout.isatty() else 160).print(table(overlaps(keys), keys))
    print(f"{len(keys)} splits, {sum(map(len, keys.values())):,} rows")
    return 0


def adapters_command(request: Namespace) -> int:
    """The trained adapters of a results folder."""
    from rich.console import Console

    from actshift.descriptions import Description, adapters_in, table

    root = Path(compose(request.overrides)["results"])
    found = list(adapters_in(root))
    if not found:
        print(f"no adapters in {root.resolve() / 'runs'}")
        return 0
    Console(width=None if sys.stdout.isatty() else 160).print(table(found))
    print(f"{root / 'runs'}/<adapter>/adapter")
    for _, other in found:
        if not isinstance(other, Description):
            print(f"cannot be read: {other}", file=sys.stderr)
    return 0


def params_command(request: Namespace) -> int:
    """Trainable parameters of every method on every model from the hub, with the paper's shares."""
    from rich.console import Console

    chosen = _axes(request.axes, ("model", "method"))
    from actshift.params import counts, hub_models
    from actshift.records import write_atomically
    from actshift.report import params

    composer = ProductComposer()
    models = chosen.get("model") or hub_models(groups()["model"], composer)
    rows = params.frame(list(counts(models, chosen.get("method") or groups()["method"], composer)))
    Console(width=None if sys.stdout.isatty() else 160).print(params.terminal(rows))
    for file, text in ((request.csv, params.csv), (request.markdown, params.markdown)):
        if file is not None:
            write_atomically(Path(file), text(rows))
            print(file)
    return 0


def score_command(request: Namespace) -> int:
    """Score a predictions file again, without a model: accuracy, and what changed against what was recorded."""
    from actshift.evaluation.rescoring import rescore

    print(rescore(Path(request.file), task=request.task, rule=request.rule).text())
    return 0


def figures_command(request: Namespace) -> int:
    """Draw what a sweep has figures for, as SVG and PNG."""
    from actshift.report import figures
    from actshift.report.frame import cells, loss_curves

    store, grid = _planned(request)
    selection = read_selection(store, grid.sweep) if store.selected_path(grid.sweep).exists() else None
    final, records = _stages(store, grid)[-1], store.records("test")
    drawn = figures.all_figures(cells(final, records, selection), selection, loss_curves(final, records))
    for path in figures.write(drawn, store.root / "figures", sweep=grid.sweep):
        print(path)
    if not drawn:
        print("nothing to draw yet: no cell has finished")
    return 0


def report_command(request: Namespace) -> int:
    """Write one page with every sweep that is planned in a results folder; with --tables, their tables' files too."""
    from actshift.records import write_atomically
    from actshift.report.page import Table, page

    store = Store(Path(request.results))
    grids = [read_manifest(path) for path in sorted((store.root / "manifests").glob("*.grid.jsonl"))]
    if not grids:
        raise ActshiftError(f"nothing is planned in {store.root.resolve()}: name another folder with --results")
    parts = []
    for grid in grids:
        selection = read_selection(store, grid.sweep) if store.selected_path(grid.sweep).exists() else None
        parts.append(Table(_stages(store, grid)[-1], selection))
    out = Path(request.out) if request.out else store.root / "report.html"
    write_atomically(out, page(parts, store.records("test"), folder=store.tables if request.tables else None))
    print(out)
    return 0


def audit_command(request: Namespace) -> int:
    """Print every place where the paper's numbers do not follow from one another; --out keeps them as files."""
    from rich.console import Console

    from actshift.params import counts
    from actshift.report import audit, paper, params

    composer, printed = ProductComposer(), params.printed_shares()
    models = [model for model in paper.table(1)["model"].unique()]
    methods = [method for method in groups()["method"] if method in set(printed["method"])]
    shares = params.frame(list(counts(models, methods, composer)))
    rows = {name: composer([f"dataset={name}"])["dataset"]["hub"]["rows"] for name in groups()["dataset"]}
    findings = audit.audit(shares=shares, rows=rows)
    Console(width=None if sys.stdout.isatty() else 200).print(audit.terminal(findings))
    print(audit.summary(findings))
    if request.out:
        folder = Path(request.out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "audit.md").write_text(audit.markdown(findings), encoding="utf-8")
        audit.frame(findings).to_csv(folder / "audit.csv", index=False)
        print(folder / "audit.md", folder / "audit.csv", sep="\n")
    return 0


def sync_command(request: Namespace) -> int:
    """Send the offline mirrors of runs to Weights & Biases, from where there is a network."""
    from actshift.trackers import sync

    root = Path(request.results)
    count = sync(root)
    print(
        f"{count} runs of {root.resolve()} were handed to wandb" if count else f"no offline mirrors in {root.resolve()}"
    )
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


def _axes(given: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Options of groups, as in `model=a,b`. Errors: another group than these, an option that does not exist."""
    there, chosen = groups(), {}
    for text in given:
        group, _, options = text.partition("=")
        if group not in names:
            raise unknown("axis", group, names, where="model=A,B or method=A,B")
        chosen[group] = options.split(",")
        for option in chosen[group]:
            if option not in there[group]:
                raise unknown(group, option, there[group], where=f"{group}=... (files in conf/{group}/)")
    return chosen


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
        counts = key.startswith(FED) or not any(key == name or key.startswith(f"{name}.") for name in ignored)
        (frozen if counts else launch).append(override)
    own = ("results=", "sweep.")  # said to the workers by path, and used up by the expansion
    return config, [override for override in launch if not override.startswith(own)], frozen


def _refuse_impossible(manifest: Manifest, config: dict[str, Any]) -> None:
    """Refuse, before any of them trains, a sweep whose runs nothing here can score, or find the data of."""
    from actshift.tasks import refuse_unscored
    from actshift.validation import validate_folder

    for planned in manifest.cells:
        refuse_unscored({**planned.config, "stage": manifest.stage})
        validate_folder(config["data"]["dir"], source=planned.config["data"]["source"])


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


def _print_tables(store: Store, manifest: Manifest, selection: Selection | None, *, variant: str = "ours") -> None:
    from rich.console import Console

    from actshift.report.frame import cells
    from actshift.report.tables import terminal, write

    frame = cells(manifest, store.records("test"), selection)
    paths = write(frame, manifest, store.tables)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(terminal(frame, manifest, variant=variant))
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
