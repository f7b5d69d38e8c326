"""Commands that score what a model wrote for instructions: IFEval's checks, judges, and win rates of judgments."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.commands.requests import console, take_judge, write_copies
from actshift.commands.terminal import text_table
from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.judging.config import JudgeConfig
    from actshift.judging.judges import Paired


def ifeval_command(request: Namespace) -> int:
    """Score a file of responses to IFEval's prompts."""
    from actshift.judging import ifeval
    from actshift.report import ifeval_table
    from actshift.tasks.verifiable.verdicts import accuracies

    prompts = ifeval.read_prompts(Path(request.data) / ifeval.PROMPTS) if request.data else ifeval.packaged_prompts()
    verdicts = ifeval.score(prompts, ifeval.read_responses(Path(request.file), prompts), partial=request.partial)
    rows = accuracies(verdicts)
    if len(verdicts) < len(prompts):
        print(f"{len(verdicts)} of {len(prompts)} prompts: this is no accuracy on IFEval")
    console().print(text_table(ifeval_table.COLUMNS, map(ifeval_table.texts, rows), legend=ifeval_table.LEGEND))
    write_copies(rows, (request.csv, ifeval_table.csv), (request.markdown, ifeval_table.markdown))
    return 0


def winrate_command(request: Namespace) -> int:
    """Win rates of recorded judgments, length-controlled where the data for it are named."""
    from actshift.judging import summary
    from actshift.judging.reference_data import read_reference_data
    from actshift.report import win_rate_table as report

    data = None if request.data is None else read_reference_data(Path(request.data))
    every = summary.read_all([Path(path) for path in request.paths])
    rows = summary.summaries(every, data, number=request.draws, seed=request.seed, c=request.c, by_row=request.by_row)
    differences = summary.comparisons(rows, request.against) if request.against else []
    rows = sorted(rows, key=lambda row: -(row.lc.win_rate if row.lc else row.win.win_rate))
    console(200).print(text_table(report.COLUMNS, map(report.texts, rows), legend=report.legend(rows)))
    if request.by_row:
        print("Difficulties are joined by row, as upstream does: wrong where a file lacks rows or is in another order.")
    if differences:
        legend = "Percent points over the same instructions; the interval is of paired draws."
        console().print(text_table(report.COMPARED, map(report.compared_texts, differences), legend=legend))
    write_copies(rows, (request.csv, report.csv))
    write_copies(rows, (request.markdown, lambda shown: report.markdown(shown, differences)))
    return 0


def judge_command(request: Namespace) -> int:
    """Ask a judge about a model's outputs, through the ledger, and write the judgments."""
    from actshift.judging import judges
    from actshift.judging.asking import open_questions
    from actshift.judging.ledger import open_ledger
    from actshift.judging.rows import write_rows
    from actshift.judging.summary import files_of

    if request.limit is not None and request.limit < 1:
        raise ActshiftError(f"--limit {request.limit} is impossible: it must be 1 or more")
    if request.budget is not None and not request.budget >= 0:
        raise ActshiftError(f"--budget {request.budget:g} is impossible: it must be 0 or more, in dollars")
    take_judge(request)
    if request.imported:
        _check_import(request)
    config = _judge(request)
    if not Path(request.outputs).is_file():
        from actshift.commands.judging_sweeps import judge_sweep

        return judge_sweep(request, config)
    if request.overrides or not request.out or not request.references:
        raise ActshiftError("a file of outputs is judged with --references and --out, and takes no override")
    given = judges.paired(Path(request.outputs), Path(request.references), inner=request.inner)
    given.pairs[:] = given.pairs[: request.limit]
    ledger = open_ledger(Path(request.ledger or "results/judgments") / config.identity[:16])
    if request.imported:
        from actshift.commands.judging_import import import_file

        if not import_file(request, config, given, ledger):
            return 0
    left = open_questions(given.pairs, config, ledger)
    print(_plan(given, config, sum(len(pair.questions(config)) for pair in given.pairs), len(left)))
    print(_price(config, [question.messages for question in left], dry=request.dry_run))
    if request.dry_run:
        return 0
    recorded = files_of(map(Path, request.recorded or ()))
    allowed = {"budget": request.budget, "allow_unjudged": request.allow_unjudged}
    rows = judges.judge_all(given, config, ledger, recorded=recorded, **allowed)
    write_rows(Path(request.out), rows)
    unjudged = judges.count_unjudged(rows)
    lost = f", {ledger.lost} questions lost in flight" if ledger.lost else ""
    print(f"{len(rows)} judged, {unjudged} of them without a preference, ${ledger.spent:.2f} spent in all{lost}")
    print(request.out)
    return 0


def _check_import(request: Namespace) -> None:
    """Errors: a flag that has no meaning for an import, which asks nobody and takes whole files."""
    given = {"--recorded": request.recorded, "--limit": request.limit, "--budget": request.budget}
    given |= {"--base-url": request.base_url}
    odd = [name for name, value in given.items() if value is not None]
    if odd:
        raise ActshiftError(f"--import takes whole files and asks nobody: leave out {' and '.join(odd)}")


def _judge(request: Namespace) -> JudgeConfig:
    """The judge that a request names, with the model and the address of a server of the user's own."""
    from dataclasses import replace

    from actshift.judging.config import check_url, judge_config

    config = judge_config(request.judge)
    if request.model:
        config = replace(config, model=request.model, annotator=f"{config.annotator} {request.model}")
    if request.base_url:
        check_url(request.base_url, where="--base-url")
        config = replace(config, base_url=request.base_url)
    return config


def _plan(given: Paired, config: JudgeConfig, questions: int, left: int) -> str:
    """How much there is to ask, and what an inner join leaves out."""
    equal = sum(not pair.questions(config) for pair in given.pairs)
    text = f"{len(given.pairs)} pairs, {equal} of equal answers, {questions - left} questions answered, {left} to ask"
    if given.lost:
        text += f"\n{len(given.lost)} instructions of the reference have no output under their own text and are lost"
    return text


def _price(config: JudgeConfig, questions: list[tuple[dict[str, str], ...]], *, dry: bool) -> str:
    """What the questions cost and how long they take."""
    most, mean = (sum(config.dollars(each, tokens=name) for each in questions) for name in ("least", "mean"))
    text = f"${mean:.2f} expected, ${most:.2f} at most"
    if dry:
        text += f"; {config.duration(len(questions))}"
        text += f"; prices of {config.prices.date}" if config.prices.date else ""
        text += f"; retired: {config.retired}" if config.retired else ""
    return text


def judges_command(request: Namespace) -> int:
    """How far two judges agree about the same answers."""
    from actshift.judging.agreement import agreement
    from actshift.judging.judgments import read_judgments
    from actshift.report import agreement_table as report

    found = agreement(*(read_judgments(Path(path)) for path in (request.first, request.second)))
    console().print(text_table(report.COLUMNS, report.rows(found), legend=report.legend(found)))
    write_copies(found, (request.csv, report.csv), (request.markdown, report.markdown))
    return 0
