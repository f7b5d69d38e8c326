"""Commands that write what records show: tables, figures, the page; and what the paper's own numbers show."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from actshift.commands.requests import (
    console,
    planned_grid,
    results_folder,
    selection_of,
    split_options,
    stages_of,
    take_judge,
    write_copies,
)
from actshift.config.cached import CachedComposer, hub_models
from actshift.config.groups import groups
from actshift.errors import ActshiftError, unknown
from actshift.files import write_file
from actshift.planning.manifests import Manifest, read_manifest
from actshift.planning.selection import Selection
from actshift.report import names
from actshift.store.baselines import Baseline, baselines_of
from actshift.store.store import Store


def tables_command(request: Namespace) -> int:
    """Write every variant of a sweep's table from its records, and print one."""
    take_judge(request)
    spread = {f"table{number}": f"table{table}" for table, number in names.DEVIATIONS.items()}
    if request.sweep in spread:
        request.sweep, request.variant = spread[request.sweep], "std"
    store, grid = planned_grid(request)
    selection = selection_of(store, grid.sweep)
    doubts = request.without.split(",") if request.without else []
    print_tables(
        store, stages_of(store, grid)[-1], selection, variant=request.variant, doubts=doubts, judge=request.judge
    )
    return 0


def figures_command(request: Namespace) -> int:
    """Draw what a sweep has figures for, as SVG and PNG."""
    from actshift.report import figures
    from actshift.report.frame import cells, loss_curves

    store, grid = planned_grid(request)
    selection = selection_of(store, grid.sweep)
    final, records = stages_of(store, grid)[-1], store.records("test")
    drawn = figures.all_figures(cells(final, records, selection), selection, loss_curves(final, records))
    for path in figures.write(drawn, store.root / "figures", sweep=grid.sweep):
        print(path)
    if not drawn:
        print("nothing to draw yet: no cell has finished")
    return 0


def report_command(request: Namespace) -> int:
    """Write one page with every sweep that is planned in a results folder; with --tables, their tables' files too."""
    from actshift.commands.claims import theory_record
    from actshift.report import claims
    from actshift.report.page import Table, page

    store = Store(results_folder(request))
    grids = [read_manifest(store.manifest_path(sweep, "grid")) for sweep in store.planned()]
    if not grids:
        raise ActshiftError(f"nothing is planned in {store.root.resolve()}: name another folder with results=...")
    last = [stages_of(store, grid)[-1] for grid in grids]
    parts = [Table(each, selection_of(store, each.sweep), baselines=tuple(_baselines(each, store))) for each in last]
    out = Path(request.out) if request.out else store.root / "report.html"
    analyses = store.root / "analyses"
    judged = [*claims.printed(theory_record(analyses)), *claims.analysed(analyses)]
    drawings = [(path.stem, path.read_text(encoding="utf-8")) for path in sorted(analyses.glob("*.svg"))]
    folder = store.tables if request.tables else None
    write_file(out, page(parts, store.records("test"), folder=folder, judged=judged, drawings=drawings))
    print(out)
    return 0


def audit_command(request: Namespace) -> int:
    """Print every place where the paper's numbers do not follow from one another; --out keeps them as files."""
    from actshift.commands import terminal_frames
    from actshift.estimates.parameters import counts
    from actshift.paper import printed as paper
    from actshift.report import audit, params
    from actshift.report.audit import possible

    composer, printed = CachedComposer(), params.printed_shares()
    models = list(paper.table(1)["model"].unique())
    methods = [method for method in groups()["method"] if method in set(printed["method"])]
    shares = params.frame(list(counts(models, methods, composer)))
    rows, tests = _hub_rows(composer, list(paper.table(1)["dataset"].unique()))
    findings = audit.audit(shares=shares, rows=rows, tests=tests)
    console(200).print(terminal_frames.audit_table(findings))
    print(audit.summary(findings))
    if request.out:
        folder = Path(request.out)
        text = audit.markdown(findings, sets=possible.test_sets(tests))
        write_file(folder / "audit.md", text)
        write_file(folder / "audit.csv", audit.frame(findings).to_csv(index=False, lineterminator="\n"))
        print(folder / "audit.md", folder / "audit.csv", sep="\n")
    return 0


