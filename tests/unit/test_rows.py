"""Rows by value: what cannot be trained on or scored is refused with its file and line, before anything is loaded."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.config.composition import compose, composed, resolved
from actshift.config.groups import groups
from actshift.data.sources import hub_split
from actshift.data.splits import load_split
from actshift.errors import ActshiftError
from actshift.paths import conf_dir
from actshift.schema.data import DatasetConfig, TemplateConfig
from actshift.tasks import get_task, task_of
from actshift.tasks.templated import Templated

GOOD: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is it", "answer": True, "passage": "It is."},
    "winogrande": {"sentence": "The _ is.", "option1": "cat", "option2": "dog", "answer": "2"},
    "winogrande_xl": {"sentence": "The _ is.", "option1": "cat", "option2": "dog", "answer": "1"},
    "arc_challenge": {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
    "gsm8k": {"question": "How many?", "answer": "Two and two.\n#### 4"},
    "aqua": {"question": "x?", "options": ["A)1", "B)2"], "rationale": "So it is 2.", "correct": "B"},
    "listops": {"Source": "( ( ( [MAX 1 ) 2 ) ] )", "Target": 2},
    "alpaca": {"instruction": "Say it.", "input": "", "output": ""},
    "alpaca_cleaned": {"instruction": "Say it.", "input": "", "output": "It."},
    "code_alpaca": {"instruction": "Say it.", "input": "it", "output": "print('It.')"},
}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("boolq", {"answer": "false"}, "answer must be true or false without quotation marks"),
    ("boolq", {"answer": 1}, "answer must be true or false"),
    ("boolq", {"passage": 7}, "passage must be text"),
    ("boolq", {"question": "  "}, "question must be text"),
    ("winogrande", {"answer": ""}, "it has no label"),
    ("winogrande", {"answer": "3"}, "its label is '3', which is none of its options 1, 2"),
    ("winogrande_xl", {"answer": "0"}, "none of its options"),
    ("winogrande", {"option1": None}, "option1"),
    ("arc_challenge", {"answerKey": "C"}, "none of its options A, B"),
    ("arc_challenge", {"answerKey": ""}, "it has no label"),
    ("arc_challenge", {"choices": {"text": ["x"], "label": ["A", "B"]}}, "a text for each"),
    ("arc_challenge", {"choices": {"text": ["x", "y"], "label": ["A", "A"]}}, "all different"),
    ("arc_challenge", {"choices": {"text": ["x", "y"], "label": ["A", "F"]}, "answerKey": "F"}, "of A to E or 1 to 5"),
    ("arc_challenge", {"choices": ["x", "y"]}, "choices must be an object"),
    ("arc_challenge", {"choices": {"text": ["x", 2], "label": ["A", "B"]}}, "lists of text"),
    ("gsm8k", {"answer": "Four."}, "0 times '####'"),
    ("gsm8k", {"answer": "2 #### 3 #### 4"}, "2 times '####'"),
    ("gsm8k", {"answer": "Four.\n#### four"}, "'four', which is no number"),
    ("gsm8k", {"answer": "Four.\n#### "}, "no number"),
    ("gsm8k", {"answer": "Four.\n#### nan"}, "no number"),
    ("aqua", {"correct": "E"}, "none of its options A, B"),
    ("aqua", {"options": "A)1 B)2"}, "options must be a list"),
    ("aqua", {"rationale": ""}, "rationale must be text"),
    ("listops", {"Target": "x"}, "Target"),
    ("listops", {"Target": 12}, "Target"),
    ("listops", {"Source": ""}, "Source must be text"),
    ("alpaca_cleaned", {"input": 3}, "input must be text"),
    ("alpaca_cleaned", {"output": ["It."]}, "output must be text"),
    ("alpaca", {"instruction": " "}, "instruction must be text"),
    ("code_alpaca", {"output": 3}, "output must be text"),
    ("sst2", {"label": -1}, "unknown value of the column 'label' '-1'"),
]


def templates() -> Iterator[tuple[str, TemplateConfig]]:
    """The data sets of conf/ that are texts alone, and their texts."""
    for name in groups()["dataset"]:
        document = yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text())
        if document.get("task") == Templated.name:
            yield name, TemplateConfig(**document["template"])


for _name, _template in templates():
    _columns = Templated(_template).columns
    GOOD[_name] = dict.fromkeys(_columns, "one") | {str(_template.label): next(iter(_template.labels or ["one"]))}
    if _template.labels:
        BAD.append((_name, {str(_template.label): "what"}, "unknown value"))


def dataset_of(name: str) -> DatasetConfig:
    """The configuration of a data set, of whatever source."""
    config = composed([f"dataset={name}", "data.source=local", "data.dir=/"])
    return copy.deepcopy(resolved(config, planned=True).dataset)


def columns_of(name: str) -> dict[str, Any]:
    """A good row with the columns that the data set's task reads."""
    task = task_of(dataset_of(name))
    row = GOOD[name]
    assert set(task.columns) <= row.keys(), f"the good row of {name} lacks {set(task.columns) - row.keys()}"
    return row


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    dataset = dataset_of(name)
    (folder / dataset.local.folder).mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / dataset.local.folder / "train.jsonl").write_text(text)
    dataset.hub.rows = {"train": len(rows)}
    dataset.local = replace(dataset.local, files={}, rows={})
    return dataset


