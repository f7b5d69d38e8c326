"""The report page: it holds what the tables hold, fetches nothing, and is the same twice."""

from __future__ import annotations

import html
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from synthetic_sweep import COUNTS, finished, planned

from actshift.report import frame, tables
from actshift.report.html import evidence_text
from actshift.report.layout import layout
from actshift.report.page import Table, page, selection_rows
from actshift.report.summary import summary, warnings_by_kind


@pytest.fixture(scope="module")
def made() -> tuple[Any, Any, Any, str]:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"], title="A <table> & co.")
    records = finished(manifest, COUNTS)
    return manifest, selection, records, page([Table(manifest, selection)], records)


class Reader(HTMLParser):
    """The tags that are open, the addresses that a browser would fetch, the ids, and the links within the page."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.fetched += [str(values[name]) for name in ("src", "data", "srcset") if name in values]
        self.fetched += [tag] if tag in ("script", "iframe", "object", "link", "img") else []
        self.ids += [str(values["id"])] if "id" in values else []
        if tag == "a":
            self.links.append(str(values["href"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def test_the_page_is_whole_and_fetches_nothing(made: tuple[Any, Any, Any, str]) -> None:
    reader = Reader()
    reader.feed(made[3])
    assert reader.open == [] and reader.fetched == []
    assert not re.search(r"url\((?!#)|@import", made[3]), "no style is fetched either"
    assert all(link.startswith("#") for link in reader.links), "links stay within the page"
    assert {link[1:] for link in reader.links} <= set(reader.ids), "each leads somewhere"


def test_the_page_holds_every_text_of_the_table_and_its_evidence(made: tuple[Any, Any, Any, str]) -> None:
    manifest, selection, records, text = made
    cells = frame.cells(manifest, records, selection)
    plain = html.unescape(text)
    for _, block in layout(cells, manifest).blocks:
        for row in block:
            for shown in row:
                assert shown in plain
    for row in cells.itertuples():
        assert evidence_text(row) in plain
    assert "<table>" not in layout(cells, manifest).title or "A &lt;table&gt; &amp; co." in text
    for record in records:
        assert f'id="table1-{record.identity}"' in text
    for cell, candidate, *_ in selection_rows(selection):
        assert cell in plain and candidate in plain
    for warning in warnings_by_kind(selection, records):
        assert plain.count(f"{warning.kind}:") == 2, "once in the summary and once with its cells"
        assert all(place in plain for place in warning.places)


def test_the_page_is_the_same_twice(made: tuple[Any, Any, Any, str]) -> None:
    manifest, selection, records, text = made
    assert page([Table(manifest, selection)], records) == text


def test_warnings_name_edges_ties_and_divergence(made: tuple[Any, Any, Any, str]) -> None:
    found = {warning.kind: warning.places for warning in warnings_by_kind(made[1], made[2])}
    (edges,) = (places for kind, places in found.items() if "edge of its grid" in kind)
    assert any("lora_r8" in place and "(highest)" in place for place in edges)
    (ties,) = (places for kind, places in found.items() if "share the best" in kind)
    assert any("(0.001, 0.002)" in place for place in ties)


def test_the_page_begins_with_what_was_run_what_it_says_and_what_is_missing(made: tuple[Any, Any, Any, str]) -> None:
    manifest, selection, records, text = made
    assert text.index('id="summary"') < text.index(f'<h2 id="{manifest.sweep}">')
    whole = summary(frame.cells(manifest, records, selection), manifest)
    planned_runs, done = len(manifest.runs), len(records)
    assert whole.ran.startswith(f"{done} of {planned_runs} test runs: 1 model, 3 methods, 2 data sets")
    assert whole.missing == f"{planned_runs - done} of {planned_runs} test runs, in 1 cell"
    fewer = summary(frame.cells(manifest, records[1:], selection), manifest)
    assert fewer.missing == f"{planned_runs - done + 1} of {planned_runs} test runs, in 2 cells"
    none = summary(frame.cells(manifest, [], selection), manifest)
    assert none.says and all("no method has finished" in sentence for sentence in none.says)


def test_the_summary_counts_differences_beyond_chance() -> None:
    rows = [("sft", "a", 70.0, 0.0, math.nan), ("sft", "b", 60.0, 0.0, math.nan)]
    rows += [("lora_r8", "a", 80.0, 10.0, 0.01), ("lora_r8", "b", 61.0, 1.0, 0.8)]
    rows += [("post_block", "a", 50.0, -20.0, 0.001), ("post_block", "b", 55.0, -5.0, 0.049)]
    cells = pd.DataFrame(rows, columns=["method", "dataset", "mean", "delta", "p_holm"])
    cells = cells.assign(model="tiny", status="done", n_finished=2, n_planned=2, seeds=[(1, 2)] * 6)
    found = summary(cells, SimpleNamespace(reference="sft"))  # type: ignore[arg-type]
    assert found.ran == "12 of 12 test runs: 1 model, 3 methods, 2 data sets, seeds 1, 2"
    (sentence,) = found.says
    assert "LoRA has the highest mean, 70.5%, before SFT with 65.0%" in sentence
    assert "of 4 cells 1 are above and 2 below beyond chance" in sentence and "1 cannot be told apart" in sentence


def test_the_tables_files_are_those_that_the_tables_command_writes(
    made: tuple[Any, Any, Any, str], tmp_path: Path
) -> None:
    manifest, selection, records, text = made
    assert page([Table(manifest, selection)], records, folder=tmp_path / "here") == text
    written = tables.write(frame.cells(manifest, records, selection), manifest, tmp_path / "there")
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {
        path.name: path.read_bytes() for path in written
    }


def test_sweeps_made_at_once_are_those_made_one_by_one(made: tuple[Any, Any, Any, str]) -> None:
    manifest, selection, records, _ = made
    parts = [Table(replace(manifest, sweep=name), selection) for name in ("one", "two", "three")]
    one, three = page(parts[:1], records), page(parts, records)
    start, end = '<h2 id="one">', '<h2 id="'
    section = one[one.index(start) : one.index(end, one.index(start) + 1)]
    assert section in three and [three.count(f'<h2 id="{part.manifest.sweep}">') for part in parts] == [1, 1, 1]


def test_the_report_is_made_without_the_libraries_that_train() -> None:
    code = "import sys; import actshift.report.page, actshift.report.figures, actshift.report.audit; "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'hydra')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
