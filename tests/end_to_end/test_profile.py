"""A profiled run is the run that it profiles, with a trace and an account of its time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from actshift.config.composition import compose
from actshift.observe.profiling import PHASES
from actshift.runtime.run import run
from actshift.store.store import Store

SMALL = [
    "method=post_block",
    "dataset=listops",
    "data.limit.train=48",
    "data.limit.validation=8",
    "training.validations=0",
]


def test_a_profile_accounts_for_the_time_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run(compose([*SMALL, f"results={tmp_path / 'plain'}"]))
    profiled = run(compose([*SMALL, f"results={tmp_path / 'profiled'}", "profile=true"]))
    assert profiled.identity == plain.identity
    assert profiled.metrics == plain.metrics
    said = capsys.readouterr().err
    seconds = {name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+) s", said, re.MULTILINE)}
    assert seconds.keys() == {"all", *PHASES, "other"}
    assert sum(value for name, value in seconds.items() if name != "all") == pytest.approx(seconds["all"], abs=0.06)
    assert all(seconds[name] > 0 for name in ("forward", "backward", "evaluation"))
    trace = Store(tmp_path / "profiled").run_folder(plain.identity) / "trace.json"
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"data", "forward", "backward", "optimizer"} <= names
