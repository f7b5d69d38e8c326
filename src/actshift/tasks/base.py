"""The task contract: what a data set asks, what is trained as the answer, and how an output is scored."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from actshift.tasks.rules import plain

Row = Mapping[str, Any]


class Task(ABC):
    """One data set's prompt, answer and scoring rule, as pure functions of a row in the hub's schema.

    The model sees ``prompt(row)`` and is trained on ``answer(row)``. At evaluation it continues the prompt
    greedily and ``score(output, label(row))`` says whether the continuation is right. Nothing here knows a
    tokenizer, a model or a split.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """The hub's columns that the task reads; rows of any source must have them."""
    difficulty: ClassVar[tuple[str, ...]] = ()
    """The settings that `generate` takes; ``dataset.procedural.difficulty`` must give exactly these."""
    first_match: ClassVar[bool] = True
    """True where the rule looks for a first match, so that an output can be decided before it ends."""

    scored: ClassVar[bool] = True
    """False where no output is right or wrong, so that nothing here can score one."""
    multiple_choice: ClassVar[bool] = False
    """True where `options` has the answers that a row can have."""

    def __init__(self, *, rule: str = "paper") -> None:
        self.rule = rule
        """Whose scoring rule it is, and whose wording of the prompt: one of `actshift.tasks.rules.RULES`."""

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The text before the answer, its closing newline included (Table 7)."""

    def question(self, row: Row) -> str:
        """What a row asks, by which two rows are one question: without the passage and the options it may have."""
        return self.prompt(row)

    @abstractmethod
    def answer(self, row: Row) -> str:
        """The text that is trained."""

    @abstractmethod
    def label(self, row: Row) -> str:
        """The gold label that `extract` must find in an output."""

    @abstractmethod
    def extract(self, output: str) -> str | None:
        """The label that an output names by the task's rule, or None where it names none."""

    def options(self, row: Row) -> dict[str, str]:
        """By label, the answer texts that a likelihood can choose among; none where answers are free text."""
        return {}

    def score(self, output: str, label: str) -> bool:
        """Whether the output names the label."""
        return self.extract(output) == label

    def decided(self, output: str) -> bool:
        """Whether no further text can change what `extract` finds, so that generation may stop here."""
        return False

    def read(self, output: str) -> str:
        """An output as the task's rule reads it."""
        return output if self.rule == "released" else plain(output)

    @abstractmethod
    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """One procedural row in the hub's schema, drawn from `rng` alone."""
