"""The one entrypoint: a resolved configuration goes in, a record comes out.

Load, attach, train (or take over what was trained), evaluate the stage's split, record. A run that is done already is
only read; one that was interrupted continues from its newest checkpoint.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actshift.adapters import load_adapter, save_adapter
from actshift.composition import cell_of
from actshift.descriptions import DESCRIPTION
from actshift.errors import ActshiftError
from actshift.evaluate import answer
from actshift.evaluation.predictions import Prediction, per_token_metrics, write_predictions
from actshift.identity import counted, identity_of, ignored_keys
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.progress import Progress
from actshift.provenance import code_provenance, host, now, peak_memory
from actshift.records import Cell, Record
from actshift.schema import STAGES
from actshift.session import Config, Interrupted, Session, pick_device, set_threads
from actshift.store import Store
from actshift.tasks import get_task, refuse_unscored
from actshift.tasks.base import Task
from actshift.tasks.examples import Examples, tokenize
from actshift.tasks.sources import partial_splits
from actshift.tasks.splits import Split
from actshift.trackers import Tracker, start_tracker
from actshift.training.checkpoints import Checkpoints, read_facts
from actshift.training.loop import Curves, train

__all__ = ["Busy", "Config", "Interrupted", "Session", "Trained", "pick_device", "run"]


class Busy(ActshiftError):
    """Another process is at the run that was asked for."""


@dataclass(frozen=True)
class Trained:
    """What is kept of a training beside the adapter's tensors."""

    identity: str
    steps: int
    final_loss: float
    diverged: bool
    trainable_parameters: int
    total_parameters: int
    train_fingerprint: str
    truncated: int
    lost_answers: int
    train_seconds: float
    peak_memory_bytes: int
    device: str
    device_name: str
    overlap: int = 0


def run(config: Config, *, session: Session | None = None, progress: Progress | None = None) -> Record:
    """Do what a resolved configuration says and return the record of the stage's split.

    Errors: `Busy`, and whatever made the run fail, after it was noted in the store.
    """
    if config["adapter"] is not None:
        raise ActshiftError("an adapter that exists is no run: actshift.evaluate.evaluate scores it")
    refuse_unscored(config)
    store, split = Store(Path(config["results"])), STAGES[config["stage"]]
    identity = identity_of(config, ignore=ignored_keys())
    found = store.record(identity, split)
    if found is not None:
        return found
    claim = store.claim(identity)
    if claim is None:
        raise Busy(f"run {identity} is being done by another process")
    with claim:
        found = store.record(identity, split)  # it may have been finished between the look and the claim
        if found is not None:
            return found
        try:
            record = _Run(config, identity, store, session or Session(), progress or Progress()).record(split)
            store.publish(record, claim=claim)
        except Exception as error:
            if not claim.lost:
                store.fail(identity, split, traceback.format_exc(), died=_out_of_memory(error))
            raise
        return record


