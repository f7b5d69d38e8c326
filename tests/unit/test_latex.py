"""LaTeX tables compile alone, with a plain TeX installation."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_sweep import finished, planned

from actshift.report import frame, latex
from actshift.report.layout import VARIANTS

pytestmark = [
    pytest.mark.tex,
    pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex is installed"),
]

RULES = [{"reason": "needs 100% & more_of #1", "method": "sft", "dataset": "listops"}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_table_compiles(variant: str, tmp_path: Path) -> None:
    manifest, selection = planned(
        models=["llama3.2-1b", "qwen3-4b"],
        overrides=["data.source=local"],
        exclude=RULES,
        title="50% & {more}_of ~this^",
    )
    counts = {("llama3.2-1b", "post_block", "boolq"): [861, 862, 863, 864, 865], ("qwen3-4b", "sft", "boolq"): [880]}
    cells = frame.cells(manifest, finished(manifest, counts), selection)
    (tmp_path / "table.tex").write_text(latex.sweep_table(cells, manifest, variant=variant), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 5000
    assert "Undefined" not in done.stdout and "Missing character" not in (tmp_path / "table.log").read_text("latin-1")
