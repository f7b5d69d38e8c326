"""The task contract: what a data set asks, what is trained as the answer, and how an output is scored."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

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
    """True where the rule looks at the first match only, so that later text cannot change a score."""

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The text before the answer, its closing newline included (Table 7)."""

    @abstractmethod
    def answer(self, row: Row) -> str:
        """The text that is trained."""

    @abstractmethod
    def label(self, row: Row) -> str:
        """The gold label that `extract` must find in an output."""

    @abstractmethod
    def extract(self, output: str) -> str | None:
        """The label that an output names by the task's rule, or None where it names none."""

    def score(self, output: str, label: str) -> bool:
        """Whether the output names the label."""
        return self.extract(output) == label

    def decided(self, output: str) -> bool:
        """Whether no further text can change what `extract` finds, so that generation may stop here."""
        return self.first_match and self.extract(output) is not None

    @abstractmethod
    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """One procedural row in the hub's schema, drawn from `rng` alone."""
