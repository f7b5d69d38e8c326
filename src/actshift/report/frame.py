"""Records to one tidy frame, a row a cell: the only thing that tables and figures are made from.

Accuracies, means, deviations, differences and gaps are percent or percent points.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.errors import ActshiftError
from actshift.report import instruction_columns
from actshift.report.evidence import with_evidence
from actshift.report.judged_columns import with_judged
from actshift.report.origins import origin_facts, refuse_mixed_rows, refuse_mixed_scoring
from actshift.report.printed_figures import is_the_papers, printed_figures

if TYPE_CHECKING:
    from actshift.judging.records import JudgedRecord
    from actshift.planning.manifests import Manifest, PlannedCell, Run
    from actshift.planning.selection import Selection
    from actshift.store.baselines import Baseline
    from actshift.store.records import Record

NAN = math.nan
KEYS = ["model", "method", "dataset", "protocol"]
COUNTS = ["n_finished", "n_planned", "n_diverged", "trainable_parameters"]
TEXT = [*KEYS, "status", "variant", "lr_edge", "lr_tied", "lr_incomplete", "excluded", "scale", "source", "identities"]
COLUMNS = [
    *KEYS,
    "status",
    "n_finished",
    "n_planned",
    "n_diverged",
    "mean",
    "std",
    "delta",
    "values",
    "seeds",
    "params_pct",
    "trainable_parameters",
    "lr",
    "variant",
    "lr_edge",
    "lr_tied",
    "lr_incomplete",
    "paper_accuracy",
    "paper_delta",
    "paper_avg_delta",
    "paper_std",
    "paper_params_pct",
    "gap",
    "excluded",
    "scale",
    "source",
    "identities",
]
AVERAGED = [
    *("model", "method", "protocol", "status", "mean", "delta"),
    *("params_pct", "paper_avg_delta", "paper_params_pct"),
]


def cells(
    manifest: Manifest,
    records: Iterable[Record],
    selection: Selection | None = None,
    *,
    baselines: Iterable[Baseline] = (),
    judged: Mapping[str, JudgedRecord] | None = None,
) -> pd.DataFrame:
    """The frame of a sweep, in the order of its axes; text that is absent is "", a number that is absent NaN.

    `status` is done, partial, diverged (some run is), missing or excluded (`excluded` says why).
    `mean` and `std` (ddof 1, NaN below two)
    are over the finished runs; `values` and `seeds` hold them in the order of seeds, `identities` too. `delta` is the
    mean less that of the reference method in the same model and data set, `gap` less the paper's accuracy: NaN until
    all runs they need are finished. The paper's figures stand where a cell is the one that the paper printed: table,
    names, protocol, real data, all rows, nothing overridden. `report.evidence` adds its columns. Records that the
    manifest does not plan are not used. ``attrs["baselines"]`` has those of (model, data set), ``attrs["origins"]``
    sentences about runs of partial data, changed code or different machines. `judged`: a judge's records by identity.
    Errors: a record of another split than test, records scored in different ways or on different rows.
    """
    found = {record.identity: record for record in _only_test(records)}
    used = [record for run in manifest.runs if run.split == "test" and (record := found.get(run.identity))]
    refuse_mixed_scoring(used)
    refuse_mixed_rows(used)
    planned = {(plan.cell.model, plan.cell.method, plan.cell.dataset): plan for plan in manifest.cells}
    runs = _runs_by_cell(manifest)
    rows = []
    for names in ((a, b, c) for a in manifest.models for b in manifest.methods for c in manifest.datasets):
        plan = planned.get(names)
        if plan is None:
            rows.append(_excluded(names, manifest))
        else:
            planned_runs = runs[plan.cell]
            finished = [found[run.identity] for run in planned_runs if run.identity in found]
            rows.append(_row(plan, planned_runs, finished) | _choice(plan, selection) | printed_figures(plan, manifest))
    frame = _completed(_typed(rows), reference=manifest.reference)
    frame = with_evidence(frame, found, reference=manifest.reference)
    frame.attrs["baselines"] = {(each.model, each.dataset): each for each in baselines}
    frame.attrs["origins"] = origin_facts(used)
    frame.attrs["ifeval"] = instruction_columns.ifeval_means(used)
    frame.attrs["test_rows"] = sorted({record.metrics["rows"] for record in used})
    frame.attrs["judged"] = instruction_columns.judged_by_cell(used, judged or {})
    frame.attrs["printed_lc"] = instruction_columns.printed_lc(manifest, is_the_papers)
    frame.attrs["selected"] = selection is not None  # without a selection nothing is known of where a rate lies
    return frame


def table(sweep: str, *, results: str | Path = "results", judge: str | None = None) -> pd.DataFrame:
    """The frame of a sweep that is planned in a results folder: what `actshift tables` is made from, in one line.

    With the name of a `judge` its columns follow (`report.judged_columns`).
    Errors: a sweep that is not planned there.
    """
    from actshift.judging.records import read_judged
    from actshift.planning.manifests import read_manifest
    from actshift.planning.selection import read_selection
    from actshift.store.store import Store

    store = Store(results)
    final = store.manifest_path(sweep, "final")
    manifest = read_manifest(final if final.exists() else store.manifest_path(sweep, "grid"))
    selection = read_selection(store, sweep) if store.selected_path(sweep).exists() else None
    judged = read_judged(store.root, judge, [run.identity for run in manifest.runs]) if judge else {}
    return with_judged(cells(manifest, store.records("test"), selection, judged=judged))


def loss_curves(manifest: Manifest, records: Iterable[Record]) -> pd.DataFrame:
    """The training loss of a sweep's final runs: a row a point, `step` being the steps done, `loss` nats a token."""
    found = {record.identity: record for record in records}
    rows = [
        (run.cell.model, run.cell.method, run.cell.dataset, run.seed, int(step), float(loss))
        for run in manifest.runs
        if run.split == "test" and run.identity in found
        for step, loss in found[run.identity].metrics.get("loss_curve", ())
    ]
    return pd.DataFrame(rows, columns=["model", "method", "dataset", "seed", "step", "loss"])


