"""Data sets that a YAML describes alone: texts, labels, scoring rules, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_configs import ALL_DATASETS, dataset_config, task_of

from actshift import tasks
from actshift.cli import main
from actshift.config.composition import compose
from actshift.config.identity import hashed_part, ignored_keys
from actshift.data.sources import local_file, read_rows
from actshift.errors import ActshiftError
from actshift.schema.building import built
from actshift.schema.data import DatasetConfig, TemplateConfig
from actshift.tasks.templated import SCORING_RULES, Templated

TEMPLATED = [name for name in ALL_DATASETS if dataset_config(name).task == "templated"]
PLAIN = {
    "prompt": "Q: {q}\n",
    "answer": "Answer: {label}.",
    "label": "a",
    "labels": None,
    "rule": "exact",
    "question": None,
}


def task(**changes: Any) -> Templated:
    return Templated(TemplateConfig(**{**PLAIN, **changes}))


def test_texts_are_filled_from_the_row() -> None:
    mood = task(prompt="{{x}} {q}\n", labels={"0": "bad", "1": "good"}, rule="first_option", question="{q}")
    row = {"q": "Was it {fun}?", "a": 1, "other": 3}
    assert mood.prompt(row) == "{x} Was it {fun}?\n"
    assert (mood.answer(row), mood.label(row), mood.question(row)) == ("Answer: good.", "good", "Was it {fun}?")
    assert mood.options(row) == {"bad": "Answer: bad.", "good": "Answer: good."}
    assert mood.columns == ("q", "a") and mood.multiple_choice


def test_a_value_without_a_label_is_refused_by_name() -> None:
    mood = task(labels={"0": "bad", "1": "good"}, rule="first_option")
    with pytest.raises(ActshiftError, match=r"value of the column 'a' '7'.*0, 1"):
        mood.label({"q": "", "a": 7})


@pytest.mark.parametrize(
    ("rule", "output", "label", "right"),
    [
        ("exact", "Answer: New York.\nBecause", "new york", True),
        ("exact", "New York", "York", False),
        ("first_option", "it is bad. Answer: good", "good", True),
        ("first_option", "BAD then good", "bad", True),
        ("first_option", "badly done, goodness", "bad", False),
        ("number", "first 3, Answer: 1,234.0", "1234", True),
        ("number", "Answer: 12", "1", False),
        ("letter", "Answer: (B) a lever", "B", True),
        ("tags", "<answer> 7 </answer><answer>8</answer>", "7", True),
        ("tags", "<answer>7", "7", False),
    ],
)
def test_each_rule_finds_its_label(rule: str, output: str, label: str, right: bool) -> None:
    labels = {"0": "bad", "1": "good"} if rule == "first_option" else None
    assert task(rule=rule, labels=labels).score(output, label) is right


@pytest.mark.parametrize("rule", SCORING_RULES)
def test_what_is_decided_does_not_change_with_more_text(rule: str) -> None:
    scorer = task(rule=rule, labels={"0": "bad", "1": "good"} if rule == "first_option" else None)
    outputs = [
        "Answer: good, bad. <answer>3</answer> 12\nAnswer: B",
        "x <answer>9</answer>\nAnswer: (C) d",
        "good bad\n",
    ]
    decided = 0
    for output in outputs:
        for end in range(len(output)):
            if scorer.decided(output[:end]):
                decided += 1
                assert scorer.extract(output[:end]) == scorer.extract(output)
    assert decided or rule == "number"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "{q.upper}"}, "a field is a column's name"),
        ({"prompt": "{q!r}"}, "a field is a column's name"),
        ({"prompt": "{0}"}, "a field is a column's name"),
        ({"prompt": "{q"}, "is no template"),
        ({"rule": "leter"}, "Did you mean 'letter'"),
        ({"rule": "first_option"}, r"needs dataset\.template\.labels"),
        ({"prompt": "{q} {a}", "label": "a"}, r"prompt names the column 'a', which holds the gold label"),
        ({"label": None}, r"needs dataset\.template\.label"),
    ],
)
def test_a_template_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        task(**changes)


@pytest.mark.parametrize("name", TEMPLATED)
def test_gold_answers_of_the_real_rows_score(name: str, shared: Path) -> None:
    config, scorer = dataset_config(name), task_of(name)
    rows = 0
    for split in config.hub.rows:
        file = local_file(config, split, directory=str(shared / "data"))
        for row in read_rows(file, columns=scorer.columns):
            rows += 1
            assert scorer.score(scorer.answer(row), scorer.label(row))
    assert rows == sum(config.hub.rows.values())


def test_there_are_data_sets_of_yaml_alone() -> None:
    assert {"sst2", "trec"} <= set(TEMPLATED)


def test_a_data_set_without_a_generator_says_where_rows_may_come_from() -> None:
    with pytest.raises(ActshiftError, match=r"data\.source = procedural.*local or hub: sst2 has no generator"):
        compose(["dataset=sst2"])


def test_a_run_on_ones_own_file_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    lines = [
        json.dumps({"sentence": f"film {number} was {word} .", "label": word == "fine"})
        for number in range(30)
        for word in ("fine", "dull")
    ]
    for split, rows in (("train", lines[:50]), ("validation", lines[50:])):
        text = "\n".join(rows).replace("true", "1").replace("false", "0") + "\n"
        (tmp_path / "data" / "sst2" / f"{split}.jsonl").write_text(text)
    mine = [
        "dataset=sst2",
        "data.source=local",
        "data.dir=data",
        "dataset.hub.rows.train=50",
        "dataset.hub.rows.validation=10",
        "debug=few_steps",
    ]
    assert main(["run", "method=post_block", *mine]) == 0
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results" / "records").iterdir())
    assert record["config"]["dataset"]["template"]["rule"] == "first_option"
    assert record["metrics"]["rows"] == 10
    predictions = next((tmp_path / "results" / "runs").glob("*/predictions-validation.jsonl"))
    assert main(["score", str(predictions)]) == 0


def test_a_task_can_be_made_of_the_part_of_a_config_that_counts() -> None:
    """A sweep's manifest keeps that part alone, without keys that are null."""
    nothing = ["dataset.template.question=null", "dataset.template.rule=exact"]
    config = compose(["dataset=sst2", "data.source=hub", *nothing])
    config.dataset.template.labels = None
    kept = hashed_part(config, ignore=ignored_keys())["dataset"]
    assert not {"question", "labels"} & kept["template"].keys()
    row = {"label": "A", "sentence": "fine"}
    assert tasks.task_of(built(DatasetConfig, kept)).prompt(row) == tasks.task_of(config.dataset).prompt(row)
