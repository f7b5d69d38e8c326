"""A run's splits: parts of hub splits, cut by the datasets library's own calls so that they are the released ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError, unknown
from actshift.tasks.base import Task
from actshift.tasks.sources import hub_split

if TYPE_CHECKING:
    from datasets import Dataset

PARTS = {"whole": None, "rest": "train", "held_out": "test"}
"""What a rule may keep, and the name that `train_test_split` gives to that part."""


@dataclass(frozen=True)
class Split:
    """Rows in the order in which they are used, and the first 16 hex digits of the SHA-256 of their JSON."""

    rows: list[dict[str, Any]]
    fingerprint: str


def load_split(config: Mapping[str, Any], split: str) -> Split:
    """The rows of one split of a resolved run config: its rule in ``data.splits``, then its ``data.limit``.

    Raises `ActshiftError` where the rules let two splits share rows, and for everything that `hub_split` refuses.
    """
    data = config["data"]
    if split not in data["splits"]:
        raise unknown("split", split, data["splits"], where="data.splits")
    check_rules(data["splits"])
    rule = data["splits"][split]
    whole = hub_split(config["dataset"], rule["source"], source=data["source"], directory=data["dir"])
    part = apply_rule(whole, rule, name=split)
    limit = data["limit"][split]
    if limit is not None and limit < 1:
        raise ActshiftError(f"data.limit.{split} must be 1 or more, or null for all rows; got {limit}.")
    rows = part.to_list() if limit is None else part.select(range(min(limit, len(part)))).to_list()
    return Split(rows=rows, fingerprint=fingerprint(rows))


def apply_rule(dataset: Dataset, rule: Mapping[str, Any], *, name: str) -> Dataset:
    """The part of a hub split that a `SplitConfig` keeps; in memory, whatever the source."""
    check_rule(rule, name=name)
    if rule["shuffle"]:
        dataset = dataset.shuffle(seed=rule["seed"], keep_in_memory=True)
    part = PARTS[rule["keep"]]
    if part is None:
        return dataset
    try:
        parts = dataset.train_test_split(test_size=rule["hold_out"], seed=rule["seed"], keep_in_memory=True)
    except ValueError as error:
        raise ActshiftError(f"data.splits.{name}: {len(dataset)} rows cannot be split: {error}.") from error
    return parts[part]


def check_rule(rule: Mapping[str, Any], *, name: str) -> None:
    """Refuses an unknown part, and a share to hold out that does not fit the part."""
    if rule["keep"] not in PARTS:
        raise unknown("part", rule["keep"], PARTS, where=f"data.splits.{name}.keep")
    share = rule["hold_out"]
    if rule["keep"] == "whole" and share != 0:
        raise ActshiftError(
            f"data.splits.{name}: keep=whole holds nothing out, but hold_out is {share}. Set keep to rest or held_out."
        )
    if rule["keep"] != "whole" and not 0 < share < 1:
        raise ActshiftError(f"data.splits.{name}.hold_out must be between 0 and 1 (a share), got {share}.")


def check_rules(rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses rules under which a row could be in two splits; needs no data.

    Two splits of one hub split are disjoint only as the two parts of the very same cut.
    """
    for name, rule in rules.items():
        check_rule(rule, name=name)
    for (name, rule), (other_name, other) in combinations(rules.items(), 2):
        same_cut = all(rule[key] == other[key] for key in ("hold_out", "shuffle", "seed"))
        parts = {rule["keep"], other["keep"]}
        if rule["source"] == other["source"] and not (same_cut and parts == {"rest", "held_out"}):
            raise ActshiftError(
                f"data.splits.{name} and data.splits.{other_name} would share rows of '{rule['source']}': give one "
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
