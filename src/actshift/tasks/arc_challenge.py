"""ARC-Challenge: multiple-choice questions (allenai/ai2_arc)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.world import KINDS, OPPOSITES

_AFTER_ANSWER = re.compile(r"answer\s*[:\-]?\s*\(?([A-E1-5])(?!\w)", re.IGNORECASE)
_STANDALONE = re.compile(r"\b([A-E1-5])\b")


def draw_question(rng: random.Random, *, choices: int) -> tuple[str, str, list[str]]:
    """A question of the small world, its right choice, and `choices` - 1 wrong ones."""
    subject = rng.choice(("kind", "kind", "opposite", "sum"))
    if subject == "kind":
        kind, *others = rng.sample(sorted(KINDS), choices)
        article = "an" if kind[0] in "aeiou" else "a"
        wrong = [rng.choice(KINDS[other]) for other in others]
        return f"Which of these is {article} {kind}?", rng.choice(KINDS[kind]), wrong
    if subject == "opposite":
        pair, *pairs = rng.sample(OPPOSITES, choices)
        word, opposite = rng.sample(pair, 2)
        return f"Which word is the opposite of {word}?", opposite, [rng.choice(other) for other in pairs]
    left, right = rng.randrange(1, 10), rng.randrange(1, 10)
    wrong_sums = rng.sample([number for number in range(2, 19) if number != left + right], choices - 1)
    return f"What is {left} plus {right}?", str(left + right), [str(number) for number in wrong_sums]


class ArcChallenge(Task):
    """Score: `answer (X)` with X in A-E or 1-5, the first one; else a lone standalone label."""

    name = "arc_challenge"
    columns = ("question", "choices", "answerKey")
    difficulty = ("choices",)
    # The fallback asks for a label that stands alone in the whole output, so later text can change a score.
    first_match = False

    def prompt(self, row: Row) -> str:
        choices = row["choices"]
        options = "\n".join(f"({label}) {text}" for label, text in zip(choices["label"], choices["text"], strict=True))
        return f"Answer the following multiple-choice question.\nQuestion: {row['question']}\n{options}\n"

    def answer(self, row: Row) -> str:
        text = row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]
        return f"Answer: ({row['answerKey']}) {text}."

    def label(self, row: Row) -> str:
        return str(row["answerKey"])

    def extract(self, output: str) -> str | None:
        named = _AFTER_ANSWER.search(output)
        if named:
            return named.group(1).upper()
        standalone = _STANDALONE.findall(output)
        return standalone[0] if len(standalone) == 1 else None

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """`choices`: how many options a question has, 2 to 5."""
        if not 2 <= difficulty["choices"] <= 5:
            raise ValueError("a question has 2 to 5 choices")
        question, right, wrong = draw_question(rng, choices=difficulty["choices"])
        options = [right, *wrong]
        rng.shuffle(options)
        labels = list("ABCDE"[: len(options)])
        return {
            "id": f"procedural_{rng.getrandbits(48):012x}",
            "question": question,
            "choices": {"text": options, "label": labels},
            "answerKey": labels[options.index(right)],
        }
