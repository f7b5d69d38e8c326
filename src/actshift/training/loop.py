"""The training loop: AdamW over whatever a method trains, by the gradients of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, get_scheduler

from actshift.data.examples import Example, Rows
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.observe import profiling
from actshift.observe.profiling import phase
from actshift.schema.config import ScheduleConfig, TrainingConfig
from actshift.training.batches import step_rows, warmup_steps
from actshift.training.checkpoints import Checkpoints
from actshift.training.objective import Objective, Supervised, model_mode
from actshift.training.optimizers import build_optimizer

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Our names of the schedules: transformers' names. All of them warm up linearly."""

StepCallback = Callable[[int, int, Sequence["Curves"]], None]
"""Called after each step with the steps done, the steps planned, and the curves so far of each replica."""


@dataclass
class Curves:
    """What training looked like, a point a step: the objective's loss, learning rate, and what else it measures."""

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    """(steps done, what the objective finds on the watched validation rows)."""
    diverged_at: int | None = None
    measures: dict[str, list[float]] = field(default_factory=dict)
    """By name, what the objective measures beside its loss; nothing under SFT."""

    def add(self, step: int, *, loss: float, lr: float) -> None:
        """Note a step; one whose loss is not finite is where training diverged."""
        self.loss.append(loss)
        self.lr.append(lr)
        self.check(step, loss=loss)

    def check(self, step: int, *, loss: float) -> None:
        """Note where training diverged, if this loss says so."""
        if not math.isfinite(loss):
            self.diverged_at = step

    def measure(self, values: Mapping[str, float]) -> None:
        """Note what a step measured."""
        for name, value in values.items():
            self.measures.setdefault(name, []).append(value)


def train(
    base: Base,
    adaptation: Adaptation,
    *,
    rows: Rows,
    validation_rows: Sequence[Example],
    training: TrainingConfig,
    lrs: Sequence[float],
    seeds: Sequence[int],
    micro_batch: int,
    checkpoints: Checkpoints,
    progress: StepCallback,
    gradient_checkpointing: bool = False,
    objective: Objective | None = None,
) -> list[Curves]:
    """Train an attached method by a resolved training config and return the curves of each replica.

    A replica's loss of a step is the sum over the answer tokens of its own rows divided by their number, whatever the
    micro-batches (`micro_batch` rows of each replica); the order of its rows follows from its seed. Each has its own
    learning rate, clipping and optimizer state, so that A replicas together equal A runs of one within rounding. An
    interrupted training continues from its newest checkpoint; on a CPU it then equals an uninterrupted one bit for
    bit. A replica whose loss is not finite stops there, `diverged_at` names the step, and the others go on.
    """
    _check_replicas(adaptation, lrs=lrs, seeds=seeds)
    order = partial(
        step_rows, len(rows), batch_size=training.batch_size, epochs=training.epochs, max_steps=training.max_steps
    )
    orders = [order(seed=seed) for seed in seeds]
    steps = len(orders[0])
    objective = objective or Supervised(base, adaptation, micro_batch=micro_batch)
    optimizer = _optimizer(adaptation, training=training, lrs=lrs, seed=seeds[0])
    scheduler = _scheduler(optimizer, schedule=training.schedule, steps=steps)
    torch.manual_seed(seeds[0])
    done, curves = _restore(checkpoints, adaptation, optimizer, scheduler) or (0, [Curves() for _ in seeds])
    adaptation.begin(steps=steps, steps_per_epoch=math.ceil(len(rows) / training.batch_size))
    watched = _watch_points(steps, points=training.validations) if validation_rows else set()
    rate_groups = _rate_groups(adaptation, optimizer)
    with model_mode(base.model, training=True), _recomputing(base.model, gradient_checkpointing), objective.passes():
        for step in range(done + 1, checkpoints.last(steps) + 1):
            profiling.step()
            with phase("data"):
                blocks = [[rows[row] for row in order[step - 1]] for order in orders]
            rates = [float(scheduler.get_last_lr()[group]) for group in rate_groups]
            adaptation.before_step(step)
            objective.prepare(blocks, step=step)
            losses = _updates(adaptation, objective, optimizer, curves, step=step, rates=rates, clip=training.clip)
            if not (alive := _alive(curves)):
                break
            adaptation.after_step(step, losses)
            scheduler.step()
            if step in watched:
                found = objective.watch(validation_rows)
                for replica in alive:
                    curves[replica].validation.append((step, found[replica]))
            if checkpoints.due(step) and step < steps:
                state = {"curves": [vars(each) for each in curves], "scheduler": _plain(scheduler.state_dict())}
                checkpoints.save(step, adaptation=adaptation, optimizer=optimizer, facts=state)
            progress(step, steps, curves)
    return curves


def _updates(
    adaptation: Adaptation,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    curves: Sequence[Curves],
    *,
    step: int,
    rates: Sequence[float],
    clip: float,
) -> list[float]:
    """The optimizer steps that the objective takes on what it prepared; the losses of the first, one a replica."""
    begun, first = _alive(curves), list[float]()
    for update in range(objective.updates):
        alive = _alive(curves)
        losses = objective.backward(update, alive=alive)
        penalty = adaptation.penalty(step)
        if penalty is not None:
            penalty.backward()
        for replica in alive:
            if update == 0:
                curves[replica].add(step, loss=losses[replica], lr=rates[replica])
            else:
                curves[replica].check(step, loss=losses[replica])
        first = first or losses
        if not (alive := _alive(curves)):
            break
        with phase("optimizer"):
            _update(adaptation, optimizer, alive=alive, clip=clip)
    for replica in begun:
        curves[replica].measure(objective.measured(replica))
    return first


def _check_replicas(adaptation: Adaptation, *, lrs: Sequence[float], seeds: Sequence[int]) -> None:
    if not len(lrs) == len(seeds) == adaptation.replicas:
        raise ValueError(f"{adaptation.replicas} replicas, but {len(lrs)} learning rates and {len(seeds)} seeds")


def _optimizer(
    adaptation: Adaptation, *, training: TrainingConfig, lrs: Sequence[float], seed: int
) -> torch.optim.Optimizer:
    groups = adaptation.parameter_groups(lrs=tuple(lrs))
    return build_optimizer(training.optimizer, groups, weight_decay=training.weight_decay, seed=seed)


def _scheduler(
    optimizer: torch.optim.Optimizer, *, schedule: ScheduleConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    scheduler: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        SCHEDULES[schedule.kind],
        optimizer,
        num_warmup_steps=warmup_steps(schedule.warmup, steps=steps),
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


def _alive(curves: Sequence[Curves]) -> list[int]:
    """The replicas that have not diverged."""
    return [replica for replica, each in enumerate(curves) if each.diverged_at is None]


def _rate_groups(adaptation: Adaptation, optimizer: torch.optim.Optimizer) -> list[int]:
    """For each replica, the optimizer's group whose learning rate its curve shows: that of its first parameter."""
    group_of = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    firsts = [next(adaptation.named_parameters(replica))[1] for replica in range(adaptation.replicas)]
    return [group_of[id(parameter)] for parameter in firsts]


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
