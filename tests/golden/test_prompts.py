"""The very text that a model is asked and trained on.

A change here changes what every number means: raise the data set's `version` with it. The real data are other
people's, so of them only digests and lengths are kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from pytest_regressions.data_regression import DataRegressionFixture

from actshift.config.composition import composed
from actshift.data.sources import procedural_rows, read_rows
from actshift.paths import conf_dir
from actshift.schema.building import built
from actshift.schema.data import DatasetConfig
from actshift.tasks import get_task

FIRST = 3
REAL_FILES = [
    "boolq/train.jsonl.gz",
    "boolq/validation.jsonl",
    "gsm8k/train.jsonl.gz",
    "gsm8k/test.jsonl",
    "arc_challenge/train.jsonl",
    "arc_challenge/validation.jsonl",
    "arc_challenge/test.jsonl",
    "winogrande/train.jsonl",
    "winogrande/validation.jsonl",
    "aqua/validation.jsonl",
    "aqua/test.jsonl",
]
DATASETS = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml") if "\nprocedural:" in path.read_text())


def digest(text: str) -> dict[str, Any]:
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize("name", DATASETS)
def test_procedural_prompts_and_answers(name: str, data_regression: DataRegressionFixture) -> None:
    config = built(DatasetConfig, OmegaConf.to_container(composed([f"dataset={name}"]).dataset))
    # Another number of rows is another run, not another text: it must not show here.
    rows = dict.fromkeys(config.procedural.rows, FIRST)
    config.procedural.rows = rows
    task = get_task(config.task)
    found = {
        split: [
            {"prompt": task.prompt(row), "answer": task.answer(row), "label": task.label(row)}
            for row in procedural_rows(config, split)
        ]
        for split in rows
    }
    data_regression.check({"version": config.version, **found}, basename=f"procedural_{name}")


@pytest.mark.parametrize("file", REAL_FILES)
def test_real_prompts_and_answers(file: str, shared: Path, data_regression: DataRegressionFixture) -> None:
    name, split = file.split(".")[0].split("/")
    task = get_task(name)
    rows = read_rows(shared / "data" / file, columns=task.columns)
    first = [{"prompt": digest(task.prompt(row)), "answer": digest(task.answer(row))} for row in rows[:FIRST]]
    whole = hashlib.sha256("\0".join(task.prompt(row) + "\0" + task.answer(row) for row in rows).encode()).hexdigest()
    data_regression.check({"rows": len(rows), "all": whole, "first": first}, basename=f"real_{name}_{split}")
