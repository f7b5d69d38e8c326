"""Table 3 from a sweep to a table: tuning, IFEval, outputs, a judge over HTTP, records, and the paper's figures."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from actshift import paths
from actshift.cli import main
from actshift.errors import ActshiftError
from actshift.judging.records import JudgedRecord, read_judged, write_record
from actshift.judging.replay import ReplayServer, Reply
from actshift.planning.manifests import read_manifest
from actshift.report import instruction_columns as tuned
from actshift.report.frame import table
from actshift.report.printed_figures import is_the_papers
from actshift.store.records import read_records

FEW = ["data.limit.train=32", "data.limit.validation=4", "data.limit.test=12", "evaluation.max_new_tokens=16"]
SWEEP = {
    "defaults": ["sweep_schema", "_self_"],
    "name": "few3",
    "title": "Table 3 in a test",
    "table": "3",
    "models": ["tiny"],
    "methods": ["sft", "post_block_r16"],
    "datasets": ["alpaca_cleaned"],
    "seeds": [42],
    "rates": {"tiny": {"sft": [1e-4, 1e-3], "steering_r8": [1e-2]}},
    "overrides": [
        "protocol=released",
        "data.source=procedural",
        "training.precision=float32",
        "training.max_steps=2",
        "training.validations=0",
        *FEW,
    ],
}
COUNT = 24


def respond(body: Mapping[str, Any]) -> Reply:
    """A judge whose answer follows from the question."""
    share = random.Random(json.dumps(body["messages"])).uniform(0.1, 0.9)
    tokens = [{"token": "m", "logprob": math.log(share)}, {"token": "M", "logprob": math.log(1 - share)}]
    choice = {"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": tokens}]}}
    return 200, {}, {"model": "judge-1", "choices": [choice]}


def data_folder(folder: Path) -> Path:
    """AlpacaEval's files, made small: every third instruction has an input."""
    out = folder / "data" / "alpaca_eval"
    out.mkdir(parents=True)
    split = [
        {"instruction": f"What does Tom have {n}?", "input": "5 apples" if n % 3 == 0 else "", "dataset": "a"}
        for n in range(COUNT)
    ]
    merged = [row["instruction"] + (f"\n\n{row['input']}" if row["input"] else "") for row in split]
    (out / "eval_split.jsonl").write_text("\n".join(map(json.dumps, split)))
    (out / "eval.jsonl").write_text("\n".join(json.dumps({"instruction": text}) for text in merged))
    base = [
        {"instruction": text, "output": "Tom has " * (n % 5 + 1), "generator": "base"} for n, text in enumerate(merged)
    ]
    (out / "gpt4_baseline.jsonl").write_text("\n".join(map(json.dumps, base)))
    lines = [f"{n},{random.Random(n).gauss(0, 1)}" for n in range(COUNT)]
    (out / "instruction_difficulty.csv").write_text("\n".join(["index,instruction_difficulty", *lines]))
    return folder / "data"


