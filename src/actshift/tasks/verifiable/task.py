"""IFEval as a task: what tests a model that was tuned on instructions, whose own data have no gold answers."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks.base import Row, Task
from actshift.tasks.verifiable.verdicts import accuracies, prompt_of, verdict


@cache
def packaged_rows() -> tuple[dict[str, Any], ...]:
    """The 541 prompts of IFEval in the hub's schema, in the hub's order; they are shipped with the package."""
    data = files("actshift.tasks.verifiable").joinpath("prompts.jsonl.gz").read_bytes()
    return tuple(json.loads(line) for line in gzip.decompress(data).decode("utf-8").splitlines())


class IFEval(Task):
    """An answer is right where it follows all of its prompt's instructions, strictly: no label is looked for.

    A prompt stands as an instruction without input in `wrap`, the prompt of the data that were trained on.
    """

    name = "ifeval"
    columns = ("key", "prompt", "instruction_id_list", "kwargs")
    texts = ("prompt",)
    first_match = False

    def __init__(self, *, wrap: Callable[[Row], str], rule: str = "paper") -> None:
        super().__init__(rule=rule)
        self._wrap = wrap

    def prompt(self, row: Row) -> str:
        return self._wrap({"instruction": row["prompt"], "input": ""})

    def answer(self, row: Row) -> str:
        """There is none: nothing is trained on these prompts."""
        return ""

    def label(self, row: Row) -> str:
        """The row without its text: what an output is verified against."""
        return json.dumps({name: row[name] for name in ("key", "instruction_id_list", "kwargs")})

    def extract(self, output: str) -> str | None:
        return None

    def score(self, output: str, label: str) -> bool:
        return all(verdict(_prompt(label), output).strict)

    def metrics(self, scored: Sequence[tuple[str, str]]) -> dict[str, float]:
        """Percent of prompts and of instructions followed, strictly and loosely."""
        verdicts = [verdict(_prompt(label), output) for output, label in scored]
        return {
            f"{rows.name}_{way}": value
            for rows in accuracies(verdicts)[:2]
            for way, value in (("strict", rows.strict_pct), ("loose", rows.loose_pct))
        }

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        raise ActshiftError("IFEval's prompts are not generated: they are shipped with the package")


def _prompt(label: str) -> Any:
    return prompt_of({**json.loads(label), "prompt": ""}, where="a prompt of IFEval")
