"""`actshift score`: a run's predictions scored again from their texts alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.evaluation.predictions import Prediction, read_predictions, write_predictions
from actshift.evaluation.rescoring import rescore
from actshift.runtime.evaluate import evaluate
from actshift.runtime.run import run
from actshift.store.adapter_card import compose_request

NUMBERS = [
    Prediction(0, "Answer: 1234", "1234", "1234", True),
    Prediction(1, "Answer: 5", "5", "5", True),
    Prediction(2, "it is 10-3", "3", "-3", False),
    Prediction(3, "nothing", "1", None, False),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, NUMBERS)
    return path


def test_what_changed_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(file), "--task", "gsm8k"]) == 0
    first, *changed = capsys.readouterr().out.splitlines()
    assert first == (
        "4 rows of gsm8k by the paper rule: accuracy 75.00% (3 right), recorded 50.00% (2 right), 1 rows changed"
    )
    assert changed == ["row 2: -3 (wrong) -> 3 (right), the answer is 3: 'it is 10-3'"]
    assert main(["score", str(file), "--task", "gsm8k", "--rule", "released"]) == 0
    first, *changed = capsys.readouterr().out.splitlines()
    assert "accuracy 25.00% (1 right)" in first and "1 rows changed" in first
    assert changed == ["row 0: 1234 (right) -> 123 (wrong), the answer is 1234: 'Answer: 1234'"]


def test_many_changes_are_counted_and_some_are_shown(file: Path) -> None:
    outputs = [dataclasses.replace(NUMBERS[2], row=row, output="x" * 300 + " 10-3") for row in range(50)]
    write_predictions(file, outputs)
    lines = rescore(file, task="gsm8k").text().splitlines()
    assert "50 rows changed" in lines[0] and len(lines) == 22 and lines[-1] == "... and 30 more rows"
    assert max(map(len, lines)) < 200


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "lies in no run's folder, so its task must be said: --task aqua, arc_challenge"),
        (["--task", "gsm8"], "gsm8k"),
        (["--task", "gsm8k", "--rule", "papers"], "paper"),
        (["--task", "alpaca"], "no answer of alpaca is right or wrong. Tasks that are scored: aqua"),
    ],
)
def test_what_it_needs_is_asked_for(
    arguments: list[str], said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(file), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_run_says_the_task_and_the_rule(tmp_path: Path) -> None:
    small = ["method=post_block_vector", "debug=few_steps", "training.max_steps=1", "hardware.evaluation_tokens=4096"]
    limits = [f"data.limit.{split}=6" for split in ("train", "validation", "test")]
    record = run(compose(["dataset=boolq", "protocol=released", *small, *limits, f"results={tmp_path}"]))
    folder = tmp_path / "runs" / record.identity
    found = rescore(folder / "predictions-validation.jsonl")
    assert (found.task.name, found.task.rule, found.changed, len(found.scored)) == ("boolq", "released", [], 6)
    assert sum(each.correct for each in found.scored) == record.metrics["correct"]
    request = ["stage=evaluate", f"adapter={folder / 'adapter'}", "dataset=gsm8k", "protocol=paper"]
    other = evaluate(compose_request([*request, *limits, f"results={tmp_path}"]))
    found = rescore(folder / f"predictions-{other.evaluation}.jsonl")
    assert (found.task.name, found.task.rule, found.changed) == ("gsm8k", "paper", [])
    elsewhere = tmp_path / "predictions-test.jsonl"
    write_predictions(elsewhere, read_predictions(folder / "predictions-validation.jsonl"))
    assert rescore(elsewhere, task="boolq").task.rule == "paper"


def test_no_torch_is_imported(file: Path) -> None:
    code = (
        "import sys; from actshift.cli import main; "
        f"code = main(['score', {str(file)!r}, '--task', 'gsm8k']); "
        "heavy = {'torch', 'transformers', 'datasets', 'pandas'} & sys.modules.keys(); "
        "sys.exit(code or (repr(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
