"""The commands of README and docs: each is run in the order of its page, or the page says before it why it is not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from actshift.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?P<reason><!-- not run: [^>]+ -->\n)?```bash\n(?P<commands>.*?)```", re.S)
MARK = re.compile(r"<!-- not run: (?P<why>[^>]+) -->\n(?!```bash\n)")


def commands_of(page: Path, *, run: bool) -> list[list[str]]:
    """The commands of a page's bash blocks as words, comments left out: those that are run, or those that are not."""
    found = []
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if (block["reason"] is None) == run:
            lines = block["commands"].replace("\\\n", " ").splitlines()
            found += [words for line in lines if (words := shlex.split(line, comments=True))]
    return found


def test_pages_are_found_and_show_commands_that_are_run() -> None:
    assert len(PAGES) >= 12
    assert sum(len(commands_of(page, run=True)) for page in PAGES) >= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_reason_stands_before_anything_but_a_block_of_commands(page: Path) -> None:
    assert MARK.search(page.read_text(encoding="utf-8")) is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page, run=True)], ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands_of(page, run=True):
        assert words[0] == "actshift", f"{page.name} shows {words}: say before it that it is not run, and why"
        code = main(words[1:])
        assert code == 0, f"{page.name}: {shlex.join(words)} ended with {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands_of(page, run=False):
        if words[0] == "actshift":
            if words[1] == "run":
                assert main(["run", "--help"]) == 0
                continue
            with pytest.raises(SystemExit) as ended:
                main([words[1], "--help"])
            text = capsys.readouterr().out
            assert ended.value.code == 0, words
            missing = [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in text]
            assert not missing, f"{page.name}: {words[1]} has no {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_the_readme_can_be_read_to_the_end() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= 1000
