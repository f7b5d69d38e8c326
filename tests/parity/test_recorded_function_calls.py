"""AlpacaEval's recorded function calls against our parser.

ALPACA_EVAL_RESULTS names the folder `results` of a checkout of tatsu-lab/alpaca_eval.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from actshift.judging.asking import read
from actshift.judging.config import judge_config
from actshift.judging.judges import judge_all, paired
from actshift.judging.judgments import is_switched
from actshift.judging.ledger import open_ledger
from actshift.judging.recorded import as_completion

RESULTS = os.environ.get("ALPACA_EVAL_RESULTS")
JUDGES = ("alpaca_eval_gpt4_turbo_fn", "alpaca_eval_cot_gpt4_turbo_fn")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RESULTS, reason="ALPACA_EVAL_RESULTS names no folder of AlpacaEval's results"),
]


def files(judge: str) -> list[Path]:
    found = sorted(Path(RESULTS or "").glob(f"*/{judge}/annotations.json"))
    if not found:
        pytest.skip(f"no annotations of {judge}")
    return found


@pytest.mark.parametrize("judge", JUDGES)
def test_every_recorded_call_gives_the_recorded_preference(judge: str) -> None:
    config, count = judge_config("replay_fn"), 0
    for file in files(judge):
        for row in json.loads(file.read_text()):
            if row["annotator"] != judge or row["output_1"] == row["output_2"]:
                continue
            completion = as_completion(row["raw_completion"], config)
            if completion is None:
                assert row["preference"] is None
                continue
            assert read(completion, config, switched=is_switched(row["instruction"])) == row["preference"]
            count += 1
    print(judge, count)
    assert count > 4000


def test_a_replay_over_http_gives_a_whole_model_s_judgments(tmp_path: Path) -> None:
    recorded = next(file for file in files(JUDGES[0]) if file.parts[-3] == "gemini-pro")
    rows = json.loads(recorded.read_text())
    for name, side in (("ours", 2), ("base", 1)):
        outputs = [
            {"instruction": row["instruction"], "output": row[f"output_{side}"], "generator": row[f"generator_{side}"]}
            for row in rows
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(outputs))
    given = paired(tmp_path / "ours.json", tmp_path / "base.json")
    found = judge_all(given, judge_config("replay_fn"), open_ledger(tmp_path / "l"), recorded=[recorded])
    assert len(found) == 805
    published = {row["instruction"]: row["preference"] for row in rows}
    assert all(row["preference"] == published[row["instruction"]] for row in found)