def test_from_a_sweep_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(paths.CONFIG_DIR, str(tmp_path / "conf"))
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "judge").mkdir()
    (tmp_path / "conf" / "sweep" / "few3.yaml").write_text(yaml.safe_dump(SWEEP))
    data, results = data_folder(tmp_path), f"results={tmp_path / 'results'}"

    assert main(["judge", "few3", "--data", str(data), "--dry-run", "--judge", "gpt41", results]) == 0
    assert "2 runs, 2 of them with outputs assumed as long as the reference's; 48 questions" in capsys.readouterr().out
    assert main(["sweep", "few3", "hardware.workers=1", results]) == 0
    printed = capsys.readouterr().out
    assert "IFEval (%)" in printed and "12 of 541 prompts" in printed and "Base model" in printed
    assert "Avg Δ" not in printed and "validation loss" in printed
    validation = read_records(tmp_path / "results" / "records", split="validation")
    selected = json.loads((tmp_path / "results" / "selected" / "few3.json").read_text())
    (sft,) = (choice for choice in selected["choices"] if choice["cell"]["method"] == "sft")
    losses = {record.lr: record.metrics["loss"] for record in validation if record.cell.method == "sft"}
    assert len(losses) == 2 and sft["lr"] == min(losses, key=lambda lr: losses[lr])
    assert {rate["lr"]: rate["loss"] for rate in sft["rates"]} == losses

    assert main(["judge", "few3", "--data", str(data), results]) == 2
    assert "has no outputs: write them with `actshift outputs few3`" in capsys.readouterr().err
    assert main(["outputs", "few3", "--data", str(data), results]) == 0
    capsys.readouterr()
    assert main(["tables", "few3", "--judge", "mine", results]) == 2
    with ReplayServer(respond) as url:
        judge = {"name": "mine", "kind": "openai", "model": "judge-1", "annotator": "a judge of the tests"}
        judge |= {"template": "alpaca_eval_clf.txt", "parser": "logprob", "request": {}, "base_url": url}
        (tmp_path / "conf" / "judge" / "mine.yaml").write_text(yaml.safe_dump(judge))
        assert main(["judge", "few3", "--data", str(data), "--judge", "mine", results]) == 0
    # The released script writes instructions without their inputs: every third is lost, counted and named.
    assert "16 judged, 8 instructions of the reference without an output" in capsys.readouterr().out
    final = read_records(tmp_path / "results" / "records", split="test")
    judged = read_judged(tmp_path / "results", "mine", [record.identity for record in final])
    assert len(judged) == 2
    for record in judged.values():
        assert (record.instructions, record.lost, record.win["n_total"]) == (16, 8, 16) and record.lc is not None
        assert record.by_position["n_first"] + record.by_position["n_second"] == 16
        assert 0 <= record.lc["win_rate"] <= 100 and record.win_spread["error"] > 0
    assert main(["tables", "few3", "--judge", "mine", results]) == 0
    printed = capsys.readouterr().out
    for record in judged.values():
        assert f"{record.lc['win_rate']:.2f} ±{record.lc['bootstrap']['error']:.2f}" in printed  # type: ignore[index]
    assert "16 of 805 instructions" in printed and "no output bears, left out: 8" in printed
    for suffix in ("md", "tex", "html", "csv", "std.md", "mine.md", "mine.tex", "mine.html", "mine.csv"):
        assert (tmp_path / "results" / "tables" / f"few3.{suffix}").exists()
    assert main(["tables", "few3", "judge=mine", results]) == 0
    capsys.readouterr()
    shown = pd.read_csv(tmp_path / "results" / "tables" / "few3.mine.csv")
    for row in shown.itertuples():
        record = judged[str(row.identities)]
        assert record.lc is not None and (row.judge, row.annotator) == ("mine", "a judge of the tests")
        assert row.length_controlled_winrate == record.lc["win_rate"]
        assert row.lc_bootstrap_error == record.lc["bootstrap"]["error"]
        assert (row.win_rate, row.n_wins, row.lost_instructions) == (record.win["win_rate"], record.win["n_wins"], 8)
    annotations = next((tmp_path / "results" / "runs").glob("*/annotations.mine.json"))
    assert (
        main(["winrate", str(annotations), "--data", str(data), "--draws", "9", "--csv", str(tmp_path / "w.csv")]) == 0
    )
    capsys.readouterr()
    assert set(pd.read_csv(tmp_path / "w.csv")) - {"model"} <= set(shown)  # one name for one thing in both files
    frame = table("few3", results=tmp_path / "results", judge="mine")
    assert list(frame["win_rate"]) == list(shown["win_rate"]) and "win_rate" not in table(
        "few3", results=tmp_path / "results"
    )
    imported_into_the_sweep(tmp_path, [*words_of(data, results), "--judge", "people"], capsys)


def words_of(data: Path, results: str) -> list[str]:
    return ["judge", "few3", "--data", str(data), results]