def test_every_data_set_has_a_good_row_here_and_bad_ones() -> None:
    assert set(GOOD) == set(groups()["dataset"])
    assert {name for name, _, _ in BAD} == set(GOOD)
    assert len(BAD) >= 30


@pytest.mark.parametrize("name", GOOD)
def test_a_good_row_is_taken(name: str, tmp_path: Path) -> None:
    dataset = write(tmp_path, name, [columns_of(name)] * 3)
    assert len(hub_split(dataset, "train", source="local", directory=str(tmp_path))) == 3


@pytest.mark.parametrize(("name", "values", "message"), BAD)
def test_a_bad_row_is_refused_with_file_and_line(
    name: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    good = columns_of(name)
    dataset = write(tmp_path, name, [good, good | values, good])
    with pytest.raises(ActshiftError) as refused:
        hub_split(dataset, "train", source="local", directory=str(tmp_path))
    assert f"{tmp_path / dataset.local.folder / 'train.jsonl'}, line 2" in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", [name for name in groups()["dataset"]])
def test_procedural_rows_are_good(name: str) -> None:
    if not dataset_of(name).procedural.rows:
        pytest.skip(f"{name} has no generator")
    config = compose([f"dataset={name}"])
    task = task_of(config.dataset)
    rows = load_split(config, "train").rows
    assert len(rows) >= 100
    assert [problem for row in rows if (problem := task.problem(row))] == []


@pytest.mark.parametrize(
    ("name", "output", "label"),
    [
        ("arc_challenge", "Answer: a magnet", None),
        ("arc_challenge", "Answer: 5 grams", None),
        ("arc_challenge", "Answer: 3.5", None),
        ("arc_challenge", "Answer: a", "A"),
        ("arc_challenge", "Answer: a.", "A"),
        ("arc_challenge", "Answer: (a) magnet", "A"),
        ("arc_challenge", "Answer: (5) grams", "5"),
        ("arc_challenge", "Answer: 5) grams", "5"),
        ("arc_challenge", "Answer: B magnet", "B"),
        ("arc_challenge", "answer because of B", "B"),
        ("arc_challenge", "A magnet attracts iron", None),
        ("arc_challenge", "The right one is A", "A"),
        ("aqua", "The answer a student gives is B. Answer: C", "C"),
        ("aqua", "The answer a student gives.", None),
        ("boolq", "Answer: Falsehood", None),
        ("boolq", "Answer: false.", "False"),
    ],
)
def test_articles_units_and_longer_words_are_no_labels(name: str, output: str, label: str | None) -> None:
    assert task_of(dataset_of(name)).extract(output) == label


@pytest.mark.parametrize("name", ["arc_challenge", "aqua", "boolq", "winogrande"])
@pytest.mark.parametrize("tail", [" 5", ".", ".5 grams", " magnet", ") x", "hood", "\nAnswer: B.", " ", "s"])
@pytest.mark.parametrize(
    "head", ["Answer: a", "Answer: 5", "Answer: B", "Answer: (b", "Answer: false", "Answer: Option1"]
)
def test_what_is_decided_stays(name: str, head: str, tail: str) -> None:
    """Generation stops where an output is decided: whatever would have followed must not change what is found."""
    task = get_task(name)
    for cut in range(len(head + tail) + 1):
        text = (head + tail)[:cut]
        if task.decided(text):
            for more in ("", "5", tail, " grams", ".5", "hood", ") Answer: (A)"):
                assert task.extract(text + more) == task.extract(text), (text, more)


def test_a_row_whose_own_answer_would_be_scored_wrong_is_refused() -> None:
    labels = {"0": "no", "1": "yes"}
    task = Templated(TemplateConfig("{q}", "It is {a} {label}.", label="l", labels=labels, rule="first_option"))
    assert task.problem({"q": "?", "a": "surely", "l": "1"}) is None
    problem = task.problem({"q": "?", "a": "no", "l": "1"})
    assert problem is not None
    assert "its own answer 'It is no yes.' is not scored as right for the label 'yes'" in problem
