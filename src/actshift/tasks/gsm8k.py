"""GSM8K: grade-school word problems with a worked rationale (openai/gsm8k)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.tasks.base import Row, Task
from actshift.tasks.world import COUNTABLES, PEOPLE

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|[-+]?\.\d+")
_AFTER_ANSWER = re.compile(r"answer\s*:\s*(\S.*)", re.IGNORECASE)
TOLERANCE = 1e-4


def draw_problem(rng: random.Random) -> tuple[str, str, int]:
    """A word problem of one or two steps over small numbers: question, worked steps, result."""
    owner, friend = rng.sample(PEOPLE, 2)
    things = rng.choice(COUNTABLES)
    start, gain = rng.randrange(2, 10), rng.randrange(1, 10)
    total = start + gain
    ask = f"How many {things} does {owner} have now?"
    match rng.randrange(4):
        case 0:
            story = f"{owner} has {start} {things}. {friend} gives {owner} {gain} {things}. {ask}"
            return story, f"{owner} has {start} + {gain} = {total} {things}.", total
        case 1:
            story = f"{owner} has {total} {things}. {owner} gives {friend} {gain} {things}. {ask}"
            return story, f"{owner} has {total} - {gain} = {start} {things}.", start
        case 2:
            ask = f"How many {things} do they have together?"
            story = f"{owner} has {start} {things}. {friend} has {gain} {things}. {ask}"
            return story, f"Together they have {start} + {gain} = {total} {things}.", total
        case _:
            loss = rng.randrange(1, total)
            story = (
                f"{owner} has {start} {things}. {friend} gives {owner} {gain} {things}. "
                f"{owner} loses {loss} {things}. {ask}"
            )
            steps = (
                f"{owner} has {start} + {gain} = {total} {things}.\n"
                f"Then {owner} has {total} - {loss} = {total - loss} {things}."
            )
            return story, steps, total - loss


class Gsm8k(Task):
    """Score: the number after the last `answer:`, else the last number; commas dropped; equal within 1e-4."""

    name = "gsm8k"
    columns = ("question", "answer")
    first_match = False

    def prompt(self, row: Row) -> str:
        return f"{row['question']}\n"

    def answer(self, row: Row) -> str:
        rationale, number = row["answer"].split("####")
        return f"{rationale.strip()}\nAnswer: {number.strip()}"

    def label(self, row: Row) -> str:
        return str(row["answer"].split("####")[1].strip().replace(",", ""))

    def extract(self, output: str) -> str | None:
        answers = _AFTER_ANSWER.findall(output)
        named = _NUMBER.search(answers[-1]) if answers else None
        numbers = [named.group()] if named else _NUMBER.findall(output)
        return numbers[-1].replace(",", "") if numbers else None

    def score(self, output: str, label: str) -> bool:
        number = self.extract(output)
        return number is not None and abs(float(number) - float(label)) <= TOLERANCE

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        question, steps, result = draw_problem(rng)
        return {"question": question, "answer": f"{steps}\n#### {result}"}
