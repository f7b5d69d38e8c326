"""Splits: the protocols' rules on the datasets library, no shared rows, fingerprints, overlaps."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from dataset_configs import DATASETS, dataset_config, run_config, task_of

from actshift.data.overlaps import question_keys
from actshift.data.sources import hub_split, read_rows
from actshift.data.splits import Split, apply_rule, check_rules, fingerprint, load_split, overlap
from actshift.errors import ActshiftError
from actshift.schema.data import LimitConfig, SplitsConfig
from actshift.tasks import get_task

SPLITS = ("train", "validation", "test")
REAL = ("boolq", "gsm8k", "arc_challenge", "winogrande", "winogrande_xl", "aqua")

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
    ("aqua", "train"): (2728, "0e6383b0c1791e13", "49578a1dd8a5bc84"),
    ("aqua", "validation"): (254, "e61717d91b8f724a", "f3e2fb7286361f30"),
    ("aqua", "test"): (254, "e61717d91b8f724a", "c5f541a6466876f5"),
}
"""Rows, hash of their indices in the hub split, hash of their prompts and answers. Of AQuA's train split, the part that
there is."""
RELEASED_LISTOPS = (10_000, "e02559b2b84c93de")
"""Rows of the original ListOps test set, which stands in for the hub's, and the hash of their prompts and answers.

Made by the authors' own loaders (SprocketLab/steerling @ 76b60f119a, utils/dataloaders.py) with datasets 5.2.0,
their `load_dataset` replaced by one that reads the real files.
"""


def sha16(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def rules(**changes: dict[str, Any]) -> SplitsConfig:
    """The paper's BoolQ rules with some keys changed."""
    base = dataset_config("boolq").splits["paper"]
    return SplitsConfig(**{name: replace(rule, **changes.get(name, {})) for name, rule in base.by_name().items()})


# --- what the protocols prescribe ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split"), list(RELEASED))
def test_released_indices_are_the_released_loaders(name: str, split: str) -> None:
    from datasets import Dataset

    config = dataset_config(name)
    rule = config.splits["released"].by_name()[split]
    rows = (config.hub.rows | config.local.rows)[rule.source]
    whole = Dataset.from_list([{"index": index} for index in range(rows)])
    indices = list(apply_rule(whole, rule, name=split)["index"])
    assert (len(indices), sha16(indices)) == RELEASED[name, split][:2]


@pytest.mark.parametrize(("name", "split"), list(RELEASED))
def test_released_rows_are_the_released_loaders(name: str, split: str, shared: Path) -> None:
    task = get_task(name)
    rows = load_split(run_config(name, protocol="released", source="local", directory=shared / "data"), split).rows
    assert sha16([[task.prompt(row), task.answer(row)] for row in rows]) == RELEASED[name, split][2]


def test_released_listops_is_the_hub_s_splits_in_the_released_words(shared: Path) -> None:
    task = task_of("listops", rule="released")
    rows = read_rows(shared / "data" / "listops_nyu" / "d20s_test.jsonl.gz", columns=task.columns)
    assert (len(rows), sha16([[task.prompt(row), task.answer(row)] for row in rows])) == RELEASED_LISTOPS
    rules = dataset_config("listops").splits["released"]
    assert {split: (rule.source, rule.keep) for split, rule in rules.by_name().items()} == {
        split: (split, "whole") for split in SPLITS
    }
    assert "<answer>...</answer>" in get_task("listops").prompt(rows[0])
    assert "<answer>\u2026</answer>" in task.prompt(rows[0])


@pytest.mark.parametrize("name", REAL)
def test_paper_splits_of_the_real_data(name: str, shared: Path) -> None:
    config = run_config(name, source="local", directory=shared / "data")
    sizes = [len(load_split(config, split).rows) for split in SPLITS]
    # F.5: 80:20 of BoolQ's and GSM8K's train; ARC-Challenge as the hub splits it. Winogrande's hub test has no labels.
    # Without the rows whose question a later split asks too: see OVERLAP.
    expected = {
        "boolq": [7541 - 6, 1886 - 2, 3270],
        "gsm8k": [5978, 1495, 1319],
        "arc_challenge": [1119 - 7, 299 - 2, 1172],
        "winogrande": [7398, 1850, 1267],
        "winogrande_xl": [32318 - 1, 8080, 1267],
        "aqua": [2728 - 4, 254, 254],  # of train, the part that a folder has
    }
    assert sizes == expected[name]


