"""The structured configuration of objectives: what a training step minimizes."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from actshift.schema.fields import choice, number

NORMALIZATIONS = ("token", "sequence", "constant")
"""Over what the loss is averaged: all completion tokens of a step; the tokens of each completion and then the
completions; or, as a sum, divided by the completions and the longest length that they may have."""


@dataclass
class ObjectiveConfig:
    """What every objective has."""

    name: str = MISSING  # the name of its file
    kind: str = choice("sft", "grpo")  # what a step minimizes


@dataclass
class RewardsConfig:
    """The weight of each reward of a completion; 0 leaves it out (actshift.objectives.rewards)."""

    accuracy: float = 0.0  # of an answer that the task's own rule scores as right
    format: float = 0.0  # of a completion that is done and in which that rule finds an answer
    think: float = 0.0  # of exactly one "\n</think>\n" in it, as the released code rewards
    length: float = 0.0  # of a short completion: 1 less its share of the longest length

    def by_name(self) -> dict[str, float]:
        """Each reward's weight."""
        return {"accuracy": self.accuracy, "format": self.format, "think": self.think, "length": self.length}


@dataclass
class GrpoConfig(ObjectiveConfig):
    """Group relative policy optimization (arXiv 2402.03300): completions of a prompt are compared with each other."""

    completions: int = number(least=2)  # of a prompt, which are its group
    updates: int = number(least=1)  # optimizer steps on the completions of a step
    temperature: float = number(above=0)  # of the policy: of its samples and of its probabilities alike
    top_p: float = number(above=0, most=1)  # share of the probability that samples are drawn from; 1: all of it
    max_new_tokens: int = number(least=1)  # that a completion may have
    normalization: str = choice(*NORMALIZATIONS)  # over what the loss is averaged
    scale_by_std: bool = MISSING  # whether a group's rewards are divided by their standard deviation
    clip_low: float = number(least=0, below=1)  # how far below 1 the ratio of probabilities is followed
    clip_high: float = number(least=0)  # how far above 1
    kl: float = number(least=0)  # weight of the divergence from the policy before training; 0 computes none
    shuffle_rewards: bool = False  # a control: each completion gets the reward of another of the step
    rewards: RewardsConfig = field(default_factory=RewardsConfig)


OBJECTIVES: dict[str, type[ObjectiveConfig]] = {"sft": ObjectiveConfig, "grpo": GrpoConfig}
"""By `objective.kind`."""
