"""The training loop: AdamW over whatever a method trains, the loss taken per answer token of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.tasks.examples import Example, Rows
from actshift.training.batches import Batch, answer_loss, collate, step_rows, warmup_steps
from actshift.training.checkpoints import Checkpoints

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names of the schedules: transformers' names. All of them warm up linearly."""

Progress = Callable[[int, int, float, float], None]
"""Called after each step with the steps done, the steps planned, the step's loss and its learning rate."""


@dataclass
class Curves:
    """What training looked like, a point a step: mean loss per answer token (nats), learning rate, validation loss."""

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, mean loss per answer token of the watched validation rows)."""
    diverged_at: int | None = None


def train(
    base: Base,
    adaptation: Adaptation,
    *,
    rows: Rows,
    validation_rows: Sequence[Example],
    training: Mapping[str, Any],
    lr: float,
    seed: int,
    micro_batch: int,
    checkpoints: Checkpoints,
    progress: Progress,
) -> Curves:
    """Train an attached method by a resolved training config and return its curves.

    A step's loss is the sum over its answer tokens divided by their number, whatever the micro-batches. An
    interrupted run continues from its newest checkpoint; on a CPU it then equals an uninterrupted one bit for bit. A
    loss that is not finite ends the training there: `diverged_at` names the step.
    """
    plan = {key: training[key] for key in ("batch_size", "epochs", "max_steps")}
    steps = step_rows(len(rows), **plan, seed=seed)
    optimizer = torch.optim.AdamW(
        adaptation.parameter_groups(lrs=(lr,)), weight_decay=training["weight_decay"], fused=True
    )
    schedule = training["schedule"]
    scheduler = get_scheduler(
        SCHEDULES[schedule["kind"]],
        optimizer,
        num_warmup_steps=warmup_steps(schedule["warmup"], steps=len(steps)),
        num_training_steps=len(steps),
    )
    torch.manual_seed(seed)
    curves, done = Curves(), 0
    found = checkpoints.restore(adaptation=adaptation, optimizer=optimizer)
    if found is not None:
        done, curves = found["step"], _curves(found["curves"])
        scheduler.load_state_dict(found["scheduler"])
        # The scheduler sets the optimizer's rates when it steps, and not when it is loaded.
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate

    adaptation.begin(steps=len(steps), steps_per_epoch=math.ceil(len(rows) / training["batch_size"]))
    watched = _watch_points(len(steps), points=training["validations"])
    with _mode(base.model, training=True):
        for step in range(done + 1, len(steps) + 1):
            parts = [rows[row] for row in steps[step - 1]]
            batches = [
                collate(parts[start : start + micro_batch], pad_id=base.pad_id, device=base.device)
                for start in range(0, len(parts), micro_batch)
            ]
            curves.lr.append(scheduler.get_last_lr()[0])
            adaptation.before_step(step)
            loss = _step(base, adaptation, optimizer=optimizer, batches=batches, clip=training["clip"], step=step)
            curves.loss.append(loss)
            if not math.isfinite(loss):
                curves.diverged_at = step
                break
            adaptation.after_step(step)
            scheduler.step()
            if step in watched and validation_rows:
                watched_loss = mean_loss(base, adaptation, rows=validation_rows, micro_batch=micro_batch)
                curves.validation.append((step, watched_loss))
            if checkpoints.due(step) and step < len(steps):
                facts = {"curves": vars(curves), "scheduler": _plain(scheduler.state_dict())}
                checkpoints.save(step, adaptation=adaptation, optimizer=optimizer, facts=facts)
            progress(step, len(steps), loss, curves.lr[-1])
    return curves


def _step(
    base: Base,
    adaptation: Adaptation,
    *,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    clip: float,
    step: int,
) -> float:
    """One optimizer step; returns its loss. A loss that is not finite changes nothing."""
    tokens = sum(int(batch.answer_BT[:, 1:].sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        adaptation.observe(batch.prompt_BT)
        loss, _ = answer_loss(base.model, batch)
        # A step whose rows lost every answer token (cut by the protocol's length) has a loss and gradients of zero.
        (loss / max(tokens, 1)).backward()
        total += loss.item()
    penalty = adaptation.penalty(step)
    if penalty is not None:
        penalty.backward()
    mean = total / max(tokens, 1)
    if math.isfinite(mean):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    optimizer.zero_grad()
    return mean


@torch.no_grad()
def mean_loss(base: Base, adaptation: Adaptation, *, rows: Sequence[Example], micro_batch: int) -> float:
    """Mean negative log-likelihood per answer token (nats) of some rows, nothing being trained."""
    total, tokens = 0.0, 0
    with _mode(base.model, training=False):
        for start in range(0, len(rows), micro_batch):
            batch = collate(rows[start : start + micro_batch], pad_id=base.pad_id, device=base.device)
            adaptation.observe(batch.prompt_BT)
            loss, count = answer_loss(base.model, batch)
            total, tokens = total + loss.item(), tokens + count
    return total / max(tokens, 1)


@contextmanager
def _mode(model: PreTrainedModel, *, training: bool) -> Iterator[None]:
    """Training mode, in which dropout acts, or evaluation mode, in which a base model otherwise is."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _watch_points(steps: int, *, points: int) -> set[int]:
    """The steps after which the validation loss is looked at: evenly spread, the last one among them."""
    return {round(steps * point / points) for point in range(1, points + 1)} - {0}


def _curves(state: Mapping[str, Any]) -> Curves:
    """Curves as a checkpoint's JSON gives them back, which knows no tuples."""
    return Curves(**{**state, "validation": [(step, loss) for step, loss in state["validation"]]})


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its functions, which are built anew: numbers and lists, fit for JSON."""
    return {key: value for key, value in state.items() if key != "lr_lambdas" and not callable(value)} | {
        "lr_lambdas": [None] * len(state["lr_lambdas"])
    }
