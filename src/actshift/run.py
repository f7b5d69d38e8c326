"""The one entrypoint: a resolved configuration goes in, a record comes out.

Load, attach, train (or take over what was trained), evaluate the stage's split, record. A run that is done already is
only read; one that was interrupted continues from its newest checkpoint.
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actshift.composition import cell_of
from actshift.errors import ActshiftError
from actshift.evaluation.predictions import Prediction, predict, write_predictions
from actshift.identity import counted, identity_of, ignored_keys
from actshift.methods import attach
from actshift.methods.base import Adaptation
from actshift.models.loading import Base, load_base
from actshift.progress import Progress
from actshift.provenance import code_provenance, host, now, peak_memory
from actshift.records import Cell, Record
from actshift.schema import STAGES
from actshift.store import Store
from actshift.tasks import get_task
from actshift.tasks.base import Task
from actshift.tasks.examples import Examples, tokenize
from actshift.tasks.splits import Split, load_split
from actshift.trackers import Tracker, start_tracker
from actshift.training.checkpoints import Checkpoints, read_facts, read_tensors, write_folder
from actshift.training.loop import Curves, train

Config = Mapping[str, Any]


class Busy(ActshiftError):
    """Another process is at the run that was asked for."""


class Interrupted(BaseException):
    """The process was told to stop: what was trained so far is in a checkpoint, and the run is not a failed one."""


class Session:
    """What stays warm between the runs of one process: the base model that was loaded last, and its data.

    Once `stop` is set, the run at hand checkpoints and ends in `Interrupted`.
    """

    def __init__(self, *, stop: threading.Event | None = None) -> None:
        self.stop = stop or threading.Event()
        self._base: tuple[str, Base] | None = None
        self._data: tuple[str, dict[str, Split]] = "", {}

    def base(self, config: Config) -> Base:
        """The base model of a configuration, loaded anew only if it is another one than the last."""
        device = pick_device(config["hardware"])
        key = json.dumps([config["model"], config["training"]["precision"], str(device)], sort_keys=True)
        if self._base is None or self._base[0] != key:
            self._base = None  # two base models never share the device
            self._base = key, load_base(config["model"], precision=config["training"]["precision"], device=device)
        return self._base[1]

    def split(self, config: Config, name: str) -> Split:
        """One split of a configuration's data; those of the last data set are kept."""
        key = json.dumps([config["dataset"], config["data"]], sort_keys=True)
        if self._data[0] != key:
            self._data = key, {}
        splits = self._data[1]
        if name not in splits:
            splits[name] = load_split(config, name)
        return splits[name]


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


def pick_device(hardware: Config) -> torch.device:
    """The device of a hardware config; `auto` takes CUDA where there is some. Errors: CUDA asked for and not there."""
    if hardware["device"] == "cuda" and not torch.cuda.is_available():
        raise ActshiftError(
            f"hardware '{hardware['name']}' asks for CUDA, but torch {torch.__version__} sees no CUDA device here. "
            "Use hardware=cpu, or install a CUDA build of torch."
        )
    if hardware["device"] == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(hardware["device"])


