"""The objective of a run, from its resolved configuration, and what is kept of a training by GRPO."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from actshift.data.chat import chat_of
from actshift.evaluation.limits import batch_tokens
from actshift.evaluation.predictions import Prediction
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.objectives.grpo import Grpo, Settings
from actshift.objectives.outcome import outcome
from actshift.objectives.rewards import Completion, best, chosen, rewards_of, total
from actshift.schema.config import Config
from actshift.schema.objective import GrpoConfig
from actshift.tasks import task_of
from actshift.training.loop import Curves
from actshift.training.objective import Objective, Supervised

POINTS = 40
"""Of a curve that goes into a record; the whole curve stays with the run."""
SUMS = ("tokens", "rollout_seconds", "update_seconds")
"""Measures of which a record has the sum; of the others it has the curve."""


def grpo_of(config: Config) -> GrpoConfig | None:
    """The objective of a run that is trained on rewards of its completions; None of any other."""
    return config.objective if isinstance(config.objective, GrpoConfig) else None


def objective_of(config: Config, base: Base, adaptation: Adaptation, *, seeds: Sequence[int]) -> Objective:
    """The objective that a training loop takes, of runs that differ in learning rate and seed alone."""
    hardware = config.hardware
    if (objective := grpo_of(config)) is None:
        return Supervised(base, adaptation, micro_batch=hardware.micro_batch)
    chat = chat_of(config, base.tokenizer)
    ends = (base.tokenizer.eos_token_id,) if chat is None else chat.ends
    settings = Settings(
        objective=objective,
        task=task_of(config.dataset, rule=config.evaluation.rule),
        seeds=seeds,
        ends=frozenset(ends),
        micro_batch=hardware.micro_batch,
        batch_tokens=batch_tokens(config),
    )
    return Grpo(base, adaptation, settings)


def reinforcement(config: Config, curves: Curves, *, replicas: int) -> dict[str, Any]:
    """What a record tells of a training by GRPO: its outcome, its curves, tokens and seconds; nothing of SFT.

    Of runs that were trained at once, seconds are one run's share.
    """
    if (objective := grpo_of(config)) is None:
        return {}
    measures = curves.measures
    sums = {name: sum(measures[name]) for name in SUMS}
    seconds = {name: round(sums[name] / replicas, 3) for name in SUMS if name != "tokens"}
    return {
        "outcome": outcome(curves, best=best(objective.rewards.by_name())),
        "curves": {name: thinned(values) for name, values in measures.items() if name not in SUMS},
        "mismatch": _mean(measures["mismatch"]),
        "mismatch_max": max(filter(math.isfinite, measures["mismatch_max"]), default=None),
        "tokens": int(sums["tokens"]),
        **seconds,
    }


def reward_metrics(config: Config, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The mean weighted reward of a split's greedy completions, as `reward`; nothing under SFT."""
    if (objective := grpo_of(config)) is None or not predictions:
        return {}
    weights = chosen(objective.rewards.by_name())
    task, limit = task_of(config.dataset, rule=config.evaluation.rule), config.evaluation.max_new_tokens
    completions = [
        Completion(each.output, each.label, min(each.tokens + 1, limit), limit, ended=each.tokens < limit)
        for each in predictions
        if each.tokens is not None
    ]
    found = [total(rewards_of(each, task, weights=weights), weights=weights) for each in completions]
    return {"reward": round(sum(found) / len(found), 6)}


def thinned(values: Sequence[float]) -> list[list[float]]:
    """A curve as means over stretches of equal length, each at the step that it ends with; a diverged tail is left."""
    finite = [value for value in values if math.isfinite(value)]
    ends = sorted({round(len(finite) * point / POINTS) for point in range(1, POINTS + 1)} - {0})
    return [[end, round(sum(finite[start:end]) / (end - start), 5)] for start, end in pairwise([0, *ends])]


def curve_facts(curves: Curves) -> Mapping[str, Any]:
    """The whole curves as they stay with a run: those of what SFT does not measure are left out under SFT."""
    return {name: value for name, value in vars(curves).items() if name != "measures" or value}


def _mean(values: Sequence[float]) -> float | None:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
