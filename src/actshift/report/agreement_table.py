"""The agreement of two judges as texts, Markdown and CSV."""

from __future__ import annotations

from dataclasses import asdict

from actshift.judging.agreement import Agreement
from actshift.report.markdown_text import table as markdown_table

COLUMNS = ("", "Both", "First judge", "Second judge")


def rows(found: Agreement) -> list[tuple[str, ...]]:
    """The lines of the table."""
    return [
        ("Judged by both", f"{found.count:,}", "", ""),
        ("Same side (%)", f"{found.same_side:.1f}", "", ""),
        ("Cohen's kappa", f"{found.kappa:.3f}", "", ""),
        ("Pearson's r", f"{found.pearson:.3f}", "", ""),
        ("Win rate (%)", f"{found.difference:+.2f}", *(f"{each:.2f}" for each in found.win_rates)),
        ("Prefers the longer answer (%)", "", *(f"{each:.1f}" for each in found.longer)),
        ("Prefers what is shown first (%)", "", *(f"{each:.1f}" for each in found.first)),
    ]


def legend(found: Agreement) -> str:
    """Who the judges are, and what is counted."""
    return (
        f"First judge: {found.judges[0]}. Second judge: {found.judges[1]}. Model: {found.model}. A side is the model's "
        "answer, the reference's, or neither; kappa is over the three. Under Both, the win rate is the difference in "
        "percent points. Shown first is by the instruction's coin."
    )


def markdown(found: Agreement) -> str:
    """The table as Markdown."""
    return f"{markdown_table(COLUMNS, rows(found), right=COLUMNS[1:])}\n\n{legend(found)}\n"


def csv(found: Agreement) -> str:
    """The figures as CSV in full precision, a line a judge."""
    data = asdict(found)
    pairs = [name for name, value in data.items() if isinstance(value, tuple)]
    shared = [name for name in data if name not in pairs]
    lines = [",".join([*pairs, *shared])]
    for place in range(2):
        lines.append(",".join([*(f'"{data[name][place]}"' for name in pairs), *(f'"{data[name]}"' for name in shared)]))
    return "\n".join(lines) + "\n"
