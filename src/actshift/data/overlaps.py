"""Repeated questions: whether a row of one split has the question of a row of another, by its words alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from actshift.errors import ActshiftError
from actshift.schema.data import DatasetConfig
from actshift.tasks.base import Row, Task


@dataclass(frozen=True)
class Overlap:
    """`in_first` rows of the split `first` ask a question of `second`, and `in_second` the other way round."""

    first: str
    second: str
    in_first: int
    in_second: int


def question_key(text: str) -> str:
    """The letters and digits of a question, in compatibility form and without case.

    "is pokemon let's go ..." and "Is Pokemon lets go ...?" are one question; "4 x 5" and "45" would be, too, but no two
    splits of the real data share a question by that alone.
    """
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def question_keys(rows: Iterable[Row], *, task: Task) -> list[str]:
    """The key of each row's question: without passage and options, which vary where the question does not."""
    return [question_key(task.question(row)) for row in rows]


def overlaps(keys: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """The pairs of splits that share questions, given the keys of each split's rows, in the order of the mapping."""
    questions = {name: set(of_split) for name, of_split in keys.items()}
    found = [
        Overlap(
            first,
            second,
            in_first=sum(key in questions[second] for key in keys[first]),
            in_second=sum(key in questions[first] for key in keys[second]),
        )
        for first, second in combinations(keys, 2)
    ]
    return [pair for pair in found if pair.in_first]


def real_keys(dataset: DatasetConfig, *, source: str, directory: str | None) -> dict[str, list[str]]:
    """The keys of every split that a data set's config knows, as "<data set> <split>".

    A local folder gives the splits that it holds, some of them in part (``dataset.local.files``).
    Errors: a procedural source, and those of `actshift.data.sources.hub_split`.
    """
    from actshift.data.sources import has_split, hub_split
    from actshift.tasks import task_of

    if source == "procedural":
        raise ActshiftError(
            "procedural rows repeat no prompt: overlaps are looked for in real data. Give data.source=hub, or "
            "data.source=local data.dir=<folder>."
        )
    task, keys = task_of(dataset), {}
    for split in _source_splits(dataset):
        if source == "local" and not has_split(dataset, split, directory=directory):
            continue
        rows = hub_split(dataset, split, source=source, directory=directory, labelled=False).to_list()
        part = " (part)" if source == "local" and split in dataset.local.files else ""
        keys[f"{dataset.name} {split}{part}"] = question_keys(rows, task=task)
    return keys


def _source_splits(dataset: DatasetConfig) -> list[str]:
    """The splits of the hub, or the files of a folder, that a data set's config names, each once."""
    rules = [rule for splits in dataset.splits.values() for rule in splits.by_name().values() if rule is not None]
    return list(dict.fromkeys([*dataset.hub.rows, *(rule.source for rule in rules)]))
