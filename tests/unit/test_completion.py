"""What the shell is offered after TAB, as the shell itself asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def offered(line: str, folder: Path) -> list[str]:
    """The completions of a command line whose cursor is at its end, as argcomplete's shell code reads them."""
    answer = folder / "answer"
    environment = {**os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    environment |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n", "COMP_TYPE": "9"}
    subprocess.run([sys.executable, "-m", "actshift"], env=environment, cwd=folder, check=True)
    return answer.read_text().split("\n")


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("actshift ", ["run", "sweep", "tables"]),
        ("actshift ta", ["tables"]),
        ("actshift run method=post_block_r", ["post_block_r1", "post_block_r16"]),
        ("actshift run training.w", ["training.weight_decay="]),
        ("actshift run dat", ["dataset=", "data.dir="]),
        ("actshift run method=sft data.source=", ["hub", "local", "procedural"]),
        ("actshift tables sm", ["small1", "smoke"]),
        ("actshift tables mi", ["mine"]),
        ("actshift tables small1 --v", ["--variant"]),
    ],
)
def test_the_shell_is_offered_what_there_is(line: str, among: list[str], tmp_path: Path) -> None:
    (tmp_path / "results" / "manifests").mkdir(parents=True)
    (tmp_path / "results" / "manifests" / "mine.grid.jsonl").touch()
    words = [word.strip() for word in offered(line, tmp_path)]
    found = [word.rpartition("=")[2] or word for word in words]  # a shell replaces what is behind the sign alone
    assert set(among) <= set(found), found
    assert len(found) == len(set(found)) < 60


def test_a_command_that_is_not_asked_by_the_shell_imports_no_completion() -> None:
    code = "import sys; from actshift.cli import main; main(['list']); sys.exit('argcomplete' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
