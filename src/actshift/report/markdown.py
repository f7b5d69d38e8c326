"""A sweep's table as a Markdown page."""

from __future__ import annotations

import pandas as pd

from actshift.planning.manifests import Manifest
from actshift.report.layout import Bold, layout
from actshift.report.markdown_text import table


def sweep_table(cells: pd.DataFrame, manifest: Manifest, *, variant: str = "ours") -> str:
    """The table as a Markdown page: title, facts, lines, footnotes."""
    page = layout(cells, manifest, variant=variant)
    rows = [
        (model if index == 0 else "", *map(_starred, row))
        for model, block in page.blocks
        for index, row in enumerate(block)
    ]
    facts = "\n".join(f"- {fact}" for fact in page.facts)
    lines = table(("Model", *page.columns), rows, padded=True)
    parts = [f"# {page.title}", facts, lines, "  \n".join(page.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _starred(text: str) -> str:
    return f"**{text}**" if isinstance(text, Bold) else text
