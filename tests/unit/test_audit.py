"""The audit: it finds what is wrong in the printed tables, all of it and nothing else.

Each kind of finding is recomputed here in another way (decimals, brute force, the hub's files), and each check is given
figures on which it must stay silent.
"""

from __future__ import annotations

import csv
import gzip
import json
from argparse import Namespace
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise, product
from pathlib import Path
from statistics import pstdev, stdev
from typing import Any

import pandas as pd
import pytest

from actshift.commands import terminal_frames
from actshift.commands.reports import audit_command
from actshift.paper import printed as paper
from actshift.report import audit, names
from actshift.report.audit import (
    deviations,
    differences,
    finding,
    possible,
    rates,
    shares,
    sizes,
    statements,
)
from actshift.report.audit.finding import Severity, readings

ROOT = Path(__file__).parents[2]
ROWS = {
    "boolq": {"train": 9427, "validation": 3270},
    "winogrande": {"train": 9248, "validation": 1267},
    "arc_challenge": {"train": 1119, "validation": 299, "test": 1172},
    "gsm8k": {"train": 7473, "test": 1319},
    "aqua": {"train": 97467, "validation": 254, "test": 254},
    "listops": {"train": 96000, "validation": 2000, "test": 2000},
}
TESTS = {
    "boolq": {"paper": 3270, "released": 654},
    "winogrande": {"paper": 1267, "released": 634},
    "arc_challenge": {"paper": 1172, "released": 150},
    "gsm8k": {"paper": 1319, "released": 1055},
    "aqua": {"paper": 254, "released": 254},
    "listops": {"paper": 2000, "released": 2000},
}
FINDINGS = audit.audit(rows=ROWS, tests=TESTS)


def of(check: str) -> list[audit.Finding]:
    return [each for each in FINDINGS if each.check == check]


def found(check: str) -> dict[str, audit.Finding]:
    return {each.where: each for each in of(check)}


# How printed figures are read


@pytest.mark.parametrize(
    ("value", "text", "ways"),
    [
        ("0.817", "8.0e-1", set()),  # 0.8 alone would take it
        ("0.817", "0.8", {"rounded", "cut"}),
        ("4.86", "4.8", {"cut"}),
        ("0.716", "7.2e-1", {"rounded"}),
        ("9427", "9,430", {"rounded"}),
        ("1767", "1,770", {"rounded"}),
        ("1319", "1,310", {"cut"}),
        ("0.04242", "0.04", {"rounded", "cut"}),
        ("0.0479", "0.04", {"cut"}),
        ("0.0367", "0.04", {"rounded"}),
        ("254", "254", {"rounded", "cut"}),
        ("253", "254", set()),
    ],
)
def test_readings_of_a_printed_figure(value: str, text: str, ways: set[str]) -> None:
    assert readings(Decimal(value), text) == ways


def test_printed_deviations_are_those_of_the_tables_with_their_zeros() -> None:
    for number in (11, 12, 13):
        numbers = paper.table(number).set_index(["model", "label", "dataset"])["std"]
        kept = deviations.as_printed().query(f"table == '{number}'")
        assert len(kept) == len(numbers)
        for row in kept.itertuples():
            assert float(str(row.printed)) == numbers[row.model, row.label, row.dataset]
    digits = {row.printed for row in deviations.as_printed().itertuples()}
    assert {"8.0e-1", "5.50e-1", "1.20", "1.0", "2.2e-2"} <= digits


# Tables 1 and 2


def test_differences_are_those_of_exact_arithmetic() -> None:
    """The same comparison on the printed text, in decimals and without pandas."""
    wrong = {}
    tables = {n: list(csv.DictReader((paper.FOLDER / f"table{n}.csv").open())) for n in (1, 2)}
    sft = {(row["model"], row["dataset"]): Decimal(row["accuracy"]) for row in tables[1] if row["method"] == "SFT"}
    for number, table in tables.items():
        for row in table:
            exact = Decimal(row["accuracy"]) - sft[row["model"], row["dataset"]]
            if Decimal(row["delta_vs_sft"]) != exact:
                where = finding.place(number, row["model"], row["method"], row["dataset"])
                wrong[where] = Decimal(row["delta_vs_sft"]) - exact
    assert {where: Decimal(str(each.size)) for where, each in found("difference").items()} == wrong
    assert len(wrong) == 14
    rounding = [where for where, size in wrong.items() if abs(size) <= Decimal("0.1")]
    assert [each.where for each in of("difference") if each.severity is Severity.ROUNDING] == rounding
    signs = [each.where for each in of("difference") if "sign" in each.note]
    assert signs == ["Table 1, Llama-3.1-8B, Ours, AQuA"]