def averages(cells: pd.DataFrame) -> pd.DataFrame:
    """One row a (model, method, protocol): `accuracy` and `delta` averaged over data sets, NaN unless all are done.

    `n_done` of `n_datasets` says why an average is absent; `params_pct` is the share of trainable parameters, and
    `paper_delta` the average that the paper prints over the same data sets.
    """
    groups: dict[Any, list[Any]] = defaultdict(list)
    for row in cells[AVERAGED].itertuples():
        groups[row.model, row.method].append(row)
    rows = [
        {
            "model": model,
            "method": method,
            "protocol": " ".join(sorted({row.protocol for row in group} - {""})),
            "n_done": sum(row.status == "done" for row in group),
            "n_datasets": len(group),
            "accuracy": _mean([row.mean if row.status == "done" else NAN for row in group]),
            "delta": _mean([row.delta for row in group]),
            "params_pct": _largest([row.params_pct for row in group]),
            # NaN before any number: the average stands in every cell of the row, or it is another's.
            "paper_delta": max((row.paper_avg_delta for row in group), key=lambda value: (math.isnan(value), value)),
            "paper_params_pct": _largest([row.paper_params_pct for row in group]),
        }
        for (model, method), group in groups.items()
    ]
    return pd.DataFrame(rows)


def _only_test(records: Iterable[Record]) -> list[Record]:
    kept = list(records)
    for record in kept:
        if record.split != "test":
            raise ActshiftError(
                f"record {record.identity} of {record.cell} is of the {record.split} split; tables are made from test "
                'records alone. Read them with `read_records(folder, split="test")`.'
            )
    return kept


def _runs_by_cell(manifest: Manifest) -> dict[Any, list[Run]]:
    """The runs that score test, by cell and seed: none before the final stage is planned."""
    runs: dict[Any, list[Run]] = defaultdict(list)
    for run in sorted(manifest.runs, key=lambda run: run.seed):
        if run.split == "test":
            runs[run.cell].append(run)
    return runs


