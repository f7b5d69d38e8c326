"""Oracle, reduced-rank regression and Figure 3's overlap: each against what is known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from adapted import LOCAL_MODELS, RANDOM_MODELS, base_of, composed

from actshift.analysis import overlap as figure3
from actshift.analysis.activations import batch_of, tuned
from actshift.analysis.oracle import ADDED, BLOCK, divergence, log_probabilities, oracle
from actshift.analysis.regression import explained, objective, reduced_rank
from actshift.cli import main
from actshift.runtime.session import Session

FEW = ("analysis.rows=6", "dataset=listops", "hardware=cpu")
QUICK = "analysis.steps=5"


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


# --- oracle -----------------------------------------------------------------------------------------------------


def test_the_architectures_are_all_there() -> None:
    assert {"random-gemma3", "random-llama", "random-qwen3"} <= set(RANDOM_MODELS)


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_overwriting_block_outputs_gives_the_tuned_model(model: str) -> None:
    frame = oracle(composed("analysis=oracle", f"model={model}", *FEW, QUICK))
    everywhere = frame[frame["layer"].isna()].set_index(["measure", "site", "map"])["value"]
    assert everywhere["logit_error", BLOCK, ""] <= 1e-5
    assert everywhere["kl_left", BLOCK, ""] <= 1e-9
    for site in ("post_mlp", "pre_mlp", "attn_out"):  # each takes a part of it alone
        assert everywhere["kl_left", site, ""] > 1e-3
    assert everywhere["kl_left", BLOCK, ADDED] > 1e-2  # shifts of one layer come through the next as well


def test_overwriting_the_last_block_suffices() -> None:
    frame = oracle(composed("analysis=oracle", "model=random-llama", *FEW, QUICK))
    block = frame[frame["measure"].eq("kl_left") & frame["site"].eq(BLOCK) & frame["map"].eq("")]
    left = block.dropna().sort_values("layer")["value"].tolist()
    assert left[-1] <= 1e-9 < left[0]


@pytest.mark.parametrize("model", RANDOM_MODELS)
def test_a_change_of_weights_is_taken_back(model: str) -> None:
    config, base = composed("analysis=oracle", f"model={model}", *FEW), base_of(model)
    before = {name: weight.clone() for name, weight in base.model.named_parameters()}
    batch = batch_of(config, base, rows=4, session=Session())
    with tuned(base, batch, config.analysis):
        changed = [name for name, weight in base.model.named_parameters() if not torch.equal(weight, before[name])]
    assert changed
    assert all(".layers." in name for name in changed)
    assert all(torch.equal(weight, before[name]) for name, weight in base.model.named_parameters())


def test_the_divergence_of_two_coins() -> None:
    """KL((3/4, 1/4) || (1/2, 1/2)) = log 2 - entropy."""
    one, even = (torch.tensor([odds], dtype=torch.float64).log() for odds in ([0.75, 0.25], [0.5, 0.5]))
    expected = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert divergence(one, even) == pytest.approx(expected, rel=1e-6)
    assert divergence(one, log_probabilities(one + 3.0)) == pytest.approx(0, abs=1e-9)


# --- regression -------------------------------------------------------------------------------------------------


def direct(inputs: np.ndarray, targets: np.ndarray, *, rank: int, ridge: float, seed: int) -> float:
    """The objective that alternating least squares over the two factors reaches: another way to the same minimum."""
    d = len(inputs)
    right = random(rank, d, seed=seed)
    gram = inputs @ inputs.T + ridge * np.eye(d)
    cross = targets @ inputs.T
    for _ in range(3000):
        left = cross @ right.T @ np.linalg.inv(right @ gram @ right.T)
        right = np.linalg.solve(left.T @ left, left.T @ cross) @ np.linalg.inv(gram)
    return objective(left @ right, inputs, targets, ridge=ridge)


@pytest.mark.parametrize("ridge", [0.0, 3.0])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_reduced_rank_regression_is_the_direct_solution(rank: int, ridge: float) -> None:
    inputs, targets = random(6, 40), random(6, 40, seed=1) + random(6, 6, seed=2) @ random(6, 40)
    found = reduced_rank(inputs, targets, rank=rank, ridge=ridge)
    assert np.linalg.matrix_rank(found) == rank
    ours = objective(found, inputs, targets, ridge=ridge)
    reached = min(direct(inputs, targets, rank=rank, ridge=ridge, seed=seed) for seed in range(3))
    assert ours == pytest.approx(reached, rel=1e-9)


def test_at_full_rank_it_is_least_squares() -> None:
    inputs, targets = random(5, 30), random(5, 30, seed=1)
    expected = np.linalg.lstsq(inputs.T, targets.T, rcond=None)[0].T
    np.testing.assert_allclose(reduced_rank(inputs, targets, rank=5), expected)
    assert explained(inputs, inputs) == 1.0
    assert explained(0 * inputs, inputs) == 0.0


def test_a_map_of_low_rank_is_found_exactly() -> None:
    inputs, wanted = random(6, 40), random(6, 2, seed=1) @ random(2, 6, seed=2)
    np.testing.assert_allclose(reduced_rank(inputs, wanted @ inputs, rank=2), wanted, atol=1e-12)


# --- Figure 3's overlap -----------------------------------------------------------------------------------------


def test_the_overlap_is_one_where_both_gradients_coincide() -> None:
    residual, outputs = random(64, 300), random(64, 300, seed=1)
    layer = figure3.Layer(residual, outputs, residual, outputs)
    assert figure3.overlap(*layer.products(), 20) == pytest.approx(1.0)
    np.testing.assert_allclose(
        figure3.inner_products(figure3.leading_pair(layer.products(), 20)), np.eye(20), atol=1e-9
    )
    # A residual of rank 20 leaves both no other columns, whatever they are multiplied with.
    low = random(64, 20) @ random(20, 300, seed=2)
    assert figure3.overlap(low @ outputs.T, low @ random(300, 80, seed=3), 20) == pytest.approx(1.0)


def test_the_overlap_of_random_gradients_is_their_share_of_the_directions() -> None:
    found = [figure3.overlap(random(256, 256, seed=2 * s), random(256, 256, seed=2 * s + 1), 50) for s in range(8)]
    assert np.mean(found) == pytest.approx(50 / 256, rel=0.03)


def test_the_overlap_of_turned_planes_is_known() -> None:
    turned = np.array([[1.0, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])
    first = np.diag([3.0, 2.0, 1.0])
    assert figure3.overlap(first, turned @ first, 2) == pytest.approx((1 + np.cos(0.4) ** 2) / 2)


@pytest.mark.parametrize("model", RANDOM_MODELS)
def test_the_products_are_the_gradients_of_a_full_adapter_and_of_down_proj(model: str) -> None:
    config, base = composed("analysis=overlap", f"model={model}", *FEW), base_of(model)
    batch = batch_of(config, base, rows=4, session=Session())
    layer = 1
    adapter, down = figure3.layers(base, batch)[layer].products()
    matrix = torch.zeros(base.sites.model_width, base.sites.model_width, requires_grad=True)
    weight = base.sites.module("post_mlp", layer).get_submodule("down_proj").weight
    hook = base.sites.hook(BLOCK, layer, lambda h_BTD: h_BTD + h_BTD @ matrix.T)
    weight.requires_grad_(True)
    gradients = torch.autograd.grad(figure3._loss(base, batch), [matrix, weight])
    hook.remove()
    weight.requires_grad_(False)
    for ours, torchs in zip((adapter, down), gradients, strict=True):
        scale = float(torchs.abs().max())
        np.testing.assert_allclose(ours / scale, -torchs.numpy() / scale, atol=2e-5)


def test_residuals_at_the_down_projection_are_the_blocks_unless_a_norm_follows() -> None:
    for model, same in (("random-llama", True), ("random-qwen3", True), ("random-gemma3", False)):
        config, base = composed("analysis=overlap", f"model={model}", *FEW), base_of(model)
        layer = figure3.layers(base, batch_of(config, base, rows=4, session=Session()))[0]
        assert np.allclose(layer.block_residual_DN, layer.down_residual_DN, atol=1e-9) == same


# --- commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "oracle",
            {
                ".csv",
                ".json",
                *(f"_{each}.{kind}" for each in ("sites", "maps", "spectrum") for kind in ("svg", "png")),
            },
        ),
        ("overlap", {".csv", ".json", "_maps.csv", "_layers.svg", "_layers.png", "_maps.svg", "_maps.png"}),
    ],
)
def test_the_command_leaves_frame_record_and_figures(name: str, files: set[str], tmp_path: Path) -> None:
    more = [QUICK] if name == "oracle" else []
    assert main(["analyze", name, "model=random-llama", *FEW, *more, f"results={tmp_path}"]) == 0
    stem = f"{name}-random-llama"
    assert {file.name for file in (tmp_path / "analyses").iterdir()} == {f"{stem}{ending}" for ending in files}
    record = json.loads((tmp_path / "analyses" / f"{stem}.json").read_text())
    assert record["analysis"]["name"] == name
    assert len(pd.read_csv(tmp_path / "analyses" / f"{stem}.csv")) >= 3
    before = {file: file.read_bytes() for file in (tmp_path / "analyses").iterdir()}
    assert main(["analyze", name, "model=random-llama", *FEW, *more, f"results={tmp_path}"]) == 0
    assert {file: file.read_bytes() for file in before} == before


def test_an_adapter_that_a_run_left_is_taken(tmp_path: Path) -> None:
    small = ["debug=few_steps", "training.max_steps=2", f"results={tmp_path}", "dataset=listops"]
    assert main(["run", "method=post_block", *small]) == 0
    (folder,) = tmp_path.glob("runs/*/adapter")
    config = composed("analysis=oracle", *FEW, QUICK, f"analysis.adapter={folder}")
    frame = oracle(config).set_index(["measure", "site", "map"])["value"]
    assert frame["logit_error", BLOCK, ""].iloc[0] <= 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["analysis.rows=1"], "analysis.rows = 1 is impossible"),
        (["analysis.ranks=[0]"], "analysis.ranks = [0] is impossible"),
        (["analysis.adapter=nowhere"], "nowhere"),
    ],
)
def test_a_wrong_request_is_refused(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["analyze", "oracle", *overrides, f"results={tmp_path}"]) == 2
    assert message in capsys.readouterr().err


# --- a model's own activations in the theory ledger -------------------------------------------------------------


def test_examples_from_a_model_are_its_weights_and_hidden_states() -> None:
    """The GLU of an example gives what the model's own MLP gives, and X + Y is its block's output."""
    from actshift.analysis.activations import record, tokens_BT
    from actshift.analysis.real_draws import OF_STREAMS, OF_WEIGHTS, families
    from actshift.analysis.theory import networks
    from actshift.analysis.theory.statements import Sizes

    config = composed("analysis=theory", "model=random-llama", "dataset=listops", "analysis.rows=4")
    found = families(config)
    assert set(found) == {*OF_STREAMS, *OF_WEIGHTS}
    base = base_of("random-llama")
    batch = batch_of(config, base, rows=4, session=Session())
    _, seen = record(base, batch, sites=(BLOCK, "post_mlp", "pre_mlp"))
    mask = tokens_BT(batch)
    columns = {place: h_BTD[mask].double().numpy().T for place, h_BTD in seen.items()}
    for seed in range(3):
        (draw,) = found["takeaway_1"].values()
        glu = draw(np.random.default_rng(seed), Sizes(2, 2, 2))
        h = glu["h"]
        (layer, token), *_ = [
            (layer, int(np.argmax(same)))
            for layer in range(base.sites.layers)
            if (same := np.all(np.isclose(columns["pre_mlp", layer].T, h), axis=1)).any()
        ]
        out = networks.glu(glu["gate"], glu["up"], glu["down"], h, "silu")  # type: ignore[arg-type]
        np.testing.assert_allclose(out, columns["post_mlp", layer][:, token], atol=1e-4)
        (draw,) = found["theorem_3_1"].values()
        streams = draw(np.random.default_rng(seed), Sizes(2, 2, 2))
        block = streams["X"] + streams["Y"]  # type: ignore[operator]
        blocks = np.hstack([columns[BLOCK, layer] for layer in range(base.sites.layers)])
        assert np.isclose(blocks.T, block[:, 0], atol=1e-9).all(axis=1).any()


def test_a_model_of_another_activation_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["analyze", "theory", "model=random-gemma3", f"results={tmp_path}"]) == 2
    assert "analysis.activations=false" in capsys.readouterr().err
