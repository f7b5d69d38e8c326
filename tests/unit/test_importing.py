"""Judgments of others in the ledger: what is taken, what is refused before anything is written, and what is resumed."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actshift.cli import main
from actshift.errors import ActshiftError
from actshift.judging.config import JudgeConfig, judge_config
from actshift.judging.function_calls import calling
from actshift.judging.importing import Plan, planned, read_import
from actshift.judging.judges import Paired, judge_all, paired
from actshift.judging.judgments import is_switched, read_judgments
from actshift.judging.ledger import Ledger, open_ledger

COUNT = 6
HUMANS, WEIGHTED, FUNCTION = judge_config("humans"), judge_config("gpt4_turbo"), judge_config("gpt4_turbo_fn")


def outputs(folder: Path, *, same: int = -1) -> Paired:
    """The pairs of two files of outputs in a folder, of which one may be of equal answers."""
    for name in ("ours", "base"):
        rows = [
            {"instruction": f"Q{n}?", "output": "same" if n == same else f"{name} {n}", "generator": name}
            for n in range(COUNT)
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return paired(folder / "ours.json", folder / "base.json")


def judgment(number: int, **change: Any) -> dict[str, Any]:
    row = {"instruction": f"Q{number}?", "output_1": f"base {number}", "output_2": f"ours {number}"}
    names = {"generator_1": "base", "generator_2": "ours", "annotator": "humans"}
    return {**row, **names, "preference": 1 + number % 2} | change


def written(folder: Path, rows: list[dict[str, Any]], name: str = "a.json") -> Path:
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def taken(path: Path, given: Paired, config: JudgeConfig, ledger: Ledger, **options: Any) -> Plan:
    """Import a file of one generator as the command does."""
    rows = read_import([path], config)
    plan = planned(rows["ours"], given, config, ledger.answers, **options)
    plan.keep(ledger)
    return plan


def test_imported_judgments_are_the_judge_s_and_a_second_import_adds_nothing(tmp_path: Path) -> None:
    given = outputs(tmp_path, same=3)
    rows = [judgment(n) for n in range(COUNT) if n != 3]
    rows.append(judgment(3, output_1="same", output_2="same", preference=0))
    path = written(tmp_path, rows)
    first = taken(path, given, HUMANS, open_ledger(tmp_path / "l"))
    assert (len(first.entries), first.known, first.equal) == (5, 0, 1)
    ledger = open_ledger(tmp_path / "l")
    assert (ledger.imported, ledger.asked, ledger.paid, ledger.lost, ledger.spent) == (5, 0, 0, 0, 0.0)
    again = taken(path, given, HUMANS, ledger)
    assert (len(again.entries), again.known) == (0, 5) and len(open_ledger(tmp_path / "l").answers) == 5
    found = judge_all(given, HUMANS, ledger)
    assert [row["preference"] for row in found] == [1, 2, 1, 1.5, 1, 2]
    assert {row["annotator"] for row in found} == {"humans"}
    # What comes out is itself a file that can be imported.
    copy = taken(written(tmp_path, found, "b.json"), given, HUMANS, open_ledger(tmp_path / "other"))
    assert len(copy.entries) == 5


def test_what_a_kill_left_out_is_added(tmp_path: Path) -> None:
    given, path = outputs(tmp_path), written(tmp_path, [judgment(n) for n in range(COUNT)])
    plan = planned(read_import([path], HUMANS)["ours"], given, HUMANS, {})
    ledger = open_ledger(tmp_path / "l")
    for key in list(plan.entries)[:2]:
        ledger.keep(key, plan.entries[key])
    later = taken(path, given, HUMANS, open_ledger(tmp_path / "l"))
    assert (len(later.entries), later.known) == (4, 2)
    assert {row["preference"] for row in judge_all(given, HUMANS, open_ledger(tmp_path / "l"))} == {1, 2}


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "an instruction that is not the outputs'": ({"instruction": "Q9?"}, "1 of the judgments to import judge an instr"),
    "another answer": ({"output_2": "ours 1 "}, "judge another output_2 than ours has written"),
    "another reference's answer": ({"output_1": "else"}, "judge another output_1 than base has written"),
    "a switched pair": ({"generator_1": "ours", "generator_2": "base"}, "have another generator_1 than base"),
    "another reference": ({"generator_1": "gpt"}, "have another generator_1 than base"),
    "a duplicate": ({"instruction": "Q2?"}, "2 of the judgments to import judge an instruction of one generator more"),
    "no preference": ({"preference": None}, "1 of the judgments to import have no preference"),
    "not a number": ({"preference": math.nan}, "1 of the judgments to import have no preference"),
    "an impossible preference": ({"preference": 3}, "row 2: preference = 3 is impossible"),
    "a text": ({"preference": "m"}, "row 2: preference = 'm' is impossible"),
    "a truth": ({"preference": True}, "row 2: preference = True is impossible"),
    "another annotator": ({"annotator": "gpt"}, "are by the annotator gpt and by humans, and judge humans is humans"),
    "no text": ({"output_2": None}, "row 2 has no output_2"),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_wrong_row_refuses_the_whole_file(what: str, tmp_path: Path) -> None:
    change, said = ROWS[what]
    given, rows = outputs(tmp_path), [judgment(n) for n in range(COUNT)]
    rows[1] = judgment(1, **change)
    path = written(tmp_path, rows)
    with pytest.raises(ActshiftError) as caught:
        every = read_import([path], HUMANS)
        group = next(group for group in every.values() if any(row.where.endswith("row 2") for row in group))
        planned(group, given, HUMANS, {})
    assert said in str(caught.value)
    assert str(path) in str(caught.value) or "annotator" in said


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    rows = [{key: value for key, value in judgment(0).items() if key != "preference"}]
    with pytest.raises(ActshiftError, match="row 1 has no preference: judgments in AlpacaEval's format have texts"):
        read_import([written(tmp_path, rows)], HUMANS)


def test_rows_of_two_files_are_one_import(tmp_path: Path) -> None:
    given = outputs(tmp_path)
    one, two = (written(tmp_path, [judgment(n) for n in part], f"{part[0]}.json") for part in ([0, 1, 2], [3, 4, 5]))
    plan = planned(read_import([one, two], HUMANS)["ours"], given, HUMANS, {})
    assert len(plan.entries) == COUNT
    with pytest.raises(ActshiftError, match="6 of the judgments to import judge an instruction of one generator more"):
        read_import([one, two, written(tmp_path, [judgment(n) for n in range(3)], "c.json")], HUMANS)


def test_another_preference_than_the_ledger_s_is_refused(tmp_path: Path) -> None:
    given, ledger = outputs(tmp_path), open_ledger(tmp_path / "l")
    taken(written(tmp_path, [judgment(0)]), given, HUMANS, ledger)
    with pytest.raises(ActshiftError, match="have another preference than the ledger"):
        taken(written(tmp_path, [judgment(0, preference=2), judgment(1)]), given, HUMANS, ledger)
    assert len(open_ledger(tmp_path / "l").answers) == 1


def test_equal_answers_are_a_draw(tmp_path: Path) -> None:
    given = outputs(tmp_path, same=0)
    with pytest.raises(ActshiftError, match="prefer one of two equal answers"):
        taken(written(tmp_path, [judgment(0, output_1="same", output_2="same")]), given, HUMANS, open_ledger(tmp_path))


def test_unjudged_rows_are_taken_where_they_are_allowed(tmp_path: Path) -> None:
    given, ledger = outputs(tmp_path), open_ledger(tmp_path / "l")
    rows = [judgment(n, preference=None if n == 2 else 1.2) for n in range(COUNT)]
    taken(written(tmp_path, rows), given, HUMANS, ledger, allow_unjudged=True)
    found = judge_all(given, HUMANS, ledger, allow_unjudged=True)
    assert [row["preference"] for row in found] == [1.2, 1.2, None, 1.2, 1.2, 1.2]


def weighted(number: int, share: float = 0.8, **change: Any) -> dict[str, Any]:
    """A row as AlpacaEval's weighted judge records it, with its raw answer."""
    tokens = [{"token": "m", "logprob": math.log(share)}, {"token": "M", "logprob": math.log(1 - share)}]
    preference = 1 + share if is_switched(f"Q{number}?") else 2 - share
    raw = {"message": {"content": "m"}, "logprobs": {"content": [{"top_logprobs": tokens}]}, "text": "m"}
    row = judgment(number, annotator=WEIGHTED.annotator, preference=preference, raw_completion=raw)
    return row | change


