"""Rewards of a completion: pure functions by name, and their weighted sum. Needs no torch.

Each is a number from 0 to 1. `actshift.schema.objective.RewardsConfig` has a weight for every name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actshift.tasks.base import Task

THOUGHT_END = "\n</think>\n"


@dataclass(frozen=True)
class Completion:
    """What is rewarded: a text, how many tokens it has of the `limit` it may have, and whether it ended by itself.

    The end token counts as one of its tokens. `label` is the row's gold label.
    """

    text: str
    label: str
    tokens: int
    limit: int
    ended: bool


def accuracy(completion: Completion, task: Task) -> float:
    """1 where the task's own rule scores the text as right, 0 elsewhere."""
    return float(task.score(completion.text, completion.label))


def well_formed(completion: Completion, task: Task) -> float:
    """1 where the task's rule finds an answer in the text, right or wrong, and the completion is done.

    It is done where it ended by itself, or where no further text could change the answer.
    """
    done = completion.ended or task.decided(completion.text)
    return float(done and task.extract(completion.text) is not None)


def think(completion: Completion, task: Task) -> float:
    """1 where the text has exactly one ``\\n</think>\\n``, as the paper's released code rewards its format."""
    return float(completion.text.count(THOUGHT_END) == 1)


def length(completion: Completion, task: Task) -> float:
    """1 - tokens / limit: 0 for a completion that was cut off, near 1 for a short one."""
    return 1 - completion.tokens / completion.limit


REWARDS: dict[str, Callable[[Completion, Task], float]] = {
    "accuracy": accuracy,
    "format": well_formed,
    "think": think,
    "length": length,
}


def chosen(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that are not 0."""
    return {name: weight for name in REWARDS if (weight := weights.get(name, 0))}


def rewards_of(completion: Completion, task: Task, *, weights: Mapping[str, float]) -> dict[str, float]:
    """Each reward whose weight is not 0, by name, not weighted yet."""
    return {name: REWARDS[name](completion, task) for name in chosen(weights)}


def total(rewards: Mapping[str, float], *, weights: Mapping[str, float]) -> float:
    """sum over names of weight x reward."""
    return sum(weights[name] * reward for name, reward in rewards.items())


def best(weights: Mapping[str, float]) -> float:
    """A bound on the weighted sum: every reward with a positive weight at 1, every other at 0."""
    return sum(weight for weight in weights.values() if weight > 0)
