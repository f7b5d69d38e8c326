"""What the paper prints beside a cell of ours, where the cell is the one that the paper printed."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from actshift.paper import printed as paper
from actshift.report.names import DEVIATIONS
from actshift.schema.data import SPLITS

if TYPE_CHECKING:
    from actshift.planning.manifests import Manifest, PlannedCell

NAN = math.nan
CHANGES = ("model.", "method.", "dataset.", "protocol.", "training.", "evaluation.", "data.splits", "data.limit")
"""Overrides of these make a cell another experiment than the one that its names say."""
WATCHES = "training.validation"


def printed_figures(plan: PlannedCell, manifest: Manifest) -> dict[str, Any]:
    """The paper's figures beside a cell that is the paper's."""
    number = paper.table_number(manifest.table)
    if number is None or not is_the_papers(plan):
        return {}
    printed = _figures(number)
    row = printed.get((plan.cell.model, plan.cell.method, plan.cell.dataset))
    if row is None or "accuracy" not in row:
        return {}
    deviations = _figures(DEVIATIONS[number]) if number in DEVIATIONS else {}
    deviation = deviations.get((plan.cell.model, plan.cell.method, plan.cell.dataset), {})
    figures = {"paper_accuracy": row["accuracy"], "paper_std": deviation.get("std", NAN)}
    if "params_pct" in row:
        figures["paper_params_pct"] = row["params_pct"]
    if "delta_vs_sft" in row and manifest.reference == "sft":
        averaged = {dataset for *names, dataset in printed if names == [plan.cell.model, plan.cell.method]}
        figures["paper_delta"] = row["delta_vs_sft"]
        figures["paper_avg_delta"] = row["avg_delta"] if averaged == set(manifest.datasets) else NAN
    return figures


@cache
def _figures(number: int) -> dict[tuple[str, ...], dict[str, Any]]:
    """A printed table by model, method and data set."""
    rows: list[dict[str, Any]] = paper.table(number).to_dict("records")  # type: ignore[assignment]
    return {(row["model"], row["method"], row.get("dataset", "")): row for row in rows}


def is_the_papers(plan: PlannedCell) -> bool:
    """Whether a planned cell is the experiment that the paper's cell of these names is."""
    config = plan.settings
    limits = [config.data.limit.of(split) for split in SPLITS] + [config.training.max_steps]
    # What differs between variants is tuned, as the paper tunes it; what they share was overridden.
    shared = set[str].intersection(*(set(variant.overrides) for variant in plan.variants))
    keys = [override.lstrip("+~") for override in shared]
    return (
        plan.cell.protocol == "paper"
        and config.data.source != "procedural"
        and not getattr(config.data.origin, "files", None)  # a split that is there in part
        and config.model.source == "hub"
        and config.model.sha256 is None  # of weights with a checksum no source is kept
        and all(limit is None for limit in limits)
        and not any(key.startswith(CHANGES) and not key.startswith(WATCHES) for key in keys)
    )
