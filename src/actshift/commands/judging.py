"""Commands that score what a model wrote for instructions: IFEval's checks, and win rates from recorded judgments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands.requests import console, write_copies

if TYPE_CHECKING:
    from rich.console import Group


def ifeval_command(request: Namespace) -> int:
    """Score a file of responses to IFEval's prompts."""
    from actshift.judging import ifeval
    from actshift.report import ifeval_table

    prompts = ifeval.read_prompts(Path(request.data) / ifeval.PROMPTS)
    verdicts = ifeval.score(prompts, ifeval.read_responses(Path(request.file), prompts), partial=request.partial)
    rows = ifeval.accuracies(verdicts)
    if len(verdicts) < len(prompts):
        print(f"{len(verdicts)} of {len(prompts)} prompts: this is no accuracy on IFEval")
    console().print(_table(ifeval_table.COLUMNS, map(ifeval_table.texts, rows), legend=ifeval_table.LEGEND))
    write_copies(rows, (request.csv, ifeval_table.csv), (request.markdown, ifeval_table.markdown))
    return 0


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, legend: str) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        table.add_row(*row)
    return Group(table, Text(legend))
