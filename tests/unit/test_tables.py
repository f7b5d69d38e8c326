"""Each format of a table shows the same texts, and the texts say what is known and no more."""

from __future__ import annotations

import html
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from synthetic_sweep import finished, planned

from actshift.commands import terminal_frames
from actshift.errors import ActshiftError
from actshift.report import frame, latex, markdown, names, tables, tidy_csv
from actshift.report.html import table_page
from actshift.report.layout import VARIANTS, layout
from actshift.report.markdown_text import table

COUNTS = {
    ("tiny", "sft", "boolq"): [710],
    ("tiny", "sft", "listops"): [850],
    ("tiny", "lora_r8", "boolq"): [717, 722, 727, 722, 722],
    ("tiny", "lora_r8", "listops"): [800, 810, 820],
    ("tiny", "post_block", "boolq"): [710, 709, 711, 710, 710],
}


def small(**changes: Any) -> tuple[pd.DataFrame, Any]:
    manifest, selection = planned(**changes)
    return frame.cells(manifest, finished(manifest, COUNTS), selection), manifest


def texts(cells: pd.DataFrame, manifest: Any) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for _, block in layout(cells, manifest).blocks for row in block}


def test_cells_say_how_far_they_are() -> None:
    rows = texts(*small())
    assert rows["SFT"] == ("100", "71.0", "85.0", "0.0")
    assert rows["LoRA"] == ("0.45", "72.2 ±0.4 (+1.2)", "81.0 (3/5)", "–")
    assert rows["Ours r=8"] == ("0.04", "71.0 ±0.1 (0.0)", "– (0/5)", "–")


def test_the_papers_figure_stands_in_the_cell() -> None:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    counts = {("llama3.2-1b", "post_block", "boolq"): [710] * 5}
    rows = texts(frame.cells(manifest, finished(manifest, counts), selection), manifest)
    assert rows["Ours r=8"][1:3] == ("71.0 ±0.0 [paper 86.2]", "– (0/5) [paper 65.4]")


def test_exclusions_are_explained_below_each_reason_once() -> None:
    rules = [
        {"reason": "does not fit", "method": "sft"},
        {"reason": "not in the paper", "method": "post_block", "dataset": "listops"},
    ]
    cells, manifest = small(exclude=rules)
    assert texts(cells, manifest)["SFT"][1:] == ("excl. (a)", "excl. (a)", "–")
    assert texts(cells, manifest)["Ours r=8"][2] == "excl. (b)"
    assert layout(cells, manifest).notes == ("(a) does not fit", "(b) not in the paper")
    assert markdown.sweep_table(cells, manifest).endswith("(a) does not fit  \n(b) not in the paper\n")


def test_the_small_scale_is_called_so_and_only_it() -> None:
    sentence = "This is the small scale (procedural data, embedded tiny model)"
    cells, manifest = small()
    assert any(fact.startswith(sentence) for fact in layout(cells, manifest).facts)
    manifest, selection = planned(models=["llama3.2-1b"])
    real = frame.cells(manifest, [], selection)
    assert not any("small scale" in fact for fact in layout(real, manifest).facts)
    local, manifest = small(overrides=["data.source=local"])
    assert any("small scale (embedded tiny model)" in fact for fact in layout(local, manifest).facts)


def test_facts_count_runs_and_name_protocol_data_and_doubtful_rates() -> None:
    facts = "\n".join(layout(*small()).facts)
    assert "Runs finished: 15 of 22. Protocol: paper. Data: procedural." in facts
    assert "Learning rates, chosen on validation: 3 of 6 choices interior, 3 at an edge of the grid, 1 tied" in facts
    cells, manifest = small()
    rushed = layout(cells.assign(lr_incomplete="yes"), manifest)
    assert "6 chosen with grid runs missing" in "\n".join(rushed.facts)
    unknown = frame.cells(manifest, [], None)
    assert "interior" not in "\n".join(layout(unknown, manifest).facts)
    larger = replace(manifest, cells=(replace(manifest.cells[0], added=(0.5,)), *manifest.cells[1:]))
    assert "1 in a grid that was extended beyond its edge" in "\n".join(layout(cells, larger).facts)


@pytest.mark.parametrize(
    ("percent", "text"),
    [(100.0, "100"), (0.45, "0.45"), (0.8667, "0.87"), (0.044, "0.04"), (0.003, "0.003"), (0.0007, "0.0007")],
)
def test_shares_are_written_as_the_paper_writes_them(percent: float, text: str) -> None:
    cells, manifest = small()
    assert texts(cells.assign(params_pct=percent), manifest)["LoRA"][0] == text


def papers() -> tuple[pd.DataFrame, Any]:
    """Cells of the paper's own: finished, unfinished and missing."""
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"])
    counts = {("llama3.2-1b", *names[1:]): values for names, values in COUNTS.items()}
    return frame.cells(manifest, finished(manifest, counts), selection), manifest


