"""Winogrande: fill the blank of a sentence with one of two options (allenai/winogrande, debiased)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.world import COMPARATIVES, THINGS

_AFTER_ANSWER = re.compile(r"answer\s*[:\-]")
_OPTION = re.compile(r"\boption\s*([12])\b")


def _first_option(text: str) -> re.Match[str] | None:
    answer = _AFTER_ANSWER.search(text)
    return _OPTION.search(text, answer.end()) if answer else None


class Winogrande(Task):
    """Score: the first option named after the first `answer:`; case does not matter."""

    name = "winogrande"
    columns = ("sentence", "option1", "option2", "answer")
    texts = ("sentence", "option1", "option2")
    multiple_choice = True

    def prompt(self, row: Row) -> str:
        return (
            "Please choose the correct answer to fill in the blank to complete the given sentence: "
            f"{row['sentence']}\nOption1: {row['option1']}\nOption2: {row['option2']}\n"
        )

    def question(self, row: Row) -> str:
        return str(row["sentence"])

    def answer(self, row: Row) -> str:
        return self.options(row)[self.label(row)]

    def label(self, row: Row) -> str:
        return str(row["answer"])

    def options(self, row: Row) -> dict[str, str]:
        return {label: f"Answer: Option{label}." for label in ("1", "2")}

    def extract(self, output: str) -> str | None:
        option = _first_option(self.read(output).lower())
        return option.group(1) if option else None

    def decided(self, output: str) -> bool:
        text = self.read(output).lower()
        option = _first_option(text)
        # At the very end it may still become no option, as `Option1` does in `Option12`.
        return option is not None and option.end() < len(text)

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """Two things compared, then one of them asked for by the same comparative or its opposite."""
        more, less = rng.sample(rng.choice(COMPARATIVES), 2)
        first, second = rng.sample(THINGS, 2)
        asked, answer = rng.choice(((more, "1"), (less, "2")))
        link = rng.choice((", so", " because"))
        return {
            "sentence": f"The {first} is {more} than the {second}{link} the _ is {asked}.",
            "option1": first,
            "option2": second,
            "answer": answer,
        }
