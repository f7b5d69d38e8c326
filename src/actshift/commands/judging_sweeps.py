"""Judging a whole sweep: the outputs of its final runs, their judgments, and a record of each."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError

if TYPE_CHECKING:
    from actshift.judging.asking import Pair
    from actshift.judging.config import JudgeConfig
    from actshift.store.store import Store

REFERENCES = Path("alpaca_eval") / "gpt4_baseline.jsonl"
"""The reference's outputs within a folder of data sets."""


@dataclass(frozen=True)
class FinalRun:
    """A final run of a sweep: its identity (None before its rate is chosen) and what it is, in words."""

    identity: str | None
    what: str


def judge_sweep(request: Namespace, config: JudgeConfig) -> int:
    """Judge every final run's outputs and keep a record of each; or say what that costs."""
    if not request.data:
        raise ActshiftError("a sweep is judged against AlpacaEval's reference: name the folder of data sets, --data.")
    store, runs = _final_runs(request)
    if request.imported:
        runs = _imported(request, config, store, runs)
    elif request.dry_run:
        return _price(request, config, store, runs)
    for run in runs:
        _judge_run(request, config, store, run)
    return 0


def _imported(request: Namespace, config: JudgeConfig, store: Store, runs: list[FinalRun]) -> list[FinalRun]:
    """Import judgments of the runs that have outputs; those of them whose every question is answered then."""
    from actshift.commands.judging_import import import_sweep
    from actshift.judging.ledger import open_ledger

    there = {str(run.identity): path for run in runs if (path := _outputs(store, run)) is not None and path.exists()}
    if not there:
        raise ActshiftError(f"no run of {request.outputs} has outputs: write them with `actshift outputs`.")
    ledger = open_ledger(_ledger(request, config, store))
    whole = import_sweep(request, config, ledger, there, _references(request))
    return [run for run in runs if run.identity in whole]


def _final_runs(request: Namespace) -> tuple[Store, list[FinalRun]]:
    """The final runs of a sweep; of one that was never planned, for a price, those that it would have."""
    from actshift.commands.requests import stages_of, sweep_request
    from actshift.config.cached import CachedComposer
    from actshift.planning.expand import expand_grid
    from actshift.planning.manifests import read_manifest

    request.sweep = request.outputs
    wanted = sweep_request(request)
    path = wanted.store.manifest_path(wanted.name, "grid")
    if not path.exists() and not request.dry_run:
        raise ActshiftError(f"'{request.sweep}' has not been planned in {wanted.store.root}: run its sweep first.")
    sweep = wanted.config.sweep
    grid = (
        read_manifest(path)
        if path.exists() or sweep is None
        else expand_grid(sweep, CachedComposer(), extra=wanted.frozen)
    )
    final = stages_of(wanted.store, grid)[-1]
    if final.stage == "final":
        return wanted.store, [FinalRun(run.identity, f"{run.cell} seed={run.seed}") for run in final.runs]
    if not request.dry_run:
        raise ActshiftError(f"the final stage of {grid.sweep} is not planned yet: run `actshift sweep {grid.sweep}`.")
    return wanted.store, [FinalRun(None, f"{cell.cell} seed={seed}") for cell in grid.cells for seed in cell.seeds]


def _price(request: Namespace, config: JudgeConfig, store: Store, runs: list[FinalRun]) -> int:
    """What the whole sweep costs: outputs that are not there are taken to be as long as the reference's."""
    from actshift.judging.asking import Pair, open_questions
    from actshift.judging.judges import outputs_of, paired
    from actshift.judging.ledger import open_ledger

    reference, _ = outputs_of(_references(request))
    ledger = open_ledger(_ledger(request, config, store))
    questions, assumed = 0, 0
    dollars = {"mean": 0.0, "least": 0.0}
    for run in runs:
        path = _outputs(store, run)
        if path is not None and path.exists():
            pairs = paired(path, _references(request), inner=True).pairs
        else:
            assumed += 1
            pairs = [Pair(text, "", row["output"], f"{row['output']} ") for text, row in reference.items()]
        left: list[Pair] = pairs[: request.limit]
        for question in open_questions(left, config, ledger):
            questions += 1
            for name in dollars:
                dollars[name] += config.dollars(question.messages, tokens=name)
        # What is assumed is another text in every run: no question is taken to be the same as another's.
    dated = f"prices of {config.prices.date}" if config.prices.date else "no price"
    retired = f"; retired: {config.retired}" if config.retired else ""
    print(
        f"{len(runs)} runs, {assumed} of them with outputs assumed as long as the reference's; {questions:,} questions "
        f"to {config.model}: ${dollars['mean']:.2f} expected, ${dollars['least']:.2f} at most ({dated}), "
        f"{config.duration(questions)}{retired}"
    )
    return 0


def _judge_run(request: Namespace, config: JudgeConfig, store: Store, run: FinalRun) -> None:
    from actshift.judging import bootstrap, summary
    from actshift.judging.judges import judge_all, paired
    from actshift.judging.ledger import open_ledger
    from actshift.judging.records import record_of, write_record
    from actshift.judging.reference_data import read_reference_data
    from actshift.judging.rows import write_rows

    path = _outputs(store, run)
    if path is None or not path.exists():
        raise ActshiftError(f"{run.what} has no outputs: write them with `actshift outputs {request.outputs}`.")
    given = paired(path, _references(request), inner=True)
    given.pairs[:] = given.pairs[: request.limit]
    ledger = open_ledger(_ledger(request, config, store))
    before = ledger.spent
    recorded = summary.files_of(map(Path, request.recorded or ()))
    allowed = {"budget": request.budget, "allow_unjudged": request.allow_unjudged}
    rows = judge_all(given, config, ledger, recorded=recorded, **allowed)
    annotations = path.with_name(f"annotations.{config.name}.json")
    write_rows(annotations, rows)
    data = read_reference_data(Path(request.data))
    (found,) = summary.summaries(summary.read_all([annotations]), data, number=bootstrap.DRAWS, seed=bootstrap.SEED)
    spent = ledger.spent - before
    record = record_of(found, config, identity=str(run.identity), outputs=path, lost=len(given.lost), dollars=spent)
    lost = f", {len(given.lost)} instructions of the reference without an output" if given.lost else ""
    print(f"{run.what}: LC {found.lc.win_rate if found.lc else 0:.2f}, {len(rows)} judged{lost}")
    print(write_record(store.root, record))


def _outputs(store: Store, run: FinalRun) -> Path | None:
    return None if run.identity is None else store.run_folder(run.identity) / "model_outputs.json"


def _references(request: Namespace) -> Path:
    return Path(request.references) if request.references else Path(request.data) / REFERENCES


def _ledger(request: Namespace, config: JudgeConfig, store: Store) -> Path:
    return (Path(request.ledger) if request.ledger else store.root / "judgments") / config.identity[:16]
