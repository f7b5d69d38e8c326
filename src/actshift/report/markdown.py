"""Markdown: tables of any kind, and a sweep's table as a page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from actshift.planning.manifests import Manifest
from actshift.report.layout import Bold, layout


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), padded: bool = False
) -> str:
    """A table, the columns in `right` aligned so; `padded`, it can be read as it stands."""
    lines = [[text.replace("|", r"\|") for text in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) if padded else 0 for column in zip(*lines, strict=True)]
    rule = ["-" * max(3, width) + ":" * (name in right) for name, width in zip(columns, widths, strict=True)]
    head, *body = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))


def sweep_table(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """The table as a Markdown page: title, facts, lines, footnotes."""
    page = layout(cells, manifest, variant=variant)
    rows = [
        (model if place == 0 else "", *map(_starred, row))
        for model, block in page.blocks
        for place, row in enumerate(block)
    ]
    facts = "\n".join(f"- {fact}" for fact in page.facts)
    lines = table(("Model", *page.columns), rows, padded=True)
    parts = [f"# {page.title}", facts, lines, "  \n".join(page.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _starred(text: str) -> str:
    return f"**{text}**" if isinstance(text, Bold) else text
