"""`actshift study`: what studies found so far, as a page with its tables and figures."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from actshift.commands.requests import results_folder
from actshift.errors import ActshiftError, unknown
from actshift.files import write_file
from actshift.planning.expand import expand_final
from actshift.planning.manifests import read_manifest
from actshift.planning.selection import read_selection, select
from actshift.report.study.page import Findings
from actshift.store.store import Store


def study_command(request: Namespace) -> int:
    """Write the page of studies, their effects and shares of variance as CSV, and their figures.

    Errors: a sweep that is not planned in the results folder, or has no fraction.
    """
    from actshift.report.study import page

    given = [word for word in request.sweeps if "=" in word]
    studies, request.overrides = [word for word in request.sweeps if word not in given], given
    store, out = Store(results_folder(request)), Path(request.out)
    if not studies:
        raise ActshiftError("name at least one study, as in `actshift study study`")
    found = [_findings(store, sweep, beside=out.parent) for sweep in studies]
    command = f"actshift study {' '.join(studies)} --out {request.out}"
    write_file(out, page.markdown(found, command=command))
    for each in found:
        print(f"{each.study.title}: {each.study.done} of {each.study.planned} cells are finished")
    print(out)
    return 0


def _findings(store: Store, sweep: str, *, beside: Path) -> Findings:
    """What a study shows; its CSV files and figures written, the figures' paths relative to the page's folder."""
    from actshift.report.figures import write
    from actshift.report.study import effects, figures
    from actshift.report.study.design import study_of
    from actshift.report.study.variance import variance

    path = store.manifest_path(sweep, "grid")
    if not path.exists():
        raise unknown("study", sweep, store.planned(), where=f"the sweeps planned in {store.root.resolve()}")
    grid, validated = read_manifest(path), list(store.records("validation"))
    frozen = store.manifest_path(sweep, "final")
    # Before the grid is finished nothing is frozen: what is finished of it is chosen from as it stands.
    selection = read_selection(store, sweep) if frozen.exists() else select(grid, validated, allow_missing=True)
    final = read_manifest(frozen) if frozen.exists() else expand_final(grid, selection)
    done = len({run.identity for run in grid.runs} & {record.identity for record in validated})
    study = study_of(final, store.records("test"), selection, grid_runs=(done, len(grid.runs)))
    found = effects.effects(study)
    shares = variance(study)
    for name, frame in (("effects", effects.frame(found)), ("variance", shares)):
        file = store.root / "studies" / f"{sweep}.{name}.csv"
        write_file(file, frame.to_csv(index=False, lineterminator="\n"))
        print(file)
    drawn = {"combinations": figures.combinations(study), "contrasts": figures.contrasts(study, found)}
    made = {name: figure for name, figure in drawn.items() if figure is not None}
    paths = write(made, store.root / "figures", sweep=sweep)
    shown = {name: os.path.relpath(str(store.root / "figures" / f"{sweep}_{name}.png"), str(beside)) for name in made}
    print(*paths, sep="\n")
    return Findings(study, found, shares, shown)
