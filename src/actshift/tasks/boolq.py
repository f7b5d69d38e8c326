"""BoolQ: yes/no questions about a passage (google/boolq)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.world import draw_facts, wrong_colour

_AFTER_ANSWER = {
    "paper": re.compile(r"answer\s*:\s*(true|false)(?!\w)"),
    "released": re.compile(r"answer\s*:\s*(true|false)"),
}
_STANDALONE = re.compile(r"\b(true|false)\b")


class BoolQ(Task):
    """Score: the first `answer: true/false`, else the first standalone true/false; case does not matter."""

    name = "boolq"
    columns = ("question", "answer", "passage")
    difficulty = ("facts", "traps")
    texts = ("question", "passage")
    multiple_choice = True

    def prompt(self, row: Row) -> str:
        return (
            "Answer the question with a true/false based on the given passage.\n"
            f"Passage: {row['passage']}\n"
            f"Question: {row['question']}\n"
        )

    def wrong(self, row: Row) -> str | None:
        flag = row["answer"]
        return None if isinstance(flag, bool) else f"answer must be true or false without quotation marks, got {flag!r}"

    def question(self, row: Row) -> str:
        return str(row["question"])

    def answer(self, row: Row) -> str:
        return self.options(row)[self.label(row)]

    def label(self, row: Row) -> str:
        return "True" if row["answer"] else "False"

    def options(self, row: Row) -> dict[str, str]:
        return {label: f"Answer: {label}." for label in ("True", "False")}

    def extract(self, output: str) -> str | None:
        text = self.read(output).lower()
        named = _AFTER_ANSWER[self.rule].search(text) or _STANDALONE.search(text)
        return named.group(1).capitalize() if named else None

    def decided(self, output: str) -> bool:
        # A standalone true/false would yield to an `answer: true/false` that comes later.
        text = self.read(output).lower()
        named = _AFTER_ANSWER[self.rule].search(text)
        # At the very end it may still become another word, as in "falsehood".
        return named is not None and (self.rule == "released" or named.end() < len(text))

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """`facts`: how many facts a passage has. Half of the questions are false in the thing's colour, and `traps`
        percent of those name the colour of another thing in the passage."""
        facts = draw_facts(rng, count=difficulty["facts"])
        fact, truth = rng.choice(facts), rng.random() < 0.5
        colour = fact.colour if truth else wrong_colour(rng, facts, fact, traps=difficulty["traps"] / 100)
        return {
            "question": f"does {fact.person} have a {colour} {fact.thing}",
            "answer": truth,
            "passage": " ".join(map(str, facts)),
        }
