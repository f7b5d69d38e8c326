"""A run's splits: parts of hub splits, cut by the datasets library's own calls so that they are the released ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from actshift.data.overlaps import question_keys
from actshift.data.sources import hub_split
from actshift.errors import ActshiftError, unknown
from actshift.schema.config import Config
from actshift.schema.data import SPLITS, SplitConfig, SplitsConfig
from actshift.tasks import task_of, tested_by_ifeval
from actshift.tasks.base import Task
from actshift.tasks.verifiable.task import packaged_rows

if TYPE_CHECKING:
    from datasets import Dataset

PARTS = {"whole": None, "rest": "train", "held_out": "test"}
"""What a rule may keep, and the name that `train_test_split` gives to that part."""

LATER = {"train": ("validation", "test"), "validation": ("test",), "test": ()}


@dataclass(frozen=True)
class Split:
    """Rows in the order in which they are used, and the first 16 hex digits of the SHA-256 of their JSON.

    `overlap` counts the rows of the whole split whose question a later one asks too: left out, or kept and counted.
    """

    rows: list[dict[str, Any]]
    fingerprint: str
    overlap: int = 0


def load_split(config: Config, split: str) -> Split:
    """The rows of one split of a resolved run config: its rule, then ``data.overlap``, then its ``data.limit``.

    Raises `ActshiftError` where the rules let two splits share rows, where the data set has no such split, and for
    everything that `hub_split` refuses.
    """
    data = config.data
    if split not in SPLITS:
        raise unknown("split", split, SPLITS, where="data.splits")
    check_rules(data.splits)
    limit = data.limit.of(split)
    rows, overlap = _without_overlap(config, split, _part(config, split))
    rows = rows[:limit]
    return Split(rows=rows, fingerprint=fingerprint(rows), overlap=overlap)


def _part(config: Config, split: str) -> list[dict[str, Any]]:
    """The rows that a split's rule keeps."""
    dataset, data = config.dataset, config.data
    rule = data.splits.by_name()[split]
    if split == "test" and rule is None and tested_by_ifeval(dataset):
        return list(packaged_rows())
    if rule is None:
        raise ActshiftError(f"{dataset.name} has no {split} split: nothing is scored there.")
    whole = hub_split(dataset, rule.source, source=data.source, directory=data.dir)
    return apply_rule(whole, rule, name=split).to_list()


def _without_overlap(config: Config, split: str, rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The rows to use and how many of all ask a question of a later split: train, then validation, then test."""
    data = config.data
    later = [name for name in LATER.get(split, ()) if data.splits.by_name()[name] is not None]
    # The generator repeats no prompt: what a procedural question shares with another is its words, not its passage.
    if data.overlap == "ignore" or data.source == "procedural" or not later:
        return rows, 0
    task = task_of(config.dataset)
    try:
        later_questions = {key for name in later for key in question_keys(_part(config, name), task=task)}
    except ActshiftError as error:
        raise ActshiftError(
            f"{error} It is read to see which rows of {split} ask its questions; data.overlap=ignore does without."
        ) from error
    repeated = [key in later_questions for key in question_keys(rows, task=task)]
    if data.overlap == "drop":
        rows = [row for row, repeats in zip(rows, repeated, strict=True) if not repeats]
    return rows, sum(repeated)


def apply_rule(dataset: Dataset, rule: SplitConfig, *, name: str) -> Dataset:
    """The part of a hub split that a `SplitConfig` keeps; in memory, whatever the source."""
    check_rule(rule, name=name)
    if rule.shuffle:
        dataset = dataset.shuffle(seed=rule.seed, keep_in_memory=True)
    part = PARTS[rule.keep]
    if part is None:
        return dataset
    try:
        parts = dataset.train_test_split(test_size=rule.hold_out, seed=rule.seed, keep_in_memory=True)
    except ValueError as error:
        raise ActshiftError(f"data.splits.{name}: {len(dataset)} rows cannot be split: {error}.") from error
    return parts[part]


def check_rule(rule: SplitConfig, *, name: str) -> None:
    """Refuses a share to hold out that does not fit the part."""
    share = rule.hold_out
    if rule.keep == "whole" and share != 0:
        raise ActshiftError(
            f"data.splits.{name}: keep=whole holds nothing out, but hold_out is {share}. Set keep to rest or held_out."
        )
    if rule.keep != "whole" and not 0 < share < 1:
        raise ActshiftError(f"data.splits.{name}.hold_out must be between 0 and 1 (a share), got {share}.")


def check_rules(rules: SplitsConfig) -> None:
    """Refuses rules under which a row could be in two splits; needs no data.

    Two splits of one hub split are disjoint only as the two parts of the very same cut.
    """
    given = {name: rule for name, rule in rules.by_name().items() if rule is not None}
    for name, rule in given.items():
        check_rule(rule, name=name)
    for (name, rule), (other_name, other) in combinations(given.items(), 2):
        same_cut = (rule.hold_out, rule.shuffle, rule.seed) == (other.hold_out, other.shuffle, other.seed)
        parts = {rule.keep, other.keep}
        if rule.source == other.source and not (same_cut and parts == {"rest", "held_out"}):
            raise ActshiftError(
                f"data.splits.{name} and data.splits.{other_name} would share rows of '{rule.source}': give one "
                "keep=rest and the other keep=held_out, with the same hold_out, shuffle and seed."
            )


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """16 hex digits over the canonical JSON of the rows: their content and their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()[:16]


def overlap(a: Split, b: Split, *, task: Task) -> int:
    """How many rows of `b` have a prompt that is also a prompt of `a`: repeats in the data themselves."""
    prompts = {task.prompt(row) for row in a.rows}
    return sum(task.prompt(row) in prompts for row in b.rows)
