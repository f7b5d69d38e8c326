"""Tables of Markdown text, of anything: apart from `report.markdown`, which needs pandas."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), padded: bool = False
) -> str:
    """A table, the columns in `right` aligned so; `padded`, it can be read as it stands."""
    lines = [[text.replace("|", r"\|") for text in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) if padded else 0 for column in zip(*lines, strict=True)]
    rule = ["-" * max(3, width) + ":" * (name in right) for name, width in zip(columns, widths, strict=True)]
    head, *body = (map(str.ljust, line, widths) for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *body))
