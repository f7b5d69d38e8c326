"""`runs` and `compare`: finished runs that no sweep planned, listed and set side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_sweep import planned, record

from actshift.cli import main
from actshift.report.comparison import compare, runs_frame
from actshift.store.records import Record
from actshift.store.store import Store


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a few steps: two methods on one data set, one on another."""
    folder = tmp_path_factory.mktemp("results")
    few = ["debug=few_steps", f"results='{folder}'"]
    assert main(["run", *few, "dataset=boolq", "method=sft", "lr=1e-3"]) == 0
    assert main(["run", *few, "dataset=boolq", "method=post_block"]) == 0
    assert main(["run", *few, "dataset=listops", "method=sft", "lr=1e-3"]) == 0
    return folder


def records(results: Path) -> dict[tuple[str, str], Record]:
    return {(record.cell.method, record.cell.dataset): record for record in Store(results).records()}


def test_the_list_has_every_run_and_says_that_no_sweep_planned_it(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = runs_frame(Store(results).records(), sweeps={})
    assert len(frame) == 3
    assert set(frame["sweep"]) == {""}
    assert main(["runs", "dataset=boolq", f"results={results}", "--csv", str(results / "runs.csv")]) == 0
    assert len((results / "runs.csv").read_text().splitlines()) == 3
    assert main(["runs", "method=lora_r8", f"results={results}"]) == 0
    assert "no finished run method=lora_r8" in capsys.readouterr().out


def test_runs_that_are_listed_alike_say_in_what_they_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["run", "debug=few_steps", f"results='{tmp_path}'"]
    assert main([*few, "training.max_steps=1"]) == main([*few, "training.max_steps=2"]) == 0
    frame = runs_frame(Store(tmp_path).records(), sweeps={})
    assert sorted(frame["differs"].str.len() > 0) == [False, True]
    assert frame["differs"].str.contains("training.max_steps: ").sum() == 1
    capsys.readouterr()
    assert main(["runs", f"results='{tmp_path}'"]) == 0
    shown = capsys.readouterr().out
    assert "training.max_steps" in shown
    assert "loss" not in shown  # a column in which nothing stands


def test_a_diverged_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["run", "debug=few_steps", "method=sft", "training.max_steps=20", f"results='{tmp_path}'"]
    assert main([*few, "lr=1e30"]) == 0
    assert "training diverged" in capsys.readouterr().out
    assert list(runs_frame(Store(tmp_path).records(), sweeps={})["diverged"]) == ["yes"]


def test_differences_and_discordant_rows_are_those_of_the_records(results: Path) -> None:
    found = records(results)
    sft, ours = found["sft", "boolq"], found["post_block", "boolq"]
    frame = compare([sft, ours]).set_index("identity")
    row = frame.loc[ours.identity]
    assert row["difference"] == ours.metrics["accuracy"] - sft.metrics["accuracy"]
    assert row["only_this"] - row["only_first"] == ours.metrics["correct"] - sft.metrics["correct"]
    assert 0 <= row["p_holm"] <= 1
    assert frame.loc[sft.identity].isna()["difference"]


def test_rows_that_one_of_two_runs_answers_right_are_counted_for_each() -> None:
    """Of eight rows the first has 1, 2, 3, 4 right and the second 4, 5: the first alone has three, the other one."""
    manifest, _ = planned(models=["llama3.2-1b"])
    one, two, *_ = (run for run in manifest.runs if (run.cell.method, run.cell.dataset) == ("lora_r8", "boolq"))
    first, second = (
        record(run, manifest.planned(run.cell).config, correct=bits.count("1"), rows=8)
        for run, bits in ((one, "11110000"), (two, "00011000"))
    )
    first.metrics["answers"], second.metrics["answers"] = f"{0b11110000:02x}", f"{0b00011000:02x}"
    row = compare([first, second]).set_index("identity").loc[second.identity]
    assert (row["only_first"], row["only_this"]) == (3, 1)


def test_the_command_takes_the_first_digits_and_names_the_keys_that_differ(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = records(results)
    names = [found[method, "boolq"].identity[:8] for method in ("sft", "post_block")]
    assert main(["compare", *names, f"results={results}"]) == 0
    shown = capsys.readouterr().out
    assert "method.name" in shown
    assert found["post_block", "boolq"].identity in shown


def test_runs_on_other_rows_are_not_compared(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [record.identity for record in Store(results).records() if record.cell.method == "sft"]
    assert main(["compare", *names, f"results={results}"]) == 2
    assert "rows differ" in capsys.readouterr().err
    assert main(["compare", names[0], f"results={results}"]) == 2
    assert main(["compare", names[0], "0123456789abcdef", f"results={results}"]) == 2
    assert "unknown run" in capsys.readouterr().err
