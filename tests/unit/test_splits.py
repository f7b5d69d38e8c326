"""Splits: the protocols' rules on the datasets library, no shared rows, fingerprints, overlaps."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from dataset_configs import DATASETS, dataset_config, run_config

from actshift.errors import ActshiftError
from actshift.tasks import get_task
from actshift.tasks.sources import hub_split
from actshift.tasks.splits import Split, apply_rule, check_rules, fingerprint, load_split, overlap

SPLITS = ("train", "validation", "test")
REAL = ("boolq", "gsm8k", "arc_challenge", "winogrande", "aqua")

RELEASED = {
    ("boolq", "train"): (9427, "acf446a13117e3b8", "8043a55fceca13b5"),
    ("boolq", "validation"): (2616, "ce69cde2a8b0bea8", "432435160d316e14"),
    ("boolq", "test"): (654, "b6937228a79e1012", "0c364ec782756437"),
    ("gsm8k", "train"): (7473, "5cd888f25a1501de", "19aa7a140269cba8"),
    ("gsm8k", "validation"): (264, "d8d9696ebe4c9c52", "a4c4aa89879c275c"),
    ("gsm8k", "test"): (1055, "e6e82a8006d7ab41", "f8bc187d4d8f9e46"),
    ("arc_challenge", "train"): (1119, "f9438ad03450a17d", "1abfeb973193d680"),
    ("arc_challenge", "validation"): (149, "7c2ecb8e8f38b03c", "ff4bd018a2ddaf7a"),
    ("arc_challenge", "test"): (150, "0887111517a36c3a", "7705316102e4c977"),
    ("winogrande", "train"): (9248, "0a41e70af9f0d126", "66325a955aa440a1"),
    ("winogrande", "validation"): (633, "c163bd639e366772", "89284c753134ef34"),
    ("winogrande", "test"): (634, "a41b3a506c4cc268", "ae697e781c55f08f"),
}
"""Rows, hash of their indices in the hub split, hash of their prompts and answers.

Made by the authors' own loaders (SprocketLab/steerling @ 76b60f119a, utils/dataloaders.py) with datasets 5.2.0,
their `load_dataset` replaced by one that reads the real files.
"""


def sha16(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def rules(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The paper's BoolQ rules with some keys changed."""
    base = dataset_config("boolq")["splits"]["paper"]
    return {name: {**base[name], **changes.get(name, {})} for name in SPLITS}


# --- what the protocols prescribe ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split"), list(RELEASED))
def test_released_indices_are_the_released_loaders(name: str, split: str) -> None:
    from datasets import Dataset

    config = dataset_config(name)
    rule = config["splits"]["released"][split]
    whole = Dataset.from_list([{"index": index} for index in range(config["hub"]["rows"][rule["source"]])])
    indices = list(apply_rule(whole, rule, name=split)["index"])
    assert (len(indices), sha16(indices)) == RELEASED[name, split][:2]


@pytest.mark.parametrize(("name", "split"), list(RELEASED))
def test_released_rows_are_the_released_loaders(name: str, split: str, shared: Path) -> None:
    task = get_task(name)
    rows = load_split(run_config(name, protocol="released", source="local", directory=shared / "data"), split).rows
    assert sha16([[task.prompt(row), task.answer(row)] for row in rows]) == RELEASED[name, split][2]


@pytest.mark.parametrize("name", REAL)
def test_paper_splits_of_the_real_data(name: str, shared: Path) -> None:
    config = run_config(name, source="local", directory=shared / "data")
    sizes = [len(load_split(config, split).rows) for split in SPLITS]
    # F.5: 80:20 of BoolQ's and GSM8K's train; ARC-Challenge as the hub splits it. Winogrande's hub test has no labels.
    expected = {
        "boolq": [7541, 1886, 3270],
        "gsm8k": [5978, 1495, 1319],
        "arc_challenge": [1119, 299, 1172],
        "winogrande": [7398, 1850, 1267],
        "aqua": [2728, 254, 254],  # of train, the part that a folder has
    }
    assert sizes == expected[name]


