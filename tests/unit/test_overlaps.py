"""Questions that splits share: the key that tells them, and the pairs of the real data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_configs import DATASETS, dataset_config, task_of

from actshift.cli import main
from actshift.config.composition import compose
from actshift.data.overlaps import Overlap, overlaps, question_key, question_keys, real_keys

REAL = [
    ("alpaca train", "alpaca_cleaned train (part)", 4505, 4505),
    ("arc_challenge train", "arc_challenge validation", 1, 1),
    ("arc_challenge train", "arc_challenge test", 6, 7),
    ("arc_challenge validation", "arc_challenge test", 2, 2),
    ("aqua train (part)", "aqua validation", 4, 3),
    ("boolq train", "boolq validation", 6, 6),
    ("winogrande train", "winogrande_xl train", 9156, 9158),
    ("winogrande validation", "winogrande_xl validation", 1267, 1267),
]
"""All pairs of real splits that share questions, of one data set and of two. The last two are one data set at two
sizes: no row of Winogrande's larger train split asks a question of the validation split."""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("is pokemon let's go a main series game", "Is Pokemon lets go a main series game?"),
        ("are x\u00b2 and \uff12 equal", "are x2 and 2 equal"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_one_question_has_one_key(one: str, other: str) -> None:
    assert question_key(one) == question_key(other) != ""


def test_questions_with_other_letters_or_digits_are_others() -> None:
    assert len({question_key(text) for text in ("is it 4", "is it 5", "is it", "is he 4")}) == 4


@pytest.mark.parametrize("name", DATASETS)
def test_a_question_is_part_of_the_prompt(name: str) -> None:
    from actshift.data.sources import procedural_rows

    task, config = task_of(name), dataset_config(name)
    rows = procedural_rows(config, "train")[:20]
    assert all(question_key(task.question(row)) in question_key(task.prompt(row)) for row in rows)
    assert all(question_keys(rows, task=task))


def test_pairs_are_counted_in_both_directions() -> None:
    keys = {"a": ["x", "x", "y"], "b": ["x", "z"], "c": ["w"]}
    assert overlaps(keys) == [Overlap("a", "b", in_first=2, in_second=1)]


def test_overlaps_of_the_real_data(shared: Path) -> None:
    keys: dict[str, list[str]] = {}
    for name in DATASETS:
        if name != "listops":
            keys |= real_keys(dataset_config(name), source="local", directory=str(shared / "data"))
    found = {(pair.first, pair.second, pair.in_first, pair.in_second) for pair in overlaps(keys)}
    assert found == set(REAL)


def test_the_command_prints_them(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlaps", "dataset=aqua,gsm8k,listops", "data.source=local", f"data.dir={shared / 'data'}"]) == 0
    said = capsys.readouterr().out
    assert "aqua train (part)" in said and "aqua validation" in said
    assert "gsm8k" not in said.split("6 splits")[0]
    assert "listops: no split" in said


def test_a_data_set_of_ones_own_has_the_splits_of_its_rules(tmp_path: Path) -> None:
    """A data set that is not on the hub counts no rows there: its splits are those that its protocol names."""
    config = compose(["dataset=sst2", "data.source=local", f"data.dir='{tmp_path}'"]).dataset
    config = replace(config, hub=replace(config.hub, rows={}), local=replace(config.local, rows={}))
    (tmp_path / "sst2").mkdir()
    for split, texts in (("train", ["good", "bad", "fine"]), ("validation", ["Bad!", "poor"])):
        rows = [json.dumps({"sentence": text, "label": 0, "idx": 0}) for text in texts]
        (tmp_path / "sst2" / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    keys = real_keys(config, source="local", directory=str(tmp_path))
    assert {name: len(found) for name, found in keys.items()} == {"sst2 train": 3, "sst2 validation": 2}
    assert [(pair.in_first, pair.in_second) for pair in overlaps(keys)] == [(1, 1)]


def test_the_command_refuses_procedural_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlaps", "dataset=aqua"]) == 2
    assert "data.source=hub" in capsys.readouterr().err
