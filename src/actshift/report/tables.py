"""A sweep's table as files, in every format, all from the one frame of `report.frame`.

The same records give the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from actshift.files import write_file
from actshift.planning.manifests import Manifest
from actshift.report import html, latex, markdown, tidy_csv
from actshift.report.layout import filled_variants


def write(cells: pd.DataFrame, manifest: Manifest, folder: Path, *, judge: str | None = None) -> list[Path]:
    """Write <sweep>.md, .tex, .html and .csv, and <sweep>.<variant>.* of what the paper has too; returns the paths.

    A table with a `judge`'s win rates has files of its own: <sweep>.<judge>.md, .tex, .html
    and .csv, whose columns are those of <sweep>.csv and the judge's.
    """
    if judge is not None:
        shown = {"md": markdown.sweep_table, "tex": latex.sweep_table, "html": html.table_page}
        made = {suffix: make(cells, manifest) for suffix, make in shown.items()} | {"csv": tidy_csv.sweep_table(cells)}
        paths = [folder / f"{manifest.sweep}.{judge}.{suffix}" for suffix in made]
        for path, text in zip(paths, made.values(), strict=True):
            write_file(path, text)
        return paths
    texts = {f"{manifest.sweep}.csv": tidy_csv.sweep_table(cells)}
    for variant in filled_variants(cells):
        name = manifest.sweep if variant == "ours" else f"{manifest.sweep}.{variant}"
        texts[f"{name}.md"] = markdown.sweep_table(cells, manifest, variant=variant)
        texts[f"{name}.tex"] = latex.sweep_table(cells, manifest, variant=variant)
        texts[f"{name}.html"] = html.table_page(cells, manifest, variant=variant)
    for name, text in texts.items():
        write_file(folder / name, text)
    return [folder / name for name in texts]
