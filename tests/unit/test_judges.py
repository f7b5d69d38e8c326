"""Asking a judge: its identity, pairs of outputs, the ledger between, and recorded answers from end to end."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
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
from actshift.judging import asking
from actshift.judging.asking import Asker, Pair, answer_all, judged, open_questions
from actshift.judging.client import Attempts, Refused, Stop
from actshift.judging.config import JudgeConfig, judge_config
from actshift.judging.judges import judge_all, paired
from actshift.judging.judgments import is_switched, read_judgments, verdict_of
from actshift.judging.ledger import Ledger, open_ledger
from actshift.judging.prompts import TEMPLATES, Message
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


def pairs_of(count: int) -> list[Pair]:
    return [Pair(f"Question {n}?", "", f"base {n}", f"ours {n}") for n in range(count)]


def test_every_judge_of_conf_is_whole_and_its_identity_is_what_can_change_an_answer() -> None:
    names = ["claude", "claude_fn", "gpt41", "gpt4_turbo", "gpt4_turbo_clf", "gpt4_turbo_fn", "humans"]
    assert groups()["judge"] == [*names, "local_server", "replay", "replay_fn", "smollm2"]
    identities = set()
    for name in groups()["judge"]:
        config = judge_config(name)
        assert config.name == name
        identities.add(config.identity)
        changed = {"name": "x", "annotator": "y", "base_url": "https://x", "key_env": "X", "concurrency": 9}
        assert config.identity == replace(config, **changed, attempts=9, orders="both").identity
        request, template = {**config.request, "max_tokens": 2}, TEMPLATES[config.template == TEMPLATES[0]]
        changes = {"model": "x", "kind": "x", "parser": "x", "request": request, "template": template}
        for other in ({key: value} for key, value in changes.items()):
            assert config.identity != replace(config, **other).identity
        assert config.label != replace(config, orders={"coin": "both", "both": "coin"}[config.orders]).label
    assert len(identities) == 11
    # The committed records name this judge so: what is added to judges may not change what they were.
    assert judge_config("smollm2").identity.startswith("f532a2bd0510321e")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "replya"}, "Did you mean 'replay'?"),
        ({"parser": "verdicts"}, "unknown judge.parser 'verdicts'"),
        ({"template": "other.txt"}, "unknown judge.template"),
        ({"orders": "random"}, "unknown judge.orders"),
        ({"concurrency": 0}, "judge.concurrency = 0 is impossible"),
        ({"prices": {"input": -1, "output": 0, "date": ""}}, "judge.prices = -1 is impossible"),
        ({"prices": {"in": 1}}, "prices must have input, output and date"),
        ({"url": "http://x"}, "a judge has the keys"),
        ({"kind": "openai"}, "judge.base_url = null is impossible: it must be https"),
        ({"kind": "openai", "base_url": "http://judge.example/v1"}, "or http:// on this machine"),
        ({"kind": "anthropic", "base_url": "https://x"}, "that protocol gives no log probabilities"),
        ({"kind": "anthropic", "base_url": "https://x", "parser": "likelier"}, "it must be verdict or tool"),
        ({"kind": "transformers", "parser": "tool"}, "no function is called here"),
        ({"parser": "tool", "request": {"tools": [], "tool_choice": "auto"}}, "must declare a function with the argum"),
        ({"request": "m"}, "request must hold names and values, got 'm'"),
    ],
)
def test_a_wrong_file_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = yaml.safe_load((paths.conf_dir() / "judge" / "replay.yaml").read_text()) | {"name": "mine"} | change
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "mine.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setenv(paths.CONFIG_DIR, str(tmp_path))
    with pytest.raises(ActshiftError) as caught:
        judge_config("mine")
    assert said in str(caught.value)
    with pytest.raises(ActshiftError, match="unknown judge 'gpt'"):
        judge_config("gpt")


def test_a_server_on_this_machine_needs_no_tls() -> None:
    assert judge_config("local_server").base_url == "http://localhost:8000/v1"


class Scripted:
    """A judge that counts its questions, fails at one of them, and answers as it is told."""

    def __init__(self, *, fails_at: int = -1, answers: Sequence[dict[str, Any]] = ()) -> None:
        self.asked, self.fails_at, self.answers = 0, fails_at, list(answers)
        self._lock = threading.Lock()

    def __call__(self, messages: Sequence[Message], attempts: Attempts) -> dict[str, Any]:
        attempts.leaves()
        with self._lock:
            self.asked += 1
            number = self.asked
        if number == self.fails_at:
            raise ConnectionError("gone")
        return self.answers[number - 1] if number <= len(self.answers) else completion_of()


def answered(
    pairs: Sequence[Pair], config: JudgeConfig, judge: asking.Ask, ledger: Ledger, *, budget: float | None = None
) -> list[dict[str, Any]]:
    answer_all(pairs, config, judge, ledger, Asker(config, ledger, budget=budget, stop=threading.Event()))
    return [judged(pair, config, ledger) for pair in pairs]


def priced(dollars: float) -> JudgeConfig:
    """A judge whose every question of these costs the same, by the price of its one answer token."""
    config = replace(REPLAY, concurrency=1)
    return replace(config, prices=replace(config.prices, output=dollars * 1e6))


def test_no_pair_is_asked_twice_and_what_was_in_flight_is_spent(tmp_path: Path) -> None:
    pairs, config = pairs_of(5), priced(0.02)
    ledger = open_ledger(tmp_path)
    with pytest.raises(ConnectionError):
        answered(pairs, config, Scripted(fails_at=3), ledger)
    ledger, judge = open_ledger(tmp_path), Scripted()
    answered_before = len(ledger.answers)
    assert answered_before >= 2 and len(open_questions(pairs, config, ledger)) == 5 - answered_before
    rows = answered(pairs, config, judge, ledger)
    assert (ledger.asked, ledger.paid, ledger.lost) == (6, 5, 1) and judge.asked == 5 - answered_before
    assert ledger.spent == pytest.approx(0.12)
    assert answered(pairs, config, judge, ledger) == rows and judge.asked == 5 - answered_before
    for pair, row in zip(pairs, rows, strict=True):
        assert row["preference"] == pytest.approx(1 + SHARE if is_switched(pair.instruction) else 2 - SHARE)
    # Another judge is another question; the same pair twice is one.
    assert len(open_questions(pairs * 2, replace(config, model="another"), ledger)) == 5


def test_a_budget_is_not_exceeded_and_a_restart_does_not_renew_it(tmp_path: Path) -> None:
    pairs, config = pairs_of(10), priced(0.1)
    for _ in range(2):
        with pytest.raises(Stop, match=r"the budget of \$0\.55 is reached"):
            answered(pairs, config, Scripted(), open_ledger(tmp_path), budget=0.55)
    assert open_ledger(tmp_path).spent == pytest.approx(0.5)
    assert len(answered(pairs, config, Scripted(), open_ledger(tmp_path), budget=1.05)) == 10


def test_both_orders_are_two_questions_whose_preferences_are_averaged(tmp_path: Path) -> None:
    pairs, config = pairs_of(4), replace(REPLAY, orders="both")
    judge = Scripted()
    rows = answered(pairs, config, judge, open_ledger(tmp_path))
    assert judge.asked == 8
    for row in rows:  # the judge likes the first place: in both orders together it prefers neither
        assert row["preference"] == pytest.approx(1.5) and sorted(row["preferences"]) == pytest.approx([1.2, 1.8])
        assert row["annotator"].endswith("(both orders)")
    # What was asked in both orders needs no question in one.
    assert open_questions(pairs, REPLAY, open_ledger(tmp_path)) == []


def test_two_probes_go_ahead_of_the_rest(tmp_path: Path) -> None:
    judge = Scripted(answers=[{"message": {"content": "m"}}] * 100)
    with pytest.raises(Stop, match=r"without what its parser 'logprob' needs: .*top_logprobs"):
        answered(pairs_of(20), replace(REPLAY, attempts=3), judge, open_ledger(tmp_path))
    assert judge.asked == 3  # one question, three times
    judge = Scripted(answers=[{"message": {"content": "m"}}])
    assert len(answered(pairs_of(20), replace(REPLAY, attempts=3), judge, open_ledger(tmp_path / "b"))) == 20
    assert judge.asked == 21


def test_another_model_s_answers_never_mix(tmp_path: Path) -> None:
    config = replace(REPLAY, model="gpt-4.1", concurrency=1)
    for name, said in (("gpt-4.1-mini", None), ("gpt-4.10", "asks gpt-4.1, and gpt-4.10 answers")):
        ledger = open_ledger(tmp_path / name)
        judge = Scripted(answers=[{**completion_of(), "model": name}] * 5)
        if said is None:  # the end of a name may be a date
            answered(pairs_of(3), config, judge, ledger)
            continue
        with pytest.raises(Stop, match=said):
            answered(pairs_of(3), config, judge, ledger)
    first = {**completion_of(), "model": "gpt-4.1-2025-04-14"}
    changed = Scripted(answers=[first] * 3 + [{**completion_of(), "model": "gpt-4.1-2026-01-01"}] * 9)
    with pytest.raises(Stop, match=r"was answered by gpt-4\.1-2025-04-14 before, and by gpt-4\.1-2026-01-01 now"):
        answered(pairs_of(9), config, changed, open_ledger(tmp_path / "c"))
    # A later process knows what the ledger's answers came from.
    again = Scripted(answers=[{**completion_of(), "model": "gpt-4.1-2026-01-01"}] * 9)
    with pytest.raises(Stop, match="Their judgments never mix"):
        answered(pairs_of(9), config, again, open_ledger(tmp_path / "c"))
    assert len(open_ledger(tmp_path / "c").answers) == 3


def test_a_refused_question_is_unjudged_and_not_asked_again(tmp_path: Path) -> None:
    asked = []

    def refusing(messages: Sequence[Message], attempts: Attempts) -> dict[str, Any]:
        attempts.leaves()
        asked.append(messages)
        if "Question 2?" in messages[-1]["content"]:
            attempts.unpaid()
            raise Refused("status 400: content")
        return completion_of()

    ledger, config = open_ledger(tmp_path), priced(0.1)
    rows = answered(pairs_of(4), config, refusing, ledger)
    assert [row["preference"] is None for row in rows] == [False, False, True, False]
    assert ledger.spent == pytest.approx(0.3) and ledger.lost == 0
    answered(pairs_of(4), config, refusing, open_ledger(tmp_path))
    assert len(asked) == 4


def test_too_many_unjudged_rows_are_no_judgments(tmp_path: Path) -> None:
    outputs, base = outputs_of(tmp_path / "o.json", "ours"), outputs_of(tmp_path / "b.json", "base")
    recorded = json.loads(recorded_of(tmp_path / "r.json").read_text())
    recorded[3]["raw_completion"] = {"logprobs": {"content": [{"top_logprobs": []}]}}
    (tmp_path / "r.json").write_text(json.dumps(recorded))
    given, replayed = paired(outputs, base), {"recorded": [tmp_path / "r.json"]}
    with pytest.raises(ActshiftError, match=r"1 of 6 rows are without a preference, more than 1%"):
        judge_all(given, REPLAY, open_ledger(tmp_path / "l"), **replayed)
    assert len(judge_all(given, REPLAY, open_ledger(tmp_path / "l"), **replayed, allow_unjudged=True)) == 6


@pytest.mark.parametrize(
    ("said", "switched", "expected"),
    [
        ("m", False, 1),
        ("M", False, 2),
        (" M.\n", True, 1),
        ("**m**", True, 2),
        ("Model m", False, None),
        ("", True, None),
    ],
)
def test_a_verdict_is_a_name_and_nothing_else(said: str, switched: bool, expected: float | None) -> None:
    assert verdict_of({"message": {"content": said}}, switched=switched) == expected


def test_a_verdict_needs_a_message() -> None:
    broken: list[dict[str, Any]] = [{}, {"message": None}, {"text": "m"}]
    for each in broken:
        with pytest.raises(ActshiftError, match="has no message"):
            verdict_of(each, switched=False)


def test_a_judge_whose_every_answer_is_there_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    config, ledger = judge_config("gpt4_turbo"), open_ledger(tmp_path / "l")
    answered(pairs_of(6), config, Scripted(), ledger)
    given = paired(outputs_of(tmp_path / "o.json", "ours"), outputs_of(tmp_path / "b.json", "base"))
    assert len(judge_all(given, config, ledger)) == 6
    with pytest.raises(ActshiftError, match="needs a key in the environment variable OPENAI_API_KEY"):
        judge_all(given, config, open_ledger(tmp_path / "other"))


def test_a_replay_is_of_its_own_annotator_alone(tmp_path: Path) -> None:
    given = paired(outputs_of(tmp_path / "o.json", "ours"), outputs_of(tmp_path / "b.json", "base"))
    rows = [{**row, "annotator": "another"} for row in json.loads(recorded_of(tmp_path / "r.json").read_text())]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    with pytest.raises(ActshiftError, match="row 1 is of the annotator another, and judge replay replays weighted_"):
        judge_all(given, REPLAY, open_ledger(tmp_path / "l"), recorded=[tmp_path / "r.json"])


def test_equal_answers_are_no_question(tmp_path: Path) -> None:
    pair = Pair("Question?", "", "same", "same")
    assert open_questions([pair], REPLAY, open_ledger(tmp_path)) == []
    row = judged(pair, REPLAY, open_ledger(tmp_path))
    assert (row["preference"], row["raw_completion"]) == (1.5, None)


def test_a_replay_answers_what_was_asked_then_alone(tmp_path: Path) -> None:
    base, recorded = outputs_of(tmp_path / "b.json", "base"), recorded_of(tmp_path / "r.json")
    others = paired(outputs_of(tmp_path / "o.json", "theirs"), base)
    with pytest.raises(Stop, match="none of the 6 recorded answers is to this question"):
        judge_all(others, REPLAY, open_ledger(tmp_path / "l"), recorded=[recorded])
    assert not open_ledger(tmp_path / "l").answers and open_ledger(tmp_path / "l").spent == 0


def test_outputs_are_joined_by_instruction(tmp_path: Path) -> None:
    ours, base = outputs_of(tmp_path / "o.json", "ours"), outputs_of(tmp_path / "b.json", "base")
    ours.write_text(json.dumps(json.loads(ours.read_text())[::-1]))
    given = paired(ours, base)
    assert (given.generator, given.reference, given.lost) == ("ours", "base", ())
    assert [(pair.reference, pair.output) for pair in given.pairs] == [(f"base {n}", f"ours {n}") for n in range(6)]
    few = outputs_of(tmp_path / "few.json", "ours", count=5)
    cases = [
        (few, "1 instructions stand in"),
        (outputs_of(tmp_path / "twice.json", "ours", instruction="A?"), "is answered a second time"),
        (outputs_of(tmp_path / "none.json", "ours", output=None), "row 1 has no text under output"),
    ]
    for file, said in cases:
        with pytest.raises(ActshiftError, match=said):
            paired(file, base)
    inner = paired(few, base, inner=True)
    assert (len(inner.pairs), inner.lost) == (5, ("Question 5?",))


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
    printed = capsys.readouterr().out
    assert printed.startswith("6 pairs, 1 of equal answers, 0 questions answered, 5 to ask\n$0.00 expected")
    assert not Path("out").exists() and not Path("results").exists()
    assert main([*words, "--limit", "2"]) == 0
    assert "2 judged, 0 of them without a preference" in capsys.readouterr().out
    assert main(words) == 0
    assert "2 questions answered, 3 to ask" in capsys.readouterr().out
    first = Path("out/a.json").read_bytes()
    found = read_judgments(Path("out/a.json"))
    assert (found.model, found.reference, found.annotator) == ("ours", "base", REPLAY.annotator)
    assert win_rate(found).n_draws == 1
    # A second time everything comes from the ledger, and the file is the same.
    assert main([*words[:4], "--out", "out/a.json"]) == 0
    assert " 0 to ask" in capsys.readouterr().out and Path("out/a.json").read_bytes() == first
    for wrong in (["--limit", "0"], ["--judge", "gpt"], ["--budget", "-1"], ["--base-url", "http://example.com"]):
        assert main([*words, *wrong]) == 2
    assert "unknown judge 'gpt'" in capsys.readouterr().err


def test_a_dry_run_prices_the_paper_s_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    words = ["judge", str(outputs_of(Path("o.json"), "ours")), "--references", str(outputs_of(Path("b.json"), "base"))]
    for judge, price in (("gpt4_turbo", 10), ("gpt41", 2), ("claude", 3)):
        assert main([*words, "--out", "a.json", "--judge", judge, "--dry-run"]) == 0
        config = judge_config(judge)
        each = config.dollars(pairs_of(1)[0].questions(config)[0].messages, tokens="mean")
        characters = sum(len(message["content"]) for message in pairs_of(1)[0].questions(config)[0].messages)
        written = config.most_tokens * config.prices.output
        assert each == pytest.approx((characters / 4.8 * price + written) / 1e6)
        assert f"${6 * each:.2f} expected" in capsys.readouterr().out
        assert main([*words, "--out", "a.json", "--judge", judge]) == 2
        assert f"needs a key in the environment variable {config.key_env}" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["alpaca-7b", "gemma-7b-it", "gpt-3.5-turbo-1106", "vicuna-7b-v1.5"])
def test_the_replay_of_recorded_answers_gives_the_published_preferences(
    model: str, shared: Path, tmp_path: Path
) -> None:
    """From the models' outputs and the reference's, over HTTP and the ledger, to the published judgments."""
    folder = shared / "data" / "alpaca_eval"
    recorded = folder / "annotations_weighted_gpt4_turbo" / f"{model}.jsonl.gz"
    if not recorded.exists():
        pytest.skip(f"needs {recorded}")
    given = paired(folder / "model_outputs" / recorded.name, folder / "gpt4_baseline.jsonl")
    assert (len(given.pairs), given.generator, given.reference) == (805, model, "gpt4_1106_preview")
    del given.pairs[120:]
    published = read_judgments(recorded)
    order = {text: place for place, text in enumerate(published.instructions)}
    for row in judge_all(given, REPLAY, open_ledger(tmp_path), recorded=[recorded]):
        assert row["preference"] - 1 == pytest.approx(published.y_N[order[row["instruction"]]], abs=1e-9)


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
    lines += ["judges a.json a.json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", LIGHT, *lines]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    assert done.stdout.splitlines()[-1] == "RESULT [0, 0, 2, 0] []"
