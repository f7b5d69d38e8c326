"""The one entrypoint: a resolved configuration goes in, a record comes out.

Train (or take over what was trained), load, attach, evaluate the stage's split, record. A run that is done already is
only read; one that was interrupted continues from its newest checkpoint. What is scored is the adapter on disk.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from actshift.config.composition import cell_of
from actshift.config.identity import hashed_part, identity_of, ignored_keys
from actshift.data.chat import template_date, template_fingerprint
from actshift.data.sources import hub_commit, partial_splits
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.evaluation.predictions import write_predictions
from actshift.libraries.private import commit_of
from actshift.methods import attach
from actshift.models.loading import Base, computed_precision
from actshift.observe.profiling import phase, profiling
from actshift.observe.progress import Progress
from actshift.observe.provenance import code_provenance, host, now, peak_memory
from actshift.observe.trackers import Tracker, start_tracker
from actshift.runtime.evaluate import answer, losses
from actshift.runtime.metrics import accuracy_metrics, loss_metrics, training_metrics
from actshift.runtime.objectives import reward_metrics
from actshift.runtime.reuse import refuse_changed_record, refuse_changed_rows
from actshift.runtime.session import Session, set_threads
from actshift.runtime.train import Trained, train_runs, trained
from actshift.schema.config import STAGES, Config
from actshift.store.adapters import load_adapter
from actshift.store.locks import RunLock
from actshift.store.records import Cell, Record
from actshift.store.store import Store
from actshift.tasks import scoring_task


class Busy(ActshiftError):
    """Another process is doing the requested run."""


def run(config: Config, *, session: Session | None = None, progress: Progress | None = None) -> Record:
    """Do what a resolved configuration says and return the record of the stage's split.

    Errors: `Busy`, and whatever made the run fail, after it was noted in the store.
    """
    (record,) = run_together([config], session=session, progress=progress)
    return record


def run_together(
    configs: Sequence[Config],
    *,
    session: Session | None = None,
    progress: Progress | None = None,
    share: float = 1.0,
) -> list[Record]:
    """The records of runs that differ in learning rate and seed alone, made at once over one base model.

    A run alone may be trained for a `share` of its steps, which ends in `Paused` and leaves no record.

    Each record is that of the run alone within rounding, and says how many were trained at once. An error is noted
    as the failure of a run that is alone, and of none where there are several: they may do better apart.
    Errors: `Busy` where another process has one of them, and whatever stopped them.
    """
    first = configs[0]
    if first.adapter is not None:
        raise ActshiftError("an adapter that exists is no run: actshift.runtime.evaluate.evaluate scores it")
    store, split, session = Store(Path(first.results)), STAGES[first.stage], session or Session()
    named = {identity_of(config, ignore=ignored_keys()): config for config in configs}
    with ExitStack() as stack:
        locks: dict[str, RunLock] = {}
        for identity in sorted(named):  # in one order for every process, so that none waits for the other
            if store.record(identity, split) is not None:
                continue
            lock = store.lock(identity)
            if lock is None:
                raise Busy(f"run {identity} is being done by another process: {store.holder(identity)}.")
            locks[identity] = stack.enter_context(lock)
        # One may have been finished between the look and the lock.
        records = {name: record for name in named if (record := store.record(name, split)) is not None}
        for name, record in records.items():
            refuse_changed_record(named[name], record, data=session)
        missing = {name: config for name, config in named.items() if name not in records}
        try:
            if missing:
                runs = _Runs(missing, split, store, session, progress or Progress(), share=share)
                made = _profiled(runs, store.run_folder(next(iter(missing)))) if first.profile else runs.records()
                for record in made:
                    store.publish(record, lock=locks[record.identity])
                    records[record.identity] = record
        except Exception as error:
            if len(named) == 1 and not locks[next(iter(named))].lost:
                store.fail(next(iter(named)), split, traceback.format_exc(), died=_out_of_memory(error))
            raise
    return [records[name] for name in named]


def _profiled(runs: _Runs, folder: Path) -> list[Record]:
    """The records, and on the terminal where the time went."""
    with profiling(folder / "trace.json") as profile:
        records = runs.records()
    print(profile.text(), file=sys.stderr)
    return records


def _out_of_memory(error: Exception) -> bool:
    """Whether a smaller micro-batch might have gone through; torch's CPU allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