def _hub_rows(
    composer: CachedComposer, datasets: Sequence[str]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
    """Rows of the hub's splits by data set, and of the test splits by data set and protocol."""
    from actshift.estimates.costs import rows_of

    rows: dict[str, dict[str, int]] = {}
    tests: dict[str, dict[str, int]] = {}
    for name in datasets:
        for protocol in ("paper", "released"):
            config = composer([f"dataset={name}", f"protocol={protocol}", "data.source=hub"])
            rows[name] = config.dataset.hub.rows
            tests.setdefault(name, {})[protocol] = rows_of(config, "test")
    return rows, tests


def params_command(request: Namespace) -> int:
    """Trainable parameters of every method on every model from the hub, with the paper's shares."""
    from actshift.commands import terminal_frames

    chosen = _axes(request.overrides, ("model", "method"))
    from actshift.estimates.parameters import counts
    from actshift.report import params

    composer = CachedComposer()
    models = chosen.get("model") or hub_models(groups()["model"], composer)
    rows = params.frame(list(counts(models, chosen.get("method") or groups()["method"], composer)))
    console().print(terminal_frames.params_table(rows))
    write_copies(rows, (request.csv, params.csv), (request.markdown, params.markdown))
    return 0


def memory_command(request: Namespace) -> int:
    """Peak memory of methods on models, estimated and measured, and the cards that hold it."""
    from actshift.commands import terminal
    from actshift.report import memory

    rows = memory.rows_of(*split_options(request.overrides, ["model", "method"]))
    console().print(terminal.memory_table(rows))
    write_copies(rows, (request.csv, memory.csv), (request.markdown, memory.markdown))
    return 0


def print_tables(
    store: Store,
    manifest: Manifest,
    selection: Selection | None,
    *,
    variant: str = "ours",
    doubts: Sequence[str] = (),
    judge: str | None = None,
) -> None:
    """Write every variant of a table, and print one; runs to which one of the `doubts` applies are left out.

    `judge` names whose win rates a table of instruction tuning shows.
    """
    from actshift.commands import terminal_frames
    from actshift.judging.records import read_judged
    from actshift.report.frame import cells
    from actshift.report.origins import without
    from actshift.report.tables import write

    planned = {run.identity for run in manifest.runs}
    records = [record for record in store.records("test") if record.identity in planned]
    kept = without(records, doubts)
    judged = read_judged(store.root, judge, planned) if judge else {}
    if judge and not judged:
        raise ActshiftError(
            f"no run of {manifest.sweep} is judged by {judge}: actshift judge {manifest.sweep} --judge {judge}"
        )
    frame = cells(manifest, kept, selection, baselines=_baselines(manifest, store), judged=judged)
    if doubts:
        frame.attrs["origins"].append(f"Left out on request: {len(records) - len(kept)} runs ({', '.join(doubts)}).")
    console().print(terminal_frames.sweep_table(frame, manifest, variant=variant))
    try:
        paths = write(frame, manifest, store.tables, judge=judge)
    except OSError as error:  # who reads a table in a colleague's folder needs no right to write there
        print(f"the table's files were not written to {store.tables}: {error.strerror or error}", file=sys.stderr)
        return
    for path in paths:
        print(path)


def _baselines(manifest: Manifest, store: Store) -> list[Baseline]:
    """What the test sets of a sweep give away without adaptation, as far as it was made."""
    return baselines_of((cell.config for cell in manifest.cells), store.root)


def _axes(given: Sequence[str], allowed: Sequence[str]) -> dict[str, list[str]]:
    """Options of groups, as in `model=a,b`. Errors: another group than these, an option that does not exist."""
    there, chosen = groups(), {}
    for text in given:
        group, _, options = text.partition("=")
        if group not in allowed:
            raise unknown("axis", group, allowed, where="model=A,B or method=A,B")
        chosen[group] = options.split(",")
        for option in chosen[group]:
            if option not in there[group]:
                raise unknown(group, option, there[group], where=f"{group}=... (files in conf/{group}/)")
    return chosen
