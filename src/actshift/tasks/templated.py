"""A data set that a YAML file describes alone: prompt and answer as templates, and one of the named scoring rules."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from actshift.errors import ActshiftError, unknown
from actshift.schema.data import TemplateConfig
from actshift.tasks.arc_challenge import ArcChallenge
from actshift.tasks.base import Row, Task
from actshift.tasks.gsm8k import Gsm8k

_ANSWER = re.compile(r"answer\s*:\s*", re.IGNORECASE)
_TAGS = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)


def template_fields(text: str, *, where: str) -> list[str]:
    """The columns that a template names, as in "Question: {question}"; braces of the text itself are doubled.

    Errors: a field that is not a column's bare name: attributes, indices and formats are not evaluated.
    """
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ActshiftError(f"{where} is no template ({error}): write {{column}}, and {{{{ for a brace") from error
    for _, name, spec, conversion in parts:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ActshiftError(f"{where} has the field {{{name}}}: a field is a column's name and nothing else")
    return list(dict.fromkeys(name for _, name, _, _ in parts if name is not None))


def _first_option(text: str, labels: Sequence[str]) -> re.Match[str] | None:
    """The first label after `answer:`; case does not matter, and a label is a whole word."""
    words = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.search(rf"answer\s*:\s*(?P<label>{words})(?!\w)", text, re.IGNORECASE)


def _first_standalone(text: str, labels: Sequence[str]) -> re.Match[str] | None:
    words = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    return re.search(rf"(?<!\w)(?P<label>{words})(?!\w)", text, re.IGNORECASE)


def extract_first_option(text: str, labels: Sequence[str]) -> str | None:
    """The first label named after `answer:`, else the first label that stands alone; case does not matter."""
    found = _first_option(text, labels) or _first_standalone(text, labels)
    named = found["label"].casefold() if found else None
    return next((label for label in labels if label.casefold() == named), None)


def extract_exact(text: str, labels: Sequence[str]) -> str | None:
    """The rest of the line after the first `answer:`, or the first line, without a closing full stop."""
    named = _ANSWER.search(text)
    line = (text[named.end() :] if named else text.lstrip()).partition("\n")[0].strip().removesuffix(".").strip()
    return line or None


def extract_tags(text: str, labels: Sequence[str]) -> str | None:
    """The text between the first answer tags."""
    tagged = _TAGS.search(text)
    return tagged[1].strip() if tagged else None


@dataclass(frozen=True)
class ScoringRule:
    """How a label is found in an output, and when no further text can change it."""

    extract: Callable[[str, Sequence[str]], str | None]
    decided: Callable[[str, Sequence[str]], bool]


_LETTER, _NUMBER = ArcChallenge(), Gsm8k()
SCORING_RULES = {
    "letter": ScoringRule(lambda text, _: _LETTER.extract(text), lambda text, _: _LETTER.decided(text)),
    "number": ScoringRule(lambda text, _: _NUMBER.extract(text), lambda text, _: False),
    "exact": ScoringRule(extract_exact, lambda text, _: bool(_ANSWER.search(text)) and "\n" in text[_end(text) :]),
    "first_option": ScoringRule(
        extract_first_option,
        # A label at the very end may still become the beginning of another word.
        lambda text, labels: (found := _first_option(text, labels)) is not None and found.end() < len(text),
    ),
    "tags": ScoringRule(extract_tags, lambda text, _: _TAGS.search(text) is not None),
}
"""The rules that a data set's YAML may name in `template.rule`."""


def _end(text: str) -> int:
    named = _ANSWER.search(text)
    return named.end() if named else 0


class Templated(Task):
    """The task of a `dataset.template`: texts by `str.format` on bare column names, labels by a mapping of values."""

    name = "templated"
    columns = ()

    def __init__(self, template: TemplateConfig, *, rule: str = "paper") -> None:
        super().__init__(rule=rule)
        where = "dataset.template"
        needed = {"prompt": template.prompt, "answer": template.answer, "label": template.label, "rule": template.rule}
        if missing := [key for key, value in needed.items() if value is None]:
            raise ActshiftError(f"dataset.task=templated needs {', '.join(f'{where}.{key}' for key in missing)}")
        self._prompt, self._answer, self._label, scoring = (str(value) for value in needed.values())
        if scoring not in SCORING_RULES:
            raise unknown("scoring rule", scoring, SCORING_RULES, where=f"{where}.rule")
        self._labels = {str(value): str(label) for value, label in (template.labels or {}).items()}
        self._scoring = SCORING_RULES[scoring]
        self._is_number = scoring == "number"
        self._question = template.question or self._prompt
        if scoring == "first_option" and not self._labels:
            raise ActshiftError(f"{where}.rule=first_option needs {where}.labels: by value of the column, its label")
        fields = template_fields(self._prompt, where=f"{where}.prompt")
        if self._label in fields:
            raise ActshiftError(
                f"{where}.prompt names the column '{self._label}', which holds the gold label: the model would see the "
                f"answer. Leave {{{self._label}}} out of the prompt."
            )
        fields += template_fields(self._question, where=f"{where}.question")
        fields += [name for name in template_fields(self._answer, where=f"{where}.answer") if name != "label"]
        self.columns = tuple(dict.fromkeys([*fields, self._label]))  # type: ignore[misc, assignment]
        of_label_alone = set(template_fields(self._answer, where=f"{where}.answer")) <= {"label"}
        self.multiple_choice = bool(self._labels) and of_label_alone  # type: ignore[misc]
        self.first_match = not self._is_number  # type: ignore[misc]

    def prompt(self, row: Row) -> str:
        return self._prompt.format_map(row)

    def question(self, row: Row) -> str:
        return self._question.format_map(row)

    def answer(self, row: Row) -> str:
        return self._answer.format_map({**row, "label": self.label(row)})

    def label(self, row: Row) -> str:
        value = str(row[self._label])
        if self._labels and value not in self._labels:
            raise unknown(f"value of the column '{self._label}'", value, self._labels, where="dataset.template.labels")
        return self._labels.get(value, value)

    def options(self, row: Row) -> dict[str, str]:
        labels = self._labels.values() if self.multiple_choice else ()
        return {label: self._answer.format_map({"label": label}) for label in labels}

    def extract(self, output: str) -> str | None:
        return self._scoring.extract(self.read(output), tuple(self._labels.values()))

    def score(self, output: str, label: str) -> bool:
        if self._is_number:
            return _NUMBER.score(output, label)
        found = self.extract(output)
        return found is not None and found.casefold() == label.casefold()

    def decided(self, output: str) -> bool:
        return self._scoring.decided(self.read(output), tuple(self._labels.values()))

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        raise ActshiftError("a data set of a template has no procedural rows: data.source=local or data.source=hub")
