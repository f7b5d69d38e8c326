"""A sweep's table as Markdown, LaTeX, CSV and in a terminal, all from the one frame of `report.frame`.

The layout is that of the paper's Table 1: a block of methods a model, a column a data set. The same records give the
same bytes. A cell is bold only where its difference to the reference survives the paired test, adjusted over the table.
Of each table there are variants: what we got, what the paper prints, both with the gap, and the standard deviations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.errors import unknown
from actshift.report import frame, names
from actshift.report.evidence import SIGNIFICANT
from actshift.report.markdown import table as markdown_table
from actshift.store.records import write_atomically

if TYPE_CHECKING:
    from rich.console import Group

    from actshift.planning.manifests import Manifest

ABSENT = "–"
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
    "interval for the paper's figure; 95% bootstrap interval of the difference to the reference, and its p value after "
    "Holm; the difference that the test set shows with 80% power; the chosen learning rate."
)


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
    show = {"ours": _own, "paper": _paper, "gap": _gap, "std": _std}[variant]
    texts = {
        (row.model, row.method, row.dataset): f"excl. ({_letter(reasons.index(row.excluded))})"
        if row.status == "excluded"
        else show(row, manifest.reference)
        for row in cells.itertuples()
    }
    rows: dict[Any, Any] = {(row.model, row.method): row for row in frame.averages(cells).itertuples()}
    blocks = []
    for model in manifest.models:
        block = []
        for method in manifest.methods:
            inner = [texts[model, method, dataset] for dataset in manifest.datasets]
            block.append((names.method(method), *_share_and_average(rows[model, method], inner, variant)))
        blocks.append((names.model(model), tuple(block)))
    said = VARIANTS[variant]
    return Layout(
        title=f"{manifest.title} ({said})" if said else manifest.title,
        facts=tuple(_facts(cells, manifest, variant=variant)),
        columns=(
            "Method",
            "Params (%)",
            *map(names.dataset, manifest.datasets),
            *(["Avg Δ"] if variant != "std" else []),
        ),
        blocks=tuple(blocks),
        notes=tuple(f"({_letter(place)}) {reason}" for place, reason in enumerate(reasons)),
    )


def _share_and_average(row: Any, inner: Sequence[str], variant: str) -> tuple[str, ...]:
    """The cells of a row with the share of parameters before them, and the average difference behind."""
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


def markdown(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """The table as a Markdown page: title, facts, table, footnotes."""
    page = layout(cells, manifest, variant=variant)
    rows = [
        (model if place == 0 else "", *map(_starred, row))
        for model, block in page.blocks
        for place, row in enumerate(block)
    ]
    facts = "\n".join(f"- {fact}" for fact in page.facts)
    table = markdown_table(("Model", *page.columns), rows, padded=True)
    parts = [f"# {page.title}", facts, table, "  \n".join(page.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """The table as a LaTeX document that compiles alone; its `table` environment is there to be copied.

    Behind our own table stands the evidence of its cells.
    """
    page = layout(cells, manifest, variant=variant)
    columns = ("Model", *page.columns)
    body = []
    for model, block in page.blocks:
        body += [r"\midrule", *(_line(model if place == 0 else "", *row) for place, row in enumerate(block))]
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
    """What is known behind each cell that has a run, as the lines of a longtable."""
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
    lines += [_line(*_behind(row)) for row in cells[cells["n_finished"] > 0].itertuples()]
    return [*lines, r"\bottomrule", r"\end{longtable}"]


def _behind(row: Any) -> list[str]:
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


def csv(cells: pd.DataFrame) -> str:
    """The frame as tidy CSV, a line a cell, in full precision; what is absent is empty, lists are space-joined."""
    lists = {name: cells[name].map(lambda values: " ".join(map(repr, values))) for name in ("values", "seeds")}
    return cells.assign(**lists).to_csv(index=False, lineterminator="\n")


def terminal(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> Group:
    """The table as a rich renderable."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    page = layout(cells, manifest, variant=variant)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(page.columns):
        table.add_column(Text(column), no_wrap=place == 0)
    for model, block in page.blocks:
        table.add_row(Text(model, style="underline"))
        for row in block:
            # Text, not str: rich would read "[paper 86.2]" as markup.
            table.add_row(*(Text(text, style="bold" if isinstance(text, Bold) else "") for text in row))
        table.add_section()
    return Group(Text(page.title), *map(Text, page.facts), table, *map(Text, page.notes))


