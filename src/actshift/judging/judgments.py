"""Recorded judgments: which of two answers a judge preferred, read from AlpacaEval's files and parsed anew.

A preference is 1 where the reference is better, 2 where the model is, between them where the judge was unsure; 0 in a
file means a draw and is read as 1.5. A judgment that is null is unjudged.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actshift.errors import ActshiftError
from actshift.judging.rows import read_rows

Floats = NDArray[np.float64]
FIRST, SECOND = "m", "M"
"""The judge's names of the answer that it is shown first, and second."""


@dataclass(frozen=True)
class Judgments:
    """One model's judged answers, N rows in the order of the file: names, texts, and y = preference - 1 in 0 to 1.

    `y_N` is NaN where a row is unjudged; lengths are in characters. `first_N`: whether the model's answer was shown to
    the judge before the reference's.
    """

    model: str
    reference: str
    annotator: str
    instructions: tuple[str, ...]
    y_N: Floats
    model_length_N: Floats
    reference_length_N: Floats

    @property
    def judged_N(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.y_N)

    @property
    def first_N(self) -> NDArray[np.bool_]:
        return np.array([is_switched(text) for text in self.instructions])

    def ordered(self, instructions: Sequence[str]) -> Judgments:
        """The same judgments in the order of these instructions."""
        place = {text: number for number, text in enumerate(self.instructions)}
        order = np.array([place[text] for text in instructions])
        return replace(
            self,
            instructions=tuple(instructions),
            y_N=self.y_N[order],
            model_length_N=self.model_length_N[order],
            reference_length_N=self.reference_length_N[order],
        )


def is_switched(instruction: str) -> bool:
    """Whether the judge is shown the model's answer first: a coin whose seed is the instruction, as upstream's."""
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def preference_of(completion: Mapping[str, Any], *, switched: bool) -> float | None:
    """The preference in a judge's first token: 2 - p(m) / (p(m) + p(M)), and 3 minus that where switched.

    `completion` is an answer of the OpenAI protocol with log probabilities, as AlpacaEval records it. A name that is
    not among the recorded tokens counts 0; with neither, the row is unjudged (None). Errors: no log probabilities.
    """
    try:
        tokens = completion["logprobs"]["content"][0]["top_logprobs"]
        share = {token["token"]: math.exp(token["logprob"]) for token in tokens}
    except (KeyError, IndexError, TypeError) as error:
        raise ActshiftError(
            "a judge's answer has no logprobs.content[0].top_logprobs, so there is no preference to read: ask the "
            "judge for log probabilities of its first token"
        ) from error
    first, second = share.get(FIRST, 0.0), share.get(SECOND, 0.0)
    if first + second == 0:
        return None
    raw = 2 - first / (first + second)
    return 3 - raw if switched else raw


def likelier_of(completion: Mapping[str, Any], *, switched: bool) -> float | None:
    """The answer whose name is the likelier first token, as upstream's binary judges read it: 1 or 2.

    Of names that are equally likely the second is taken. None and errors are those of `preference_of`.
    """
    raw = preference_of(completion, switched=False)
    if raw is None:
        return None
    binary = 1.0 if raw < 1.5 else 2.0
    return 3 - binary if switched else binary


def verdict_of(completion: Mapping[str, Any], *, switched: bool) -> float | None:
    """The preference in a judge's text, which must be the name of one answer and nothing else; None of any other.

    Errors: an answer without any message, which an endpoint of another protocol gives.
    """
    message = completion.get("message")
    if not isinstance(message, Mapping):
        raise ActshiftError("a judge's answer has no message, so there is no text to read: is the endpoint a chat's?")
    said = str(message.get("content") or "").strip().strip("*`'\". ")
    if said not in (FIRST, SECOND):
        return None
    raw = 1.0 if said == FIRST else 2.0
    return 3 - raw if switched else raw


def reparsed(row: Mapping[str, Any]) -> float | None:
    """The preference of a recorded row from its raw completion; equal answers are a draw without one."""
    if row["output_1"] == row["output_2"]:
        return 1.5
    return preference_of(row["raw_completion"], switched=is_switched(row["instruction"]))


NEEDED = ("instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference")


def read_judgments(path: Path) -> Judgments:
    """The judgments of one file (annotations.json, JSON lines, or either gzipped).

    Errors: a field that is missing, a preference outside 1 to 2, an instruction that occurs twice, and rows of several
    models, references or judges: their numbers never share a table.
    """
    rows = read_rows(path)
    for number, row in rows:
        missing = [name for name in NEEDED if name not in row]
        if missing:
            raise ActshiftError(f"{path}, row {number} has no {', '.join(missing)}: is it a file of judgments?")
    plain = [row for _, row in rows]
    instructions = tuple(row["instruction"] for row in plain)
    if len(set(instructions)) < len(instructions):
        twice = next(text for text in instructions if instructions.count(text) > 1)
        raise ActshiftError(f"{path}: the instruction {twice[:60]!r} is judged more than once. Keep one row of each.")
    names = {field: _one(plain, field, path) for field in ("generator_2", "generator_1", "annotator")}
    return Judgments(
        names["generator_2"],
        names["generator_1"],
        names["annotator"],
        instructions,
        np.array([_share(row["preference"], f"{path}, row {number}") for number, row in rows]),
        np.array([float(len(row["output_2"])) for row in plain]),
        np.array([float(len(row["output_1"])) for row in plain]),
    )


def _one(rows: Sequence[Mapping[str, Any]], field: str, path: Path) -> str:
    values = sorted({str(row[field]) for row in rows})
    if len(values) > 1:
        raise ActshiftError(f"{path}: {field} is {' and '.join(values)}. Give the rows of each in a file of its own.")
    return values[0]


def _share(preference: object, where: str) -> float:
    """y of a preference; NaN of none."""
    found = preference_in(preference, where)
    return math.nan if found is None else found - 1


def preference_in(value: object, where: str) -> float | None:
    """A file's preference from 1 to 2, where 0 is a draw; None of none. Errors: any other value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (value == 0 or 1 <= value <= 2):
        raise ActshiftError(f"{where}: preference = {value!r} is impossible: it must be 0, from 1 to 2, or null.")
    return 1.5 if value == 0 else float(value)