def _out_of_memory(error: Exception) -> bool:
    """Whether a smaller micro-batch might have gone through; torch's CPU allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


@dataclass
class _Run:
    """One run on its way from configuration to record."""

    config: Config
    identity: str
    store: Store
    session: Session
    progress: Progress

    def record(self, split: str) -> Record:
        config = self.config
        set_threads(config["hardware"])
        task = get_task(config["dataset"]["task"], rule=config["evaluation"]["rule"])
        scored = self.session.split(config, split)  # before the model: a missing file should cost seconds
        base = self.session.base(config)
        adaptation = attach(base, config=config["method"], seeds=(config["seed"],))
        tracker = start_tracker(config, identity=self.identity, folder=self._folder)
        try:
            trained = self._take_over(adaptation) or self._train(base, adaptation, task=task, tracker=tracker)
            started = time.monotonic()
            predictions = self._evaluate(base, adaptation, split=scored, name=split, trained=trained)
        finally:
            adaptation.detach()
        record = Record(
            identity=self.identity,
            split=split,
            cell=Cell(*cell_of(config)),
            lr=config["lr"],
            seed=config["seed"],
            config=counted(config, ignore=ignored_keys()),
            metrics=_metrics(predictions, rows=len(scored.rows), trained=trained),
            provenance={
                **code_provenance(),
                "created": now(),
                "host": host(),
                "device": trained.device,
                "device_name": trained.device_name,
                "hardware": config["hardware"]["name"],
                "micro_batch": config["hardware"]["micro_batch"],
                "threads": config["hardware"]["threads"],
                "precision": config["training"]["precision"],
                "data": {"train": trained.train_fingerprint, split: scored.fingerprint},
                "partial": partial_splits(config),
                "source": config["data"]["source"],
                "scale": config["model"]["scale"],
                "scoring": config["evaluation"]["scoring"],
                "train_seconds": trained.train_seconds,
                "evaluation_seconds": round(time.monotonic() - started, 3),
                "peak_memory_bytes": max(trained.peak_memory_bytes, peak_memory(base.device.type)),
            },
        )
        tracker.finish({**record.metrics, "split": split})
        return record

    @property
    def _folder(self) -> Path:
        return self.store.run_folder(self.identity)

    def _take_over(self, adaptation: Adaptation) -> Trained | None:
        """The adapter that an earlier stage trained, where there is one."""
        folder = self._folder / "adapter"
        facts = read_facts(folder)
        if facts is None or not (folder / DESCRIPTION).exists():
            return None
        adapter = load_adapter(folder, config=self.config)
        if adapter.description.identity != self.identity:
            raise ActshiftError(f"{folder} belongs to run {adapter.description.identity}, not {self.identity}")
        adaptation.load_state_dict(adapter.state)
        return Trained(**facts["trained"])

    def _train(self, base: Base, adaptation: Adaptation, *, task: Task, tracker: Tracker) -> Trained:
        config, training, started = self.config, self.config["training"], time.monotonic()
        if base.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        train_split = self.session.split(config, "train")
        rows = self._examples(base, train_split, task=task)
        watched = self._examples(base, self.session.split(config, "validation"), task=task)
        stop = self.session.stop
        checkpoints = Checkpoints(self._folder, every=config["hardware"]["checkpoint_every"], stop=stop)

        def report(step: int, steps: int, curves: Sequence[Curves]) -> None:
            tracker.step(step, loss=curves[0].loss[-1], lr=curves[0].lr[-1])
            self.progress.update(step, steps, f"loss {curves[0].loss[-1]:.3f}")
            if stop.is_set() and step < steps:  # the last step is followed by the adapter itself
                raise Interrupted

        self.progress.start("train")
        (curves,) = train(
            base,
            adaptation,
            rows=rows,
            validation_rows=[watched[row] for row in range(min(len(watched), training["validation_rows"]))],
            training=training,
            lrs=(config["lr"],),
            seeds=(config["seed"],),
            micro_batch=config["hardware"]["micro_batch"],
            checkpoints=checkpoints,
            progress=report,
        )
        self.progress.end()
        trained = self._trained(base, adaptation, rows=rows, split=train_split, curves=curves, started=started)
        save_adapter(
            self._folder / "adapter",
            adaptation,
            base=base,
            config=config,
            facts={"trained": vars(trained), "config": dict(config), "curves": vars(curves)},
            identity=self.identity,
            diverged=trained.diverged,
        )
        checkpoints.clear()
        return trained

    def _trained(
        self, base: Base, adaptation: Adaptation, *, rows: Examples, split: Split, curves: Curves, started: float
    ) -> Trained:
        last = curves.loss[-10:]
        return Trained(
            identity=self.identity,
            steps=len(curves.loss),
            final_loss=round(sum(last) / len(last), 6),
            # A loss is seen before its step: what the last one left behind shows in the parameters alone.
            diverged=curves.diverged_at is not None or not _is_finite(adaptation),
            trainable_parameters=adaptation.trainable_parameters(),
            total_parameters=base.parameters,
            train_fingerprint=split.fingerprint,
            truncated=rows.truncated,
            lost_answers=rows.lost_answers,
            overlap=split.overlap,
            train_seconds=round(time.monotonic() - started, 3),
            peak_memory_bytes=peak_memory(base.device.type),
            device=base.device.type,
            device_name=base.device_name,
        )

    def _examples(self, base: Base, split: Split, *, task: Task) -> Examples:
        training = self.config["training"]
        return tokenize(
            split,
            task=task,
            tokenizer=base.tokenizer,
            end_token=training["end_token"],
            max_tokens=training["max_tokens"],
            cache=self.store.cache,
        )

    def _evaluate(
        self, base: Base, adaptation: Adaptation, *, split: Split, name: str, trained: Trained
    ) -> list[Prediction]:
        """The predictions on a split, kept with the run; none of a diverged run, whose model says nothing."""
        if trained.diverged:
            return []
        (predictions,) = answer(
            self.config,
            base,
            adaptation,
            split=split,
            name=name,
            session=self.session,
            cache=self.store.cache,
            progress=self.progress,
        )
        write_predictions(self._folder / f"predictions-{name}.jsonl", predictions)
        return predictions


def _is_finite(adaptation: Adaptation) -> bool:
    """Whether every parameter that trained is a finite number."""
    return all(bool(parameter.isfinite().all()) for _, parameter in adaptation.named_parameters())


def _metrics(predictions: list[Prediction], *, rows: int, trained: Trained) -> dict[str, Any]:
    """Accuracy in percent over the whole split. A diverged run has answered nothing, so it scores 0."""
    right = [prediction.correct for prediction in predictions] or [False] * rows
    correct = sum(right)
    return {
        "accuracy": 100 * correct / rows,
        **per_token_metrics(predictions),
        "rows": rows,
        "correct": correct,
        # Which rows, in the order of the split, eight to a byte: what paired tests between runs are made from.
        "answers": np.packbits(right).tobytes().hex(),
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "final_loss": None if trained.diverged else trained.final_loss,
        "steps": trained.steps,
        "diverged": trained.diverged,
        "rows_touched": {
            "truncated": trained.truncated,
            "lost_answers": trained.lost_answers,
            "overlap": trained.overlap,
        },
    }
