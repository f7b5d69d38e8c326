"""Trainable parameters: counted on modules, equal to those of a real model, held against the paper's shares."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from adapted import METHODS, attached, base_of, composed, method_config

from actshift.cli import main
from actshift.config.cached import CachedComposer, hub_models
from actshift.estimates.parameters import Count, counts, meta_base, trainable_parameters
from actshift.paper import printed as paper
from actshift.report import params

LLAMA = 1_235_814_400
"""Llama-3.2-1B: embedding 128256 x 2048 (tied); 16 layers of attention (4096 + 1024) x 2048, MLP 3 x 2048 x 8192 and
two norms; a last norm."""


@pytest.fixture(scope="module")
def llama() -> dict[str, Count]:
    methods = ["sft", "lora_r8", "post_block", "post_block_vector", "reft_4layers_r4"]
    return {count.method: count for count in counts(["llama3.2-1b"], methods, CachedComposer())}


def test_llama_has_the_shares_that_its_sizes_give(llama: dict[str, Count]) -> None:
    assert {count.total for count in llama.values()} == {LLAMA}
    # Two matrices of 8 x 2048 a layer; a vector of 2048; LoRA: 8 (in + out) over the seven projections of a layer.
    projections = 2 * (2048 + 2048) + 2 * (2048 + 512) + 3 * (2048 + 8192)
    expected = {
        "sft": (LLAMA, 100.0),
        "lora_r8": (16 * 8 * projections, 0.456),
        "post_block": (16 * 2 * 8 * 2048, 0.042),
        "post_block_vector": (16 * 2048, 0.003),
    }
    for method, (trainable, share) in expected.items():
        assert llama[method].trainable == trainable
        assert round(100 * trainable / LLAMA, 3) == share


def test_a_method_that_does_not_fit_is_no_number(llama: dict[str, Count]) -> None:
    refused = llama["reft_4layers_r4"]
    assert refused.trainable is None
    assert refused.refused.startswith("method.layers = [3, 9, 18, 24] is impossible")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", ["random-gemma3"])
def test_counts_are_those_of_a_real_model(model: str, method: str) -> None:
    config = method_config(method, model=model)
    with attached(base_of(model), config) as adaptation:
        real = adaptation.trainable_parameters()
    base = meta_base(composed(f"model={model}").model)
    assert base.parameters == base_of(model).parameters
    assert trainable_parameters(base, config) == real
    assert trainable_parameters(base, config) == real, "nothing stays on the base model"


def test_models_from_the_hub_are_found() -> None:
    found = hub_models(["tiny", "llama3.2-1b", "random-qwen3", "qwen3-0.6b"], CachedComposer())
    assert found == ["llama3.2-1b", "qwen3-0.6b"]


def test_the_qwen3_suite_has_its_published_sizes() -> None:
    # Parameters with tied embeddings counted once, as the models' cards round them: 0.6B, 1.7B, 4.0B, 8.2B.
    sizes = {"qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-8b": 8_190_735_360}
    for model, size in sizes.items():
        assert meta_base(composed(f"model={model}").model).parameters == size


def test_a_share_is_printed_once() -> None:
    shares = params.printed_shares()
    assert not shares.duplicated(["model", "method"]).any()
    assert set(shares["model"]) == set(paper.table(1)["model"])
    by_cell = shares.set_index(["model", "method"])["paper_pct"]
    assert by_cell["llama3.2-1b", "lora_r8"] == 0.45
    assert by_cell["llama3.1-8b", "reft_4layers_r4"] == 0.004
    assert by_cell["gemma3-1b", "joint"] == 0.79


@pytest.mark.parametrize(
    ("share", "printed", "agrees"),
    [
        (0.0424, 0.04, True),
        (0.456, 0.45, True),  # cut, not rounded
        (0.652, 0.45, False),
        (0.0054, 0.007, False),
        (0.0016, 0.004, False),
        (0.00599, 0.005, True),
        (0.00601, 0.005, False),  # one unit off
        (99.9, 100.0, True),
        (0.3, float("nan"), None),
        (float("nan"), 0.3, None),
    ],
)
def test_a_share_agrees_below_one_unit_of_the_last_printed_digit(
    share: float, printed: float, agrees: bool | None
) -> None:
    assert params.agrees(share, printed) is agrees


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    counted = [
        Count("qwen3-8b", "post_block", 2_359_296, 8_190_735_360),
        Count("gemma3-1b", "lora_r8", 6_522_880, 999_885_952),
        Count("gemma3-1b", "sft", 999_885_952, 999_885_952),
        Count("llama3.2-1b", "reft_4layers_r4", None, LLAMA, refused="no layer 18"),
        Count("llama3.2-1b", "mine", 3, LLAMA),
    ]
    return params.frame(counted)


def test_the_papers_models_and_methods_come_first(table: pd.DataFrame) -> None:
    rows = list(zip(table["model"], table["method"], strict=True))
    assert rows == [
        ("llama3.2-1b", "reft_4layers_r4"),
        ("llama3.2-1b", "mine"),
        ("gemma3-1b", "sft"),
        ("gemma3-1b", "lora_r8"),
        ("qwen3-8b", "post_block"),
    ]


def test_markdown_marks_what_differs(table: pd.DataFrame) -> None:
    lines = params.markdown(table).splitlines()
    assert "| Gemma-3-1B | LoRA | 6,522,880 | 0.652 | 0.45 | ≠ +0.2 (Table 1: x1.45) |" in lines
    assert "| Gemma-3-1B | SFT | 999,885,952 | 100 | 100 |  |" in lines
    assert "| Qwen3-8B | Ours r=8 | 2,359,296 | 0.0288 |  |  |" in lines
    assert "- reft_4layers_r4 does not fit llama3.2-1b: no layer 18." in lines


def test_the_command_prints_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = ["--csv", "out/p.csv", "--markdown", "p.md"]
    assert main(["params", "model=gemma3-1b", "method=post_block,lora_r8", *files]) == 0
    printed = capsys.readouterr().out
    assert "≠ +0.2 (Table 1: x1.45)" in printed
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "p.csv").read_text())))
    assert [(row["method"], row["trainable"], row["agrees"]) for row in rows] == [
        ("lora_r8", "6522880", "False"),
        ("post_block", "479232", "True"),
    ]
    assert (tmp_path / "p.md").read_text().startswith("# Trainable parameters\n")


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("dataset=boolq", "unknown axis 'dataset'"),
        ("model=llama3.2-1", "Did you mean 'llama3.2-1b'"),
        ("method=post_blok", "Did you mean 'post_block'"),
    ],
)
def test_what_does_not_exist_is_refused(axis: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", axis]) == 2
    assert message in capsys.readouterr().err
