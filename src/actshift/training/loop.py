"""The training loop: AdamW over whatever a method trains, the loss taken per answer token of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from actshift.data.examples import Example, Rows
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.last_layer import packed_passes
from actshift.observe import profiling
from actshift.observe.profiling import phase
from actshift.training.batches import (
    Batch,
    answer_losses,
    answer_tokens,
    collate,
    micro_batches,
    step_rows,
    warmup_steps,
)
from actshift.training.checkpoints import Checkpoints
from actshift.training.optimizers import build_optimizer

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names of the schedules: transformers' names. All of them warm up linearly."""

StepCallback = Callable[[int, int, Sequence["Curves"]], None]
"""Called after each step with the steps done, the steps planned, and the curves so far of each replica."""


@dataclass
class Curves:
    """What training looked like, a point a step: mean loss per answer token (nats), learning rate, validation loss."""

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, mean loss per answer token of the watched validation rows)."""
    diverged_at: int | None = None

    def add(self, step: int, *, loss: float, lr: float) -> None:
        """Note a step; one whose loss is not finite is where training diverged."""
        self.loss.append(loss)
        self.lr.append(lr)
        if not math.isfinite(loss):
            self.diverged_at = step


def train(
    base: Base,
    adaptation: Adaptation,
    *,
    rows: Rows,
    validation_rows: Sequence[Example],
    training: Mapping[str, Any],
    lrs: Sequence[float],
    seeds: Sequence[int],
    micro_batch: int,
    checkpoints: Checkpoints,
    progress: StepCallback,
    gradient_checkpointing: bool = False,
) -> list[Curves]:
    """Train an attached method by a resolved training config and return the curves of each replica.

    A replica's loss of a step is the sum over the answer tokens of its own rows divided by their number, whatever the
    micro-batches (`micro_batch` rows of each replica); the order of its rows follows from its seed. Each has its own
    learning rate, clipping and optimizer state, so that A replicas together equal A runs of one within rounding. An
    interrupted training continues from its newest checkpoint; on a CPU it then equals an uninterrupted one bit for
    bit. A replica whose loss is not finite stops there, `diverged_at` names the step, and the others go on.
    """
    _check_replicas(adaptation, lrs=lrs, seeds=seeds)
    plan = {key: training[key] for key in ("batch_size", "epochs", "max_steps")}
    orders = [step_rows(len(rows), **plan, seed=seed) for seed in seeds]
    steps = len(orders[0])
    optimizer = _optimizer(adaptation, training=training, lrs=lrs, seed=seeds[0])
    scheduler = _scheduler(optimizer, schedule=training["schedule"], steps=steps)
    torch.manual_seed(seeds[0])
    done, curves = _restore(checkpoints, adaptation, optimizer, scheduler) or (0, [Curves() for _ in seeds])
    adaptation.begin(steps=steps, steps_per_epoch=math.ceil(len(rows) / training["batch_size"]))
    watched = _watch_points(steps, points=training["validations"]) if validation_rows else set()
    rate_groups = _rate_groups(adaptation, optimizer)
    # A backward pass that recomputes is a packed pass again, so all steps are within `packed_passes`.
    with _mode(base.model, training=True), _recomputing(base.model, gradient_checkpointing), packed_passes(base):
        for step in range(done + 1, checkpoints.last(steps) + 1):
            profiling.step()
            with phase("data"):
                blocks = [[rows[row] for row in order[step - 1]] for order in orders]
            rates = [float(scheduler.get_last_lr()[group]) for group in rate_groups]
            adaptation.before_step(step)
            alive = _alive(curves)
            losses = _losses(base, adaptation, blocks=blocks, alive=alive, micro_batch=micro_batch, step=step)
            for replica in alive:
                curves[replica].add(step, loss=losses[replica], lr=rates[replica])
            if not (alive := _alive(curves)):
                break
            with phase("optimizer"):
                _update(adaptation, optimizer, alive=alive, clip=training["clip"])
            adaptation.after_step(step, losses)
            scheduler.step()
            if step in watched:
                means = mean_loss(base, adaptation, rows=validation_rows, micro_batch=micro_batch)
                for replica in alive:
                    curves[replica].validation.append((step, means[replica]))
            if checkpoints.due(step) and step < steps:
                state = {"curves": [vars(each) for each in curves], "scheduler": _plain(scheduler.state_dict())}
                checkpoints.save(step, adaptation=adaptation, optimizer=optimizer, facts=state)
            progress(step, steps, curves)
    return curves


def _check_replicas(adaptation: Adaptation, *, lrs: Sequence[float], seeds: Sequence[int]) -> None:
    if not len(lrs) == len(seeds) == adaptation.replicas:
        raise ValueError(f"{adaptation.replicas} replicas, but {len(lrs)} learning rates and {len(seeds)} seeds")


def _optimizer(
    adaptation: Adaptation, *, training: Mapping[str, Any], lrs: Sequence[float], seed: int
) -> torch.optim.Optimizer:
    groups = adaptation.parameter_groups(lrs=tuple(lrs))
    return build_optimizer(training["optimizer"], groups, weight_decay=training["weight_decay"], seed=seed)


def _scheduler(
    optimizer: torch.optim.Optimizer, *, schedule: Mapping[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        SCHEDULES[schedule["kind"]],
        optimizer,
        num_warmup_steps=warmup_steps(schedule["warmup"], steps=steps),
        num_training_steps=steps,
    )
    return scheduler


def _restore(
    checkpoints: Checkpoints,
    adaptation: Adaptation,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> tuple[int, list[Curves]] | None:
    """Take the newest checkpoint over: the steps done and the curves so far; None where there is no checkpoint."""
    found = checkpoints.restore(adaptation=adaptation, optimizer=optimizer)
    if found is None:
        return None
    scheduler.load_state_dict(found["scheduler"])
    # The scheduler sets the optimizer's rates when it steps, and not when it is loaded.
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    return found["step"], [_curves(state) for state in found["curves"]]


def _losses(
    base: Base,
    adaptation: Adaptation,
    *,
    blocks: Sequence[Sequence[Example]],
    alive: Sequence[int],
    micro_batch: int,
    step: int,
) -> list[float]:
    """The loss of each replica's rows, and the gradients of the living ones' in their parameters."""
    # A step whose rows lost every answer token (cut by the protocol's length) has a loss and gradients of zero.
    tokens_A = torch.tensor([max(answer_tokens(block), 1) for block in blocks], device=base.device)
    total_A = torch.zeros(len(blocks), dtype=torch.float64, device=base.device)
    for batch in _batches(base, blocks, size=micro_batch):
        with phase("forward"):
            loss_A = answer_losses(base, adaptation, batch).sum(1)
        with phase("backward"):
            (loss_A / tokens_A)[alive].sum().backward()
        total_A += loss_A.detach()
    penalty = adaptation.penalty(step)
    if penalty is not None:
        penalty.backward()
    losses: list[float] = (total_A / tokens_A).tolist()
    return losses


def _update(adaptation: Adaptation, optimizer: torch.optim.Optimizer, *, alive: Sequence[int], clip: float) -> None:
    """One optimizer step of the living replicas, each clipped by its own norm; the others stay as they are."""
    for replica in range(adaptation.replicas):
        parameters = [parameter for _, parameter in adaptation.named_parameters(replica)]
        if replica not in alive:
            for parameter in parameters:
                parameter.grad = None  # which is what the optimizer skips: a gradient of zero would still move it
        elif clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def mean_loss(base: Base, adaptation: Adaptation, *, rows: Sequence[Example], micro_batch: int) -> list[float]:
    """Mean negative log-likelihood per answer token (nats) of some rows by each replica, nothing being trained."""
    blocks = [rows] * adaptation.replicas
    total_A = torch.zeros(len(blocks), dtype=torch.float64, device=base.device)
    with _mode(base.model, training=False):
        for batch in _batches(base, blocks, size=micro_batch):
            total_A += answer_losses(base, adaptation, batch).sum(1)
    means: list[float] = (total_A / max(answer_tokens(rows), 1)).tolist()
    return means


def _batches(base: Base, blocks: Sequence[Sequence[Example]], *, size: int) -> Iterator[Batch]:
    """Micro-batches of at most `size` rows of each block."""
    for rows in micro_batches(blocks, most=size):
        with phase("data"):
            batch = collate(rows, pad_id=base.pad_id, device=base.device)
        yield batch


def _alive(curves: Sequence[Curves]) -> list[int]:
    """The replicas that have not diverged."""
    return [replica for replica, each in enumerate(curves) if each.diverged_at is None]


def _rate_groups(adaptation: Adaptation, optimizer: torch.optim.Optimizer) -> list[int]:
    """For each replica, the optimizer's group whose learning rate its curve shows: that of its first parameter."""
    group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    firsts = [next(adaptation.named_parameters(replica))[1] for replica in range(adaptation.replicas)]
    return [group_of[id(parameter)] for parameter in firsts]


@contextmanager
def _mode(model: PreTrainedModel, *, training: bool) -> Iterator[None]:
    """Training mode, in which dropout acts, or evaluation mode, in which a base model otherwise is."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


@contextmanager
def _recomputing(model: PreTrainedModel, wanted: bool) -> Iterator[None]:
    """Layers that keep their input alone and are computed again in the backward pass, where that is `wanted`."""
    if not wanted:
        yield
        return
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # transformers 5.23's name
    getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        getattr(model, f"{kind}_checkpointing_disable")()


def _watch_points(steps: int, *, points: int) -> set[int]:
    """The steps after which the validation loss is computed: evenly spread, the last step among them."""
    return {round(steps * point / points) for point in range(1, points + 1)} - {0}


def _curves(state: Mapping[str, Any]) -> Curves:
    """Curves as a checkpoint's JSON gives them back, which knows no tuples."""
    return Curves(**{**state, "validation": [(step, loss) for step, loss in state["validation"]]})


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its functions, which are built anew: numbers and lists, fit for JSON."""
    return {key: value for key, value in state.items() if key != "lr_lambdas" and not callable(value)} | {
        "lr_lambdas": [None] * len(state["lr_lambdas"])
    }
