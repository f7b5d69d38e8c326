"""GRPO from an override to a table: records, selection by reward, resuming, and what each of them names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.config.identity import identity_of, ignored_keys
from actshift.evaluation.predictions import read_predictions
from actshift.runtime.run import run
from actshift.store.records import read_records

RUN = [
    *("model=tiny_taught", "method=post_block", "dataset=listops", "objective=grpo", "objective.completions=4"),
    *("data.limit.train=12", "data.limit.validation=8", "data.limit.test=8", "training.batch_size=4", "lr=1e-3"),
    *("training.validation_rows=4", "training.validations=1", "training.schedule.kind=constant"),
]


def test_a_run_leaves_its_rewards_curves_and_outcome(tmp_path: Path) -> None:
    config = compose([*RUN, f"results={tmp_path}"])
    record = run(config)
    metrics, kept = record.metrics, record.metrics["reinforcement"]
    assert record.config["objective"]["name"] == "grpo"
    assert metrics["steps"] == 3 and metrics["diverged"] is False
    assert kept["outcome"] in ("trained", "no signal", "collapsed")
    assert {"reward", "reward_accuracy", "reward_format", "silent", "entropy", "length", "ended", "clip_share"} <= set(
        kept["curves"]
    )
    assert [step for step, _ in kept["curves"]["reward"]] == [1, 2, 3]
    assert 0 <= kept["mismatch"] <= kept["mismatch_max"] < 1e-3
    assert 48 <= kept["tokens"] <= 3 * 4 * 4 * 10
    assert kept["rollout_seconds"] > 0 and kept["update_seconds"] > 0
    assert len(metrics["validation_curve"]) == 1 and 0 <= metrics["validation_curve"][0][1] <= 3
    predictions = read_predictions(tmp_path / "runs" / record.identity / "predictions-validation.jsonl")
    rewards = [2 * each.correct + (each.extracted is not None) for each in predictions]
    assert metrics["reward"] == pytest.approx(sum(rewards) / 8)
    assert all(each.tokens is not None for each in predictions)


def test_an_objective_of_sft_is_no_other_run_and_grpo_is() -> None:
    plain, *others = (
        identity_of(compose(["dataset=gsm8k", *more]), ignore=ignored_keys())
        for more in ([], ["objective=sft"], *(["objective=grpo", each] for each in ("seed=42", "objective.kl=1")))
    )
    assert others[0] == plain
    assert len({plain, *others}) == 3


SWEEP: dict[str, Any] = {
    "name": "mine_rl",
    "title": "Rewards",
    "models": ["tiny_taught"],
    "methods": ["post_block"],
    "datasets": ["listops"],
    "reference": "post_block",
    "seeds": [1],
    "rates": {"tiny": {"steering_r8": [1e-9, 1e-3]}},
    "overrides": [*RUN[3:-2], "training.schedule.kind=constant", "training.validations=0"],
}


@pytest.mark.slow
def test_a_sweep_selects_by_reward_and_its_table_names_the_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "conf" / "sweep"
    folder.mkdir(parents=True)
    overrides = [each for each in SWEEP["overrides"] if not each.startswith("lr=")]
    text = json.dumps({"defaults": ["sweep_schema", "_self_"], **SWEEP, "overrides": overrides})
    (folder / "mine_rl.yaml").write_text(text)
    results = tmp_path / "results"
    assert main(["sweep", "mine_rl", "--config-dir", str(tmp_path / "conf"), f"results={results}"]) == 0
    assert {record.split for record in read_records(results / "records")} == {"validation", "test"}
    selected = json.loads((results / "selected" / "mine_rl.json").read_text())
    assert all(rate["reward"] is not None for rate in selected["choices"][0]["rates"])
    assert "Objective: grpo" in (results / "tables" / "mine_rl.md").read_text()