def run(config: Config, *, session: Session | None = None, progress: Progress | None = None) -> Record:
    """Do what a resolved configuration says and return the record of the stage's split.

    Errors: `Busy`, and whatever made the run fail, after it was noted in the store.
    """
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
        except Exception:
            if not claim.lost:
                store.fail(identity, split, traceback.format_exc())
            raise
        return record


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
        if pick_device(config["hardware"]).type == "cpu":
            torch.set_num_threads(config["hardware"]["threads"])
        task = get_task(config["dataset"]["task"])
        scored = self.session.split(config, split)  # before the model: a missing file should cost seconds
        base = self.session.base(config)
        adaptation = attach(base, config=config["method"], seeds=(config["seed"],))
        tracker = start_tracker(config, identity=self.identity, folder=self._folder)
        try:
            trained = self._take_over(adaptation) or self._train(base, adaptation, task=task, tracker=tracker)
            started = time.monotonic()
            predictions = self._evaluate(base, adaptation, task=task, split=scored, name=split, trained=trained)
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
                "threads": config["hardware"]["threads"],
                "precision": config["training"]["precision"],
                "data": {"train": trained.train_fingerprint, split: scored.fingerprint},
                "source": config["data"]["source"],
                "scale": config["model"]["scale"],
                "scoring": "generation",
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
        facts = read_facts(self._folder / "adapter")
        if facts is None:
            return None
        trained = Trained(**facts["trained"])
        if trained.identity != self.identity:
            raise ActshiftError(f"{self._folder / 'adapter'} belongs to run {trained.identity}, not {self.identity}")
        adaptation.load_state_dict(read_tensors(self._folder / "adapter", "adapter"))
        return trained

    def _train(self, base: Base, adaptation: Adaptation, *, task: Task, tracker: Tracker) -> Trained:
        config, training, started = self.config, self.config["training"], time.monotonic()
        if base.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        train_split = self.session.split(config, "train")
        rows = self._examples(base, train_split, task=task)
        watched = self._examples(base, self.session.split(config, "validation"), task=task)
        stop = self.session.stop
        checkpoints = Checkpoints(self._folder, every=config["hardware"]["checkpoint_every"], stop=stop)

        def report(step: int, steps: int, loss: float, lr: float) -> None:
            tracker.step(step, loss=loss, lr=lr)
            self.progress.update(step, steps, f"loss {loss:.3f}")
            if stop.is_set() and step < steps:  # the last step is followed by the adapter itself
                raise Interrupted

        self.progress.start("train")
        curves = train(
            base,
            adaptation,
            rows=rows,
            validation_rows=[watched[row] for row in range(min(len(watched), training["validation_rows"]))],
            training=training,
            lr=config["lr"],
            seed=config["seed"],
            micro_batch=config["hardware"]["micro_batch"],
            checkpoints=checkpoints,
            progress=report,
        )
        self.progress.end()
        trained = self._trained(base, adaptation, rows=rows, split=train_split, curves=curves, started=started)
        write_folder(
            self._folder / "adapter",
            tensors={"adapter": adaptation.state_dict()},
            facts={"trained": vars(trained), "config": dict(config), "curves": vars(curves)},
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
            diverged=curves.diverged_at is not None,
            trainable_parameters=adaptation.trainable_parameters(),
            total_parameters=base.parameters,
            train_fingerprint=split.fingerprint,
            truncated=rows.truncated,
            lost_answers=rows.lost_answers,
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
        self, base: Base, adaptation: Adaptation, *, task: Task, split: Split, name: str, trained: Trained
    ) -> list[Prediction]:
        """The predictions on a split, kept with the run; none of a diverged run, whose model says nothing."""
        if trained.diverged:
            return []
        rows = tokenize(
            split, task=task, tokenizer=base.tokenizer, end_token=False, max_tokens=None, cache=self.store.cache
        )
        self.progress.start(f"evaluate {name}")

        def report(rows_done: int, rows_all: int) -> None:
            self.progress.update(rows_done, rows_all)
            if self.session.stop.is_set():
                raise Interrupted

        predictions = predict(
            base,
            adaptation,
            task=task,
            rows=rows,
            max_new_tokens=self.config["dataset"]["max_new_tokens"],
            batch_tokens=self.config["hardware"]["evaluation_tokens"],
            progress=report,
        )
        self.progress.end()
        write_predictions(self._folder / f"predictions-{name}.jsonl", predictions)
        return predictions


def _metrics(predictions: list[Prediction], *, rows: int, trained: Trained) -> dict[str, Any]:
    """Accuracy in percent over the whole split. A diverged run has answered nothing, so it scores 0."""
    correct = sum(prediction.correct for prediction in predictions)
    return {
        "accuracy": 100 * correct / rows,
        "rows": rows,
        "correct": correct,
        "trainable_parameters": trained.trainable_parameters,
        "total_parameters": trained.total_parameters,
        "final_loss": None if trained.diverged else trained.final_loss,
        "steps": trained.steps,
        "diverged": trained.diverged,
        "rows_touched": {"truncated": trained.truncated, "lost_answers": trained.lost_answers},
    }