def shown(cells: pd.DataFrame) -> list[str]:
    """The variants of a table that have something to show: without a figure of the paper's, ours and its deviations."""
    return [name for name in VARIANTS if name in ("ours", "std") or cells["paper_accuracy"].notna().any()]


def write(cells: pd.DataFrame, manifest: Manifest, folder: Path) -> list[Path]:
    """Write <sweep>.md, .tex, .html and .csv, and <sweep>.<variant>.* of what the paper has too; returns the paths."""
    from actshift.report.page import table_page

    texts = {f"{manifest.sweep}.csv": csv(cells)}
    for variant in shown(cells):
        name = manifest.sweep if variant == "ours" else f"{manifest.sweep}.{variant}"
        texts[f"{name}.md"] = markdown(cells, manifest, variant=variant)
        texts[f"{name}.tex"] = latex(cells, manifest, variant=variant)
        texts[f"{name}.html"] = table_page(cells, manifest, variant=variant)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def _facts(cells: pd.DataFrame, manifest: Manifest, *, variant: str) -> list[str]:
    protocols, sources = (sorted(set(cells[name]) - {""}) for name in ("protocol", "source"))
    reference = names.method(manifest.reference)
    facts = [
        f"Runs finished: {cells['n_finished'].sum()} of {cells['n_planned'].sum()}. "
        f"Protocol: {', '.join(protocols)}. Data: {', '.join(sources)}.",
        *_small_scale(cells),
    ]
    if variant == "paper":
        return [f"Printed in arXiv 2603.00425, not run here: accuracy in percent (difference to {reference})."]
    if variant == "gap":
        return [*facts, "A cell is our accuracy / the paper's (ours less the paper's); so are shares and averages."]
    if variant == "std":
        return [*facts, "A cell is the standard deviation of accuracy over seeds (ddof 1), in percent points."]
    facts += [
        f"A cell is accuracy in percent ± standard deviation over seeds (difference to {reference}); one planned run "
        "has no deviation. An unfinished cell is the mean so far (finished/planned runs), without a difference.",
        *_rates(cells),
    ]
    if cells["p_holm"].notna().any():
        facts.append(
            f"Bold: the difference to {reference} survives a paired bootstrap over rows and seeds at 5%, adjusted for "
            f"the {cells['p_holm'].notna().sum()} differences of the table (Holm)."
        )
    if cells["paper_accuracy"].notna().any():
        facts.append("[paper ...] is what the paper prints in the same cell.")
    return facts


def _small_scale(cells: pd.DataFrame) -> list[str]:
    parts = ["procedural data"] if cells["source"].eq("procedural").any() else []
    parts += ["embedded tiny model"] if cells["scale"].str.split().map(lambda scales: "tiny" in scales).any() else []
    if not parts:
        return []
    return [f"This is the small scale ({', '.join(parts)}): its numbers are not comparable with the paper's."]


def _rates(cells: pd.DataFrame) -> list[str]:
    """What a reader must know about the chosen learning rates, where there is something."""
    found = {
        "at an edge of the grid": cells["lr_edge"].ne("").sum(),
        "tied with another rate": cells["lr_tied"].ne("").sum(),
        "chosen with grid runs missing": cells["lr_incomplete"].ne("").sum(),
    }
    said = [f"{count} {what}" for what, count in found.items() if count]
    total = cells["status"].ne("excluded").sum()
    return [f"Learning rates of the {total} cells, chosen on validation: {', '.join(said)}."] if said else []


def _own(row: Any, reference: str) -> str:
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
    """An unfinished cell: what it has."""
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


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else str(place)


def _line(*texts: str) -> str:
    cells = (rf"\textbf{{{_escaped(text)}}}" if isinstance(text, Bold) else _escaped(text) for text in texts)
    return " & ".join(cells).strip() + r" \\"


def _starred(text: str) -> str:
    return f"**{text}**" if isinstance(text, Bold) else text


def _escaped(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
