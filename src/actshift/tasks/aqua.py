"""AQuA: multiple-choice algebra problems with a rationale (deepmind/aqua_rat, raw)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.gsm8k import draw_problem
from actshift.tasks.rules import label_of, named_label

_ANSWER = {
    "paper": named_label("ABCDE"),
    "released": re.compile(r"ANSWER\s*[:\-]?\s*\(?([A-E])"),
}
_LETTER = re.compile(r"\b([A-E])\b")


class Aqua(Task):
    """Score: the letter of the last `answer (X)`, X in A-E; else the last standalone letter.

    paper: silent; released: the first `answer X` / here: the last one, for rationales speak of answers before they
    give theirs, a letter must end there (released: `answer because` names B), and a standalone letter is a capital.
    """

    name = "aqua"
    columns = ("question", "options", "rationale", "correct")
    difficulty = ("choices",)
    texts = ("question", "rationale")
    multiple_choice = True
    first_match = False

    def prompt(self, row: Row) -> str:
        options = "\n".join(row["options"])
        return f"Answer the following multiple-choice math question.\nQuestion: {row['question']}\n{options}\n"

    def wrong(self, row: Row) -> str | None:
        options = row["options"]
        if not isinstance(options, list) or len(options) < 2 or not all(isinstance(one, str) for one in options):
            return f"options must be a list of at least two texts, got {options!r}"
        return None

    def question(self, row: Row) -> str:
        return str(row["question"])

    def answer(self, row: Row) -> str:
        return f"{row['rationale'].strip()}\nAnswer: {self.label(row)}."

    def label(self, row: Row) -> str:
        return str(row["correct"])

    def extract(self, output: str) -> str | None:
        text = self.read(output)
        named = list(_ANSWER[self.rule].finditer(text))
        if named:
            return label_of(named[0 if self.rule == "released" else -1])
        letters = _LETTER.findall(text)
        return str(letters[-1]) if letters else None

    def options(self, row: Row) -> dict[str, str]:
        return {letter: f"Answer: {letter}." for letter, _ in zip("ABCDE", row["options"], strict=False)}

    def read(self, output: str) -> str:
        return output.upper() if self.rule == "released" else super().read(output)

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """`choices`: how many options a problem has, 2 to 5. The problems are those of the GSM8K sibling."""
        if not 2 <= difficulty["choices"] <= 5:
            raise ValueError("a question has 2 to 5 choices")
        question, steps, result = draw_problem(rng)
        wrong = rng.sample([number for number in range(1, 19) if number != result], difficulty["choices"] - 1)
        numbers = [result, *wrong]
        rng.shuffle(numbers)
        options = [f"{letter}){number}" for letter, number in zip("ABCDE", numbers, strict=False)]
        return {
            "question": question,
            "options": options,
            "rationale": steps,
            "correct": "ABCDE"[numbers.index(result)],
        }
