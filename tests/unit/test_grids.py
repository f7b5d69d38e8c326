"""The learning-rate grids of the paper's sweeps are those that Appendix F.2 prints."""

from __future__ import annotations

import csv

import yaml

from actshift.paper import printed as paper
from actshift.paths import conf_dir

CORRECTED = {("4b", "steering_r1_vector"): {7e-3: 7e-4}}
"""A rate that stands out of order in print, and the one that Table 9 chooses in its place."""


def test_the_grids_are_the_printed_ones() -> None:
    grids = yaml.safe_load((conf_dir() / "grid" / "paper.yaml").read_text())
    compared = 0
    for row in csv.DictReader((paper.FOLDER / "lr_grids.csv").open()):
        cell = row["scale"], row["family"]
        printed = [float(row[f"lr{place}"]) for place in range(1, 6)]
        wanted = [CORRECTED.get(cell, {}).get(rate, rate) for rate in printed]
        assert [float(rate) for rate in grids[cell[0]][cell[1]]] == wanted, cell
        compared += 1
    assert compared == 10