def _row(plan: PlannedCell, runs: Sequence[Run], finished: Sequence[Record]) -> dict[str, Any]:
    values = [float(record.metrics["accuracy"]) for record in finished]
    counts = {_parameters(record) for record in finished}
    if len(counts) > 1:
        raise ActshiftError(f"the runs of {plan.cell} trained different numbers of parameters: {sorted(counts)}")
    trainable, total = counts.pop() if counts else (NAN, NAN)
    return plan.cell.to_json() | {
        "status": _status(finished, planned=len(plan.seeds)),
        "n_finished": len(values),
        "n_planned": len(plan.seeds),
        "n_diverged": _diverged(finished),
        # fmean and stdev are correctly rounded: the same digits on every machine.
        "mean": statistics.fmean(values) if values else NAN,
        "std": statistics.stdev(values) if len(values) > 1 else NAN,
        "values": tuple(values),
        "seeds": tuple(record.seed for record in finished),
        "params_pct": 100 * trainable / total,
        "trainable_parameters": trainable,
        "lr": runs[0].lr if runs else NAN,
        "variant": runs[0].variant if runs else "",
        "scale": " ".join(sorted({str(record.provenance.get("scale", "")) for record in finished})),
        "source": plan.settings.data.source,
        "identities": " ".join(record.identity for record in finished),
    }


def _diverged(finished: Sequence[Record]) -> int:
    return sum(bool(record.metrics["diverged"]) for record in finished)


def _status(finished: Sequence[Record], *, planned: int) -> str:
    if not finished:
        return "missing"
    if _diverged(finished):
        return "diverged"
    return "done" if len(finished) == planned else "partial"


def _parameters(record: Record) -> tuple[float, float]:
    return record.metrics.get("trainable_parameters", NAN), record.metrics.get("total_parameters", NAN)


def _excluded(names: tuple[str, str, str], manifest: Manifest) -> dict[str, Any]:
    protocols = {plan.cell.protocol for plan in manifest.cells}
    reasons = [
        exclusion.reason
        for exclusion in manifest.exclusions
        if (exclusion.model, exclusion.method, exclusion.dataset) == names
    ]
    return dict(zip(KEYS, names, strict=False)) | {
        "protocol": protocols.pop() if len(protocols) == 1 else "",
        "status": "excluded",
        "n_finished": 0,
        "n_planned": 0,
        "values": (),
        "seeds": (),
        "excluded": reasons[0] if reasons else "not planned",
    }


def _choice(plan: PlannedCell, selection: Selection | None) -> dict[str, Any]:
    """Where the chosen learning rate lies in its grid, which rates were as good, and whether grid runs were missing."""
    choice = selection.choice(plan.cell) if selection else None
    if choice is None:
        return {}
    return {
        "lr_edge": choice.edge or "",
        "lr_tied": "; ".join(choice.tie),
        "lr_incomplete": "yes" if choice.incomplete else "",
    }


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    empty = dict.fromkeys(COLUMNS, NAN) | dict.fromkeys(TEXT, "")
    frame = pd.DataFrame([empty | row for row in rows], columns=COLUMNS)
    numbers = [name for name in COLUMNS if name not in [*TEXT, *COUNTS, "values", "seeds"]]
    return frame.assign(
        **{name: frame[name].astype("Int64") for name in COUNTS},
        **{name: frame[name].astype("str") for name in TEXT},
        **{name: frame[name].astype("float64") for name in numbers},
    )


def _completed(frame: pd.DataFrame, *, reference: str) -> pd.DataFrame:
    done = frame["mean"].where(frame["status"].eq("done"))
    index = pd.MultiIndex.from_frame(frame[["model", "dataset", "protocol"]])
    base = pd.Series(done.to_numpy(), index=index)[frame["method"].eq(reference).to_numpy()]
    return frame.assign(delta=done - base.reindex(index).to_numpy(), gap=done - frame["paper_accuracy"])


def _mean(values: Sequence[float]) -> float:
    """NaN where any value is."""
    return NAN if any(map(math.isnan, values)) else statistics.fmean(values)


def _largest(values: Sequence[float]) -> float:
    """Of the values that are there."""
    return max((value for value in values if not math.isnan(value)), default=NAN)