def test_wrong_differences_with_one_reference_are_named_together() -> None:
    there = found("difference")
    assert "implies 87.8 for SFT, as JoLA does" in there["Table 2, Llama-3.1-8B, LoFIT, WinoG"].note
    assert "59.7 for SFT, as Ours (1-vec) and Ours r=1 do" in there["Table 1, Llama-3.2-1B, ReFT, ARC-C"].note
    assert " as " not in there["Table 1, Llama-3.2-1B, LoRA, AQuA"].note


def test_averages_that_no_rounding_explains() -> None:
    there = found("average")
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
            where = finding.place(number, str(model), str(label))
            assert (where in there) == (printed not in near and label != "SFT"), where
    assert len(there) == 8


def test_averages_of_wrong_differences_are_said_to_be_so() -> None:
    rows = {number: list(csv.DictReader((paper.FOLDER / f"table{number}.csv").open())) for number in (1, 2)}
    for number, table in rows.items():
        for row in table:
            where = finding.place(number, row["model"], row["method"])
            if where not in found("average"):
                continue
            mine = [r for r in table if (r["model"], r["method"]) == (row["model"], row["method"])]
            mean = sum(Decimal(r["delta_vs_sft"]) for r in mine) / 6
            explained = abs(mean - Decimal(row["avg_delta"])) <= Decimal("0.05")
            assert ("made of wrong differences" in found("average")[where].note) == explained


@pytest.mark.parametrize(
    ("values", "order", "severity"),
    [
        ((-2.10, -2.15, -2.2), False, Severity.NUMBER),  # made of wrong differences, however near
        ((-2.10, -2.15, -2.2), True, Severity.CLAIM),
        ((-2.10, -2.50, -2.2), False, Severity.ROUNDING),  # accuracies that were rounded may explain it
        ((-2.10, -2.50, -2.3), False, Severity.NUMBER),
    ],
)
def test_severity_of_an_average(values: tuple[float, float, float], order: bool, severity: Severity) -> None:
    each = differences._average("there", values, order=order)
    assert each.severity is severity and ("order" in each.note) == order
    assert ("made of" in each.note) == (values[1] == -2.15)


# Tables 8 to 13


def test_rates_outside_their_grids() -> None:
    there = found("rate")
    assert there["Table 8, Qwen3-4B, ours r=8, WinoG"].severity is Severity.NUMBER
    assert there["Table 10, Gemma-3-1B, joint-orth, GSM8K"].size == pytest.approx(1e-3)
    grids = {(row["scale"], row["family"]): row for row in csv.DictReader((paper.FOLDER / "lr_grids.csv").open())}
    family = {"8": "steering_r8", "9": "steering_r1_vector", "10": "joint"}
    outside = set()
    for row in csv.DictReader((paper.FOLDER / "chosen_lr.csv").open()):
        grid = grids.get((row["model"].rsplit("-", 1)[1], family[row["table"]]))
        if grid and Decimal(row["lr"]) not in {Decimal(grid[f"lr{place}"]) for place in range(1, 6)}:
            outside.add(finding.place(row["table"], row["model"], row["method"], row["dataset"]))
    assert {where for where, each in there.items() if "not in the grid" in each.arithmetic} == outside
    assert len(outside) == 10
    assert {where for where, each in there.items() if "grids are printed" in each.arithmetic} == {
        "Table 8, Llama-3.1-8B",
        "Table 9, Llama-3.1-8B",
    }


def test_a_value_out_of_order_is_a_slip_where_a_power_of_ten_mends_it() -> None:
    assert rates.slips([5e-4, 7e-3, 1e-3, 2e-3]) == {7e-3: 7e-4}
    assert rates.slips([5e-4, 7e-4, 1e-3]) == rates.slips([5e-4, 8e-2, 5.1e-4]) == {}
    mended = [each for each in of("rate") if each.severity is Severity.TYPO and each.where.startswith("Table 9")]
    assert len(mended) == 4 and {each.printed for each in mended} == {"0.0007"}


