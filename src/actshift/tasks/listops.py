"""ListOps: nested list expressions over the digits (Nangia and Bowman, 2018)."""

from __future__ import annotations

import random
import re
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks.base import Row, Task

Tree = int | tuple[str, list["Tree"]]

OPERATORS = ("MIN", "MAX", "MED", "SM")
OPERATOR_PROBABILITY = 0.25

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
MAX_DRAWS = 100_000
"""Trees drawn for one row before its limits are taken to be impossible: seconds."""


def draw_tree(rng: random.Random, *, max_depth: int, max_args: int, depth: int = 1) -> Tree:
    """A tree of the long-range-arena grammar: an operator with probability 1/4 above `max_depth`, else a digit."""
    if depth >= max_depth or rng.random() > OPERATOR_PROBABILITY:
        return rng.randrange(10)
    arguments = rng.randint(2, max_args)
    operator = rng.choice(OPERATORS)
    return operator, [draw_tree(rng, max_depth=max_depth, max_args=max_args, depth=depth + 1) for _ in range(arguments)]


def tree_length(tree: Tree) -> int:
    """1 for a digit, 2 for an operator (itself and its closing bracket), as the grammar's limits count."""
    return 1 if isinstance(tree, int) else 2 + sum(map(tree_length, tree[1]))


def tree_value(tree: Tree) -> int:
    """The digit a tree evaluates to. MED of an even count is the mean of the middle two, truncated; SM is mod 10."""
    if isinstance(tree, int):
        return tree
    operator, values = tree[0], sorted(map(tree_value, tree[1]))
    if operator == "MIN":
        return values[0]
    if operator == "MAX":
        return values[-1]
    if operator == "SM":
        return sum(values) % 10
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2


def tree_text(tree: Tree) -> str:
    """The hub's form: no round brackets, the closing bracket joined to the last argument."""
    return str(tree) if isinstance(tree, int) else f"[{tree[0]} {' '.join(map(tree_text, tree[1]))}]"


class ListOps(Task):
    """Score: the integer inside the first answer tags."""

    name = "listops"
    columns = ("Source", "Target")
    texts = ("Source",)
    difficulty = ("max_depth", "max_args", "min_length", "max_length")

    def prompt(self, row: Row) -> str:
        between = "\u2026" if self.rule == "released" else "..."  # the released prompt has one ellipsis character
        return (
            "Evaluate the value of the following nested list expression.\n"
            f"Return only the final numeric result inside <answer>{between}</answer>.\n\n"
            f"Expression:\n{row['Source']}\n"
        )

    def wrong(self, row: Row) -> str | None:
        value = row["Target"]
        fine = not isinstance(value, bool) and str(value) in tuple("0123456789")
        return None if fine else f"Target must be a digit, got {value!r}"

    def answer(self, row: Row) -> str:
        return f"<answer>{row['Target']}</answer>"

    def label(self, row: Row) -> str:
        return str(row["Target"])

    def extract(self, output: str) -> str | None:
        tagged = _ANSWER.search(self.read(output))
        try:
            return str(int(tagged.group(1))) if tagged else None
        except ValueError:  # no integer, or one of thousands of digits
            return None

    def decided(self, output: str) -> bool:
        return _ANSWER.search(self.read(output)) is not None

    def generate(self, rng: random.Random, **difficulty: int) -> dict[str, Any]:
        """`max_depth`, `max_args`, and the tree's `min_length` and `max_length`, both inclusive."""
        for _ in range(MAX_DRAWS):
            tree = draw_tree(rng, max_depth=difficulty["max_depth"], max_args=difficulty["max_args"])
            if difficulty["min_length"] <= tree_length(tree) <= difficulty["max_length"] and not isinstance(tree, int):
                return {"Source": tree_text(tree), "Target": tree_value(tree)}
        raise ActshiftError(f"no list expression fits {difficulty} in {MAX_DRAWS:,} draws: widen the limits.")
