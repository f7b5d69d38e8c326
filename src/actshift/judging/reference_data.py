"""What a length-controlled win rate needs beside the judgments: difficulties of instructions, and the gamed rows.

Both are joined by instruction, never by position: a file in another order would otherwise move LC by points.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actshift.errors import ActshiftError
from actshift.judging.judgments import Floats, Judgments
from actshift.judging.length_control import Gamed
from actshift.judging.rows import read_rows

FOLDER = "alpaca_eval"
"""The folder within a folder of data sets."""

GAMED_FILE, GAMED_SHA256 = "df_gamed.csv", "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"
FEATURES_FILE, SUMS_FILE = "gamed_baselines_features.csv", "gamed_baselines_sufficient_statistics.json"


@dataclass(frozen=True)
class ReferenceData:
    """Difficulties by instruction, the gamed rows (None where there are none), and the instructions' own order."""

    difficulty: Mapping[str, float]
    gamed: Gamed | None

    def difficulty_N(self, judgments: Judgments, *, by_row: bool = False) -> Floats:
        """The difficulties of judged instructions in their order. Errors: an instruction without one.

        `by_row` gives row i the difficulty of AlpacaEval's i-th instruction, whatever row i is: what upstream does, and
        what is wrong where rows are missing.
        """
        if by_row:
            return np.array(list(self.difficulty.values())[: len(judgments.instructions)])
        missing = [text for text in judgments.instructions if text not in self.difficulty]
        if missing:
            raise ActshiftError(
                f"{judgments.model}: {len(missing)} of {len(judgments.instructions)} instructions have no difficulty, "
                f"{missing[0][:60]!r} among them. Only AlpacaEval's instructions, with their inputs, have one."
            )
        return np.array([self.difficulty[text] for text in judgments.instructions])


def read_reference_data(data: Path) -> ReferenceData:
    """What lies in `<data>/alpaca_eval`. Errors: no instructions or difficulties there, or not as many of each."""
    folder = data / FOLDER
    instructions = [row["instruction"] for _, row in read_rows(folder / "eval.jsonl")]
    found = _columns(folder / "instruction_difficulty.csv", ("index", "instruction_difficulty"))
    values = {int(index): value for index, value in found.T}
    if set(values) != set(range(len(instructions))):
        raise ActshiftError(
            f"{folder}: {len(values)} difficulties for {len(instructions)} instructions; both must be of one release"
        )
    difficulty = {text: values[index] for index, text in enumerate(instructions)}
    return ReferenceData(difficulty, _gamed(folder))


def _gamed(folder: Path) -> Gamed | None:
    """The published rows where they lie, else stand-ins from their sums, else None."""
    if (folder / GAMED_FILE).exists():
        return _published_rows(folder / GAMED_FILE)
    if (folder / FEATURES_FILE).exists() and (folder / SUMS_FILE).exists():
        return _stand_ins(folder)
    return None


def _published_rows(path: Path) -> Gamed:
    same = hashlib.sha256(path.read_bytes()).hexdigest() == GAMED_SHA256
    gap, difficulty, y = _columns(path, ("std_delta_len", "instruction_difficulty", "preference"))
    if y.min() < 0 or y.max() > 1:
        raise ActshiftError(f"{path}: preference must be from 0 to 1, got {y.min():g} to {y.max():g}")
    return Gamed(_features(gap, difficulty), y, "df_gamed.csv" if same else "df_gamed.csv of another revision")


def _stand_ins(folder: Path) -> Gamed:
    """Rows with the published features, and probabilities that give the two recovered sums: y = sigmoid(x v).

    The likelihood needs the gamed rows through these sums alone, so that a fit to all rows is right; the folds of the
    cross-validation are not those of the published rows.
    """
    gap, difficulty = _columns(folder / FEATURES_FILE, ("std_delta_len", "instruction_difficulty"))
    sums = json.loads((folder / SUMS_FILE).read_text(encoding="utf-8"))
    wanted = np.array([sums["sum_tanh_std_delta_len_times_y"], sums["sum_instruction_difficulty_times_y"]])
    x = _features(gap, difficulty)
    v = np.zeros(2)
    for _ in range(100):
        y = 1 / (1 + np.exp(-x[:, :2] @ v))
        missed = wanted - x[:, :2].T @ y
        if np.abs(missed).max() < 1e-9:
            return Gamed(x, y, "stand-ins")
        v = v + np.linalg.solve((x[:, :2].T * (y * (1 - y))) @ x[:, :2], missed)
    raise ActshiftError(f"{folder / SUMS_FILE}: no probabilities from 0 to 1 have these sums")


def _features(gap: Floats, difficulty: Floats) -> Floats:
    return np.stack([np.tanh(gap), difficulty, np.zeros(len(gap))], axis=1)


def _columns(path: Path, names: tuple[str, ...]) -> Floats:
    """Columns of numbers. Errors: a column that is missing, a cell that is no finite number."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in names if not rows or name not in rows[0]]
    if missing:
        raise ActshiftError(f"{path} has no column {', '.join(missing)}")
    try:
        found = np.array([[float(row[name]) for row in rows] for name in names])
    except (TypeError, ValueError) as error:
        raise ActshiftError(f"{path}: {error}. Each cell of {', '.join(names)} must be a number") from error
    if not np.isfinite(found).all():
        raise ActshiftError(f"{path}: each cell of {', '.join(names)} must be a finite number")
    return found