def imported_into_the_sweep(folder: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The judgments of one judge, handed on as files: another judge's that asks nobody, with the same statistics."""
    judge = {"name": "people", "kind": "files", "model": "people", "annotator": "people"}
    (folder / "conf" / "judge" / "people.yaml").write_text(yaml.safe_dump(judge))
    assert main(words) == 2
    assert "judge people has imported judgments alone" in capsys.readouterr().err
    rows = []
    for path in sorted((folder / "results" / "runs").glob("*/annotations.mine.json")):
        rows += [{**row, "annotator": "people"} for row in json.loads(path.read_text())]
    assert len(rows) == 32
    half, whole = folder / "half.json", folder / "whole.json"
    half.write_text(json.dumps(rows[:20]))
    whole.write_text(json.dumps(rows))
    wrong = folder / "wrong.json"
    wrong.write_text(json.dumps([*rows[:-1], {**rows[-1], "output_2": "else"}]))
    assert main([*words, "--import", str(wrong)]) == 2
    assert "judge another output_2 than" in capsys.readouterr().err
    ledgers = set((folder / "results" / "judgments").iterdir())
    assert main([*words, "--import", str(whole), "--dry-run"]) == 0
    assert set((folder / "results" / "judgments").iterdir()) == ledgers
    assert main([*words, "--import", str(half)]) == 0
    assert "12 questions left" in capsys.readouterr().out
    assert len(list((folder / "results" / "judged").glob("*.people.json"))) == 1  # the run that is judged as a whole
    for _ in range(2):  # the second import adds nothing
        assert main([*words, "--import", str(whole)]) == 0
    assert "0 answers imported" in capsys.readouterr().out
    for path in (folder / "results" / "judged").glob("*.people.json"):
        theirs, mine = (
            json.loads(path.read_text()),
            json.loads((path.parent / f"{path.name[:16]}.mine.json").read_text()),
        )
        for name in ("win", "win_spread", "by_position", "lc", "reference", "model"):
            assert theirs[name] == mine[name]
        assert theirs["annotator"] == "people" and theirs["judge_identity"] != mine["judge_identity"]


def test_records_of_several_judges_never_share_a_table(tmp_path: Path) -> None:
    one = judged_record("0" * 16)
    write_record(tmp_path, one)
    write_record(tmp_path, replace(one, identity="1" * 16, annotator="another"))
    with pytest.raises(ActshiftError, match="several values of annotator: another, weighted_alpaca_eval_gpt4_turbo"):
        read_judged(tmp_path, "gpt4_turbo", ["0" * 16, "1" * 16])
    assert list(read_judged(tmp_path, "gpt4_turbo", ["0" * 16, "2" * 16])) == ["0" * 16]
    path = tmp_path / "judged" / one.file_name
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ActshiftError, match="is torn"):
        read_judged(tmp_path, "gpt4_turbo", ["0" * 16])


def judged_record(identity: str, **change: Any) -> JudgedRecord:
    win = {"win_rate": 9.0, "unjudged": 0}
    spread = {"error": 0.5, "low": 1.0, "high": 2.0}
    lc = {"win_rate": 11.0, "bootstrap": spread}
    facts = dict(identity=identity, judge="gpt4_turbo", judge_identity="j", annotator=tuned.PAPERS_JUDGE, model="m")
    facts |= dict(reference="gpt4", outputs_sha256="0", instructions=805, lost=0, win=win, win_spread=spread)
    facts |= dict(by_position={}, lc=lc, dollars=0.0, created="now")
    return JudgedRecord(**{**facts, **change})


@pytest.mark.parametrize(
    ("change", "printed"),
    [
        ({}, "11.00 ±0.50 [paper 11.49 ±0.51]"),
        ({"instructions": 32}, "11.00 ±0.50"),
        ({"annotator": "another judge"}, "11.00 ±0.50"),
        ({"lc": None}, "– [paper 11.49 ±0.51]"),
    ],
)
def test_the_paper_s_figures_stand_beside_what_is_comparable_alone(change: dict[str, Any], printed: str) -> None:
    key = ("llama3.1-8b", "sft")
    cells = pd.DataFrame()
    cells.attrs |= {"judged": {key: [judged_record("0" * 16, **change)]}, "printed_lc": {key: " [paper 11.49 ±0.51]"}}
    assert tuned.texts(cells, key) == (printed, "9.00 ±0.50")
    assert tuned.texts(cells, ("tiny", "sft")) == ("–", "–")


def test_the_paper_s_cells_are_those_of_its_model_data_and_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "table3", f"results={tmp_path}"]) == 0
    found = tuned.printed_lc(read_manifest(tmp_path / "manifests" / "table3.grid.jsonl"), is_the_papers)
    assert len(found) == 7
    assert found["llama3.1-8b", "post_block_nonlinear_r16"] == " [paper 11.34 ±0.48]"
    assert main(["plan", "small3", f"results={tmp_path}"]) == 0
    assert tuned.printed_lc(read_manifest(tmp_path / "manifests" / "small3.grid.jsonl"), is_the_papers) == {}
    assert main(["plan", "table3", "sweep.name=few", "data.limit.train=9", f"results={tmp_path}"]) == 0
    assert tuned.printed_lc(read_manifest(tmp_path / "manifests" / "few.grid.jsonl"), is_the_papers) == {}
    capsys.readouterr()
