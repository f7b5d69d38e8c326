"""The files of a table, byte for byte: whoever changes a format sees what readers will see."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pytest_regressions.file_regression import FileRegressionFixture
from synthetic_sweep import finished, planned

from actshift.cli import main
from actshift.report import frame, tables

MODELS = ["llama3.2-1b", "qwen3-4b"]
DATASETS = ["boolq", "winogrande", "arc_challenge", "gsm8k", "aqua", "listops"]
STUDIES, KINDS = ("study", "study_135m"), ("effects", "variance")
TITLE = "Table 1: comparison against SFT"


def scores(model: str) -> dict[tuple[str, ...], list[int]]:
    """Llama's block is finished, Qwen's is at work."""
    counts: dict[tuple[str, ...], list[int]] = {}
    for place, dataset in enumerate(DATASETS):
        base = 300 + 97 * place
        counts[model, "sft", dataset] = [base]
        counts[model, "lora_r8", dataset] = [base + step for step in (4, -7, 12, 0, 3)]
        counts[model, "post_block", dataset] = [base + step for step in (-20, -11, -13, -30, -22)]
    if model == "qwen3-4b":
        counts[model, "lora_r8", "gsm8k"] = [600, 610]
        counts[model, "post_block", "boolq"] = []
    return counts


@pytest.mark.parametrize("suffix", ["md", "tex", "csv", "html", "paper.md", "gap.md", "std.md"])
@pytest.mark.parametrize("name", ["paper_scale", "small_scale"])
def test_table_files(name: str, suffix: str, file_regression: FileRegressionFixture, tmp_path: Path) -> None:
    if name == "paper_scale":
        rule = {"reason": "does not fit on one A100-40GB", "model": "qwen3-4b", "method": "sft", "dataset": "listops"}
        manifest, selection = planned(title=TITLE, models=MODELS, datasets=DATASETS, exclude=[rule])
        counts = scores(MODELS[0]) | scores(MODELS[1])
    else:
        manifest, selection = planned(title=f"{TITLE}, small scale", datasets=DATASETS[:3])
        counts = scores("tiny")
    cells = frame.cells(manifest, finished(manifest, counts), selection)
    written = {path.name: path for path in tables.write(cells, manifest, tmp_path)}
    if f"table1.{suffix}" not in written:
        assert name == "small_scale", "the paper has figures beside its own cells alone"
        return
    text = written[f"table1.{suffix}"].read_text(encoding="utf-8")
    file_regression.check(text, extension=f".{suffix}", encoding="utf-8", newline="")


def test_committed_studies_follow_from_their_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    for folder in ("manifests", "records", "selected"):
        shutil.copytree(root / "results" / folder, tmp_path / "results" / folder)
    monkeypatch.chdir(tmp_path)
    assert main(["study", "study", "study_135m", "--out", "docs/study.md"]) == 0
    files = ["docs/study.md", *(f"results/studies/{name}.{kind}.csv" for name in STUDIES for kind in KINDS)]
    assert {file: (tmp_path / file).read_text() for file in files} == {
        file: (root / file).read_text() for file in files
    }
    assert all((root / "results" / "figures" / f"study_{name}.png").is_file() for name in ("combinations", "contrasts"))


def test_committed_tables_follow_from_their_records(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "results"
    for folder in ("manifests", "records", "selected", "baselines"):
        shutil.copytree(committed / folder, tmp_path / folder)
    assert main(["report", "--tables", f"results='{tmp_path}'"]) == 0
    assert (tmp_path / "report.html").is_file()
    made = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir() if path.suffix != ".html"}
    sweeps = len(list((committed / "manifests").glob("*.grid.jsonl")))
    assert len(made) == 5 * sweeps > 0  # three files of our figures, two of their deviations
    assert made == {name: (committed / "tables" / name).read_bytes() for name in made}