class _Runs:
    """Runs on their way from configurations (by identity) to records of `split`."""

    def __init__(
        self,
        configs: Mapping[str, Config],
        split: str,
        store: Store,
        session: Session,
        progress: Progress,
        *,
        share: float = 1.0,
    ) -> None:
        self._configs, self._share = configs, share
        self._split = split
        self._store = store
        self._session = session
        self._progress = progress
        self._shared_config = next(iter(configs.values()))

    def records(self) -> list[Record]:
        set_threads(self._shared_config.hardware)
        scored = self._session.split(
            self._shared_config, self._split
        )  # before the model: a missing file should cost seconds
        base = self._session.base(self._shared_config)
        trackers = {
            name: start_tracker(config, identity=name, folder=self._store.run_folder(name))
            for name, config in self._configs.items()
        }
        results: dict[str, dict[str, Any]] = {name: {} for name in self._configs}
        try:
            facts = self._train(base, trackers)
            started = time.monotonic()
            with phase("evaluation"):
                metrics = self._evaluate(base, facts, split=scored)
            seconds = (time.monotonic() - started) / len(self._configs)
            records = [
                self._record(base, facts[name], found, split=scored, seconds=seconds) for name, found in metrics.items()
            ]
            results = {record.identity: {**record.metrics, "split": self._split} for record in records}
        finally:
            for name, tracker in trackers.items():
                tracker.finish(results[name])
        return records

    def _train(self, base: Base, trackers: Mapping[str, Tracker]) -> dict[str, Trained]:
        """Train the runs that have no adapter yet, and return what is kept of each run's training."""
        found = {name: facts for name in self._configs if (facts := self._trained(name)) is not None}
        missing = {name: config for name, config in self._configs.items() if name not in found}
        if missing:
            train_runs(
                missing,
                base,
                store=self._store,
                session=self._session,
                progress=self._progress,
                trackers=[trackers[name] for name in missing],
                share=self._share,
            )
        for name in missing:
            facts = self._trained(name)
            assert facts is not None
            found[name] = facts
        return found

    def _trained(self, identity: str) -> Trained | None:
        facts = trained(self._store.run_folder(identity))
        if facts is None:
            return None
        folder = self._store.run_folder(identity)
        if facts.identity != identity:
            raise ActshiftError(f"{folder} belongs to run {facts.identity}, not {identity}")
        kept, what = facts.train_fingerprint, f"the adapter in {folder}"
        refuse_changed_rows(self._configs[identity], "train", kept=kept, what=what, data=self._session)
        return facts

    def _evaluate(self, base: Base, facts: Mapping[str, Trained], *, split: Split) -> dict[str, dict[str, Any]]:
        """The metrics of each run on the split, and its predictions as a file. A diverged run's model says nothing."""
        config, rows = self._shared_config, len(split.rows)
        task = scoring_task(config.dataset, self._split, rule=config.evaluation.rule)
        nothing = accuracy_metrics([], rows=rows, task=task) if task.scored else loss_metrics(None, rows=rows)
        found = dict.fromkeys(self._configs, nothing)
        sound = [name for name in self._configs if not facts[name].diverged]
        if not sound:
            return found
        adaptation = attach(base, config=config.method, seeds=[self._configs[name].seed for name in sound])
        try:
            for replica, name in enumerate(sound):
                adapter = load_adapter(self._store.run_folder(name) / "adapter", config=self._configs[name])
                adaptation.load_state_dict(adapter.state, replica)
            shared: dict[str, Any] = {"split": split, "name": self._split, "session": self._session}
            shared |= {"cache": self._store.cache, "progress": self._progress}
            if not task.scored:
                every = losses(config, base, adaptation, **shared)
                return found | {name: loss_metrics(each, rows=rows) for name, each in zip(sound, every, strict=True)}
            answers = answer(config, base, adaptation, **shared)
        finally:
            adaptation.detach()
        for name, predictions in zip(sound, answers, strict=True):
            write_predictions(self._store.run_folder(name) / f"predictions-{self._split}.jsonl", predictions)
            rewards = reward_metrics(self._configs[name], predictions)
            found[name] = accuracy_metrics(predictions, rows=rows, task=task) | rewards
        return found

    def _record(self, base: Base, facts: Trained, metrics: dict[str, Any], *, split: Split, seconds: float) -> Record:
        config = self._configs[facts.identity]
        return Record(
            identity=facts.identity,
            split=self._split,
            cell=Cell(*cell_of(config)),
            lr=config.lr,
            seed=config.seed,
            config=hashed_part(config, ignore=ignored_keys()),
            metrics={**metrics, **training_metrics(facts)},
            provenance={
                **code_provenance(),
                "created": now(),
                "host": host(),
                "device": facts.device,
                "device_name": facts.device_name,
                "hardware": config.hardware.name,
                "micro_batch": config.hardware.micro_batch,
                "gradient_checkpointing": config.hardware.gradient_checkpointing,
                "threads": config.hardware.threads,
                "replicas": {"train": facts.replicas, self._split: len(self._configs)},
                "precision": computed_precision(config.training.precision, base.device),
                "data": {"train": facts.train_fingerprint, self._split: split.fingerprint},
                "data_commit": hub_commit(config),
                "template": template_fingerprint(config, base.tokenizer),
                "template_date": template_date(config, base.tokenizer),
                "model_commit": commit_of(base.model.config),
                "partial": partial_splits(config),
                "source": config.data.source,
                "scale": config.model.scale,
                "scoring": config.evaluation.scoring,
                "train_seconds": facts.train_seconds,
                "evaluation_seconds": round(seconds, 3),
                "peak_memory_bytes": max(facts.peak_memory_bytes, peak_memory(base.device.type)),
            },
        )
