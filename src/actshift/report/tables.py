"""A sweep's table as Markdown, LaTeX, CSV and in a terminal, all from the one frame of `report.frame`.

The layout is that of the paper's Table 1: a block of methods a model, a column a data set. The same records give the
same bytes. A cell is bold only where its difference to the reference survives the paired test, adjusted over the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from actshift.records import write_atomically
from actshift.report import frame, names
from actshift.report.evidence import SIGNIFICANT

if TYPE_CHECKING:
    from rich.console import Group

    from actshift.manifests import Manifest

ABSENT = "–"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
} | {character: "\\" + character for character in "&%$#_{}"}


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


def layout(cells: pd.DataFrame, manifest: Manifest) -> Layout:
    """The texts of a table: what every format shows, so that no two of them can differ."""
    reasons = list(dict.fromkeys(reason for reason in cells["excluded"] if reason))
    texts = {
        (row.model, row.method, row.dataset): _cell(row, manifest.reference, reasons) for row in cells.itertuples()
    }
    rows: dict[Any, Any] = {(row.model, row.method): row for row in frame.averages(cells).itertuples()}
    blocks = []
    for model in manifest.models:
        block = []
        for method in manifest.methods:
            average = rows[model, method]
            inner = [texts[model, method, dataset] for dataset in manifest.datasets]
            block.append((names.method(method), _share(average.params_pct), *inner, _average(average)))
        blocks.append((names.model(model), tuple(block)))
    return Layout(
        title=manifest.title,
        facts=tuple(_facts(cells, manifest)),
        columns=("Method", "Params (%)", *map(names.dataset, manifest.datasets), "Avg Δ"),
        blocks=tuple(blocks),
        notes=tuple(f"({_letter(place)}) {reason}" for place, reason in enumerate(reasons)),
    )


def markdown(cells: pd.DataFrame, manifest: Manifest) -> str:
    """The table as a Markdown page: title, facts, table, footnotes."""
    page = layout(cells, manifest)
    rows = [("Model", *page.columns)]
    for model, block in page.blocks:
        rows += [(model if place == 0 else "", *row) for place, row in enumerate(block)]
    rows = [tuple(_starred(text.replace("|", r"\|"), text) for text in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    head, *body = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    facts = "\n".join(f"- {fact}" for fact in page.facts)
    parts = [f"# {page.title}", facts, "\n".join([head, rule, *body]), "  \n".join(page.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(cells: pd.DataFrame, manifest: Manifest) -> str:
    """The table as a LaTeX document that compiles alone; its `table` environment is there to be copied."""
    page = layout(cells, manifest)
    columns = ("Model", *page.columns)
    body = []
    for model, block in page.blocks:
        body += [r"\midrule", *(_line(model if place == 0 else "", *row) for place, row in enumerate(block))]
    caption = " ".join([f"{page.title.rstrip('.')}.", *page.facts])
    lines = [
        r"\documentclass{article}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\usepackage{booktabs}",
        r"\begin{document}",
        r"\begin{table}",
        r"\footnotesize",
        r"\centering",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\label{{tab:{manifest.sweep}}}",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        _line(*columns),
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {_escaped(note)}" for note in page.notes),
        r"\end{table}",
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def csv(cells: pd.DataFrame) -> str:
    """The frame as tidy CSV, a line a cell, in full precision; what is absent is empty, lists are space-joined."""
    lists = {name: cells[name].map(lambda values: " ".join(map(repr, values))) for name in ("values", "seeds")}
    return cells.assign(**lists).to_csv(index=False, lineterminator="\n")


def terminal(cells: pd.DataFrame, manifest: Manifest) -> Group:
    """The table as a rich renderable."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    page = layout(cells, manifest)
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


def write(cells: pd.DataFrame, manifest: Manifest, folder: Path) -> list[Path]:
    """Write <sweep>.md, <sweep>.tex and <sweep>.csv, each in one step; returns their paths in this order."""
    texts = {"md": markdown(cells, manifest), "tex": latex(cells, manifest), "csv": csv(cells)}
    paths = []
    for suffix, text in texts.items():
        paths.append(folder / f"{manifest.sweep}.{suffix}")
        write_atomically(paths[-1], text)
    return paths


def _facts(cells: pd.DataFrame, manifest: Manifest) -> list[str]:
    protocols, sources = (sorted(set(cells[name]) - {""}) for name in ("protocol", "source"))
    reference = names.method(manifest.reference)
    facts = [
        f"Runs finished: {cells['n_finished'].sum()} of {cells['n_planned'].sum()}. "
        f"Protocol: {', '.join(protocols)}. Data: {', '.join(sources)}.",
        *_small_scale(cells),
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


def _cell(row: Any, reference: str, reasons: Sequence[str]) -> str:
    if row.status == "excluded":
        return f"excl. ({_letter(reasons.index(row.excluded))})"
    printed = "" if math.isnan(row.paper_accuracy) else f" [paper {row.paper_accuracy:.1f}]"
    if row.status != "done":
        mean = ABSENT if row.status == "missing" else f"{row.mean:.1f}"
        return f"{mean} ({row.n_finished}/{row.n_planned}){printed}"
    deviation = "" if math.isnan(row.std) else f" ±{row.std:.1f}"
    delta = "" if math.isnan(row.delta) or row.method == reference else f" ({_signed(row.delta)})"
    text = f"{row.mean:.1f}{deviation}{delta}{printed}"
    return Bold(text) if row.p_holm < SIGNIFICANT else text


def _average(row: Any) -> str:
    own = ABSENT if math.isnan(row.delta) else _signed(row.delta)
    return own if math.isnan(row.paper_delta) else f"{own} [paper {_signed(row.paper_delta)}]"


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


def _starred(shown: str, text: str) -> str:
    return f"**{shown}**" if isinstance(text, Bold) else shown


def _escaped(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
