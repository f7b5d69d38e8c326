"""Commands that score what a model wrote for instructions: IFEval's checks, and win rates from recorded judgments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands.requests import console, write_copies
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from rich.console import Group


def ifeval_command(request: Namespace) -> int:
    """Score a file of responses to IFEval's prompts."""
    from actshift.judging import ifeval
    from actshift.report import ifeval_table
    from actshift.tasks.verifiable.verdicts import accuracies

    prompts = ifeval.read_prompts(Path(request.data) / ifeval.PROMPTS)
    verdicts = ifeval.score(prompts, ifeval.read_responses(Path(request.file), prompts), partial=request.partial)
    rows = accuracies(verdicts)
    if len(verdicts) < len(prompts):
        print(f"{len(verdicts)} of {len(prompts)} prompts: this is no accuracy on IFEval")
    console().print(_table(ifeval_table.COLUMNS, map(ifeval_table.texts, rows), legend=ifeval_table.LEGEND))
    write_copies(rows, (request.csv, ifeval_table.csv), (request.markdown, ifeval_table.markdown))
    return 0


def winrate_command(request: Namespace) -> int:
    """Win rates of recorded judgments, length-controlled where the data for it are named."""
    from actshift.judging import summary
    from actshift.judging.reference_data import read_reference_data
    from actshift.report import win_rate_table as report

    data = None if request.data is None else read_reference_data(Path(request.data))
    every = summary.read_all([Path(path) for path in request.paths])
    rows = summary.summaries(every, data, number=request.draws, seed=request.seed, c=request.c)
    differences = summary.comparisons(rows, request.against) if request.against else []
    rows = sorted(rows, key=lambda row: -(row.lc.win_rate if row.lc else row.win.win_rate))
    console(200).print(_table(report.COLUMNS, map(report.texts, rows), legend=report.legend(rows)))
    if differences:
        legend = "Percent points over the same instructions; the interval is of paired draws."
        console().print(_table(report.COMPARED, map(report.compared_texts, differences), legend=legend))
    write_copies(rows, (request.csv, report.csv))
    write_copies(rows, (request.markdown, lambda shown: report.markdown(shown, differences)))
    return 0


def judge_command(request: Namespace) -> int:
    """Ask a judge about a model's outputs, through the ledger, and write the judgments."""
    import json

    from actshift.files import write_file
    from actshift.judging import judges
    from actshift.judging.ledger import open_ledger
    from actshift.judging.summary import files_of

    if request.limit is not None and request.limit < 1:
        raise ActshiftError(f"--limit {request.limit} is impossible: it must be 1 or more")
    config = judges.judge_config(request.judge)
    pairs, generator, reference = judges.pairs_of(Path(request.outputs), Path(request.references))
    pairs = pairs[: request.limit]
    ledger = open_ledger(Path(request.ledger) / config.identity[:16])
    left = judges.open_questions(pairs, config, ledger)
    most = len(left) * config.dollars_per_question
    print(f"{len(pairs)} pairs, {len(pairs) - len(left)} need no question, {len(left)} to ask, ${most:.2f} at most")
    if request.dry_run:
        return 0
    ask = judges.replayed(files_of(map(Path, request.recorded or ())))
    names = {"generator_1": reference, "generator_2": generator}
    rows = [judges.judged(pair, config, ask, ledger) | names for pair in pairs]
    write_file(Path(request.out), json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    unjudged = sum(row["preference"] is None for row in rows)
    print(f"{len(rows)} judged, {unjudged} of them without a preference, ${ledger.spent:.2f} spent in all")
    print(request.out)
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
