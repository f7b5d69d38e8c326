"""ARC-Challenge: multiple-choice questions (allenai/ai2_arc)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.rules import label_is_final, label_of, named_label
from actshift.tasks.world import KINDS, OPPOSITES

_AFTER_ANSWER = {
    "paper": named_label("ABCDE", "12345"),
    "released": re.compile(r"ANSWER\s*[:\-]?\s*\(?([A-E1-5])"),
}
_STANDALONE = {
    # An article and a number with its unit stand alone too, and are no labels.
    "paper": re.compile(r"\b(A(?!\s+[a-z])|[B-E]|(?<![.\d])[1-5](?!\s*\w|\.\d))\b"),
    "released": re.compile(r"\b([A-E1-5])\b"),
}


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
    """Score: `answer (X)` with X in A-E or 1-5, the first one; else a lone standalone label.

    paper: silent; released: all text is read as capitals, and a label may begin a word / here: a label ends where it
    is named, an article or a number with its unit is none, and a standalone one is a capital or a digit.
    """

    name = "arc_challenge"
    columns = ("question", "choices", "answerKey")
    difficulty = ("choices",)
    texts = ("question",)
    multiple_choice = True

    def prompt(self, row: Row) -> str:
        choices = row["choices"]
        options = "\n".join(f"({label}) {text}" for label, text in zip(choices["label"], choices["text"], strict=True))
        return f"Answer the following multiple-choice question.\nQuestion: {row['question']}\n{options}\n"

    def wrong(self, row: Row) -> str | None:
        choices = row["choices"]
        if not isinstance(choices, dict) or not {"label", "text"} <= choices.keys():
            return f"choices must be an object with the lists label and text, got {choices!r}"
        labels, texts = choices["label"], choices["text"]
        if not all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in (labels, texts)):
            return "choices.label and choices.text must be lists of text"
        if len(labels) != len(texts) or len(labels) < 2 or len(set(labels)) < len(labels):
            return f"choices must have at least two labels, all different, and a text for each; got {labels}"
        if bad := [label for label in labels if label not in tuple("ABCDE12345")]:
            return f"choices.label must be of A to E or 1 to 5, got {bad[0]!r}"
        return None

    def question(self, row: Row) -> str:
        return str(row["question"])

    def answer(self, row: Row) -> str:
        return self.options(row)[self.label(row)]

    def label(self, row: Row) -> str:
        return str(row["answerKey"])

    def options(self, row: Row) -> dict[str, str]:
        choices = zip(row["choices"]["label"], row["choices"]["text"], strict=True)
        return {str(label): f"Answer: ({label}) {text}." for label, text in choices}

    def extract(self, output: str) -> str | None:
        text = self.read(output)
        named = _AFTER_ANSWER[self.rule].search(text)
        if named:
            return label_of(named)
        standalone = _STANDALONE[self.rule].findall(text)
        return standalone[0] if len(standalone) == 1 else None

    def decided(self, output: str) -> bool:
        text = self.read(output)
        named = _AFTER_ANSWER[self.rule].search(text)
        # Standing alone is never decided.
        return named is not None and label_is_final(named, text)

    def read(self, output: str) -> str:
        return output.upper() if self.rule == "released" else super().read(output)

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
