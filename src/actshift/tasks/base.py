"""The task contract: what a data set asks, what is trained as the answer, and how an output is scored."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from actshift.errors import ActshiftError
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

    texts: ClassVar[tuple[str, ...]] = ()
    """Those of the columns that must hold text that is not blank."""
    scored: ClassVar[bool] = True
    """False where no output is right or wrong: a validation split has a loss then, and a test split another task."""
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

    def metrics(self, scored: Sequence[tuple[str, str]]) -> dict[str, float]:
        """What a record holds beside the accuracy, from pairs of an output and its label."""
        return {}

    def scores_itself(self, answer: str, label: str) -> bool:
        """Whether the gold answer is right by the paper's rule; the released rules miss some of their own."""
        papers = copy.copy(self)
        papers.rule = "paper"
        return papers.score(answer, label)

    def wrong(self, row: Row) -> str | None:
        """What is wrong with the values of a row's columns, beside its texts; None where nothing is."""
        return None

    def problem(self, row: Row) -> str | None:
        """Why a row cannot be trained on or scored, in words; None where it can.

        Texts are text, the label is one of the options, and under the paper's rule the gold answer scores itself.
        """
        for column in self.texts:
            if not isinstance(row[column], str) or not row[column].strip():
                return f"{column} must be text, got {row[column]!r}"
        if wrong := self.wrong(row):
            return wrong
        try:
            label = self.label(row) if self.scored else ""
            if self.scored and not label.strip():
                return "it has no label: an unlabelled split can be neither trained on nor scored"
            if self.multiple_choice and label not in (options := self.options(row)):
                return f"its label is {label!r}, which is none of its options {', '.join(options)}"
            answer = self.answer(row)
        except (ActshiftError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            return str(error) or type(error).__name__
        if self.scored and not self.scores_itself(answer, label):
            return f"its own answer {answer[-60:]!r} is not scored as right for the label {label!r}"
        return None

    @abstractmethod
    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """One procedural row in the hub's schema, drawn from `rng` alone."""
