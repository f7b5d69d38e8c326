"""The numbers that the paper prints (arXiv 2603.00425v1), under this project's names and never corrected."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pandas as pd

from actshift.errors import unknown

FOLDER = Path(__file__).resolve().parent

FILES = {
    1: "table1.csv",
    2: "table2.csv",
    3: "table3.csv",
    4: "table4.csv",
    8: "chosen_lr.csv",
    9: "chosen_lr.csv",
    10: "chosen_lr.csv",
    11: "table11_std.csv",
    12: "table12_std.csv",
    13: "table13_std.csv",
}

METHODS = {
    "SFT": "sft",
    "Full SFT": "sft",
    "LoRA": "lora_r8",
    "LoRA (r=8)": "lora_r8",
    "LoRA (r=16)": "lora_r16",
    "ReFT": "reft",
    "ReFT (r=16, all layers)": "reft_r16",
    "ReFT (r=4, 4 layers)": "reft_4layers_r4",
    "LoFIT": "lofit",
    "JoLA": "jola",
    "Ours": "post_block",
    "ours r=8": "post_block",
    "Ours r=1": "post_block_r1",
    "ours r=1": "post_block_r1",
    "Ours (1-vec)": "post_block_vector",
    "Ours vector": "post_block_vector",
    "ours vector": "post_block_vector",
    "Ours (linear r=16)": "post_block_r16",
    "Ours (nonlinear r=16)": "post_block_nonlinear_r16",
    "Adapter": "adapter_r64",
    "Joint": "joint",
    "Joint Orth": "joint_orth",
    "Joint-Orth": "joint_orth",
    "joint-orth": "joint_orth",
}
"""The labels of all tables, each spelling of them, to the method that it means."""

TEXT = ["model", "method", "dataset", "scale", "family", "note"]


def table(number: int) -> pd.DataFrame:
    """One printed table, tidy: `model`, `method` (our name), `label` (as printed), `dataset`, then its numbers.

    Numbers are percent or percent points; Tables 8 to 10 hold learning rates, Table 3 has no `dataset`. A table that
    the package does not carry is an error. Source: Tables 1-4 and 8-13 of the paper.
    """
    if number not in FILES:
        raise unknown("table of the paper", number, FILES, where="the call, or `table` of the sweep")
    return _read(number).copy()


def as_printed(name: str) -> pd.DataFrame:
    """What has to be read as text, every cell as it is printed: an empty cell is an empty string.

    `deviations` (Tables 11 to 13, for 8.0e-1 has a digit more than 0.8), `sizes` (Table 6), `figures` (what each
    shows, by its caption) and `references` (where the text names a figure, and what for).
    """
    files = {path.stem: path for path in (FOLDER / "text").glob("*.csv")}
    if name not in files:
        raise unknown("text of the paper", name, files, where="the call")
    return pd.read_csv(files[name], dtype=str, keep_default_na=False)


def learning_rate_grids() -> pd.DataFrame:
    """The searched rates (Appendix F.2), one row a `scale`, `family` and `position` in the printed grid, with `lr`."""
    wide = _csv("lr_grids.csv").drop(columns="note")
    tidy = wide.melt(["scale", "family"], var_name="position", value_name="lr")
    return tidy.assign(position=tidy["position"].str.removeprefix("lr").astype(int))


def table_number(name: str | None) -> int | None:
    """The number in a sweep's `table` ("table1" or "1"); None where the sweep is not laid out as a printed table."""
    match = re.fullmatch(r"(?:table)?\s*(\d+)", name or "")
    return int(match[1]) if match and int(match[1]) in FILES else None


@cache
def _read(number: int) -> pd.DataFrame:
    frame = _csv(FILES[number])
    frame = frame[frame["table"] == number].drop(columns="table").reset_index(drop=True)
    frame.insert(1, "label", frame["method"])
    return frame.assign(method=frame["label"].map(METHODS))


def _csv(file: str) -> pd.DataFrame:
    text = pd.read_csv(FOLDER / file, dtype=str)
    # float() rounds correctly; the parser of older pandas may miss by the last bit.
    return text.assign(**{name: text[name].map(float) for name in text.columns.difference(TEXT)})
