"""The list of mutants is of today's code: each fault has its text, once, and tests that exist."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from mutants import MUTANTS, Mutant, applied  # noqa: E402


def test_every_room_that_counts_has_some() -> None:
    assert len(MUTANTS) >= 95
    areas = {mutant.area for mutant in MUTANTS}
    assert areas >= {
        "methods",
        "training",
        "runtime",
        "store",
        "planning",
        "report",
        "sweeps",
        "tasks",
        "evaluation",
        "estimates",
        "conf",
    }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.file}: {mutant.old.strip()[:40]}")
def test_a_fault_has_its_text_once_and_its_tests(mutant: Mutant) -> None:
    assert mutant.path(ROOT).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
    files = [word for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    assert files
    assert all((ROOT / file).exists() for file in files)


def test_a_fault_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "src" / "actshift" / "room" / "module.py"
    file.parent.mkdir(parents=True)
    file.write_text("a = 1\n")
    with applied(Mutant("room/module.py", "a = 1", "a = 2", "tests/unit"), tmp_path) as once:
        assert once
        assert file.read_text() == "a = 2\n"
    assert file.read_text() == "a = 1\n"
