"""A sweep's table in HTML: each cell with its evidence as a tooltip."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.planning.manifests import Manifest
from actshift.report.layout import Bold, Layout, layout

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent


def table_page(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """One table as a page of its own, each cell with its evidence as a tooltip."""
    texts = layout(cells, manifest, variant=variant)
    part = template_values(texts, cells, manifest, links=False)
    return rendered("table.html.j2", part=part, title=texts.title)


def rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader)


def template_values(texts: Layout, cells: pd.DataFrame, manifest: Manifest, *, links: bool) -> dict[str, Any]:
    return {
        "id": manifest.sweep,
        "title": texts.title,
        "facts": texts.facts,
        "columns": texts.columns,
        "blocks": _blocks(texts, cells, manifest, links=links),
        "notes": texts.notes,
    }


def _blocks(
    layout: Layout, cells: pd.DataFrame, manifest: Manifest, *, links: bool
) -> list[tuple[str, list[list[dict[str, Any]]]]]:
    rows = {(row.model, row.method, row.dataset): row for row in cells.itertuples()}
    blocks = []
    for model, (shown, block) in zip(manifest.models, layout.blocks, strict=True):
        above = block[: len(block) - len(manifest.methods)]  # baselines: no runs stand behind them
        lines = [[_cell(text, None, manifest, links=links) for text in texts] for texts in above]
        for method, texts in zip(manifest.methods, block[len(above) :], strict=True):
            scored: list[Any] = [rows[model, method, dataset] for dataset in manifest.datasets]
            before = [None] * layout.scored_from
            pairs = zip(texts, [*before, *scored, *[None] * (len(texts) - len(before) - len(scored))], strict=True)
            lines.append([_cell(text, row, manifest, links=links) for text, row in pairs])
        blocks.append((shown, lines))
    return blocks


def _cell(text: str, row: Any, manifest: Manifest, *, links: bool) -> dict[str, Any]:
    first = row.identities.split()[0] if links and row is not None and row.identities else ""
    return {
        "text": text,
        "bold": isinstance(text, Bold),
        "tooltip": "" if row is None else evidence_text(row),
        "link": f"{manifest.sweep}-{first}" if first else "",
    }


def evidence_text(row: Any) -> str:
    """Everything that is known of a cell, a line each: what a tooltip shows."""
    lines = [f"{row.n_finished} of {row.n_planned} runs: {', '.join(f'{value:.2f}' for value in row.values)}"]
    ranges = (
        ("95% interval of the mean", row.ci_low, row.ci_high),
        ("95% prediction interval for the paper's figure", row.prediction_low, row.prediction_high),
        ("95% interval of the difference", row.difference_low, row.difference_high),
    )
    lines += [f"{name}: {low:.2f} to {high:.2f}" for name, low, high in ranges if not math.isnan(low)]
    if not math.isnan(row.paper_accuracy):
        inside = f", inside our prediction interval: {row.paper_inside}" if row.paper_inside else ""
        lines.append(f"paper: {row.paper_accuracy:.1f}{inside}")
    if not math.isnan(row.p):
        lines.append(
            f"p = {row.p:.3g} (rows and seeds), {row.p_holm:.3g} (Holm), {row.p_mcnemar:.3g} (McNemar, median)"
        )
    if not math.isnan(row.detectable):
        lines.append(f"detectable with 80% power: {row.detectable:.1f} points")
    if not math.isnan(row.lr):
        edge = f", {row.lr_edge} of its grid" if row.lr_edge else ""
        tied = f", tied: {row.lr_tied}" if row.lr_tied else ""
        lines.append(f"learning rate {row.lr:g} {row.variant}".rstrip() + edge + tied)
    objective = f"objective {row.objective}, " if row.objective else ""
    lines.append(
        f"{objective}protocol {row.protocol}, {row.precision or '?'}, {row.hardware or '?'}, data {row.source}"
    )
    lines += [f"empty: {row.evidence_gap}"] if row.evidence_gap else []
    return "\n".join(lines)