def test_released_winogrande_is_the_two_halves_of_the_shuffled_validation_split(shared: Path) -> None:
    config = run_config("winogrande", protocol="released", source="local", directory=shared / "data")
    whole = hub_split(config.dataset, "validation", source="local", directory=str(shared / "data"))
    halves = whole.shuffle(seed=42).train_test_split(test_size=0.5, seed=42)
    assert load_split(config, "validation").rows == halves["train"].to_list()
    assert load_split(config, "test").rows == halves["test"].to_list()


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_winogrande_never_reads_the_split_without_labels(protocol: str) -> None:
    config = dataset_config("winogrande")
    assert {rule.source for rule in config.splits[protocol].by_name().values() if rule} == {"train", "validation"}
    assert "test" not in config.hub.rows


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("name", DATASETS)
def test_no_prompt_is_in_two_procedural_splits(name: str, protocol: str) -> None:
    config = run_config(name, protocol=protocol)
    task = task_of(name)
    splits = [load_split(config, split) for split, rule in config.data.splits.by_name().items() if rule is not None]
    assert len(splits) == 3 or name in ("alpaca", "alpaca_cleaned", "code_alpaca")
    assert all(split.rows for split in splits)
    assert all(overlap(a, b, task=task) == 0 for a, b in combinations(splits, 2))


OVERLAP = {
    "boolq": ((6, 2), (6, 0)),
    "gsm8k": ((0, 0), (0, 0)),
    "arc_challenge": ((7, 2), (1, 0)),
    "winogrande": ((0, 0), (0, 0)),
    "winogrande_xl": ((1, 0), (0, 0)),
    "aqua": ((4, 0), (4, 0)),
}
"""Rows whose question a later split asks too, by the words of the question alone: of train and of validation under
`paper`, then under `released`, whose splits of BoolQ and ARC-Challenge leave a part of the hub's test rows unused.
No two rows of different splits have the same prompt."""


@pytest.mark.parametrize("name", REAL)
def test_repeated_questions_of_the_real_data_are_dropped_or_counted(name: str, shared: Path) -> None:
    task, found = task_of(name), []
    for protocol in ("paper", "released"):
        config = run_config(name, protocol=protocol, source="local", directory=shared / "data")
        train, validation, test = (load_split(config, split) for split in SPLITS)
        found.append((train.overlap, validation.overlap))
        assert test.overlap == overlap(train, test, task=task) == overlap(validation, test, task=task) == 0
        keys = [set(question_keys(split.rows, task=task)) for split in (train, validation, test)]
        shared_keys = (keys[0] & (keys[1] | keys[2])) | (keys[1] & keys[2])
        assert bool(shared_keys) is (protocol == "released" and found[-1] != (0, 0))
    assert tuple(found) == OVERLAP[name]


# --- rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("name", DATASETS)
def test_the_rules_of_every_dataset_are_disjoint(name: str, protocol: str) -> None:
    check_rules(dataset_config(name).splits[protocol])


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
        apply_rule(Dataset.from_list([{"index": 0}]), rules().train, name="train")


# --- limits and fingerprints --------------------------------------------------------------------------------------


def test_a_limit_takes_the_first_rows() -> None:
    config = run_config("boolq")
    whole = load_split(config, "validation")
    config.data.limit.validation = 7
    limited = load_split(config, "validation")
    assert limited.rows == whole.rows[:7]
    assert limited.fingerprint != whole.fingerprint
    config.data.limit.validation = 10**6
    assert load_split(config, "validation") == whole


def real_like(tmp_path: Path, **splits: list[str]) -> dict[str, Any]:
    """A BoolQ config on files whose rows ask these questions."""
    (tmp_path / "boolq").mkdir()
    for split, questions in splits.items():
        rows = [{"question": question, "answer": True, "passage": str(at)} for at, question in enumerate(questions)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "boolq" / f"{split}.jsonl").write_text(text)
    config = run_config("boolq", protocol="released", source="local", directory=tmp_path)
    config.dataset.hub.rows = {}
    config.data.splits = SplitsConfig(*(replace(config.data.splits.train, source=name) for name in SPLITS))
    return config


def test_questions_of_later_splits_are_dropped_counted_or_ignored(tmp_path: Path) -> None:
    train = ["is it so", "Is IT so?", "is it", "was it", "has it"]
    config = real_like(tmp_path, train=train, validation=["was it?", "is he"], test=["Is it so", "is  he!"])
    counts = {"drop": ([2, 1, 2], [3, 1, 0]), "count": ([5, 2, 2], [3, 1, 0]), "ignore": ([5, 2, 2], [0, 0, 0])}
    for setting, expected in counts.items():
        config.data.overlap = setting
        splits = [load_split(config, split) for split in SPLITS]
        assert ([len(split.rows) for split in splits], [split.overlap for split in splits]) == expected
    config.data = replace(config.data, overlap="drop", limit=LimitConfig(2, 1, 1))
    assert [row["question"] for row in load_split(config, "train").rows] == ["is it", "has it"]


def test_a_later_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = real_like(tmp_path, train=["is it"], validation=["was it"])
    with pytest.raises(ActshiftError, match=r"no split 'test'.*rows of train ask its questions; data\.overlap=ignore"):
        load_split(config, "train")
    config.data.overlap = "ignore"
    assert len(load_split(config, "train").rows) == 1


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
