"""Our win rates against the alpaca_eval package's own, on the recorded judgments and the same gamed rows.

ALPACA_EVAL_PYTHON names a Python that has it: `pip install alpaca_eval==0.6.6 "setuptools<81" "scikit-learn<1.10"`.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from actshift.judging.judgments import read_judgments
from actshift.judging.length_control import length_controlled
from actshift.judging.reference_data import read_reference_data
from actshift.judging.win_rates import win_rate

FEATURES = ("index", "model", "std_delta_len", "instruction_difficulty")
PYTHON = os.environ.get("ALPACA_EVAL_PYTHON")
MODELS = ("alpaca-7b", "gemma-7b-it", "gpt-3.5-turbo-1106", "vicuna-7b-v1.5")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="ALPACA_EVAL_PYTHON names no Python with the package alpaca_eval"),
]


@pytest.fixture(scope="module")
def theirs(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the package gives for each model, with our stand-ins for the gamed rows as its file of them."""
    folder = shared / "data" / "alpaca_eval"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    gamed = read_reference_data(shared / "data").gamed
    assert gamed is not None
    path = tmp_path_factory.mktemp("gamed") / "df_gamed.csv"
    with (folder / "gamed_baselines_features.csv").open() as file, path.open("w") as out:
        rows = list(csv.DictReader(file))
        writer = csv.writer(out)
        writer.writerow(["preference", *FEATURES, "not_gamed_baseline"])
        for row, y in zip(rows, gamed.y_G, strict=True):
            writer.writerow([repr(float(y)), *(row[name] for name in FEATURES), False])
    script = Path(__file__).parent / "alpaca_eval_reference.py"
    files = [str(folder / "annotations_weighted_gpt4_turbo" / f"{model}.jsonl.gz") for model in MODELS]
    assert PYTHON is not None
    done = subprocess.run([PYTHON, str(script), str(path), *files], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(MODELS, lines, strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_the_package_gives_the_same(model: str, theirs: dict[str, dict[str, Any]], shared: Path) -> None:
    """Columns to 1e-9. Of LC: liblinear stops at a tolerance of 1e-4, the package's fit at 1e-12 is ours to 1e-9."""
    data, found = read_reference_data(shared / "data"), theirs[model]
    judgments = read_judgments(shared / "data/alpaca_eval/annotations_weighted_gpt4_turbo" / f"{model}.jsonl.gz")
    ours = win_rate(judgments)
    for column in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_wins_base", "n_draws", "n_total"):
        assert getattr(ours, column) == pytest.approx(found[column], abs=1e-9), column
    difficulty_N = data.difficulty_N(judgments)
    given = length_controlled(judgments, difficulty_N, data.gamed, c=found["c"])
    chosen = length_controlled(judgments, difficulty_N, data.gamed)
    print(model, found, given.win_rate - found["exact"], chosen.c, chosen.win_rate)
    assert given.win_rate == pytest.approx(found["exact"], abs=1e-9)
    assert given.win_rate == pytest.approx(found["length_controlled_winrate"], abs=1e-2)
    assert given.upstream_error == pytest.approx(found["lc_standard_error"], abs=1e-2)
    assert chosen.win_rate == pytest.approx(found["length_controlled_winrate"], abs=0.1)