@pytest.mark.parametrize("variant", VARIANTS)
def test_formats_hold_the_same_texts(variant: str) -> None:
    cells, manifest = papers()
    page = layout(cells, manifest, variant=variant)
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal_frames.sweep_table(cells, manifest, variant=variant))
    plain = latex.sweep_table(cells, manifest, variant=variant)
    for mark, text in {"$-$": "-", r"$\pm$": "±", "--": "–"}.items():
        plain = plain.replace(mark, text)
    marked = html.unescape(re.sub(r"</?(b|a)\b[^>]*>", "", table_page(cells, manifest, variant=variant)))
    marked = re.sub(r"</td><td[^>]*>", " | ", re.sub(r"data-evidence=\"[^\"]*\"", "", marked))
    for shown in (markdown.sweep_table(cells, manifest, variant=variant), stream.getvalue(), plain, marked):
        bare = re.sub(r"</?t[rd][^>]*>|\*\*|\\textbf\{([^}]*)\}", r"\1", shown)
        lines = [
            re.split(r"\s*[|&]\s*|\s{2,}", line.strip().removesuffix(r"\\").strip("| ")) for line in bare.splitlines()
        ]
        for _, block in page.blocks:
            for row in block:
                assert any(tuple(line[-len(row) :]) == row for line in lines), (row, shown)


def test_variants_agree_with_one_another() -> None:
    cells, manifest = papers()
    rows = {
        variant: {row[0]: row for _, block in layout(cells, manifest, variant=variant).blocks for row in block}
        for variant in VARIANTS
    }
    agreed = 0
    for method, ours in rows["ours"].items():
        for place in range(2, 2 + len(manifest.datasets)):
            own = re.fullmatch(r"([\d.]+)(?: ±([\d.]+))?(?: \([^/]*?\))? \[paper ([\d.]+)\]", ours[place])
            if own is None:  # not finished: no gap either
                assert re.search(r"\(\d/\d\) / ", rows["gap"][method][place])
                continue
            mean, std, printed = own.groups()
            assert rows["paper"][method][place].startswith(printed)
            assert rows["gap"][method][place].startswith(f"{mean} / {printed} (")
            assert rows["std"][method][place].startswith(std or "one run")
            agreed += 1
    assert agreed >= 3


def test_an_unknown_variant_is_refused() -> None:
    cells, manifest = small()
    with pytest.raises(ActshiftError, match="papers"):
        layout(cells, manifest, variant="papers")


def test_csv_reads_back_to_the_frame() -> None:
    cells, _ = small()
    read = pd.read_csv(io.StringIO(tidy_csv.sweep_table(cells)), keep_default_na=True)
    assert list(read.columns) == list(cells.columns)
    assert read["mean"].to_list() == pytest.approx(cells["mean"].to_list(), nan_ok=True)
    assert read.loc[2, "values"] == "71.7 72.2 72.7 72.2 72.2"
    assert read.loc[2, "seeds"] == "42 43 44 45 46"
    assert read["status"].to_list() == cells["status"].to_list()


def test_a_terminal_shows_brackets_instead_of_reading_them_as_markup() -> None:
    manifest, selection = planned(models=["llama3.2-1b"], overrides=["data.source=local"], title="[bold]T[/bold]")
    stream = io.StringIO()
    Console(file=stream, width=200).print(terminal_frames.sweep_table(frame.cells(manifest, [], selection), manifest))
    assert "– (0/5) [paper 86.2]" in stream.getvalue()
    assert "[bold]T[/bold]" in stream.getvalue()


def test_latex_takes_any_text() -> None:
    cells, manifest = small(exclude=[{"reason": r"a\b & 5% of #1 {x} ~2^3 $y_z", "method": "sft", "dataset": "boolq"}])
    text = latex.sweep_table(cells, manifest)
    escaped = r"a\textbackslash{}b \& 5\% of \#1 \{x\} \textasciitilde{}2\textasciicircum{}3 \$y\_z"
    assert escaped in text
    assert r"Table 1 at 100\%: SFT \& co." in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    width = {len(re.findall(r"(?<!\\)&", line)) for line in rows if not line.startswith(r"\caption")}
    assert width == {5, 8}, "the table, and the evidence behind it"


def test_unknown_names_are_shown_as_they_are() -> None:
    assert (names.model("llama3.2-1b"), names.model("mine")) == ("Llama-3.2-1B", "mine")
    assert (names.method("post_block"), names.method("mine")) == ("Ours r=8", "mine")
    assert (names.dataset("winogrande"), names.dataset("mine")) == ("WinoG", "mine")


def test_files_are_the_same_bytes_whatever_the_order_of_records(tmp_path: Path) -> None:
    manifest, selection = planned()
    records = finished(manifest, COUNTS)
    paths = tables.write(frame.cells(manifest, records, selection), manifest, tmp_path / "one")
    other = tables.write(frame.cells(manifest, records[::-1], selection), manifest, tmp_path / "two")
    kinds = [f"{name}.{suffix}" for name in ("table1", "table1.std") for suffix in ("md", "tex", "html")]
    assert [path.name for path in paths] == ["table1.csv", *kinds], "nothing of the paper's beside procedural data"
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in other]


def test_a_sweep_without_its_reference_has_no_differences() -> None:
    manifest, _ = planned()
    alone = replace(manifest, methods=("lora_r8", "post_block"))
    rows = texts(frame.cells(alone, finished(manifest, COUNTS)), alone)
    assert rows["LoRA"][1] == "72.2 ±0.4"


def test_a_markdown_table_is_aligned_and_escaped() -> None:
    rows = [("a|b", "1"), ("c", "1,000")]
    assert table(("Name", "N"), rows, right=("N",)).splitlines() == [
        "| Name | N |",
        "| --- | ---: |",
        r"| a\|b | 1 |",
        "| c | 1,000 |",
    ]
    padded = table(("Name", "N"), rows, padded=True).splitlines()
    assert padded[:2] == ["| Name | N     |", "| ---- | ----- |"] and len(set(map(len, padded))) == 1
    with pytest.raises(ValueError, match=r"shorter|longer"):
        table(("Name", "N"), [("one",)], padded=True)
