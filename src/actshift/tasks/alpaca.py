"""Alpaca: instructions and the responses that are trained (yahma/alpaca-cleaned)."""

from __future__ import annotations

import random
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks.base import Row, Task
from actshift.tasks.gsm8k import draw_problem
from actshift.tasks.world import draw_facts


class Alpaca(Task):
    """No score: a response is good or bad, not right or wrong. IFEval and AlpacaEval test what was tuned on it."""

    name = "alpaca"
    columns = ("instruction", "input", "output")
    texts = ("instruction",)
    scored = False
    first_match = False

    def wrong(self, row: Row) -> str | None:
        """Inputs are blank where there are none, and 28 outputs of Alpaca are: there the end token alone is trained."""
        for name in ("input", "output"):
            if not isinstance(row[name], str):
                return f"{name} must be text, empty where there is none; got {row[name]!r}"
        return None

    def prompt(self, row: Row) -> str:
        """The prompt of Stanford's Alpaca, with the input where there is one; blank inputs are none."""
        given = bool(row["input"].strip())
        context = ", paired with an input that provides further context" if given else ""
        opening = f"Below is an instruction that describes a task{context}. "
        fields = f"### Instruction:\n{row['instruction']}\n\n" + (f"### Input:\n{row['input']}\n\n" if given else "")
        return f"{opening}Write a response that appropriately completes the request.\n\n{fields}### Response:\n"

    def answer(self, row: Row) -> str:
        return str(row["output"])

    def label(self, row: Row) -> str:
        return ""

    def extract(self, output: str) -> str | None:
        return None

    def score(self, output: str, label: str) -> bool:
        raise ActshiftError("an instruction has no right answer that an output could be compared with")

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """Half of the rows ask about a passage, which is their input; the other half are word problems without one."""
        if rng.random() < 0.5:
            story, steps, _ = draw_problem(rng)
            return {"instruction": story, "input": "", "output": steps}
        facts = draw_facts(rng, count=2)
        fact = rng.choice(facts)
        passage = " ".join(map(str, facts))
        return {"instruction": f"What does {fact.person} have?", "input": passage, "output": str(fact)}
