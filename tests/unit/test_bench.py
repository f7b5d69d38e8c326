"""The benchmark program: its contestants do the same work, and its figures are what they say. No time is asserted."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from bench import table  # noqa: E402
from bench.case import Case, build  # noqa: E402
from bench.contestants import Actshift, Entry, lap  # noqa: E402
from bench.libraries import Peft, Pyreft  # noqa: E402
from bench.limits import evaluation_operations, training_operations  # noqa: E402
from bench.measure import alternate, products, ratios, spread  # noqa: E402
from bench.parts import Options, evaluation  # noqa: E402
from bench.released import Released, padded  # noqa: E402
from bench.scaling import plot  # noqa: E402


@pytest.mark.parametrize(("method", "rival"), [("steering", Released), ("lora", Peft), ("reft", Pyreft)])
def test_a_rival_trains_to_the_same_loss_and_gives_the_same_answers(method: str, rival: Entry) -> None:
    case = build("random-llama", "winogrande", method, rows=32, scored=4)
    ours, theirs = lap(case, Actshift), lap(case, rival)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-5)
    assert len(ours.outputs) == 4
    for our, their in zip(ours.outputs, theirs.outputs, strict=True):
        assert their.startswith(our)


def test_a_rival_leaves_the_base_model_as_it_was() -> None:
    case = build("random-llama", "winogrande", "steering", rows=16, scored=1)
    ids_BT = torch.arange(5, 15)[None]
    before = case.base.model(ids_BT).logits
    lap(case, Released)
    for method, rival in (("lora", Peft), ("reft", Pyreft)):
        config = build("random-llama", "winogrande", method, rows=16, scored=1).config
        lap(dataclasses.replace(case, config=config), rival)
    assert torch.equal(case.base.model(ids_BT).logits, before)
    assert not any(parameter.requires_grad for parameter in case.base.model.parameters())
    assert not case.base.model.training


def test_rows_of_the_released_loop_are_padded_to_the_protocols_length() -> None:
    case = build("tiny", "boolq", "steering", rows=4, scored=1)
    for row, example in zip(padded(case), case.rows, strict=True):
        assert {len(tokens) for tokens in row.values()} == {256}
        assert sum(row["attention_mask"]) == len(example.ids)
        assert sum(label >= 0 for label in row["labels"]) == len(example.ids) - example.prompt_length


def test_evaluation_alone_asserts_equal_answers() -> None:
    model = "random-llama"
    options = Options(rows={model: 16}, scored={model: 4}, repeats=1, data=None, steerling=None)
    figures = evaluation(options, model, "winogrande")
    assert figures["answers_equal"] == figures["rows_scored"] == 4
    assert figures["ratio_at_most"] > 0


def test_turns_begin_with_another_contestant_each() -> None:
    order: list[str] = []
    found = alternate({name: lambda name=name: order.append(name) or name for name in "abc"}, repeats=3)
    assert "".join(order) == "abcbcacab"
    assert found == {name: [name] * 3 for name in "abc"}


def test_ratios_are_taken_within_a_turn() -> None:
    assert ratios([2.0, 40.0, 6.0], [1.0, 10.0, 2.0]) == {"median": 3.0, "q1": 2.5, "q3": 3.5, "n": 3}
    assert spread([5.0]) == {"median": 5.0, "q1": 5.0, "q3": 5.0, "n": 1}


def test_products_are_counted_forward_and_back() -> None:
    left = torch.randn(3, 5, requires_grad=True)
    weight = torch.randn(5, 7)
    assert products(lambda: left @ weight) == 2 * 3 * 5 * 7
    assert products(lambda: (left @ weight).exp().sum().backward()) == 2 * 2 * 3 * 5 * 7
    assert products(lambda: left.exp()) == 0
    layer = torch.nn.Linear(5, 7)
    with torch.inference_mode():
        assert products(lambda: layer(left)) == 2 * 3 * 5 * 7


def test_products_of_a_cell_are_nearly_those_it_needs(small: Case) -> None:
    """Fewer where rows begin alike and in the last layer, more for the adapter's own."""
    ours = Actshift(small)
    assert products(ours.train) == pytest.approx(training_operations(small), rel=0.5)
    found = ours.evaluate(stop=False)
    new = [len(ids) + 1 for ids in small.base.tokenizer(found, add_special_tokens=False)["input_ids"]]
    assert products(lambda: ours.evaluate(stop=False)) == pytest.approx(evaluation_operations(small, new), rel=0.5)
    ours.close()


