"""One self-contained HTML page: tables with their evidence, figures, selection, audit and provenance.

Nothing is fetched: styles and drawings stand in the page, and there is no script.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actshift.paths import conf_dir
from actshift.planning.manifests import Manifest
from actshift.planning.selection import Selection
from actshift.report import audit, claims, figures, names, tables
from actshift.report.frame import cells as frame_of
from actshift.report.frame import loss_curves
from actshift.report.html import rendered, template_values
from actshift.report.layout import filled_variants, layout
from actshift.report.summary import summary, warnings_by_kind
from actshift.store.baselines import Baseline
from actshift.store.records import Record

STRIP = 120, 28
"""Width and height of a run's loss curve, in pixels."""


@dataclass(frozen=True)
class Table:
    """One sweep of the page: its plan, what was selected, and what its test sets give away without adaptation."""

    manifest: Manifest
    selection: Selection | None
    baselines: tuple[Baseline, ...] = ()


def page(
    parts: Sequence[Table],
    records: Iterable[Record],
    *,
    title: str = "actshift report",
    folder: Path | None = None,
    judged: Sequence[claims.Judgment] | None = None,
    drawings: Sequence[tuple[str, str]] = (),
) -> str:
    """The page as text, from the sweeps' plans and the test records there are.

    With a `folder`, the files of every table are written there from the same frames. `judged` are the judgments of
    claims that no sweep decides (the paper's numbers, analyses); by default those on the printed numbers alone.
    `drawings` are the figures of analyses, as names and SVG texts.
    """
    found = {record.identity: record for record in records}
    makers: list[Callable[[], Any]] = [*(partial(_part, part, found, folder=folder) for part in parts), audit.audit]
    *shown, findings = _at_once(makers, processes=len(parts))  # one sweep alone is quicker than a second process
    return rendered(
        "page.html.j2",
        title=title,
        tables=shown,
        # Whoever planned a sweep of their own asks for that first.
        paper_first=any((conf_dir() / "sweep" / f"{part.manifest.sweep}.yaml").is_file() for part in parts),
        claims=claims.view(
            [
                *([*claims.printed(), *claims.over_seeds()] if judged is None else judged),
                *(each for part in shown for each in part["judged"]),
            ]
        ),
        drawings=drawings,
        audit=[[str(value) for value in vars(finding).values()] for finding in findings],
        audit_counts=audit.summary(findings),
        provenance=_provenance(found.values()),
    )


def _at_once(makers: Sequence[Callable[[], Any]], *, processes: int) -> list[Any]:
    """What each makes, as many at once as there are processors, where processes can be forked."""
    processes = min(processes, os.cpu_count() or 1)
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [maker() for maker in makers]
    for library in ("matplotlib.figure", "matplotlib.backends.backend_svg", "scipy.special"):
        importlib.import_module(library)  # once, not in each process
    _forked[:] = makers  # inherited by the processes: records by the thousand are not sent
    try:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            return pool.map(_forked_maker, range(len(makers)), chunksize=1)
    finally:
        _forked.clear()


_forked: list[Callable[[], Any]] = []


def _forked_maker(index: int) -> Any:
    return _forked[index]()


def _part(part: Table, found: Mapping[str, Record], *, folder: Path | None) -> dict[str, Any]:
    manifest = part.manifest
    cells = frame_of(manifest, found.values(), part.selection, baselines=part.baselines)
    if folder is not None:
        tables.write(cells, manifest, folder)
    finished = [found[run.identity] for run in manifest.runs if run.identity in found]
    drawn = figures.all_figures(cells, part.selection, loss_curves(manifest, finished))
    variants = [variant for variant in filled_variants(cells) if variant != "ours"]
    return {
        **template_values(layout(cells, manifest), cells, manifest, links=True),
        "variants": [
            template_values(layout(cells, manifest, variant=variant), cells, manifest, links=False)
            for variant in variants
        ],
        "figures": [(name, figures.svg(figure)) for name, figure in drawn.items()],
        "summary": summary(cells, manifest),
        "warnings": warnings_by_kind(part.selection, finished),
        "selection": selection_rows(part.selection),
        "runs": [_run(manifest, record) for record in finished],
        "judged": claims.measured(cells, manifest, finished),
    }


def selection_rows(selection: Selection | None) -> list[tuple[str, ...]]:
    """Cell, candidate, validation accuracy, runs, and whether it was chosen, for every candidate of every cell."""
    rows: list[tuple[str, ...]] = []
    for choice in selection.choices if selection else ():
        for rate in choice.rates:
            chosen = (rate.lr, rate.variant) == (choice.lr, choice.variant)
            accuracy = "" if rate.accuracy is None else f"{rate.accuracy:.2f}"
            note = " ".join(["chosen"] * chosen + ["diverged"] * rate.diverged)
            rows.append((str(choice.cell), rate.label, accuracy, f"{rate.finished}/{rate.planned}", note))
    return rows


def _run(manifest: Manifest, record: Record) -> dict[str, str]:
    metrics = {name: value for name, value in record.metrics.items() if name not in ("answers", "loss_curve")}
    shown = {"metrics": metrics, "provenance": record.provenance}
    # A line a section: with an indent, Python's encoder takes twenty times as long.
    sections = {**shown, **{f"config.{name}": value for name, value in sorted(record.config.items())}}
    text = "\n".join(f"{name}: {json.dumps(value, sort_keys=True)}" for name, value in sections.items())
    names_of = (
        f"{names.model(record.cell.model)}, {names.method(record.cell.method)}, {names.dataset(record.cell.dataset)}"
    )
    title = f"{record.identity}: {names_of}, lr {record.lr:g}, seed {record.seed}: {record.metrics['accuracy']:.2f}"
    curve = strip(record.metrics.get("loss_curve") or [])
    return {"id": f"{manifest.sweep}-{record.identity}", "title": title, "text": text, "curve": curve}


def strip(curve: Sequence[Sequence[float]]) -> str:
    """The points of a polyline that draws a loss curve into `STRIP`, the lowest loss at the bottom."""
    if len(curve) < 2:
        return ""
    (width, height), losses = STRIP, [loss for _, loss in curve]
    low, span = min(losses), max(losses) - min(losses) or 1.0
    return " ".join(
        f"{width * step / curve[-1][0]:.1f},{2 + (height - 4) * (1 - (loss - low) / span):.1f}" for step, loss in curve
    )


def _provenance(records: Iterable[Record]) -> list[tuple[str, str]]:
    """What the numbers were made with, each value with how many records have it; time and memory in all."""
    kept = list(records)
    rows = []
    for name in (
        "actshift",
        "commit",
        "dirty",
        "python",
        "torch",
        "transformers",
        "device_name",
        "precision",
        "source",
    ):
        values = Counter(str(record.provenance.get(name)) for record in kept)
        rows.append((name, ", ".join(f"{value} ({count})" for value, count in values.most_common())))
    seconds = [r.provenance.get("train_seconds", 0.0) + r.provenance.get("evaluation_seconds", 0.0) for r in kept]
    rows.append(("device hours", f"{sum(seconds) / 3600:.2f} (training of a run counted with its test record)"))
    peak = max((record.provenance.get("peak_memory_bytes") or 0 for record in kept), default=0)
    rows.append(("peak memory", f"{peak / 2**30:.2f} GiB"))
    rows.append(("energy", "not measured"))
    return rows