def test_released_winogrande_is_the_two_halves_of_the_shuffled_validation_split(shared: Path) -> None:
    config = run_config("winogrande", protocol="released", source="local", directory=shared / "data")
    whole = hub_split(config["dataset"], "validation", source="local", directory=str(shared / "data"))
    halves = whole.shuffle(seed=42).train_test_split(test_size=0.5, seed=42)
    assert load_split(config, "validation").rows == halves["train"].to_list()
    assert load_split(config, "test").rows == halves["test"].to_list()


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_winogrande_never_reads_the_split_without_labels(protocol: str) -> None:
    config = dataset_config("winogrande")
    assert {rule["source"] for rule in config["splits"][protocol].values()} == {"train", "validation"}
    assert "test" not in config["hub"]["rows"]


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("name", DATASETS)
def test_no_prompt_is_in_two_procedural_splits(name: str, protocol: str) -> None:
    config = run_config(name, protocol=protocol)
    task = get_task(name)
    splits = [load_split(config, split) for split in SPLITS]
    assert all(split.rows for split in splits)
    assert all(overlap(a, b, task=task) == 0 for a, b in combinations(splits, 2))


def test_repeats_in_the_real_data_are_known(shared: Path) -> None:
    found = {}
    for name in REAL:
        config = run_config(name, source="local", directory=shared / "data")
        train, validation, test = (load_split(config, split) for split in SPLITS)
        task = get_task(name)
        found[name] = (overlap(train, validation, task=task), overlap(train, test, task=task))
    assert found == {"boolq": (0, 0), "gsm8k": (0, 0), "arc_challenge": (0, 0), "winogrande": (0, 0), "aqua": (0, 0)}


# --- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("name", DATASETS)
def test_the_rules_of_every_dataset_are_disjoint(name: str, protocol: str) -> None:
    check_rules(dataset_config(name)["splits"][protocol])


@pytest.mark.parametrize(
    "changes",
    [
        {"validation": {"seed": 43}},
        {"validation": {"hold_out": 0.3}},
        {"validation": {"shuffle": True}},
        {"validation": {"keep": "rest"}},
        {"validation": {"keep": "whole", "hold_out": 0.0}},
        {"test": {"source": "train"}},
        {"test": {"source": "train", "keep": "held_out", "hold_out": 0.2}},
    ],
)
def test_rules_that_share_rows_are_refused(changes: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ActshiftError, match=r"data\.splits\.\w+ and data\.splits\.\w+ would share rows of 'train'"):
        check_rules(rules(**changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": "held-out"}, r"unknown part 'held-out'. Did you mean 'held_out'\?.*data\.splits\.train\.keep"),
        ({"hold_out": 0.0}, r"data\.splits\.train\.hold_out must be between 0 and 1"),
        ({"hold_out": 1.5}, r"data\.splits\.train\.hold_out must be between 0 and 1"),
        ({"keep": "whole"}, "keep=whole holds nothing out, but hold_out is 0.2"),
    ],
)
def test_impossible_rules_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        check_rules(rules(train=change))


def test_a_cut_that_leaves_nothing_is_refused() -> None:
    from datasets import Dataset

    with pytest.raises(ActshiftError, match=r"data\.splits\.train: 1 rows cannot be split"):
        apply_rule(Dataset.from_list([{"index": 0}]), rules()["train"], name="train")


# --- limits and fingerprints --------------------------------------------------------------------------------------


def test_a_limit_takes_the_first_rows() -> None:
    config = run_config("boolq")
    whole = load_split(config, "validation")
    config["data"]["limit"]["validation"] = 7
    limited = load_split(config, "validation")
    assert limited.rows == whole.rows[:7]
    assert limited.fingerprint != whole.fingerprint
    config["data"]["limit"]["validation"] = 10**6
    assert load_split(config, "validation") == whole
    config["data"]["limit"]["validation"] = 0
    with pytest.raises(ActshiftError, match=r"data\.limit\.validation must be 1 or more"):
        load_split(config, "validation")


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ActshiftError, match=r"unknown split 'valid'. Did you mean 'validation'\?"):
        load_split(run_config("boolq"), "valid")


def test_the_fingerprint_is_of_content_and_order_alone() -> None:
    rows = [{"a": 1, "b": {"c": ["x", "ü"], "d": 2}}, {"a": 2, "b": None}]
    same = [{"b": {"d": 2, "c": ["x", "ü"]}, "a": 1}, {"b": None, "a": 2}]
    known = fingerprint(rows)
    assert len(known) == 16 and int(known, 16) >= 0
    assert fingerprint(same) == known
    assert fingerprint(rows[::-1]) != known
    assert fingerprint(rows[:1]) != known
    assert fingerprint([{**rows[0], "a": 3}, rows[1]]) != known


def test_overlap_counts_rows_of_the_second_split() -> None:
    rows = [{"question": f"q{number}", "answer": "#### 1"} for number in range(4)]
    a, b = Split(rows=rows[:3], fingerprint=""), Split(rows=[rows[1], rows[1], rows[3]], fingerprint="")
    task = get_task("gsm8k")
    assert (overlap(a, b, task=task), overlap(b, a, task=task)) == (2, 1)
