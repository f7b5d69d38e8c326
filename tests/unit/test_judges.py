"""Asking a judge: its identity, pairs of outputs, the ledger between, and recorded answers from end to end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift import paths
from actshift.cli import main
from actshift.config.groups import groups
from actshift.errors import ActshiftError
from actshift.judging import judges
from actshift.judging.judges import Pair, judge_config, judged, pairs_of, replayed
from actshift.judging.judgments import is_switched, read_judgments
from actshift.judging.ledger import open_ledger
from actshift.judging.prompts import Message
from actshift.judging.win_rates import win_rate

REPLAY = judge_config("replay")
SHARE = 0.8
"""The probability that the recorded judge gives to the answer it sees first."""


def completion_of(share: float = SHARE) -> dict[str, Any]:
    tokens = [{"token": "m", "logprob": math.log(share)}, {"token": "M", "logprob": math.log(1 - share)}]
    return {"logprobs": {"content": [{"top_logprobs": tokens}]}}


def outputs_of(path: Path, name: str, *, count: int = 6, same: int = -1, **change: Any) -> Path:
    rows = [
        {"instruction": f"Question {n}?", "output": "same" if n == same else f"{name} {n}", "generator": name} | change
        for n in range(count)
    ]
    path.write_text(json.dumps(rows))
    return path


def recorded_of(path: Path, *, count: int = 6, same: int = -1) -> Path:
    rows = [
        {
            "instruction": f"Question {n}?",
            "output_1": f"base {n}",
            "output_2": f"ours {n}",
            "raw_completion": completion_of(),
        }
        for n in range(count)
        if n != same
    ]
    path.write_text(json.dumps(rows))
    return path


def test_every_judge_of_conf_is_whole_and_its_identity_is_what_can_change_an_answer() -> None:
    assert "replay" in groups()["judge"]
    for name in groups()["judge"]:
        config = judge_config(name)
        assert config.name == name
        assert config.identity == replace(config, name="x", annotator="y", dollars_per_question=9.0).identity
        for other in ({"model": "x"}, {"kind": "x"}, {"parser": "x"}, {"request": {**config.request, "max_tokens": 2}}):
            assert config.identity != replace(config, **other).identity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "replya"}, "Did you mean 'replay'?"),
        ({"parser": "verdict"}, "unknown judge.parser 'verdict'"),
        ({"template": "other.txt"}, "unknown judge.template"),
        ({"dollars_per_question": -1.0}, "judge.dollars_per_question = -1.0 is impossible"),
        ({"url": "http://x"}, "must have the keys"),
    ],
)
def test_a_wrong_file_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = yaml.safe_load((paths.conf_dir() / "judge" / "replay.yaml").read_text()) | change
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "replay.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setattr(judges, "conf_dir", lambda: tmp_path)
    with pytest.raises(ActshiftError) as caught:
        judge_config("replay")
    assert said in str(caught.value)
    with pytest.raises(ActshiftError, match="unknown judge 'gpt'"):
        judge_config("gpt")


class Counting:
    """A judge that counts its questions and fails at one of them."""

    def __init__(self, *, fails_at: int = -1) -> None:
        self.asked, self.fails_at = 0, fails_at

    def __call__(self, messages: Sequence[Message]) -> dict[str, Any]:
        self.asked += 1
        if self.asked == self.fails_at:
            raise ConnectionError("gone")
        return completion_of()


def test_no_pair_is_asked_twice_and_what_was_in_flight_is_spent(tmp_path: Path) -> None:
    pairs = [Pair(f"Question {n}?", "", f"base {n}", f"ours {n}") for n in range(5)]
    config = replace(REPLAY, dollars_per_question=0.02)
    ledger, judge = open_ledger(tmp_path), Counting(fails_at=3)
    with pytest.raises(ConnectionError):
        for pair in pairs:
            judged(pair, config, judge, ledger)
    ledger, judge = open_ledger(tmp_path), Counting()
    assert judges.open_questions(pairs, config, ledger) == pairs[2:]
    rows = [judged(pair, config, judge, ledger) for pair in pairs]
    assert judge.asked == 3 and (ledger.asked, ledger.paid, ledger.lost) == (6, 5, 1)
    assert ledger.spent == pytest.approx(0.12)
    assert [judged(pair, config, judge, ledger) for pair in pairs] == rows and judge.asked == 3
    for pair, row in zip(pairs, rows, strict=True):
        assert row["preference"] == pytest.approx(1 + SHARE if is_switched(pair.instruction) else 2 - SHARE)
    # Another judge is another question.
    other = replace(config, model="another")
    assert judges.open_questions(pairs, other, ledger) == pairs


def test_equal_answers_are_no_question(tmp_path: Path) -> None:
    judge, pair = Counting(), Pair("Question?", "", "same", "same")
    assert judges.open_questions([pair], REPLAY, open_ledger(tmp_path)) == []
    row = judged(pair, REPLAY, judge, open_ledger(tmp_path))
    assert (row["preference"], row["raw_completion"], judge.asked) == (1.5, None, 0)


def test_a_replay_answers_what_was_asked_then_alone(tmp_path: Path) -> None:
    ask = replayed([recorded_of(tmp_path / "a.json", same=2)])
    assert ask(Pair("Question 1?", "", "base 1", "ours 1").messages()) == completion_of()
    for reference, output in (("base 1", "ours 2"), ("ours 1", "base 1"), ("base 2", "ours 2")):
        with pytest.raises(ActshiftError, match="none of the 5 recorded answers is to this question"):
            ask(Pair(f"Question {reference[-1]}?", "", reference, output).messages())


def test_outputs_are_joined_by_instruction(tmp_path: Path) -> None:
    ours, base = outputs_of(tmp_path / "o.json", "ours"), outputs_of(tmp_path / "b.json", "base")
    ours.write_text(json.dumps(json.loads(ours.read_text())[::-1]))
    pairs, generator, reference = pairs_of(ours, base)
    assert (generator, reference) == ("ours", "base")
    assert [(pair.reference, pair.output) for pair in pairs] == [(f"base {n}", f"ours {n}") for n in range(6)]
    cases = [
        (outputs_of(tmp_path / "few.json", "ours", count=5), "1 instructions stand in"),
        (outputs_of(tmp_path / "twice.json", "ours", instruction="A?"), "is answered a second time"),
        (outputs_of(tmp_path / "none.json", "ours", output=None), "row 1 has no text under output"),
    ]
    for file, said in cases:
        with pytest.raises(ActshiftError, match=said):
            pairs_of(file, base)


def test_the_command_from_outputs_to_judgments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ours, base = Path("ours.json"), Path("base.json")
    outputs_of(ours, "ours", same=3)
    outputs_of(base, "base", same=3)
    recorded = recorded_of(Path("recorded.json"), same=3)
    words = ["judge", str(ours), "--references", str(base), "--recorded", str(recorded), "--out", "out/a.json"]
    assert main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out == "6 pairs, 1 need no question, 5 to ask, $0.00 at most\n"
    assert not Path("out").exists() and not Path("results").exists()
    assert main([*words, "--limit", "2"]) == 0
    assert "2 judged, 0 of them without a preference" in capsys.readouterr().out
    assert main(words) == 0
    assert "6 pairs, 3 need no question, 3 to ask" in capsys.readouterr().out
    first = Path("out/a.json").read_bytes()
    found = read_judgments(Path("out/a.json"))
    assert (found.model, found.reference, found.annotator) == ("ours", "base", REPLAY.annotator)
    assert win_rate(found).n_draws == 1
    # A second time everything comes from the ledger, and the file is the same.
    assert main([*words[:4], "--out", "out/a.json"]) == 0
    assert "0 to ask" in capsys.readouterr().out and Path("out/a.json").read_bytes() == first
    assert main([*words, "--limit", "0"]) == 2
    assert main([*words, "--judge", "gpt"]) == 2
    assert "unknown judge 'gpt'" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["alpaca-7b", "gemma-7b-it", "gpt-3.5-turbo-1106", "vicuna-7b-v1.5"])
def test_the_replay_of_recorded_answers_gives_the_published_preferences(
    model: str, shared: Path, tmp_path: Path
) -> None:
    """From the models' outputs and the reference's, through the ledger, to the published judgments."""
    folder = shared / "data" / "alpaca_eval"
    recorded = folder / "annotations_weighted_gpt4_turbo" / f"{model}.jsonl.gz"
    if not recorded.exists():
        pytest.skip(f"needs {recorded}")
    pairs, generator, reference = pairs_of(folder / "model_outputs" / recorded.name, folder / "gpt4_baseline.jsonl")
    assert (len(pairs), generator, reference) == (805, model, "gpt4_1106_preview")
    ask, ledger = replayed([recorded]), open_ledger(tmp_path)
    published = read_judgments(recorded)
    order = {text: place for place, text in enumerate(published.instructions)}
    for pair in pairs[:60]:
        row = judged(pair, REPLAY, ask, ledger)
        assert row["preference"] - 1 == pytest.approx(published.y_N[order[pair.instruction]], abs=1e-9)
    for pair in pairs[60:]:
        if pair.output != pair.reference:
            ask(pair.messages())  # every question has its answer


LIGHT = """
import sys
from actshift.cli import main
codes = [main(line.split()) for line in sys.argv[1:]]
print("RESULT", codes, sorted({"torch", "transformers", "datasets", "pandas", "scipy", "peft"} & set(sys.modules)))
"""


def test_judging_loads_nothing_heavy(tmp_path: Path) -> None:
    outputs_of(tmp_path / "o.json", "ours")
    outputs_of(tmp_path / "b.json", "base")
    recorded_of(tmp_path / "r.json")
    lines = ["judge o.json --references b.json --recorded r.json --out a.json", "winrate a.json", "ifeval x --data ."]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", LIGHT, *lines]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "RESULT [0, 0, 2] []"