def test_deviations_that_cannot_both_be_true() -> None:
    there = found("deviation")
    assert there["Tables 11 and 13, Llama-3.2-1B, LoRA, BoolQ"].severity is Severity.NUMBER, "8.0e-1 against 8.17e-1"
    assert there["Tables 11 and 13, Llama-3.2-1B, LoRA, WinoG"].severity is Severity.ROUNDING, "4.8 against 4.86"
    assert there["Table 11, SFT"].severity is Severity.TYPO and len(there) == 3
    pairs = deviations.pairs()
    assert len(pairs) == 9, "LoRA on three models and three data sets"
    for row in pairs.itertuples():
        digits = len(str(row.coarse).partition("e")[0].replace(".", "").lstrip("0"))
        shown = f"{float(str(row.fine)):.{digits - 1}e}"
        assert ("rounded" in row.ways) == (float(shown) == float(str(row.coarse)))


def test_rows_that_recur_are_those_of_other_methods() -> None:
    assert {each.where for each in of("repeat")} == {
        "Table 4, Gemma-3-1B, LoRA (r=8), WinoG",
        "Table 11 LoRA and Table 12 LoFIT, Llama-3.2-1B",
        "Table 11 ReFT and Table 12 JoLA, Llama-3.2-1B",
        "Table 8 ours r=8 and Table 10 joint-orth, Gemma-3-1B",
        "Table 8 ours r=8 and Table 10 joint-orth, Qwen3-4B",
    }
    lines = {n: (paper.FOLDER / f"table{n}_std.csv").read_text() for n in (11, 12)}
    for one, other in (("LoRA", "LoFIT"), ("ReFT", "JoLA")):
        rows = [
            [line.split(",")[3:] for line in lines[n].splitlines() if line.startswith(f"{n},llama3.2-1b,{label},")]
            for n, label in ((11, one), (12, other))
        ]
        assert rows[0] == rows[1] and len(rows[0]) == 4


def test_recurring_rates_and_accuracies_are_those_of_the_files() -> None:
    chosen = list(csv.DictReader((paper.FOLDER / "chosen_lr.csv").open()))
    for model in ("gemma3-1b", "qwen3-4b"):
        ours, joint = (
            {row["dataset"]: row["lr"] for row in chosen if (row["table"], row["model"]) == (table, model)}
            for table in ("8", "10")
        )
        assert {name: ours[name] for name in joint} == joint and len(joint) == 3
    one, four = (
        paper.table(number).set_index(["model", "method", "dataset"])["accuracy"].to_dict() for number in (1, 4)
    )
    differ = {key for key in one.keys() & four.keys() if one[key] != four[key]}
    assert differ == {("gemma3-1b", "lora_r8", "winogrande")} and len(one.keys() & four.keys()) == 18
    assert four[differ.pop()] == one["gemma3-1b", "sft", "winogrande"]
    assert found("repeat")["Table 4, Gemma-3-1B, LoRA (r=8), WinoG"].note == "51.4 is SFT's figure"


def test_one_changed_figure_ends_a_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = paper.table

    def changed(number: int) -> pd.DataFrame:
        table = whole(number)
        if number == 12:
            table.loc[(table["label"] == "LoFIT") & (table["dataset"] == "gsm8k"), "std"] = 0.56
        return table

    monkeypatch.setattr(paper, "table", changed)
    assert not any("LoFIT" in each.where for each in audit.audit() if each.check == "repeat")


# Values that runs on so many rows can give


def test_possible_accuracies_are_those_of_counting() -> None:
    for rows in (7, 150, 254, 299, 634, 1267, 3270):
        can = {f"{1000 * k / rows // 1 / 10:.1f}" for k in range(rows + 1)}
        can |= {
            str((Decimal(100 * k) / rows).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)) for k in range(rows + 1)
        }
        for tenth in range(0, 1001, 3):
            text = f"{tenth / 10:.1f}"
            assert possible.accuracy_possible(text, rows) == (text in can), (text, rows)


