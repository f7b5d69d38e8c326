"""A sweep's table as a LaTeX document."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

from actshift.planning.manifests import Manifest
from actshift.report import names
from actshift.report.layout import Bold, layout

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
} | {character: "\\" + character for character in "&%$#_{}"}


EVIDENCE = (
    "Behind each cell, in percent points: finished of planned runs; 95% t interval of the mean; 95% prediction "
    "interval for the paper's figure; 95% interval of the difference to the reference, and its p value after "
    "Holm; the difference that the test set shows with 80% power; the chosen learning rate."
)


def sweep_table(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """The table as a LaTeX document that compiles alone; its `table` environment is there to be copied.

    Behind our own table stands the evidence of its cells.
    """
    page = layout(cells, manifest, variant=variant)
    columns = ("Model", *page.columns)
    body = []
    for model, block in page.blocks:
        body += [r"\midrule", *(_line(model if index == 0 else "", *row) for index, row in enumerate(block))]
    caption = " ".join([f"{page.title.rstrip('.')}.", *page.facts])
    lines = [
        r"\documentclass{article}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\usepackage{booktabs,longtable}",
        r"\begin{document}",
        r"\begin{table}",
        r"\footnotesize",
        r"\centering",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\label{{tab:{manifest.sweep}{'' if variant == 'ours' else '-' + variant}}}",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        _line(*columns),
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {_escaped(note)}" for note in page.notes),
        r"\end{table}",
        *(_evidence(cells) if variant == "ours" else ()),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _evidence(cells: pd.DataFrame) -> list[str]:
    """The evidence of each cell that has a run, as the lines of a longtable."""
    head = (
        "Cell",
        "Runs",
        "95% CI",
        "Predicted",
        "Difference",
        "p (Holm)",
        "Detectable",
        "Learning rate",
        "Empty because",
    )
    lines = [
        r"\clearpage",
        r"\footnotesize",
        rf"\begin{{longtable}}{{{'l' * (len(head) - 1)}p{{4cm}}}}",
        rf"\caption{{{_escaped(EVIDENCE)}}}\\",
        r"\toprule",
        _line(*head),
        r"\midrule",
        r"\endhead",
    ]
    lines += [_line(*_evidence_line(row)) for row in cells[cells["n_finished"] > 0].itertuples()]
    return [*lines, r"\bottomrule", r"\end{longtable}"]


def _evidence_line(row: Any) -> list[str]:
    ranges = (
        (row.ci_low, row.ci_high),
        (row.prediction_low, row.prediction_high),
        (row.difference_low, row.difference_high),
    )
    edge = f", {row.lr_edge} of grid" if row.lr_edge else ""
    return [
        f"{names.model(row.model)}, {names.method(row.method)}, {names.dataset(row.dataset)}",
        f"{row.n_finished}/{row.n_planned}",
        *(_range(*each) for each in ranges),
        "" if math.isnan(row.p_holm) else f"{row.p_holm:.3g}",
        "" if math.isnan(row.detectable) else f"{row.detectable:.1f}",
        "" if math.isnan(row.lr) else f"{row.lr:g} {row.variant}".rstrip() + edge,
        row.evidence_gap,
    ]


def _range(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{low:.1f} to {high:.1f}"


def _line(*texts: str) -> str:
    cells = (rf"\textbf{{{_escaped(text)}}}" if isinstance(text, Bold) else _escaped(text) for text in texts)
    return " & ".join(cells).strip() + r" \\"


def _escaped(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
