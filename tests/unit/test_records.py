"""Records: strict on the way in and out, and never half there."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.schema.config import STAGES
from actshift.store.records import SPLITS, Cell, Record, read_record, read_records, write_record

CELL = Cell("tiny", "lora_r8", "boolq", "paper")


def record(number: int = 1, *, split: str = "validation", **changes: Any) -> Record:
    metrics = {"accuracy": 71.25, "rows": 400, "correct": 285, "final_loss": 0.31, "diverged": False}
    values: dict[str, Any] = {
        "identity": f"{number:016x}",
        "split": split,
        "cell": CELL,
        "lr": 0.001,
        "seed": 42,
        "config": {"lr": 0.001, "seed": 42},
        "metrics": metrics,
        "provenance": {"host": "here", "threads": 1},
    }
    return Record(**values | changes)


def written(folder: Path, one: Record) -> Path:
    write_record(folder / one.file_name, one)
    return folder / one.file_name


def test_the_splits_are_those_that_the_stages_score() -> None:
    assert set(SPLITS) == set(STAGES.values())


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    one = record()
    assert read_record(written(tmp_path, one)) == one
    assert Record.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_same_record_is_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path / "a", record()).read_bytes()
    backwards = dict(reversed(record().metrics.items()))
    assert written(tmp_path / "b", record(metrics=backwards)).read_bytes() == first
    assert first.endswith(b"}\n")


def test_what_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    one = record(metrics=record().metrics | {"final_loss": math.nan, "diverged": True, "curve": [1.0, math.inf]})
    metrics = read_record(written(tmp_path, one)).metrics
    assert metrics["final_loss"] is None and metrics["curve"] == [1.0, None] and metrics["accuracy"] == 71.25


def test_records_are_read_in_the_order_of_cell_rate_and_seed(tmp_path: Path) -> None:
    other = dataclasses.replace(CELL, method="sft")
    expected = [
        record(9, lr=0.0005),
        record(8, lr=0.001, seed=42),
        record(7, lr=0.001, seed=43),
        record(6, lr=0.01),
        record(1, cell=other),
    ]
    for one in random.Random(0).sample(expected, len(expected)):
        written(tmp_path, one)
    assert read_records(tmp_path) == expected


def test_one_split_is_read_without_opening_the_other(tmp_path: Path) -> None:
    test = record(split="test")
    written(tmp_path, test)
    (tmp_path / f"{2:016x}.validation.json").write_text("torn")
    assert read_records(tmp_path, split="test") == [test]
    with pytest.raises(ActshiftError, match="torn"):
        read_records(tmp_path, split="validation")
    with pytest.raises(ActshiftError, match="unknown split 'tset'"):
        read_records(tmp_path, split="tset")


def test_no_folder_is_no_record_and_hidden_files_do_not_count(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none") == []
    (tmp_path / f".{1:016x}.test.json.77-ab.tmp").write_text('{"schema": 1, "ident')
    assert read_records(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 40, 300, -2])
def test_a_torn_file_is_an_error_that_names_it(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path, record())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ActshiftError, match=path.name):
        read_records(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "1.test.json", f"{1:016x}.train.json", f"{1:016x}.test.json.orig"])
def test_a_foreign_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ActshiftError, match=name):
        read_records(tmp_path, split="test")


def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, record(split="validation"))
    renamed = path.rename(path.with_name(f"{1:016x}.test.json"))
    with pytest.raises(ActshiftError, match=rf"{renamed.name} holds the record {path.name}"):
        read_records(tmp_path, split="test")
    with pytest.raises(ActshiftError, match="cannot be written as"):
        write_record(tmp_path / "other.json", record())


BAD: list[tuple[dict[str, Any], str]] = [
    ({"schema": 2}, "not a record of schema 1"),
    ({"schema": None}, "not a record of schema 1"),
    ({"identity": "xyz"}, "identity"),
    ({"split": "train"}, "split"),
    ({"lr": "0.1"}, "lr"),
    ({"lr": True}, "lr"),
    ({"lr": 0}, "lr"),
    ({"seed": 1.5}, "seed"),
    ({"seed": True}, "seed"),
    ({"config": []}, "config"),
    ({"cell": {"model": "tiny"}}, "cell"),
    ({"cell": {"model": "", "method": "a", "dataset": "b", "protocol": "c"}}, "cell"),
    ({"metrics": {"accuracy": 1.0}}, "metrics"),
    ({"metrics": {"accuracy": 50.0, "rows": 4, "correct": 1, "diverged": False}}, "metrics"),
    ({"metrics": {"accuracy": 125.0, "rows": 4, "correct": 5, "diverged": False}}, "metrics"),
    ({"metrics": {"accuracy": None, "rows": 4, "correct": 1, "diverged": False}}, "metrics"),
    ({"metrics": {"accuracy": 25.0, "rows": 4, "correct": 1, "diverged": "no"}}, "metrics"),
    ({"extra": 1}, r"unknown \['extra'\]"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_a_file_that_is_no_record_is_refused_with_its_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / record().file_name
    path.write_text(json.dumps(record().to_json() | changes))
    with pytest.raises(ActshiftError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Record)])
def test_every_field_must_be_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / record().file_name
    path.write_text(json.dumps({key: value for key, value in record().to_json().items() if key != name}))
    with pytest.raises(ActshiftError, match=path.name):
        read_record(path)


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="lr"):
        written(tmp_path, record(lr=math.nan))
    assert list(tmp_path.iterdir()) == []


def test_nan_in_a_file_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / record().file_name
    path.write_text(json.dumps(record().to_json() | {"provenance": {"peak": math.nan}}))
    with pytest.raises(ActshiftError, match="NaN"):
        read_record(path)


def test_a_failed_write_leaves_what_was_there_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "selected.json"
    write_file(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_file(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert written(tmp_path, record()).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


WRITER = """
import sys
from pathlib import Path
from actshift.store.records import Cell, Record, write_record
cell = Cell("tiny", "lora_r8", "boolq", "paper")
metrics = {"accuracy": 50.0, "rows": 2, "correct": 1, "diverged": False}
print("ready", flush=True)
for number in range(100_000):
    one = Record(f"{number % 50:016x}", "test", cell, 0.001, 42, {}, metrics, {"padding": "x" * 200_000})
    write_record(Path(sys.argv[1]) / one.file_name, one)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_records_only(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.005, 0.08))
            writer.send_signal(signal.SIGKILL)
        assert all(len(one.provenance["padding"]) == 200_000 for one in read_records(tmp_path))
    assert len(read_records(tmp_path)) > 0