def test_scatter_of_five_whole_numbers_has_no_wide_gap_and_no_small_value() -> None:
    values = possible.scatters()
    tried = {5 * sum(x * x for x in each) - sum(each) ** 2 for each in product(range(4), repeat=5)}
    assert tried <= set(values) and values[:4] == (0, 4, 6, 10)
    near = [value for value in values if value <= 200]
    assert max(after - before for before, after in pairwise(near)) <= 4


@pytest.mark.parametrize("rows", [254, 634, 1267, 3270])
def test_possible_deviations_are_those_of_trial(rows: int) -> None:
    """Every deviation of five near runs is possible, and none below the smallest, which a single row makes."""
    steps = [each for each in product(range(4), repeat=5) if min(each) == 0]
    for each in steps[:: max(1, len(steps) // 60)]:
        runs = [100 * x / rows for x in each]
        for spread in (stdev(runs), pstdev(runs)):
            assert possible.deviation_possible(f"{spread:.3f}", rows), (each, spread)
    least = min(pstdev([100 * x / rows for x in each]) for each in steps if len(set(each)) > 1)
    assert possible.smallest_deviation(rows) == pytest.approx(least)
    assert not possible.deviation_possible(f"{min(least, 0.04) / 3:.5f}", rows)


def test_impossible_values() -> None:
    there = found("impossible")
    assert {where: each.printed for where, each in there.items()} == {
        "Table 1, Qwen3-4B, SFT, AQuA": "64.8",
        "Table 1, Llama-3.1-8B, SFT, AQuA": "47.7",
        **{f"Table 12, Llama-3.1-8B, Ours vector, {name}": text for name, text in VECTOR.items()},
    }
    for text in ("64.8", "47.7"):
        assert all(f"{100 * k / 254:.1f}" != text and int(1000 * k / 254) != 10 * float(text) for k in range(255))
    for text in ("36.2", "32.7"):
        assert any(f"{100 * k / 254:.1f}" == text for k in range(255))
    assert there["Table 1, Qwen3-4B, SFT, AQuA"].arithmetic == "164/254 = 64.57, 165/254 = 64.96"
    assert there["Table 12, Llama-3.1-8B, Ours vector, BoolQ"].note == "0.18 points, if it is a share of one"


def test_no_five_runs_deviate_as_little_as_is_printed() -> None:
    near = [each for each in product(range(3), repeat=5) if len(set(each)) > 1]
    for where, each in found("impossible").items():
        if "vector" in where:
            rows = max(TESTS[next(name for name, shown in names.DATASETS.items() if where.endswith(shown))].values())
            least = min(pstdev([100 * x / rows for x in runs]) for runs in near)
            assert 0 < float(each.printed) < least and each.size == pytest.approx(float(each.printed) - least, abs=1e-4)
            grid = min(pstdev([x / 10 for x in runs]) for runs in near)
            assert float(each.printed) < grid, "nor where the accuracies were rounded to one decimal first"


VECTOR = {"BoolQ": "1.8e-3", "WinoG": "1.2e-3", "GSM8K": "1.3e-3", "ListOps": "1.1e-3"}


def test_values_are_impossible_on_these_test_sets_only() -> None:
    more = {name: {"paper": 20 * sizes_["paper"]} for name, sizes_ in TESTS.items()}
    assert not [each for each in possible.impossible(more) if "SFT" in each.where]
    assert not [each for each in possible.impossible({"boolq": {"paper": 10**5}})]


def test_test_sets_that_the_values_fit() -> None:
    sets = possible.test_sets(TESTS)
    verdicts = {name: possible.verdict([each for each in sets if each.dataset == name]) for name in TESTS}
    assert verdicts == {
        "boolq": "paper (3,270)",
        "winogrande": "paper (1,267) or released (634)",
        "arc_challenge": "paper (1,172)",
        "gsm8k": "paper (1,319) or released (1,055)",
        "aqua": "neither",
        "listops": "paper (2,000) or released (2,000)",
    }
    there = {(each.dataset, each.protocol): each.deviations for each in sets}
    assert there["boolq", "paper"] == (39, 39), "39 of 40 that are not SFT's: one is possible on no test set"
    assert there["boolq", "released"] == (38, 39) and there["listops", "paper"] == (27, 27)
    assert there["aqua", "paper"] == (0, 0)
    (arc,) = [each for each in sets if each.dataset == "arc_challenge" and each.protocol == "released"]
    near = [{f"{100 * k / 150:.1f}" for k in range(151)}, {f"{1000 * k // 150 / 10:.1f}" for k in range(151)}]
    assert arc.single == (sum(text in near[0] | near[1] for text in ("60.3", "48.2", "88.4", "80.6")), 4)
    assert not possible.deviation_possible("2.2e-2", 654) and possible.deviation_possible("2.2e-2", 3270)


def test_five_equal_runs_are_one_answer_on_the_released_half() -> None:
    (each,) = [each for each in of("test set") if "Table 11" in each.where]
    assert each.where == "Table 1 and Table 11, Gemma-3-1B, ReFT, WinoG" and "312 of 634" in each.arithmetic
    whole = audit.ANSWERS["winogrande"]["paper"]
    assert not list(deviations.constants({"winogrande": {"paper": {"1": 312, "2": 322}, "released": whole}}))
    assert not list(deviations.constants({"winogrande": {"paper": whole, "released": whole}}))


def test_answers_are_those_of_the_hub_files(shared: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = lines(shared / "data/winogrande/validation.jsonl")
    half = datasets.Dataset.from_list(rows).shuffle(seed=42).train_test_split(test_size=0.5, seed=42)["test"]
    counted = {"paper": Counter(row["answer"] for row in rows), "released": Counter(half["answer"])}
    assert counted == audit.ANSWERS["winogrande"]


def lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.decode("utf-8").split("\n") if line]


# Table 6


def test_sizes_are_rounded_and_the_columns_are_train_test_validation() -> None:
    assert {each.where: each.size for each in of("size")} == {"Table 6, GSM8K, train": 8790 - 7473}
    assert "7,473 (train) + 1,319 (test) = 8,792" in of("size")[0].note


def test_sizes_that_differ_are_found() -> None:
    swapped = {**ROWS, "arc_challenge": {"train": 1119, "validation": 1172, "test": 299}}
    there = {each.where: each for each in sizes.sizes(swapped) if each.check == "size"}
    assert there["Table 6, ARC-C, test"].note == "the size of its validation split" and len(there) == 3


def test_sizes_are_those_of_the_hub_files(shared: Path) -> None:
    data = shared / "data"
    for name, file, split in (
        ("gsm8k", "train.jsonl.gz", "train"),
        ("gsm8k", "test.jsonl", "test"),
        ("arc_challenge", "test.jsonl", "test"),
        ("boolq", "validation.jsonl", "validation"),
    ):
        assert len(lines(data / name / file)) == ROWS[name][split]
    unlabelled = lines(data / "winogrande/test.jsonl")
    assert len(unlabelled) == sizes.UNLABELLED["winogrande"]["test"]
    assert not any(row["answer"] for row in unlabelled)
    (each,) = [each for each in of("test set") if "Table 6" in each.where]
    assert each.where == "Table 6, WinoG, test" and each.severity is Severity.CLAIM


# Shares


def share_rows(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["model", "method", "paper_pct", "share_pct"])
    return frame.assign(paper_table="1", trainable=(frame["share_pct"] * 10_000).astype(int), total=1_000_000)


def test_shares_are_rounded_or_cut_and_not_both() -> None:
    mixed = share_rows(
        ("gemma3-1b", "lora_r8", 0.45, 0.6503),
        ("llama3.2-1b", "lora_r8", 0.45, 0.4560),
        ("llama3.2-1b", "reft", 0.04, 0.0479),
        ("qwen3-4b", "reft", 0.04, 0.0367),
    )
    there = {each.where: each for each in shares.shares(mixed)}
    wrong = there.pop("Table 1, Gemma-3-1B, LoRA")
    assert wrong.size == pytest.approx(-0.2003) and wrong.severity is Severity.NUMBER
    assert wrong.note == ""
    assert there["Table 1, Qwen3-4B, ReFT"].note == "rounded; of 4 shares 2 are right when cut, 1 when rounded"
    assert [(where, each.severity) for where, each in there.items()] == [("Table 1, Qwen3-4B, ReFT", Severity.ROUNDING)]
    assert not list(shares.shares(share_rows(("qwen3-4b", "reft", 0.04, 0.0367), ("gemma3-1b", "reft", 0.04, 0.041))))


SHAPES = {"llama3.2-1b": (16, 2048), "gemma3-1b": (26, 1152), "qwen3-4b": (36, 2560), "llama3.1-8b": (32, 4096)}
HEADS = {"llama3.2-1b": (32, 64), "gemma3-1b": (4, 256), "qwen3-4b": (32, 128)}
LORA = {  # input and output widths of the seven matrices of a layer, added up
    "llama3.2-1b": 2 * (2048 + 2048) + 2 * (2048 + 512) + 3 * (2048 + 8192),
    "gemma3-1b": 2 * (1152 + 1024) + 2 * (1152 + 256) + 3 * (1152 + 6912),
    "qwen3-4b": 2 * (2560 + 4096) + 2 * (2560 + 1024) + 3 * (2560 + 9728),
}


def by_hand(model: str, method: str) -> int:
    """Trained parameters from the shapes of the models: layers, width, heads and their width."""
    layers, width = SHAPES[model]
    if method == "ReFT r=4, 4 layers":
        return 4 * (2 * 4 * width + 4)
    if method in ("LoFIT", "JoLA"):
        heads, size = HEADS[model]
        return layers * heads * (size if method == "LoFIT" else 2 * size + 2)
    if method.startswith("LoRA"):
        return layers * LORA[model] * (16 if method.endswith("16") else 8)
    if method.startswith("Joint"):
        return by_hand(model, "LoRA") + by_hand(model, "Adapter")
    ranks = {"ReFT": 8, "Ours r=8": 8, "Ours r=1": 1, "Adapter": 64}
    rank = ranks.get(method)
    return layers * (width if rank is None else 2 * rank * width + (rank if method == "ReFT" else 0))


def test_shares_that_differ_are_counted_by_hand() -> None:
    """The committed findings (which the command must write, see below) against the formulas."""
    rows = [row for row in csv.DictReader((ROOT / "docs/audit.csv").open()) if row["check"] == "share"]
    models = {shown: name for name, shown in names.MODELS.items()}
    for row in rows:
        _, model, method = row["where"].split(", ", 2)
        count, total = (int(text.replace(",", "")) for text in row["arithmetic"].split(" = ")[0].split(" of "))
        assert count == by_hand(models[model], method), row
        share, printed = 100 * count / total, float(row["printed"].rstrip("%"))
        places = len(row["printed"].rstrip("%").partition(".")[2])
        assert printed != int(share * 10**places) / 10**places, row
        assert (row["severity"] == "rounding") == (printed == round(share, places)), row
    assert len(rows) == 21


# The text


def test_figures_that_are_not_what_the_text_says() -> None:
    assert {where: each.note for where, each in found("reference").items()} == {
        "Section 3.3": "Figure 2 is meant",
        "Section 4.1": "the caption and the text say two things",
        "Section 6.3": "Figure 4 is meant",
        "Figure 2, caption": "",
    }
    assert len(paper.as_printed("references")) == 8 and len(paper.as_printed("figures")) == 6


def test_right_references_are_no_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    right = paper.as_printed("references").replace({"figure": {"3": "2", "5": "4"}})
    right = right[right["about"].isin(["MLP output norm", "rank and linearity"])]
    whole = paper.as_printed
    monkeypatch.setattr(paper, "as_printed", lambda name: right if name == "references" else whole(name))
    assert not list(statements.references())


def test_what_the_tables_leave_out() -> None:
    assert [each.note for each in of("coverage")[:4]] == ["none for ARC-C and AQuA"] * 4
    assert [each.arithmetic for each in of("coverage")[:4]] == [
        f"Table {short} has 4 of the 6 data sets of Table {whole}"
        for short, whole in ((11, 1), (12, 2), (8, 1), (9, 2))
    ]
    for number in (8, 9, 11, 12):
        assert not {"arc_challenge", "aqua"} & set(paper.table(number)["dataset"])
    assert {"arc_challenge", "aqua"} <= set(paper.table(1)["dataset"]) & set(paper.table(2)["dataset"])
    assert "24 of its 96" in of("coverage")[4].arithmetic
    labels = [row["method"] for row in csv.DictReader((paper.FOLDER / "table1.csv").open())]
    assert (labels.count("SFT"), len(labels)) == (24, 96)


SENTENCES = (
    "Figure 2: Average MLP output norm with respect to the layer’s block output for Llama-3.2B on Winogrande",
    "Figure 3: Joint training when done naively. The dot products between the top right singular vectors",
    "Figure 4: Effect of rank and linearity across model sizes",
    "Figure 5: Distribution of cosine similarity between weight and adapter shifts",
    "Figure 3 confirms this: MLP outputs account for only 40–70%",
    "these top left-singular subspaces are highly aligned",
    "Figure 3 shows the inner products for the top 50 singular vectors",
    "Figure 5 illustrates the interaction between nonlinearity, rank, and model scale",
    "It consistently outperforms prior activation steering methods such as ReFT and PEFT approaches including LoRA",
    "less parameters",
    "While ReFT drops by up to 16.9%",
    "our approach limits the gap to 3.1%",
    "The performance gap is particularly pronounced on ListOps",
    "we yield the best average performance across all models, with the advantage persisting as model scale increases",
    "outperforming the best-performing baseline at the 8B scale by a margin of 8.0%",
    "in isolation by up to 3.8%",
    "which frequently underperforms its strongest individual component (e.g., Gemma GSM8K)",
    "Joint uses LoRA (0.45%",
    "report the mean accuracy of five independent runs; the standard deviations are provided in Appendix F.3",
    "We report a single SFT run (deterministic), hence std dev is not applicable",
    "We use the default train and test split from the huggingface repository of each dataset",
    "Dataset Train Test Validation",
    "Table 8: Chosen hyperparameters to reproduce experiment numbers (Ours) in Table 1",
)
"""What the findings say that the text says, in its words."""


def test_sentences_are_those_of_the_paper(shared: Path) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((shared / "seeds").glob("*.txt"))]
    (text,) = [each for each in texts if "arXiv:2603.00425v1" in each]
    plain = " ".join(text.split()).lower()
    missing = [sentence for sentence in SENTENCES if sentence.lower() not in plain]
    assert not missing
    for row in paper.as_printed("sizes").to_dict("records"):
        label = {"winogrande": "Winogrande", "arc_challenge": "ARC-Challenge"}.get(
            row["dataset"], names.dataset(row["dataset"])
        )
        printed = [row[split] for split in ("train", "test", "validation") if row[split]]
        assert f"\n{label} {' '.join(printed)}\n" in text


# The whole


def test_every_finding_has_arithmetic_a_severity_and_a_heading() -> None:
    for each in FINDINGS:
        assert each.arithmetic and each.printed and each.where and each.check in audit.HEADINGS
        assert isinstance(each.severity, Severity)
    assert {each.severity for each in FINDINGS} == set(Severity)


def test_sizes_are_printed_less_computed() -> None:
    for each in of("average"):
        assert each.size == pytest.approx(float(each.printed) - float(each.arithmetic.split()[0]), abs=0.006)
    assert {each.printed: each.size for each in of("deviation") if each.size} == {"8.0e-1": -0.017, "4.8": -0.06}
    assert {each.printed: each.size for each in of("repeat") if each.size} == {"51.4": -0.2}
    assert {each.printed: each.size for each in of("impossible") if "SFT" in each.where} == {
        "64.8": -0.16,
        "47.7": 0.06,
    }


def test_outputs_hold_every_finding() -> None:
    text, frame = audit.markdown(FINDINGS, sets=possible.test_sets(TESTS)), audit.frame(FINDINGS)
    assert len(frame) == len(FINDINGS) == sum(audit.counts(FINDINGS).values())
    for each in FINDINGS:
        size = f"{each.size:g}" if each.size else ""
        assert f"| {each.where} | {each.printed} | {each.arithmetic} | {size} | {each.severity} |" in text
    assert terminal_frames.audit_table(FINDINGS).row_count == len(FINDINGS)
    assert all(f"| {names.dataset(name)} | released |" in text for name in TESTS)


def test_the_committed_document_is_what_the_command_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_command(Namespace(out=str(tmp_path))) == 0
    for name in ("audit.md", "audit.csv"):
        written, kept = ((folder / name).read_text(encoding="utf-8") for folder in (tmp_path, ROOT / "docs"))
        assert written == kept, f"docs/{name} is old: write it again with `actshift audit --out docs`"
    assert all(each.where in written for each in FINDINGS if "," not in each.where)