def test_raw_answers_are_kept_and_must_give_the_preference(tmp_path: Path) -> None:
    given, ledger = outputs(tmp_path), open_ledger(tmp_path / "l")
    taken(written(tmp_path, [weighted(n) for n in range(COUNT)]), given, WEIGHTED, ledger)
    assert all("logprobs" in answer for answer in ledger.answers.values())
    found = judge_all(given, WEIGHTED, ledger)  # nothing is asked, so that no key is needed
    assert [row["preference"] for row in found] == [pytest.approx(weighted(n)["preference"]) for n in range(COUNT)]
    odd = [weighted(0, preference=1.9), weighted(0, raw_completion={"text": "m"})]
    odd.append(weighted(0, raw_completion={**weighted(0)["raw_completion"], "model": "gpt-4o"}))
    for row in odd:
        with pytest.raises(ActshiftError, match="does not follow from raw_completion by the parser 'logprob'"):
            taken(written(tmp_path, [row]), given, WEIGHTED, open_ledger(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    # Without the raw answer the preference alone is taken.
    taken(written(tmp_path, [weighted(0, raw_completion=None)]), given, WEIGHTED, open_ledger(tmp_path / "other"))


def test_the_recorded_judgments_of_a_whole_model_are_imported(shared: Path, tmp_path: Path) -> None:
    """AlpacaEval's own file, its raw answers parsed anew: all 805 rows, and the published preferences come out."""
    folder = shared / "data" / "alpaca_eval"
    recorded = folder / "annotations_weighted_gpt4_turbo" / "alpaca-7b.jsonl.gz"
    if not recorded.exists():
        pytest.skip(f"needs {recorded}")
    given = paired(folder / "model_outputs" / recorded.name, folder / "gpt4_baseline.jsonl")
    plan = planned(read_import([recorded], WEIGHTED)["alpaca-7b"], given, WEIGHTED, {})
    assert len(plan.entries) + plan.equal == 805 and all("logprobs" in each for each in plan.entries.values())
    ledger = Ledger(tmp_path, tmp_path / "none.jsonl", answers=dict(plan.entries))
    found = {row["instruction"]: row["preference"] for row in judge_all(given, WEIGHTED, ledger)}
    published = read_judgments(recorded)
    for instruction, y in zip(published.instructions, published.y_N, strict=True):
        assert found[instruction] - 1 == pytest.approx(y, abs=1e-9)
    with pytest.raises(ActshiftError, match="are by the annotator weighted_alpaca_eval_gpt4_turbo, and judge gpt41"):
        read_import([recorded], judge_config("gpt41"))


def test_recorded_function_calls_are_imported(tmp_path: Path) -> None:
    given, ledger = outputs(tmp_path), open_ledger(tmp_path / "l")
    raw = json.dumps({"ordered_models": [{"model": "m", "rank": 2}, {"model": "M", "rank": 1}]})
    rows = [
        judgment(n, annotator=FUNCTION.annotator, preference=1 if is_switched(f"Q{n}?") else 2, raw_completion=raw)
        for n in range(COUNT)
    ]
    taken(written(tmp_path, rows), given, FUNCTION, ledger)
    assert all(
        answer["message"]["tool_calls"] == [calling("make_partial_leaderboard", raw)]
        for answer in ledger.answers.values()
    )
    assert judge_all(given, FUNCTION, ledger)[0]["preference"] == rows[0]["preference"]


def test_a_judge_of_both_orders_needs_both(tmp_path: Path) -> None:
    config = replace(HUMANS, orders="both")
    given, ledger = outputs(tmp_path), open_ledger(tmp_path / "l")
    one = judgment(0, annotator=config.label, preference=1.5)
    for change in ({}, {"preferences": [1.0]}, {"preferences": [1.0, 1.0]}, {"preferences": [1.0, None]}):
        with pytest.raises(ActshiftError, match="is not judged in both orders"):
            taken(written(tmp_path, [one | change]), given, config, ledger)
    taken(written(tmp_path, [one | {"preferences": [1.0, 2.0]}]), given, config, ledger)
    assert len(ledger.answers) == 2
    with pytest.raises(ActshiftError, match=r"judge humans is humans \(both orders\)"):
        read_import([written(tmp_path, [judgment(0)])], config)


def test_the_command_imports_into_a_file_of_judgments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs(tmp_path)
    words = ["judge", "ours.json", "--references", "base.json", "--out", "out.json", "--judge", "humans"]
    written(tmp_path, [judgment(n) for n in range(4)], "few.json")
    written(tmp_path, [judgment(n) for n in range(COUNT)], "all.json")
    assert main([*words, "--import", "few.json", "--dry-run"]) == 0
    assert "ours: 4 answers to import as humans's, 0 in the ledger before" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()
    assert main([*words, "--import", "few.json"]) == 0
    assert "2 questions left" in capsys.readouterr().out and not (tmp_path / "out.json").exists()
    assert main(words) == 2  # nobody can be asked for the rest
    assert "judge humans has imported judgments alone" in capsys.readouterr().err
    assert main([*words, "--import", "all.json"]) == 0
    assert "2 answers imported as humans's, 4 in the ledger before" in capsys.readouterr().out
    first = (tmp_path / "out.json").read_bytes()
    assert read_judgments(tmp_path / "out.json").y_N.tolist() == [0, 1, 0, 1, 0, 1]
    assert main([*words, "--import", "all.json"]) == 0 and main(words) == 0
    assert (tmp_path / "out.json").read_bytes() == first
    for odd in (["--limit", "3"], ["--budget", "1"], ["--recorded", "all.json"], ["--base-url", "https://x"]):
        assert main([*words, "--import", "all.json", *odd]) == 2
        assert f"leave out {odd[0]}" in capsys.readouterr().err
    written(tmp_path, [judgment(0, generator_2="our")], "other.json")
    assert main([*words, "--import", "other.json"]) == 2
    assert "unknown generator_2 'our'. Did you mean 'ours'?" in capsys.readouterr().err
