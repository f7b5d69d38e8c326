"""IFEval's accuracies as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from actshift.report.markdown_text import table as markdown_table
from actshift.tasks.verifiable.verdicts import Accuracy

COLUMNS = ("", "Count", "Strict (%)", "Loose (%)")
FIELDS = ("name", "count", "strict", "loose", "strict_pct", "loose_pct")
LEGEND = (
    "Strict: the response follows the instruction. Loose: it does, or does without its first or last line or its "
    "asterisks. A prompt counts where all its instructions are followed. A language is judged by its script and its "
    "frequent words, not by the reference implementation's langdetect, and sentences by rules of our own."
)


def texts(row: Accuracy) -> tuple[str, ...]:
    """A line of the table."""
    return row.name, f"{row.count:,}", f"{row.strict_pct:.2f}", f"{row.loose_pct:.2f}"


def markdown(rows: Sequence[Accuracy]) -> str:
    """The table as Markdown."""
    return f"{markdown_table(COLUMNS, map(texts, rows), right=COLUMNS[1:])}\n\n{LEGEND}\n"


def csv(rows: Sequence[Accuracy]) -> str:
    """The table as CSV in full precision."""
    lines = [",".join(str(getattr(row, name)) for name in FIELDS) for row in rows]
    return "\n".join([",".join(FIELDS), *lines]) + "\n"
