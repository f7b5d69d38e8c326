"""Scoring: gold answers score, garbage does not, and no text whatever is too odd for a scorer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dataset_configs import SCORED, dataset_config
from hypothesis import given
from hypothesis import strategies as st

from actshift.data.sources import procedural_rows, read_rows
from actshift.errors import ActshiftError
from actshift.tasks import TASKS, get_task
from actshift.tasks.rules import RULES, plain

REAL_FILES = {
    "boolq/train.jsonl.gz": ("boolq", 9427),
    "boolq/validation.jsonl": ("boolq", 3270),
    "gsm8k/train.jsonl.gz": ("gsm8k", 7473),
    "gsm8k/test.jsonl": ("gsm8k", 1319),
    "arc_challenge/train.jsonl": ("arc_challenge", 1119),
    "arc_challenge/validation.jsonl": ("arc_challenge", 299),
    "arc_challenge/test.jsonl": ("arc_challenge", 1172),
    "winogrande/train.jsonl": ("winogrande", 9248),
    "winogrande/validation.jsonl": ("winogrande", 1267),
    "aqua/train_flan_cot_subset.jsonl": ("aqua", 2728),
    "aqua/validation.jsonl": ("aqua", 254),
    "aqua/test.jsonl": ("aqua", 254),
    "listops_nyu/d20s_test.jsonl.gz": ("listops", 10_000),
    "winogrande_xl/train.jsonl.gz": ("winogrande", 40_398),
}
UNSCORED = {
    "gsm8k/train.jsonl.gz": 718,
    "gsm8k/test.jsonl": 117,
    "aqua/train_flan_cot_subset.jsonl": 15,
    "aqua/validation.jsonl": 3,
    "aqua/test.jsonl": 7,
}
"""Gold answers that the released rule does not score: it cuts 1234 to 123, and takes the first `answer X` it meets."""
GARBAGE = (
    "",
    " \n",
    "I do not know.",
    "answer:",
    "<answer></answer>",
    "Answer: ?",
    "###",
    "ответ — нет",
    "\ud800",
    "🤖" * 50,
)

LABELS = {"aqua": "A", "boolq": "True", "arc_challenge": "A", "gsm8k": "1", "listops": "1", "winogrande": "1"}
RULED = sorted(LABELS)

# Text that looks like answers, so that the rules' branches are reached, mixed with anything at all.
PIECES = [
    "answer",
    "Answer:",
    "ANSWER -",
    "<answer>",
    "</answer>",
    "true",
    "False",
    "(A)",
    "b",
    " ",
    "\n",
    ":",
    "1,234",
    "Option1",
    "option 2",
]
PIECES += [
    "-7",
    "3.5",
    ".5",
    "9" * 5000,
    "٣",
    "²",
    "Ⅷ",
    "−4",
    "ſ",
    "İ",
    "\x00",
    "####",
    "1e9",
    "00",
    "+",
    ",",
    ".",
    "5",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=12).map("".join)


@pytest.mark.parametrize("file", list(REAL_FILES))
def test_gold_answers_of_the_real_data_score_100_percent(file: str, shared: Path) -> None:
    name, count = REAL_FILES[file]
    task = get_task(name)
    rows = read_rows(shared / "data" / file, columns=task.columns)
    assert len(rows) == count
    assert [row for row in rows if not task.score(task.answer(row), task.label(row))] == []
    assert not any(task.score(text, label) for label in {task.label(row) for row in rows} for text in GARBAGE)
    released = get_task(name, rule="released")
    missed = [row for row in rows if not released.score(task.answer(row), task.label(row))]
    assert len(missed) == UNSCORED.get(file, 0)


@given(text=st.text(max_size=40))
def test_garbage_scores_nothing(text: str) -> None:
    """Text without a digit, a letter A to E, or the words that name answers."""
    if re.search(r"\d|[A-E]|true|false|answer|option", plain(text), re.IGNORECASE):
        return
    for name, label in LABELS.items():
        for rule in RULES:
            task = get_task(name, rule=rule)
            assert task.extract(text) is None and not task.score(text, label)


@pytest.mark.parametrize("name", SCORED)
def test_gold_answers_of_procedural_rows_score_100_percent(name: str) -> None:
    config = dataset_config(name)
    task = get_task(config.task)
    for split in config.procedural.rows:
        for row in procedural_rows(config, split):
            assert task.score(task.answer(row), task.label(row))
            assert not any(task.score(text, task.label(row)) for text in GARBAGE)


@pytest.mark.parametrize("name", SCORED)
def test_an_answer_still_scores_with_a_following_line(name: str) -> None:
    config = dataset_config(name)
    task = get_task(config.task)
    for row in procedural_rows(config, "train")[:200]:
        assert task.score(f" \n{task.answer(row)}\n\nand so on.", task.label(row))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", RULED)
@given(output=TEXTS)
def test_no_text_breaks_a_scorer(name: str, rule: str, output: str) -> None:
    task = get_task(name, rule=rule)
    label = task.extract(output)
    assert label is None or label.isprintable()
    assert task.score(output, LABELS[name]) in (True, False)
    assert label is not None or not task.score(output, LABELS[name])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", RULED)
@given(output=TEXTS, more=TEXTS)
def test_a_decided_output_cannot_change(name: str, rule: str, output: str, more: str) -> None:
    task = get_task(name, rule=rule)
    if task.decided(output):
        assert task.first_match
        assert task.extract(output + more) == task.extract(output)
        assert task.decided(output + more)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", [name for name in RULED if TASKS[name].first_match])
def test_a_gold_answer_is_decided_before_it_ends(name: str, rule: str) -> None:
    config = dataset_config(name)
    task = get_task(config.task, rule=rule)
    for row in procedural_rows(config, "train")[:50]:
        answer = task.answer(row)
        first = next(end for end in range(len(answer) + 1) if task.decided(answer[:end]))
        assert task.extract(answer[:first]) == task.label(row)


@given(text=st.text(), more=st.text())
def test_plain_text_is_made_character_by_character(text: str, more: str) -> None:
    assert plain(text + more) == plain(text) + plain(more)
    assert plain(plain(text)) == plain(text)
    assert plain(text) == text or not text.isascii()


@pytest.mark.parametrize(
    ("name", "output", "label"),
    [
        # the first `answer: true/false`, else the first standalone true/false
        ("boolq", "Answer: True.", "True"),
        ("boolq", "ANSWER :\tfalse", "False"),
        ("boolq", "True, because it is so. Answer: False. Answer: True.", "False"),
        ("boolq", "It is false, not true.", "False"),
        ("boolq", "untrue truth falsehood", None),
        ("boolq", "Answer：\u00a0Ｆａｌｓｅ", "False"),
        ("boolq", "An\u00adswer: tr\u200bue", "True"),
        ("boolq", "", None),
        # `answer (X)`, the first one; else a lone standalone label
        ("aqua", "x = 3. So the answer is not B.\nAnswer: C.", "C"),
        ("aqua", "Correct answer - A", "A"),
        ("aqua", "Answer (B) or answer: (d)", "D"),
        ("aqua", "the answer because of E", "E"),
        ("aqua", "It is C, no, D", "D"),
        ("aqua", "no letter", None),
        ("aqua", "it is b", None),
        ("aqua", "Answer: F", None),
        ("arc_challenge", "Answer: (C) a lamp.", "C"),
        ("arc_challenge", "answer - b", "B"),
        ("arc_challenge", "Answer (3) ice. Answer: (4) fire.", "3"),
        ("arc_challenge", "The answer is (D) of A, B, C, D", None),
        ("arc_challenge", "It must be B!", "B"),
        ("arc_challenge", "Answer: Eis, or rather C", "C"),
        ("arc_challenge", "Answer: Été, so D", "D"),
        ("arc_challenge", "Answer: (F)", None),
        ("arc_challenge", "Answer：（Ｃ）", "C"),
        ("arc_challenge", "It is a lamp", None),
        ("arc_challenge", "a\nB", "B"),
        ("arc_challenge", "the answer because D", "D"),
        ("arc_challenge", "", None),
        # the number after the last `answer:`, else the last number
        ("gsm8k", "Answer: 5\nAnswer: 7", "7"),
        ("gsm8k", "12 apples and 3 pears", "3"),
        ("gsm8k", "Answer: $1,234,567.50.", "1234567.50"),
        ("gsm8k", "Answer: 1234", "1234"),
        ("gsm8k", "Answer: -3 degrees", "-3"),
        ("gsm8k", "Answer: .5", ".5"),
        ("gsm8k", "Answer: 18.", "18"),
        ("gsm8k", "1 + 2 = 3.\nAnswer:\n42 of 99", "42"),
        ("gsm8k", "Answer: 5 of 6\nAnswer:", "5"),
        ("gsm8k", "Answer: six, that is 6\nAnswer: seven", "6"),
        ("gsm8k", "10, 11", "11"),
        ("gsm8k", "Answer: none", None),
        ("gsm8k", "Answer: −１２", "-12"),
        ("gsm8k", "Answer: -$5,000.25", "-5000.25"),
        ("gsm8k", "Answer: 12\u00a0345\u202f678 m", "12345678"),
        ("gsm8k", "Answer: 1,23,4", "1"),
        ("gsm8k", "it is 10-3", "3"),
        ("gsm8k", "it is (10)-3", "3"),
        ("gsm8k", "it is 10 = -3", "-3"),
        ("gsm8k", "Answer: €12.50", "12.50"),
        ("gsm8k", "", None),
        # the first option named after the first `answer:`
        ("winogrande", "Answer: Option1.", "1"),
        ("winogrande", "ANSWER -\tOPTION\n2", "2"),
        ("winogrande", "Answer: Option2, not Option1", "2"),
        ("winogrande", "Answer: not Option2 but Option1", "2"),
        ("winogrande", "Option1? Answer: Option2", "2"),
        ("winogrande", "Option1: key\nOption2: cup\nAnswer: the cup, Option2", "2"),
        ("winogrande", "Answer: none. Answer: Option1. Answer: Option2.", "1"),
        ("winogrande", "answer: 1\nanswer: option 2", "2"),
        ("winogrande", "Answer: Option12 or Option3, so Option1", "1"),
        ("winogrande", "Answer: (Option2)", "2"),
        ("winogrande", "Answer Option1", None),
        ("winogrande", "The answer is Option1", None),
        ("winogrande", "Option1", None),
        ("winogrande", "Option1. Answer:", None),
        ("winogrande", "Answer: Option", None),
        ("winogrande", "Answer: Option1st", None),
        ("winogrande", "Answer: Option3", None),
        ("winogrande", "Answer: adoption1", None),
        ("winogrande", "Answer: Option-1", None),
        ("winogrande", "Answer: 1", None),
        ("winogrande", "Answer: the key", None),
        ("winogrande", "", None),
        # the integer inside the first answer tags
        ("listops", "<answer>7</answer>", "7"),
        ("listops", "so <ANSWER> 7\n</ANSWER> <answer>8</answer>", "7"),
        ("listops", "<answer>07</answer>", "7"),
        ("listops", "<answer>seven</answer><answer>7</answer>", None),
        ("listops", "<answer>7.0</answer>", None),
        ("listops", "<answer>7", None),
        ("listops", f"<answer>{'9' * 5000}</answer>", None),
        ("listops", "<answer>−７</answer>", "-7"),
        ("listops", "<answer>1 2</answer>", None),
        ("listops", "", None),
    ],
)
def test_the_rules_by_example(name: str, output: str, label: str | None) -> None:
    assert get_task(name).extract(output) == label


@pytest.mark.parametrize(
    ("name", "output", "label"),
    [
        ("boolq", "True? Answer：False", "True"),
        ("arc_challenge", "It is a lamp", "A"),
        ("arc_challenge", "the answer because D", "B"),
        ("arc_challenge", "answered: (D)", "E"),
        ("gsm8k", "Answer: 1234", "123"),
        ("gsm8k", "Answer: 1,234", "1234"),
        ("gsm8k", "Answer: .5", "5"),
        ("gsm8k", "10-3", "-3"),
        ("aqua", "The answer (B) would need 3; Answer: d", "B"),
        ("aqua", "a good one", "A"),
        ("winogrande", "Answer：Option1", None),
        ("listops", "<answer>−7</answer>", None),
    ],
)
def test_the_released_slips_by_example(name: str, output: str, label: str | None) -> None:
    assert get_task(name, rule="released").extract(output) == label


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ActshiftError, match="paper"):
        get_task("boolq", rule="papers")


@pytest.mark.parametrize("name", RULED)
def test_the_options_of_a_row_are_answers_that_score_as_themselves(name: str) -> None:
    config = dataset_config(name)
    for rule in RULES:
        task = get_task(config.task, rule=rule)
        for row in procedural_rows(config, "train")[:50]:
            options = task.options(row)
            assert bool(options) is task.multiple_choice
            assert not options or task.label(row) in options
            assert [task.extract(text) for text in options.values()] == list(options)


def test_an_option_is_decided_once_something_follows_it() -> None:
    task = get_task("winogrande")
    decided = {text: task.decided(f"Answer: {text}") for text in ("Option", "Option1", "Option1.", "Option12", "3. ")}
    assert decided == {"Option": False, "Option1": False, "Option1.": True, "Option12": False, "3. ": False}
    assert not task.decided("Option1. ")


@pytest.mark.parametrize(
    ("output", "label", "right"),
    [
        ("Answer: 1,000", "1000", True),
        ("Answer: 1000.00", "1000", True),
        ("Answer: 0.33333", "0.3333", True),
        ("Answer: 0.3335", "0.3333", False),
        ("Answer: -5", "5", False),
        ("Answer: 10", "100", False),
        (f"Answer: {'9' * 5000}", "9", False),
    ],
)
def test_numbers_are_equal_by_value(output: str, label: str, right: bool) -> None:
    assert get_task("gsm8k").score(output, label) is right
