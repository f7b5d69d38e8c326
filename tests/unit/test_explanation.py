"""`explain`: every key of the configuration is described, and described rightly."""

from __future__ import annotations

import pytest

from actshift.cli import main
from actshift.config.explanation import explain
from actshift.config.keys import choices, known_keys
from actshift.errors import ActshiftError

LEAVES = [key for key in known_keys() if not key.endswith("*")]


def test_every_key_is_described() -> None:
    entries = [entry for key in LEAVES for entry in explain(key)]
    assert len(entries) >= 200
    named = [entry for entry in entries if not entry.key.endswith("*")]  # `*` stands for a name that is free
    assert [entry.key for entry in named if not entry.about and entry.type != "group"] == []
    assert all(entry.type for entry in named)


def test_choices_are_those_that_validation_takes() -> None:
    for key, allowed in choices().items():
        (entry,) = explain(key)
        assert entry.allowed == tuple("null" if name is None else name for name in allowed)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("method.scope.kind", ("one of all, prompt, last_prompt, first_last",)),
        ("training.max_steps", ("whole number or null", "at least 1")),
        ("hardware.workers", ("changes no identity",)),
        ("dataset.splits.paper.train.hold_out", ("share of the rows",)),
        ("dataset.template.rule", ("one of null, letter, number, exact, first_option, tags",)),
        ("dataset.splits", ("group; any name",)),
        ("model.scale", ("a key of sweep.rates",)),
        ("data.limit", ("data.limit.train", "data.limit.test")),
    ],
)
def test_what_is_printed(key: str, parts: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", key]) == 0
    shown = capsys.readouterr().out
    for part in parts:
        assert part in shown


def test_a_key_that_counts_is_not_said_to_change_nothing() -> None:
    assert explain("lr")[0].counts
    assert not explain("hardware.threads")[0].counts


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ActshiftError, match=r"training\.clip"):
        explain("training.clop")
