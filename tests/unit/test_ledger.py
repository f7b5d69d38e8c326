"""The ledger of paid pairs: what it holds survives every kill, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actshift.errors import ActshiftError
from actshift.judging.ledger import open_ledger, question_key

MESSAGES = [{"role": "user", "content": "Which?"}]


def test_a_key_is_of_judge_and_question() -> None:
    key = question_key("judge", MESSAGES)
    assert key == question_key("judge", [dict(reversed(MESSAGES[0].items()))])
    others = [
        question_key("another", MESSAGES),
        question_key("judge", [{"role": "system", "content": "Which?"}]),
        question_key("judge", [{"role": "user", "content": "Which one?"}]),
        question_key("judge", MESSAGES * 2),
    ]
    assert len({key, *others}) == 5


def test_what_is_answered_is_there_and_costs_what_it_cost(tmp_path: Path) -> None:
    first = open_ledger(tmp_path / "ledger")
    assert not (tmp_path / "ledger").exists()  # nothing is made before the first entry
    first.ask("a", dollars=0.03)
    assert (first.lost, first.spent) == (1, 0.03)
    first.answer("a", {"text": "m"}, dollars=0.01)
    first.ask("b", dollars=0.03)
    again = open_ledger(tmp_path / "ledger")
    assert again.answers == {"a": {"text": "m"}}
    assert (again.asked, again.paid, again.lost) == (2, 1, 1)
    assert again.spent == pytest.approx(0.04) == first.spent
    again.ask("b", dollars=0.03)
    again.answer("b", {"text": "M"}, dollars=0.02)
    third = open_ledger(tmp_path / "ledger")
    assert set(third.answers) == {"a", "b"} and len(list((tmp_path / "ledger").iterdir())) == 2
    # The question that was in flight stays spent.
    assert (third.lost, third.spent) == (1, pytest.approx(0.06))


def test_of_two_answers_to_one_question_every_reader_takes_the_same(tmp_path: Path) -> None:
    for text in ("m", "M"):
        ledger = open_ledger(tmp_path)
        ledger.answers.clear()
        ledger.file = tmp_path / f"{text}.jsonl"
        ledger.ask("a")
        ledger.answer("a", {"text": text})
    assert open_ledger(tmp_path).answers == open_ledger(tmp_path).answers == {"a": {"text": "M"}}
    assert open_ledger(tmp_path).paid == 2


@pytest.mark.parametrize("left", range(0, 90, 7))
def test_a_halved_last_line_is_no_answer(left: int, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.ask("a")
    ledger.answer("a", {"text": "m"})
    data = ledger.file.read_bytes()
    cut = data[: len(data) - 1 - left]
    ledger.file.write_bytes(cut)
    found = open_ledger(tmp_path)
    assert found.answers == {} and found.paid == 0
    assert found.asked == cut.count(b"\n")


@pytest.mark.parametrize("line", ["{", "[]", '{"event": "paid", "key": "a"}', '{"event": "answered", "key": "a"}', ""])
def test_what_is_no_entry_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f"{line}\n")
    with pytest.raises(ActshiftError, match=r"x\.jsonl, line 1 is no entry of a ledger"):
        open_ledger(tmp_path)


WORKER = """
import sys
from pathlib import Path
from actshift.judging.ledger import open_ledger
ledger = open_ledger(Path(sys.argv[1]))
for number in range(10_000):
    key = f"pair {number}"
    if key not in ledger.answers:
        ledger.ask(key, dollars=1.0)
        ledger.answer(key, {"number": number}, dollars=1.0)
        print(key, flush=True)
"""


def test_kills_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    """SIGKILL at five moments: every answer that was announced is there, and at most one question a kill is lost."""
    announced: list[str] = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for round_ in range(5):
        words = [sys.executable, "-c", WORKER, str(tmp_path)]
        worker = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)
        assert worker.stdout is not None
        announced += [worker.stdout.readline().strip() for _ in range(3 + 5 * round_)]
        time.sleep(0.003 * round_)
        worker.send_signal(signal.SIGKILL)
        announced += [line.strip() for line in worker.stdout.read().splitlines() if line.strip()]
        worker.wait()
    found = open_ledger(tmp_path)
    assert len(announced) > 30 and len(set(announced)) == len(announced)  # nothing was paid for twice
    assert set(announced) <= set(found.answers)
    assert found.paid == len(found.answers) and 0 <= found.lost <= 5
    assert found.spent == found.paid + found.lost
    for path in tmp_path.glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n")[:-1]:
            json.loads(line)
