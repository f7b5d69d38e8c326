"""Procedural rows are right: every answer is worked out again from the text, by other means than the generator's."""

from __future__ import annotations

import gzip
import json
import random
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
from dataset_configs import DATASETS, dataset_config, task_of
from hypothesis import given
from hypothesis import strategies as st

from actshift.data.sources import procedural_rows
from actshift.tasks import get_task
from actshift.tasks.listops import draw_tree, tree_length, tree_text, tree_value

OPERATIONS = {
    "MIN": min,
    "MAX": max,
    "SM": lambda values: sum(values) % 10,
    "MED": lambda values: int(statistics.median(values)),
}


def evaluate(text: str) -> int:
    """A stack machine over the symbols; round brackets, which only pair arguments up, are skipped."""
    stack: list[list[int]] = [[]]
    operators = []
    for symbol in re.findall(r"\[\w+|\d+|\]", text):
        if symbol == "]":
            values = stack.pop()
            stack[-1].append(OPERATIONS[operators.pop()](values))
        elif symbol.startswith("["):
            operators.append(symbol[1:])
            stack.append([])
        else:
            stack[-1].append(int(symbol))
    (value,) = stack.pop()
    assert not stack and not operators
    return value


def test_the_evaluator_on_expressions_worked_by_hand() -> None:
    assert evaluate("[MIN 1 [SM 3 6 4 0 5] 5 [MED 6 3 8] 0]") == 0
    assert evaluate("( ( ( [MAX 2 ) 9 ) ] )") == 9
    assert evaluate("[SM [MED 1 2 4 7] 9 9]") == 1
    assert evaluate("7") == 7


def test_the_evaluator_agrees_with_the_original_test_set(shared: Path) -> None:
    with gzip.open(shared / "data" / "listops_nyu" / "d20s_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 10_000
    assert [row for row in rows if evaluate(row["Source"]) != row["Target"]] == []


@given(seed=st.integers(0, 2**32), max_depth=st.integers(1, 6), max_args=st.integers(2, 6))
def test_trees_have_the_value_and_length_of_their_text(seed: int, max_depth: int, max_args: int) -> None:
    tree = draw_tree(random.Random(seed), max_depth=max_depth, max_args=max_args)
    text = tree_text(tree)
    assert tree_value(tree) == evaluate(text)
    assert tree_length(tree) == len(text.replace("]", " ]").split())
    assert not set(text) - set("[]MINAXEDS 0123456789")
    depths = [text[:place].count("[") - text[:place].count("]") for place in range(len(text))]
    assert max(depths) < max_depth


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_listops_rows_have_the_value_of_their_expression(split: str) -> None:
    config = dataset_config("listops")
    limits = config.procedural.difficulty
    for row in procedural_rows(config, split):
        assert evaluate(row["Source"]) == row["Target"]
        assert limits["min_length"] <= len(row["Source"].replace("]", " ]").split()) <= limits["max_length"]


def test_listops_uses_every_operator() -> None:
    found = Counter(re.findall(r"\[(\w+)", " ".join(row["Source"] for row in rows_of("listops"))))
    assert set(found) == {"MIN", "MAX", "MED", "SM"}
    assert min(found.values()) > 0.8 * max(found.values())


def rows_of(name: str) -> list[dict]:
    return procedural_rows(dataset_config(name), "train")


def test_boolq_answers_follow_from_the_passage() -> None:
    for row in rows_of("boolq"):
        facts = set(re.findall(r"(\w+) has a (\w+ \w+)\.", row["passage"]))
        asked = re.fullmatch(r"does (\w+) have a (\w+ \w+)", row["question"])
        assert asked and (asked.groups() in facts) is row["answer"]
        thing = asked[2].split()[1]
        assert (asked[1], thing) in {(person, what.split()[1]) for person, what in facts}, (
            "only the colour may be wrong"
        )


@pytest.mark.parametrize("facts", [2, 4])
def test_boolq_passages_have_their_facts_and_traps(facts: int) -> None:
    for traps in (0, 100):
        rng = random.Random(facts)
        told_elsewhere = set()
        for row in [get_task("boolq").generate(rng, facts=facts, traps=traps) for _ in range(300)]:
            told = re.findall(r"(\w+) has a (\w+) (\w+)\.", row["passage"])
            assert len(told) == len({thing for _, _, thing in told}) == len({person for person, _, _ in told}) == facts
            colour, thing = row["question"].split()[-2:]
            if not row["answer"] and len({colour for _, colour, _ in told}) > 1:
                told_elsewhere.add(colour in {colour for _, colour, other in told if other != thing})
        assert told_elsewhere == {traps == 100}


def test_winogrande_answers_follow_from_the_sentence() -> None:
    from actshift.tasks.world import COMPARATIVES

    opposites = {frozenset(pair) for pair in COMPARATIVES}
    pattern = re.compile(r"The (\w+) is (\w+) than the (\w+)(?:, so| because) the _ is (\w+)\.")
    for row in rows_of("winogrande"):
        told = pattern.fullmatch(row["sentence"])
        assert told
        first, comparative, second, asked = told.groups()
        assert (row["option1"], row["option2"]) == (first, second) and first != second
        assert asked == comparative or frozenset((asked, comparative)) in opposites
        assert row["answer"] == ("1" if asked == comparative else "2")


def test_arc_challenge_has_exactly_one_right_choice() -> None:
    from actshift.tasks.world import KINDS, OPPOSITES

    pairs = {frozenset(pair) for pair in OPPOSITES}
    for row in rows_of("arc_challenge"):
        *_, subject = row["question"].rstrip("?").split()
        if row["question"].startswith("What is"):
            left, right = map(int, re.findall(r"\d+", row["question"]))
            fits = [text == str(left + right) for text in row["choices"]["text"]]
        elif "opposite" in row["question"]:
            fits = [frozenset((text, subject)) in pairs for text in row["choices"]["text"]]
        else:
            fits = [text in KINDS[subject] for text in row["choices"]["text"]]
        assert fits.count(True) == 1
        assert row["choices"]["label"][fits.index(True)] == row["answerKey"]
        assert len(set(row["choices"]["text"])) == len(fits) == 4


def test_gsm8k_steps_are_right_and_reach_the_answer() -> None:
    for row in rows_of("gsm8k"):
        steps, answer = row["answer"].split("\n#### ")
        found = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", steps)
        assert found
        for left, sign, right, result in found:
            assert int(left) + (int(right) if sign == "+" else -int(right)) == int(result)
        assert found[-1][3] == answer
        # Every number of the story is used, and no step uses one that was neither told nor worked out.
        told = re.findall(r"\d+", row["question"])
        used = [number for left, _, right, _ in found for number in (left, right)]
        assert Counter(told) == Counter(used) - Counter([result for *_, result in found[:-1]])


@pytest.mark.parametrize("name", DATASETS)
def test_generate_draws_from_its_generator_alone(name: str) -> None:
    task, difficulty = task_of(name), dataset_config(name).procedural.difficulty
    random.seed(0)
    first = [task.generate(rng, **difficulty) for rng in [random.Random(5)] for _ in range(20)]
    random.seed(1)
    second = [task.generate(rng, **difficulty) for rng in [random.Random(5)] for _ in range(20)]
    assert first == second
    assert json.loads(json.dumps(first)) == first, "rows must survive a JSON Lines file"
