"""Scoring: the split of a run, or (stage=evaluate) the test split of a data set by an adapter that exists.

The latter makes no record. It may show an adapter on data that it was not trained for, or on a few rows, so it is kept
where no table looks: in ``results/evaluations``, named after the adapter, the data set and everything that counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from actshift.config.identity import identity_of, ignored_keys, scored_part
from actshift.data.chat import chat_of
from actshift.data.examples import tokenize
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.evaluation.answers import AnswerLoss, Done, answer_loss, choose, predict
from actshift.evaluation.limits import batch_tokens
from actshift.evaluation.predictions import Prediction, per_token_metrics, write_predictions
from actshift.files import write_file
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.observe.progress import Progress
from actshift.observe.provenance import code_provenance, host, now, peak_memory
from actshift.runtime.objectives import grpo_of
from actshift.runtime.reuse import refuse_changed_rows
from actshift.runtime.session import Interrupted, Session, set_threads
from actshift.runtime.train import training_examples
from actshift.schema.config import Config
from actshift.store.adapter_card import AdapterCard, read_adapter_card
from actshift.store.adapters import load_adapter
from actshift.store.records import read_json
from actshift.store.store import Store
from actshift.tasks import scoring_task

SCHEMA = 1
SPLIT = "test"


@dataclass(frozen=True)
class Evaluation:
    """What an adapter scored on a test split. `config` is all of it that counts, and `evaluation` its hash.

    `adapter` says which adapter it was and what it was trained on. It is no record, and no reader of records takes it.
    """

    evaluation: str
    adapter: dict[str, Any]
    dataset: str
    split: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    schema: int = SCHEMA

    @property
    def file_name(self) -> str:
        return _file_name(self.adapter["identity"], self.dataset, self.evaluation)


def evaluate(config: Config, *, session: Session | None = None, progress: Progress | None = None) -> Evaluation:
    """Score the adapter of a resolved config with stage=evaluate; a score that exists is only read.

    Errors: what `load_adapter` refuses, a base model or method that is not the adapter's, a diverged adapter.
    """
    store, session, progress = Store(Path(config.results)), session or Session(), progress or Progress()
    folder = Path(str(config.adapter))
    description = read_adapter_card(folder)
    description.check(config, where=folder)
    if description.diverged:
        raise ActshiftError(f"the training of the adapter in {folder} diverged: there is nothing to evaluate.")
    counts = {"adapter": {"identity": description.identity, "sha256": description.sha256}, **_counted(config)}
    evaluation = identity_of(counts, ignore=())
    path = store.root / "evaluations" / _file_name(description.identity, config.dataset.name, evaluation)
    if path.exists():
        found = _read(path)
        kept = found.provenance.get("data", {}).get(SPLIT)
        refuse_changed_rows(config, SPLIT, kept=kept, what=f"the evaluation {path.name}", data=session)
        return found

    set_threads(config.hardware)
    scored = session.split(config, SPLIT)  # before the model: a missing file should cost seconds
    base = session.base(config)
    started = time.monotonic()
    adaptation = load_adapter(folder, config=config).attach(base)
    try:
        (predictions,) = answer(
            config,
            base,
            adaptation,
            split=scored,
            name=SPLIT,
            session=session,
            cache=store.cache,
            progress=progress,
        )
    finally:
        adaptation.detach()
    write_predictions(store.run_folder(description.identity) / f"predictions-{evaluation}.jsonl", predictions)
    found = Evaluation(
        evaluation=evaluation,
        adapter=counts["adapter"] | _trained_on(description),
        dataset=config.dataset.name,
        split=SPLIT,
        config=_counted(config),
        metrics=_metrics(predictions, rows=len(scored.rows)),
        provenance=_provenance(config, base, split=scored, seconds=time.monotonic() - started),
    )
    write_file(path, json.dumps(vars(found), sort_keys=True, indent=1, allow_nan=False) + "\n")
    return found


def _metrics(predictions: Sequence[Prediction], *, rows: int) -> dict[str, Any]:
    correct = sum(prediction.correct for prediction in predictions)
    accuracy = 100 * correct / rows
    return {"accuracy": accuracy, **per_token_metrics(predictions), "rows": rows, "correct": correct}


def _provenance(config: Config, base: Base, *, split: Split, seconds: float) -> dict[str, Any]:
    return {
        **code_provenance(),
        "created": now(),
        "host": host(),
        "device": base.device.type,
        "device_name": base.device_name,
        "hardware": config.hardware.name,
        "threads": config.hardware.threads,
        "data": {SPLIT: split.fingerprint},
        "scoring": config.evaluation.scoring,
        "evaluation_seconds": round(seconds, 3),
        "peak_memory_bytes": peak_memory(base.device.type),
    }


def answer(
    config: Config,
    base: Base,
    adaptation: Adaptation,
    *,
    split: Split,
    name: str,
    session: Session,
    cache: Path,
    progress: Progress,
) -> list[list[Prediction]]:
    """What each replica of an adapted model answers on the split `name` of a configuration's data.

    Errors: `Interrupted`.
    """
    evaluation = config.evaluation
    task = scoring_task(config.dataset, name, rule=evaluation.rule)
    chat = chat_of(config, base.tokenizer)
    rows = tokenize(
        split, task=task, tokenizer=base.tokenizer, end_token=False, max_tokens=None, chat=chat, cache=cache
    )
    progress.start(f"evaluate {name}")
    report = _reporting(progress, session)
    tokens, new_tokens = batch_tokens(config), evaluation.max_new_tokens
    if evaluation.scoring == "likelihood":
        options = [task.options(row) for row in split.rows]
        predictions = choose(base, adaptation, rows=rows, options=options, batch_tokens=tokens, progress=report)
    else:
        predictions = predict(
            base,
            adaptation,
            task=task,
            rows=rows,
            max_new_tokens=new_tokens,
            batch_tokens=tokens,
            ends=None if chat is None else chat.ends,
            progress=report,
            stop=grpo_of(config) is None,  # a reward may look at how a completion ends
        )
    progress.end()
    prompts = [task.prompt(row) for row in split.rows]
    return [[replace(each, prompt=prompts[each.row]) for each in of_replica] for of_replica in predictions]


def losses(
    config: Config,
    base: Base,
    adaptation: Adaptation,
    *,
    split: Split,
    name: str,
    session: Session,
    cache: Path,
    progress: Progress,
) -> list[AnswerLoss]:
    """The loss of each replica on the answers of a split that no rule scores. Errors: `Interrupted`."""
    rows = training_examples(split, config=config, tokenizer=base.tokenizer, cache=cache)
    progress.start(f"evaluate {name}")
    tokens, report = batch_tokens(config), _reporting(progress, session)
    found = answer_loss(base, adaptation, rows=rows, batch_tokens=tokens, progress=report)
    progress.end()
    return found


def _reporting(progress: Progress, session: Session) -> Done:
    """Tells how far an evaluation is, and ends it where the process was told to stop."""

    def report(rows_done: int, rows_all: int) -> None:
        progress.update(rows_done, rows_all)
        if session.stop.is_set():
            raise Interrupted

    return report


def _counted(config: Config) -> dict[str, Any]:
    """The part of a config that an evaluation depends on."""
    return scored_part(config, ignore=ignored_keys(), groups=("method",))


def _trained_on(description: AdapterCard) -> dict[str, Any]:
    names = ("dataset", "source", "protocol", "precision", "lr", "seed")
    return {
        "model": description.model.name,
        "method": description.method.name,
        **{name: getattr(description, name) for name in names},
    }


def _file_name(adapter: str, dataset: str, evaluation: str) -> str:
    return f"{adapter}.{dataset}.{SPLIT}.{evaluation}.json"


def _read(path: Path) -> Evaluation:
    data = read_json(path)
    if not isinstance(data, dict) or data.keys() != {field.name for field in fields(Evaluation)}:
        raise ActshiftError(f"{path} is not an evaluation: restore the file or delete it.")
    found = Evaluation(**data)
    if found.schema != SCHEMA or found.file_name != path.name:
        raise ActshiftError(f"{path} is not the evaluation that its name says: restore the file or delete it.")
    return found
