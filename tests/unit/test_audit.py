"""The audit: it finds what is wrong in the printed tables, all of it and nothing else."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from actshift.commands import terminal_frames
from actshift.paper import printed as paper
from actshift.report import audit
from actshift.report.paper_claims import claims

FINDINGS = audit.audit()


def of(check: str) -> list[audit.Finding]:
    return [finding for finding in FINDINGS if finding.check == check]


def test_differences_are_those_of_exact_arithmetic() -> None:
    """The same comparison on the printed text, in decimals and without pandas."""
    wrong = []
    rows = {number: (paper.FOLDER / f"table{number}.csv").read_text().splitlines()[1:] for number in (1, 2)}
    tables = {number: [line.split(",") for line in lines] for number, lines in rows.items()}
    sft = {(row[1], row[3]): Decimal(row[5]) for row in tables[1] if row[2] == "SFT"}
    for number, table in tables.items():
        for _, model, label, dataset, _, accuracy, delta, _ in table:
            if Decimal(delta) != Decimal(accuracy) - sft[model, dataset]:
                wrong.append((number, model, label, dataset))
    assert len(of("difference")) == len(wrong) == 14
    signs = [finding for finding in of("difference") if finding.conclusion]
    assert [finding.where for finding in signs] == ["Table 1, Llama-3.1-8B, Ours, AQuA"]


def test_averages_that_no_rounding_explains() -> None:
    found = {finding.where: finding for finding in of("average")}
    for number in (1, 2):
        sft = paper.table(1).query("method == 'sft'").set_index(["model", "dataset"])["accuracy"]
        for (model, label), group in paper.table(number).groupby(["model", "label"], sort=False):
            exact = [
                Decimal(str(row.accuracy)) - Decimal(str(sft[row.model, row.dataset])) for row in group.itertuples()
            ]
            mean = sum(exact) / len(exact)
            near = {mean.quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)}
            near |= {(mean + shift).quantize(Decimal("0.1")) for shift in (Decimal("1e-9"), Decimal("-1e-9"))}
            printed = Decimal(str(group["avg_delta"].iloc[0]))
            where = [place for place in found if place.startswith(f"Table {number}, ") and place.endswith(f", {label}")]
            listed = [place for place in where if audit.names.model(str(model)) in place]
            assert bool(listed) == (printed not in near and label != "SFT"), (number, model, label)
    assert len(found) == 8


def test_rates_outside_their_grids() -> None:
    where = [finding.where for finding in of("rate") if "not in the grid" in finding.recomputed]
    assert len(where) == 10 and len(of("rate")) == 22
    assert "Table 8, Qwen3-4B, ours r=8, WinoG" in where and "Table 10, Gemma-3-1B, joint-orth, GSM8K" in where


def test_deviations_that_cannot_both_be_true() -> None:
    places = [finding.where for finding in of("deviation")]
    assert "Table 11 LoRA and Table 12 LoFIT, Llama-3.2-1B" in places
    assert "Table 11 ReFT and Table 12 JoLA, Llama-3.2-1B" in places
    assert "Tables 11 and 13, Llama-3.2-1B, LoRA, WinoG" in places
    assert "Tables 11 and 13, Gemma-3-1B, LoRA, GSM8K" not in places, "0.3 is 0.303 in fewer digits"


def test_claims_of_the_text() -> None:
    holds = {claim.text: claim.holds for claim in claims()}
    assert len(holds) == 10 and sum(holds.values()) == 5
    assert holds["post-block steering is within 0.2%-0.9% of SFT on average"]
    assert not holds["post-block steering is within 0.4%-1.5% of SFT on average"]
    assert not holds["on 1B-scale models, we match or outperform LoRA"]
    assert not holds["ReFT drops by up to 16.9% (said of ListOps)"], "it drops by 20.4 on ARC-Challenge"
    assert len(of("claim")) == 5


def test_sizes_and_swapped_splits() -> None:
    rows = {
        "winogrande": {"train": 9248, "validation": 1267},
        "arc_challenge": {"train": 1119, "validation": 299, "test": 1172},
    }
    found = {finding.where: finding for finding in audit.size_findings(rows)}
    assert found["Appendix F, ARC-C, validation"].conclusion == "which rows were scored"
    assert found["Appendix F, WinoG, train"].size == 2 and len(found) == 6


def test_shares_that_differ_are_findings() -> None:
    shares = pd.DataFrame(
        {
            "model": ["gemma3-1b", "llama3.2-1b"],
            "method": ["lora_r8", "lora_r8"],
            "paper_pct": [0.45, 0.45],
            "share_pct": [0.6503, 0.4560],
            "paper_table": ["1", "1"],
            "agrees": [False, True],
        }
    )
    (finding,) = audit.share_findings(shares)
    assert finding.where == "Table 1, Gemma-3-1B, LoRA" and finding.size == pytest.approx(-0.2003)


def test_outputs_hold_every_finding() -> None:
    text, frame = audit.markdown(FINDINGS), audit.frame(FINDINGS)
    assert len(frame) == len(FINDINGS) == sum(audit.counts(FINDINGS).values())
    for finding in FINDINGS:
        assert finding.where in text
    assert terminal_frames.audit_table(FINDINGS).row_count == len(FINDINGS)
