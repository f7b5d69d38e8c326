"""Answers of a tuned model to AlpacaEval's instructions: written as they come, resumed, greedy and drawn."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from actshift.cli import main
from actshift.config.composition import compose
from actshift.errors import ActshiftError
from actshift.judging.judges import paired
from actshift.observe.progress import Progress
from actshift.runtime import outputs as module
from actshift.runtime.outputs import Decoding, merged, parts, trained_config, write_outputs
from actshift.runtime.run import run
from actshift.runtime.session import Session

COUNT = 9


def trained(results: Path, *overrides: str) -> Path:
    """A tiny adapter that was tuned on a few instructions."""
    few = ["training.precision=float32", "training.max_steps=2", "training.validations=0", "data.limit.train=32"]
    few += ["data.limit.validation=2", "data.limit.test=4", "evaluation.max_new_tokens=8", "method=post_block_r16"]
    record = run(compose(["dataset=alpaca_cleaned", "stage=final", f"results={results}", *few, *overrides]))
    return results / "runs" / record.identity / "adapter"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("results"))


def instructions() -> list[dict[str, str]]:
    rows = [{"instruction": f"What does Tom have {'now ' * n}?", "input": "", "dataset": "a"} for n in range(COUNT)]
    rows[2] |= {"input": "Tom has 5 apples."}
    return rows


def written(adapter: Path, decoding: Decoding, *, session: Session | None = None) -> list[dict[str, str]]:
    shared: dict[str, Any] = {"session": session or Session(), "progress": Progress()}
    path = write_outputs(adapter, instructions(), decoding, hardware=trained_config(adapter).hardware, **shared)
    found: list[dict[str, str]] = json.loads(path.read_text())
    return found


def test_the_file_is_alpaca_eval_s(adapter: Path) -> None:
    rows = written(adapter, Decoding(6))
    assert [set(row) for row in rows] == [{"dataset", "instruction", "output", "generator"}] * COUNT
    assert [row["instruction"] for row in rows] == [merged(row) for row in instructions()]
    assert rows[2]["instruction"].endswith("?\n\nTom has 5 apples.")
    assert {row["generator"] for row in rows} == {f"tiny post_block_r16 {adapter.parent.name}"}
    assert len({row["output"] for row in rows}) > 1


def test_what_is_whole_is_only_read_and_what_was_made_otherwise_is_refused(adapter: Path) -> None:
    first = written(adapter, Decoding(6))

    class Unusable(Session):
        def base(self, config: Any) -> Any:
            raise AssertionError("no model is needed")

    assert written(adapter, Decoding(6), session=Unusable()) == first
    with pytest.raises(ActshiftError, match="decoded otherwise"):
        written(adapter, Decoding(7))


@pytest.mark.parametrize("decoding", [Decoding(6), Decoding(6, 1.0, 0.9, seed=1)])
@pytest.mark.parametrize("kept", [0, 1, 4, COUNT])
def test_an_interrupted_file_goes_on_as_it_would_have(
    decoding: Decoding, kept: int, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", {"cpu": 4})
    path = adapter.parent / f"model_outputs{decoding.name}.json"
    for old in (path, path.with_suffix(".jsonl")):
        old.unlink(missing_ok=True)
    whole = written(adapter, decoding)
    lines = path.with_suffix(".jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == COUNT + 1
    path.unlink()
    path.with_suffix(".jsonl").write_bytes(b"".join(lines[: kept + 1]) + b'{"row": 8, "out')
    assert written(adapter, decoding) == whole
    numbers = [json.loads(line).get("row") for line in path.with_suffix(".jsonl").read_text().splitlines()[1:]]
    assert sorted(numbers) == list(range(COUNT))  # nothing is written twice


def test_drawn_answers_hang_on_their_seed_and_have_files_of_their_own(adapter: Path) -> None:
    greedy, one, two = (written(adapter, Decoding(6, *rest)) for rest in ((), (1.0, 0.9, 1), (1.0, 0.9, 2)))
    texts = [[row["output"] for row in rows] for rows in (greedy, one, two)]
    assert texts[0] != texts[1] != texts[2] != texts[0]
    assert one[0]["generator"].endswith(".t1-p0.9-s1")
    assert (adapter.parent / "model_outputs.t1-p0.9-s2.json").exists()


def test_sigkill_loses_no_answer_that_was_written(tmp_path: Path) -> None:
    adapter = trained(tmp_path / "results")
    (tmp_path / "data" / "alpaca_eval").mkdir(parents=True)
    rows = [
        {"instruction": f"What does Tom have {'now ' * (n % 9)}{n}?", "input": "", "dataset": "a"} for n in range(96)
    ]
    (tmp_path / "data" / "alpaca_eval" / "eval_split.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [sys.executable, "-m", "actshift", "outputs", str(adapter), "--data", str(tmp_path / "data")]
    words += ["--max-new-tokens", "60"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    partial = adapter.parent / "model_outputs.jsonl"
    process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") > 3):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = partial.read_bytes().splitlines()[:-1]
    assert 3 <= len(before) <= 97
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("model_outputs.json")
    after = partial.read_bytes().splitlines()
    assert after[: len(before)] == before
    assert Counter(json.loads(line)["row"] for line in after[1:]) == Counter(range(96))
    assert len(json.loads((adapter.parent / "model_outputs.json").read_text())) == 96


def test_parts_follow_from_lengths_alone() -> None:
    assert parts([5, 1, 3, 1, 9], rows=2) == [[1, 3], [2, 0], [4]]


def test_what_cannot_answer_is_refused(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [["0"], ["8", "--temperature", "0"], ["8", "--temperature", "1", "--top-p", "2"], ["8", "--seed", "-1"]]
    (tmp_path / "alpaca_eval").mkdir()
    (tmp_path / "alpaca_eval" / "eval_split.jsonl").write_text(json.dumps(instructions()[0]))
    for words in wrong:
        assert main(["outputs", str(adapter), "--data", str(tmp_path), "--max-new-tokens", *words]) == 2
    assert main(["outputs", str(tmp_path), "--data", str(tmp_path)]) == 2
    assert main(["outputs", str(adapter), "--data", str(tmp_path / "alpaca_eval")]) == 2
    assert main(["outputs", "small3", "--data", str(tmp_path), f"results={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert (
        "holds no adapter of a run" in said
        and "name the folder of data sets" in said
        and "has not been planned" in said
    )
    assert "Traceback" not in said


def test_the_released_script_loses_208_rows(tmp_path: Path, shared: Path) -> None:
    """It writes an instruction without its input, and the reference has it with its input: counted and named."""
    folder = shared / "data" / "alpaca_eval"
    if not (folder / "eval_split.jsonl").exists():
        pytest.skip(f"needs {folder}")
    split = [json.loads(line) for line in (folder / "eval_split.jsonl").read_text().split("\n") if line]
    files = {}
    for protocol in ("paper", "released"):
        config = compose([f"protocol={protocol}"])
        rows = [module._output(row, "an answer", "ours", config) for row in split]
        files[protocol] = tmp_path / f"{protocol}.json"
        files[protocol].write_text(json.dumps(rows))
    assert len(paired(files["paper"], folder / "gpt4_baseline.jsonl").pairs) == 805
    with pytest.raises(ActshiftError):
        paired(files["released"], folder / "gpt4_baseline.jsonl")
    found = paired(files["released"], folder / "gpt4_baseline.jsonl", inner=True)
    assert (len(found.pairs), len(found.lost)) == (597, 208)
    assert set(found.lost) == {merged(row) for row in split if row["input"].strip()}
