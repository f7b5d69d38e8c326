"""A sweep's table as texts: what every format prints, so that no two of them can differ.

The layout is that of the paper's Table 1: a block of methods for each model, a column for each data set. A cell is bold
only where its difference to the reference survives the paired test, adjusted over the table. Of each table there are
variants: our figures, what the paper prints, both with the gap, and the standard deviations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from actshift.errors import unknown
from actshift.planning.manifests import Manifest
from actshift.report import frame, names
from actshift.report import instruction_columns as tuned
from actshift.report.evidence import SIGNIFICANT
from actshift.report.origins import limit_facts

ABSENT = "–"


class Bold(str):
    """The text of a cell whose difference to the reference survives its test."""

    __slots__ = ()


@dataclass(frozen=True)
class Layout:
    """A table as text: each block is a model's name and its rows, each row a method and a text for every column."""

    title: str
    facts: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    notes: tuple[str, ...]
    scored_from: int = 2
    """The place of the first data set's column."""


VARIANTS = {
    "ours": "",
    "paper": "what the paper prints",
    "gap": "ours beside the paper's",
    "std": "standard deviations over seeds",
}
"""What a table can show, and how its title says so."""


def layout(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> Layout:
    """The texts of a table: what every format shows, so that no two of them can differ."""
    if variant not in VARIANTS:
        raise unknown("variant of a table", variant, VARIANTS, where="--variant")
    reasons = list(dict.fromkeys(reason for reason in cells["excluded"] if reason))
    show = {"ours": _ours, "paper": _paper, "gap": _gap, "std": _std}[variant]
    texts = {
        (row.model, row.method, row.dataset): f"excl. ({_letter(reasons.index(row.excluded))})"
        if row.status == "excluded"
        else show(row, manifest.reference)
        for row in cells.itertuples()
    }
    rows: dict[Any, Any] = {(row.model, row.method): row for row in frame.averages(cells).itertuples()}
    blocks, tuning = [], tuned.is_instruction_tuning(cells, manifest)
    for model in manifest.models:
        block = _baseline_rows(cells, manifest, model=model, variant=variant, tuning=tuning)
        for method in manifest.methods:
            inner = [texts[model, method, dataset] for dataset in manifest.datasets]
            share, *rest = _share_and_average(rows[model, method], inner, variant)
            if tuning and variant != "std":
                rest = [*tuned.texts(cells, (model, method)), *rest[:-1], *tuned.last_texts(cells, (model, method))]
            block.append((names.method(method), share, *rest))
        blocks.append((names.model(model), tuple(block)))
    parts = VARIANTS[variant]
    return Layout(
        title=f"{manifest.title} ({parts})" if parts else manifest.title,
        facts=tuple(_facts(cells, manifest, variant=variant)),
        columns=("Method", "Params (%)", *_columns(cells, manifest, variant=variant, tuning=tuning)),
        blocks=tuple(blocks),
        notes=tuple(f"({_letter(index)}) {reason}" for index, reason in enumerate(reasons)),
        scored_from=2 + (len(tuned.heads(cells)) if tuning and variant != "std" else 0),
    )


def _columns(cells: pd.DataFrame, manifest: Manifest, *, variant: str, tuning: bool) -> list[str]:
    """The heads of the columns after the share of parameters."""
    if not tuning:
        return [*map(names.dataset, manifest.datasets), *(["Avg Δ"] if variant != "std" else [])]
    alone = len(manifest.datasets) == 1
    tested = [tuned.IFEVAL_HEAD if alone else f"{names.dataset(name)}: IFEval" for name in manifest.datasets]
    return tested if variant == "std" else [*tuned.heads(cells), *tested, *tuned.last_heads(cells)]


def _baseline_rows(
    cells: pd.DataFrame, manifest: Manifest, *, model: str, variant: str, tuning: bool
) -> list[tuple[str, ...]]:
    """Rows above the methods: the most common label of each test set, and the base model before adaptation."""
    found = cells.attrs.get("baselines", {})
    there = [found.get((model, dataset)) for dataset in manifest.datasets]
    if variant != "ours" or not any(there):
        return []
    scores = {
        "Most common label": [each.majority if each else None for each in there],
        "Base model": [each.generation if each else None for each in there],
        "Base model, by likelihood": [each.likelihood if each else None for each in there],
    }
    if tuning:  # a prompt's instructions have no most common label, and no options
        scores = {"Base model": scores["Base model"]}
    before, after = ([""] * len(tuned.heads(cells)), [""] * len(tuned.last_heads(cells))) if tuning else ([], [""])
    return [
        (name, "", *before, *(ABSENT if value is None else f"{value:.1f}" for value in values), *after)
        for name, values in scores.items()
        if any(value is not None for value in values)
    ]


def filled_variants(cells: pd.DataFrame) -> list[str]:
    """The variants of a table that have content: where the paper has no figure, only ours and its deviations."""
    return [name for name in VARIANTS if name in ("ours", "std") or cells["paper_accuracy"].notna().any()]


def _share_and_average(row: Any, inner: Sequence[str], variant: str) -> tuple[str, ...]:
    """The cells of a row with the share of parameters before them, and the average difference after them."""
    ours, printed = (ABSENT if math.isnan(value) else _signed(value) for value in (row.delta, row.paper_delta))
    share = _share(row.paper_params_pct if variant == "paper" else row.params_pct)
    if variant == "std":
        return share, *inner
    known = not math.isnan(row.paper_delta)
    if variant == "gap":
        share = f"{share} / {_share(row.paper_params_pct)}"
        return share, *inner, f"{ours} / {printed}"
    average = printed if variant == "paper" else f"{ours} [paper {printed}]" if known else ours
    return share, *inner, average


def _facts(cells: pd.DataFrame, manifest: Manifest, *, variant: str) -> list[str]:
    protocols, sources = (sorted(set(cells[name]) - {""}) for name in ("protocol", "source"))
    reference = names.method(manifest.reference)
    facts = [
        f"Runs finished: {cells['n_finished'].sum()} of {cells['n_planned'].sum()}. "
        f"Protocol: {', '.join(protocols)}. Data: {', '.join(sources)}.",
        *_small_scale(cells),
        *limit_facts(manifest),
        *cells.attrs.get("origins", ()),
    ]
    facts += tuned.facts(cells) if tuned.is_instruction_tuning(cells, manifest) else []
    if variant == "paper":
        return [f"Printed in arXiv 2603.00425, not run here: accuracy in percent (difference to {reference})."]
    if variant == "gap":
        return [*facts, "A cell is our accuracy / the paper's (ours less the paper's); so are shares and averages."]
    if variant == "std":
        return [*facts, "A cell is the standard deviation of accuracy over seeds (ddof 1), in percent points."]
    facts += [
        f"A cell is accuracy in percent ± standard deviation over seeds (difference to {reference}); one planned run "
        "has no deviation. An unfinished cell is the mean so far (finished/planned runs), without a difference.",
        *_rates(cells, manifest),
    ]
    if cells["p_holm"].notna().any():
        facts.append(
            f"Bold: the difference to {reference} survives a paired test over rows and seeds at 5%, adjusted for all "
            f"{_planned_differences(cells, manifest)} differences that the table plans (Holm). The variance over seeds "
            "is pooled over the methods of a column" + _lone_methods(cells)
        )
    if cells["paper_accuracy"].notna().any():
        facts.append("[paper ...] is what the paper prints in the same cell.")
    return facts


def _planned_differences(cells: pd.DataFrame, manifest: Manifest) -> int:
    return int((cells["method"].ne(manifest.reference) & cells["status"].ne("excluded")).sum())


def _lone_methods(cells: pd.DataFrame) -> str:
    """The end of a sentence that names the methods of one run, whose variance is that of the others."""
    planned = cells[cells["status"].ne("excluded")]
    alone = list(dict.fromkeys(planned.loc[planned["n_planned"].eq(1), "method"]))
    return f", which {', '.join(map(names.method, alone))} with one run borrow from." if alone else "."


def _small_scale(cells: pd.DataFrame) -> list[str]:
    parts = ["procedural data"] if cells["source"].eq("procedural").any() else []
    tiny = cells["scale"].str.split().map(lambda scales: "tiny" in scales)
    parts += ["embedded tiny model"] if (tiny & cells["model"].eq("tiny")).any() else []
    parts += ["model of the size tiny"] if (tiny & cells["model"].ne("tiny")).any() else []
    if not parts:
        return []
    return [f"This is the small scale ({', '.join(parts)}): its numbers are not comparable with the paper's."]


def _rates(cells: pd.DataFrame, manifest: Manifest) -> list[str]:
    """What a reader must know about the chosen learning rates: how many are interior to their grid, and what is not."""
    untuned = {(cell.model, cell.method, cell.dataset) for cell in manifest.untuned}
    tuned = [row.lr_edge == "" for row in cells[cells["lr"].notna()].itertuples() if row[1:4] not in untuned]
    if not tuned or not cells.attrs.get("selected"):
        return []
    found = {
        "at an edge of the grid": cells["lr_edge"].ne("").sum(),
        "tied with another rate": cells["lr_tied"].ne("").sum(),
        "chosen with grid runs missing": cells["lr_incomplete"].ne("").sum(),
    }
    found["in a grid that was extended beyond its edge"] = len(manifest.extended)
    notes = [
        f"{sum(tuned)} of {len(tuned)} choices interior",
        *(f"{count} {what}" for what, count in found.items() if count),
    ]
    how = " after successive halving" if manifest.selection == "halving" else ""
    return [f"Learning rates, chosen on validation{how}: {', '.join(notes)}."]


def _ours(row: Any, reference: str) -> str:
    printed = "" if math.isnan(row.paper_accuracy) else f" [paper {row.paper_accuracy:.1f}]"
    if row.status != "done":
        return f"{_so_far(row)}{printed}"
    deviation = "" if math.isnan(row.std) else f" ±{row.std:.1f}"
    delta = "" if math.isnan(row.delta) or row.method == reference else f" ({_signed(row.delta)})"
    text = f"{row.mean:.1f}{deviation}{delta}{printed}"
    return Bold(text) if row.p_holm < SIGNIFICANT else text


def _paper(row: Any, reference: str) -> str:
    if math.isnan(row.paper_accuracy):
        return ABSENT
    delta = "" if math.isnan(row.paper_delta) or row.method == reference else f" ({_signed(row.paper_delta)})"
    return f"{row.paper_accuracy:.1f}{delta}"


def _gap(row: Any, reference: str) -> str:
    ours = f"{row.mean:.1f}" if row.status == "done" else _so_far(row)
    printed = ABSENT if math.isnan(row.paper_accuracy) else f"{row.paper_accuracy:.1f}"
    return f"{ours} / {printed}" + ("" if math.isnan(row.gap) else f" ({_signed(row.gap)})")


def _std(row: Any, reference: str) -> str:
    printed = "" if math.isnan(row.paper_std) else f" [paper {row.paper_std:g}]"
    if row.status == "done" and row.n_planned == 1:
        return f"one run{printed}"
    ours = ABSENT if math.isnan(row.std) else f"{row.std:.1f}"
    return f"{ours}{'' if row.status == 'done' else f' ({row.n_finished}/{row.n_planned})'}{printed}"


def _so_far(row: Any) -> str:
    """An unfinished cell: what it has. A diverged run scores 0 because it answers nothing: no difference is taken."""
    if row.status == "diverged":
        return f"{row.mean:.1f} ({row.n_diverged} of {row.n_finished} runs diverged)"
    return f"{ABSENT if row.status == 'missing' else f'{row.mean:.1f}'} ({row.n_finished}/{row.n_planned})"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _share(percent: float) -> str:
    """A share in percent as the paper prints it: 100, 0.45, 0.003."""
    if math.isnan(percent):
        return ABSENT
    if percent < 0.01:
        return f"{percent:.1g}"
    return f"{percent:.2f}".removesuffix(".00")


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else str(index)
