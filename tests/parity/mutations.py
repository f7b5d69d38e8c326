"""Outputs as models leave them: real answers, altered in the ways in which scorers are fooled."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from actshift.data.sources import read_rows
from actshift.tasks import TASKS

FILES = {
    "aqua": ("aqua/test.jsonl", "aqua/validation.jsonl", "aqua/train_flan_cot_subset.jsonl"),
    "arc_challenge": ("arc_challenge/test.jsonl", "arc_challenge/train.jsonl"),
    "boolq": ("boolq/validation.jsonl",),
    "gsm8k": ("gsm8k/test.jsonl", "gsm8k/train.jsonl.gz"),
    "listops": ("listops_nyu/d20s_test.jsonl.gz",),
    "winogrande": ("winogrande/validation.jsonl",),
}
TALK = (
    "Let me think. ",
    "The answer is ",
    "the answer because ",
    "Answer choice: ",
    "A good question! ",
    "answered: ",
    "It is a lamp. ",
    "True or false? ",
    "Option1 or Option2? ",
    "So we get 1234 of them, or 10-3, or .5. ",
    "<answer> ",
    "</answer>",
    "\n\nQuestion: is 12,345.50 more than 1e3?",
    " I am sure, 100%.",
    " Hence B, not (C).",
    " option 12",
    " untrue",
    "answer: ",
    "Answer - ",
)
ODD = (("1", "１"), (":", "："), (" ", "\u00a0"), ("-", "−"), ("a", "а"), ("s", "ſ"), ("i", "İ"), ("e", "e\u200b"))
Mutation = Callable[[random.Random, str, str], str]


def _inserted(rng: random.Random, text: str, piece: str) -> str:
    place = rng.randint(0, len(text))
    return text[:place] + piece + text[place:]


def _odd(rng: random.Random, text: str, _: str) -> str:
    common, rare = rng.choice(ODD)
    return text.replace(common, rare)


def _numbers(rng: random.Random, text: str, _: str) -> str:
    forms = (
        lambda number: f"-{number}",
        lambda number: f"{number}.0",
        lambda number: f"{number}.75",
        lambda number: f".{number}",
        lambda number: f"{int(number) * 1000:,}",
        lambda number: str(int(number) * 1000 + 7),
        lambda number: f"${number}",
        lambda number: f"9-{number}",
    )
    form = rng.choice(forms)
    return re.sub(r"\d{1,9}", lambda found: form(found.group()), text)


MUTATIONS: tuple[Mutation, ...] = (
    lambda rng, text, other: text.lower(),
    lambda rng, text, other: text.upper(),
    lambda rng, text, other: text.swapcase(),
    lambda rng, text, other: re.sub(r"\s", lambda found: found.group() * rng.randint(0, 3), text),
    lambda rng, text, other: _inserted(rng, text, rng.choice(" \n\t")),
    lambda rng, text, other: _inserted(rng, text, rng.choice(TALK)),
    lambda rng, text, other: _inserted(rng, text, rng.choice("ABCDE12345,.-:()*_")),
    lambda rng, text, other: rng.choice(TALK) + text,
    lambda rng, text, other: text + rng.choice(TALK),
    lambda rng, text, other: text[: rng.randint(0, len(text))],
    lambda rng, text, other: text[rng.randint(0, len(text)) :],
    lambda rng, text, other: f"{text}\n{other}",
    lambda rng, text, other: f"{other} {text}",
    lambda rng, text, other: text.replace(":", rng.choice(("", " :", " -", ";", " is"))),
    lambda rng, text, other: text.translate({ord(mark): None for mark in rng.sample("().:<>/,", 2)}),
    lambda rng, text, other: re.sub(r"(?i)answer:?\s*", rng.choice(("", "Answer", "answer ", "ANSWER:\n")), text),
    lambda rng, text, other: re.sub(r"\w+(\W*)$", r"**\g<0>**", text),
    lambda rng, text, other: rng.choice(text.split() or [""]),
    _odd,
    _numbers,
)


def pairs(data: Path, *, count: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """`count` of each task: (task, an answer with up to three mutations, its label or another's)."""
    rng = random.Random(seed)
    for name, files in FILES.items():
        task = TASKS[name]
        rows = [row for file in files for row in read_rows(data / file, columns=task.columns)]
        for _ in range(count):
            row, other = rng.sample(rows, 2)
            output = task.answer(row)
            for mutation in rng.choices(MUTATIONS, k=rng.choice((0, 1, 1, 2, 2, 3))):
                output = mutation(rng, output, task.answer(other))
            yield name, output, task.label(row if rng.random() < 0.75 else other)