@pytest.fixture(scope="module")
def small() -> Case:
    return build("random-llama", "winogrande", "steering", rows=16, scored=2)


def test_operations_grow_with_tokens_and_leave_lost_rows_out(small: Case) -> None:
    once = training_operations(small)
    twice = training_operations(dataclasses.replace(small, rows=small.rows * 2))
    lost = dataclasses.replace(small.rows[0], ids=small.rows[0].ids[: small.rows[0].prompt_length])
    assert twice == pytest.approx(2 * once)
    assert training_operations(dataclasses.replace(small, rows=[*small.rows, lost])) == once
    shape, prompt = small.config.model.shape, small.scored[0].prompt_length
    weights = shape.layers * (2 * 64 * (4 + 2) * 16 + 3 * 64 * 128)
    one = dataclasses.replace(small, scored=small.scored[:1])
    expected = prompt * (2 * weights + 2 * 3 * 4 * 16 * prompt) + 2 * 64 * 1101
    assert evaluation_operations(one, [1]) == expected


def test_the_hubs_models_come_with_random_weights_in_any_size() -> None:
    """What runs on a GPU with the sizes of the paper's models, here with small ones in bfloat16."""
    shape = "width=32 layers=2 heads=2 kv_heads=1 head_size=16 mlp_width=48 vocabulary=800"
    small = (*(f"model.shape.{size}" for size in shape.split()), "training.precision=bfloat16")
    for model, method in (("llama3.2-1b", "reft"), ("gemma3-1b", "steering"), ("qwen3-4b", "lora")):
        case = build(model, "winogrande", method, rows=16, scored=2, overrides=small)
        assert case.base.model.dtype == torch.bfloat16 and case.config.model.source == "random"
        found = [lap(case, entry) for entry in (Actshift, {"lora": Peft, "reft": Pyreft}.get(method, Released))]
        assert found[1].loss == pytest.approx(found[0].loss, rel=0.05)


@pytest.mark.slow
def test_the_program_writes_figures_a_page_and_a_plot(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "--models", "random-llama", "--datasets", "winogrande", "--rows", "16"]
    command += ["--methods", "steering", "--only", "cells", "--repeats", "1", "--out", str(tmp_path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}, capture_output=True)
    figures = json.loads((tmp_path / "cell-random-llama-winogrande-steering.json").read_text())
    assert set(figures["contestants"]) == {"actshift", "released"}
    assert figures["machine"]["cores"] and figures["machine"]["code"]["torch"]
    assert figures["contestants"]["released"]["above_model_bytes"] > 0
    assert "cell-random-llama-winogrande-steering" in (tmp_path / "README.md").read_text()


def test_a_line_says_how_far_cost_is_off_a_line_and_what_bounds_a_ratio(tmp_path: Path) -> None:
    kinds = {"sizes": [1, 2, 3], "seconds": [spread([1.0 * size]) for size in (1, 2, 3)], "slope": 1.0}
    kinds |= {"intercept": 0.0, "off_the_line": 0.04}
    figures = {"rows": kinds, "tokens": kinds, "layers": {**kinds, "off_the_line": 0.2}}
    assert "layers 20%" in table.line("scaling", figures)
    plot(figures, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").stat().st_size > 1000
    replicas = {"ratio": spread([2.0]), "ratio_at_least": 1.5}
    assert "at least 1.5x" in table.line("replicas-tiny-boolq", replicas)
