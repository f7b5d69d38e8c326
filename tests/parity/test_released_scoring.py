"""The released scorers and ours: the same verdicts under the released rule, documented ones under the paper's.

The verdicts of a few hundred outputs are kept in released_scores.json. With ACTSHIFT_STEERLING=<checkout of the
released code> its scorers run beside ours on 24,000.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from make_released_scores import CLASSES, SCORES, released_scorers
from mutations import pairs

from actshift.tasks import get_task
from actshift.tasks.rules import plain

EACH = 4000
KEPT = [tuple(row) for row in json.loads(SCORES.read_text())["rows"]]

CHOICES = ("arc_challenge", "aqua")
REASONS = {
    "odd characters are read": (CLASSES, lambda text: plain(text) != text),
    "a label ends where it is named": (CHOICES, re.compile(r"(?i)answer\s*[:\-]?\s*\(?[A-E1-5]\w").search),
    "an article or a number with its unit is no label": (
        CHOICES,
        re.compile(r"(?:(?i:answer)\s*[:\-]?\s*[a-e1-5]\b|\bA\s+[a-z]|\b[1-5](?:\s*\w|\.\d)|[.\d][1-5]\b)").search,
    ),
    "a word that begins like a label is none": (("boolq",), re.compile(r"(?i)answer\s*:\s*(?:true|false)\w").search),
    "a lone letter is a capital": (CHOICES, re.compile(r"\b[a-e]\b").search),
    "the last of several answers": (
        ("aqua",),
        lambda text: len(re.findall(r"(?i)answer\s*[:\-]?\s*\(?[A-E]", text)) > 1,
    ),
    "a number is read whole": (
        ("gsm8k",),
        re.compile(r"\d{4}|(?<!\d)\.\d|[\w.)\]][-+]\d|[-+][$€£]\d|\d[\u00a0\u2009\u202f]\d").search,
    ),
}
"""Why the paper's rule may disagree (`actshift.tasks.rules`): the tasks that it can happen in, and what shows it."""


def reasons(name: str, output: str) -> list[str]:
    return [reason for reason, (names, shows) in REASONS.items() if name in names and shows(output)]


def test_the_released_rule_gives_the_kept_verdicts() -> None:
    wrong = [row for row in KEPT if get_task(row[0], rule="released").score(row[1], row[2]) is not row[3]]
    assert wrong == []
    verdicts = Counter((row[0], row[3]) for row in KEPT)
    assert set(verdicts) == {(name, verdict) for name in CLASSES for verdict in (True, False)}
    assert len(KEPT) >= 300 and min(verdicts.values()) >= 5


def test_where_the_papers_rule_gives_another_verdict_the_reason_is_known() -> None:
    unequal = [row for row in KEPT if get_task(row[0]).score(row[1], row[2]) is not row[3]]
    assert len(unequal) >= 40
    assert [row for row in unequal if not reasons(row[0], row[1])] == []


def test_every_disagreement_of_the_two_rules_has_a_known_reason(shared: Path) -> None:
    seen: Counter[str] = Counter()
    for name, output, label in pairs(shared / "data", count=EACH, seed=1):
        verdicts = [get_task(name, rule=rule).score(output, label) for rule in ("paper", "released")]
        if verdicts[0] is not verdicts[1]:
            found = reasons(name, output)
            assert found, f"{name}: {output!r} for {label}: paper, released = {verdicts}"
            seen.update(found)
    assert seen.keys() == REASONS.keys()


def test_the_released_scorers_agree(shared: Path) -> None:
    if "ACTSHIFT_STEERLING" not in os.environ:
        pytest.skip("needs a checkout of the released code (set ACTSHIFT_STEERLING)")
    scorers = released_scorers(Path(os.environ["ACTSHIFT_STEERLING"]))
    verdicts: Counter[tuple[str, bool]] = Counter()
    for name, output, label in pairs(shared / "data", count=EACH):
        theirs = scorers[name](output, label)
        assert get_task(name, rule="released").score(output, label) is theirs, (name, output, label)
        verdicts[name, theirs] += 1
    assert verdicts.total() == EACH * len(CLASSES) >= 20_000
    assert min(verdicts.values()) >= EACH // 5, "each task has outputs of both kinds"
