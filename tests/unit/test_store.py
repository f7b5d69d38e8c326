"""The store: states from files alone, failures that are counted, records that are what they say."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actshift.config.identity import hashed_part, identity_of
from actshift.errors import ActshiftError
from actshift.store.records import Cell, Record
from actshift.store.store import Store

TRACEBACK = 'Traceback (most recent call last):\n  File "run.py", line 1\nValueError: loss is nan\n\n'


def planned_record(seed: int = 42, *, split: str = "validation", accuracy: float = 50.0) -> Record:
    """A record whose config is the run that its identity says, as a worker makes it."""
    names = {"model": "tiny", "method": "sft", "dataset": "boolq", "protocol": "paper"}
    full: dict[str, Any] = {group: {"name": name} for group, name in names.items()}
    config = hashed_part(full | {"lr": 0.001, "seed": seed}, ignore=())
    metrics = {"accuracy": accuracy, "rows": 200, "correct": int(2 * accuracy), "diverged": False}
    return Record(identity_of(config, ignore=()), split, Cell(**names), 0.001, seed, config, metrics, {"host": "here"})


RECORD = planned_record()
RUN = RECORD.identity


def test_an_untouched_run_is_missing_and_looking_leaves_no_trace(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.state(RUN, "test") == "missing"
    assert store.record(RUN, "test") is None and store.failure(RUN, "test") is None and store.records() == []
    assert not store.root.exists()


def test_a_run_goes_from_missing_to_running_to_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    claim = store.lock(RUN)
    assert claim is not None
    with claim:
        assert store.state(RUN, "validation") == "running"
        assert store.publish(RECORD, lock=claim)
        assert store.state(RUN, "validation") == "done"
        assert store.state(RUN, "test") == "running", "a claim is on the run, whichever split it scores"
    assert store.state(RUN, "validation") == "done" and store.state(RUN, "test") == "missing"
    assert store.record(RUN, "validation") == RECORD and store.records("validation") == [RECORD]
    assert store.records("test") == []


def test_a_failure_is_noted_retried_and_forgotten_when_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail(RUN, "validation", TRACEBACK)
    failure = store.failure(RUN, "validation")
    assert failure is not None
    assert (failure["last_line"], failure["error"], failure["attempts"]) == ("ValueError: loss is nan", TRACEBACK, 1)
    assert store.state(RUN, "validation") == "failed" and store.state(RUN, "test") == "missing"
    claim = store.lock(RUN)
    assert claim is not None
    with claim:
        assert store.state(RUN, "validation") == "running"
        store.publish(RECORD, lock=claim)
    assert store.state(RUN, "validation") == "done" and store.failure(RUN, "validation") is None


def test_attempts_count_on_over_a_retry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail(RUN, "test", "first")
    store.clear_failure(RUN, "test")
    assert store.state(RUN, "test") == "missing" and store.failure(RUN, "test") is None
    store.fail(RUN, "test", "")
    failure = store.failure(RUN, "test")
    assert failure is not None and failure["attempts"] == 2 and failure["last_line"] == ""
    store.clear_failure(RUN, "validation")  # none there: nothing to do
    assert not (store.run_folder(RUN) / "failed.validation.json").exists()


def test_a_record_outweighs_a_failure_that_a_kill_left_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.publish(RECORD)
    store.fail(RUN, "validation", "late")
    assert store.state(RUN, "validation") == "done"


def test_the_first_record_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.publish(RECORD)
    assert not store.publish(planned_record(accuracy=100.0))
    assert store.records() == [RECORD]


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "0" * 16},
        {"config": RECORD.config | {"seed": 43}},
        {"seed": 43},
        {"lr": 0.002},
        {"cell": dataclasses.replace(RECORD.cell, dataset="listops")},
        {"config": {}, "identity": identity_of({}, ignore=())},
    ],
)
def test_a_record_of_another_run_than_its_config_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    store = Store(tmp_path)
    with pytest.raises(ActshiftError, match="nothing was written"):
        store.publish(dataclasses.replace(RECORD, **changes))
    assert store.records() == []


def test_who_lost_the_claim_cannot_publish(tmp_path: Path) -> None:
    store = Store(tmp_path)
    claim = store.lock(RUN)
    assert claim is not None
    with claim:
        (store.run_folder(RUN) / "claims" / "000002.json").touch()  # somebody took over
        assert claim.lost
        with pytest.raises(ActshiftError, match="lost to another process"):
            store.publish(RECORD, lock=claim)
    assert store.records() == []


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import RECORD
from actshift.store.store import Store
sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
Store(sys.argv[1]).publish(RECORD)
"""


def test_a_record_whose_writer_was_killed_before_the_rename_is_no_record(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED_WHILE_WRITING, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert len(os.listdir(tmp_path / "records")) == 1, "the whole text is there, under a name that does not count"
    assert store.state(RUN, "validation") == "missing" and store.records() == []
    assert store.publish(RECORD) and store.records() == [RECORD]


def test_a_torn_failure_note_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run_folder(RUN).mkdir(parents=True)
    (store.run_folder(RUN) / "failed.test.json").write_text("{}")
    with pytest.raises(ActshiftError, match=r"failed\.test\.json"):
        store.state(RUN, "test")


def test_two_folders_merge_by_copying_files(tmp_path: Path) -> None:
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    other = planned_record(43)
    one.publish(RECORD)
    two.publish(other)
    for path in (two.root / "records").iterdir():
        (one.root / "records" / path.name).write_bytes(path.read_bytes())
    assert one.records() == [RECORD, other]
    assert one.state(other.identity, "validation") == "done"


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden"])
def test_a_sweep_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    for path in (Store(tmp_path).selected_path, lambda name: Store(tmp_path).manifest_path(name, "grid")):
        with pytest.raises(ActshiftError, match="cannot name a sweep"):
            path(name)


def test_a_store_without_patience_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ActshiftError, match="expiry"):
        Store(tmp_path, expiry=0)
    with pytest.raises(ActshiftError, match="unknown split"):
        Store(tmp_path).state(RUN, "train")


def test_deaths_are_counted_apart_and_kept(tmp_path: Path) -> None:
    store, identity = Store(tmp_path), "0123456789abcdef"
    store.fail(identity, "test", "ValueError: no")
    assert store.deaths(identity, "test") == 0
    store.fail(identity, "test", "out of memory", died=True)
    store.clear_failure(identity, "test")
    assert store.deaths(identity, "test") == 1 and store.failure(identity, "test") is None
    assert store.deaths(identity, "validation") == 0
