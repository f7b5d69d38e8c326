"""Figures 2, 3, 5 and 6 on adapters whose shares, cosines and norms are known in closed form."""

from __future__ import annotations

import math
import shutil
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from adapted import LOCAL_MODELS, attached, base_of, composed, method_config

from actshift.analysis import adapters, overlap, retention, shares, shifts
from actshift.analysis.activations import batch_of, contribution_site, token_sets
from actshift.analysis.adapters import Trained
from actshift.cli import main
from actshift.commands.runs import sweep_command
from actshift.errors import ActshiftError
from actshift.report import adapter_figures, analysis_figures
from actshift.report.figures import front
from actshift.runtime.session import Session
from actshift.store.adapters import load_adapter, save_adapter
from actshift.store.store import Store
from actshift.training.batches import Batch

MODEL = "random-llama"
State = dict[str, torch.Tensor]


def made(folder: Path, method: str, fill: Callable[[State], State], *overrides: str, model: str = MODEL) -> Trained:
    """An adapter of a method whose tensors are set by hand."""
    config = replace(composed(f"model={model}"), method=method_config(method, *overrides, model=model))
    base = base_of(model)
    with attached(base, config.method) as adaptation:
        adaptation.load_state_dict(fill(adaptation.state_dict()))
        save_adapter(folder, adaptation, base=base, config=config, facts={}, identity="0" * 16, diverged=False)
    return Trained(method, 1, load_adapter(folder))


def batch(model: str = MODEL) -> Batch:
    config = composed(f"model={model}", "dataset=listops", "hardware=cpu")
    return batch_of(config, base_of(model), rows=4, session=Session(), split="validation")


def analyzed(name: str, trained: list[Trained], monkeypatch: pytest.MonkeyPatch, *, model: str = MODEL) -> Any:
    module, function = (shares, "shares") if name == "shares" else (shifts, name)
    monkeypatch.setattr(module, "trained", lambda config: trained)
    config = composed(f"analysis={name}", f"model={model}", "dataset=listops", "hardware=cpu")
    if hasattr(config.analysis, "rows"):
        config = replace(config, analysis=replace(config.analysis, rows=4))
    return getattr(module, function)(config)


# Figure 2


def test_ratios_of_known_vectors() -> None:
    part, whole = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 10.0], [0.0, 4.0]])
    assert shares.ratios(part, whole) == (pytest.approx((0.5 + 0.25) / 2), pytest.approx((5 + 1) / (10 + 4)))
    still = torch.cat([whole, torch.zeros(1, 2)])
    assert shares.ratios(torch.cat([part, torch.zeros(1, 2)]), still)[0] == pytest.approx(0.375)


@pytest.mark.parametrize(("site", "share"), [("post_block", 0.0), ("post_mlp", 1.0)])
def test_the_share_of_a_change_in_the_last_layer(
    site: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change after the block has nothing of the MLP; one of the MLP's output alone is all of the block's change."""
    last = base_of(MODEL).sites.layers - 1

    def fill(state: State) -> State:
        return {name: torch.ones_like(tensor) for name, tensor in state.items()}

    each = made(tmp_path / "a", "post_block_vector", fill, f"method.site={site}", f"method.layers=[{last}]")
    frame = analyzed("shares", [each], monkeypatch).set_index("layer")
    assert frame.loc[last, "change_share"] == pytest.approx(share, abs=1e-5)
    assert frame["change_share"].drop(last).isna().all(), "no change before"
    assert (frame["mlp_share"] > 0).all()


@pytest.mark.parametrize("model", LOCAL_MODELS)
def test_the_contribution_is_what_is_added_to_the_residual_stream(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added to the contribution, a vector comes out of the block as it is: behind Gemma's and OLMo's last norm too."""
    base, last = base_of(model), base_of(model).sites.layers - 1
    site = contribution_site(base)
    change = base.sites.hook(site, last, lambda h_BTD: h_BTD + 1.0)
    _, after = shares.record(base, batch(model), sites=(site, "post_block"))
    change.remove()
    _, before = shares.record(base, batch(model), sites=("post_block",))
    torch.testing.assert_close(
        after["post_block", last] - before["post_block", last],
        torch.ones_like(before["post_block", last]),
        atol=1e-3,
        rtol=0,
    )


def test_attention_sinks_are_reported_apart() -> None:
    h = torch.ones(2, 5, 3)
    h[0, 0] *= 11.0
    h[1, 0] *= 9.0
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 4] = False
    sets = token_sets({("post_block", 0): h}, mask)
    assert list(sets) == ["all", "without sinks"] and int(sets["all"].sum()) == 9
    assert int(sets["without sinks"].sum()) == 8 and not sets["without sinks"][0, 0]
    assert list(token_sets({("post_block", 0): h[1:]}, mask[1:])) == ["all"]


# Figures 5 and 6


def joint(*, up: int, down_B: int, sign: float = 1.0) -> Callable[[State], State]:
    """Both parts write into one coordinate each: the adapter into `up`, LoRA on down_proj into `down_B`."""

    def fill(state: State) -> State:
        filled = {}
        for name, tensor in state.items():
            value = torch.zeros_like(tensor)
            if name.endswith("post_block.up"):
                value[up] = sign
            elif "down_proj.lora_B" in name:
                value[down_B] = 1.0
            elif "lora_B" not in name:
                value = tensor if tensor.any() else torch.ones_like(tensor)
            filled[name] = value
        return filled

    return fill


@pytest.mark.parametrize(("up", "size"), [(0, 1.0), (1, 0.0)])
def test_shifts_into_one_coordinate_are_parallel_and_into_two_orthogonal(
    up: int, size: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, pooled = analyzed("cosines", [made(tmp_path / "a", "joint", joint(up=up, down_B=0))], monkeypatch)
    assert set(frame["against"]) == {"mlp", "down_proj"} and set(frame["layer"]) == set(range(frame["layer"].max() + 1))
    assert frame["mean_abs"].to_numpy() == pytest.approx(size, abs=1e-3)
    assert pooled.groupby("against")["share"].sum().to_numpy() == pytest.approx(1.0)
    edges = pooled[pooled["share"] > 0]
    assert (edges["low"].abs().max() > 0.9) == bool(size), "the histogram has them at its ends, or in its middle"


def test_the_shifts_are_those_of_the_matrices(tmp_path: Path) -> None:
    """W2 W1 h on the block's output, and B A F(x) of the down projection with its inputs in the adapted model."""
    torch.manual_seed(0)

    def fill(state: State) -> State:
        return {
            name: torch.zeros_like(tensor)
            if "lora_B" in name and "down_proj" not in name
            else 0.1 * torch.randn_like(tensor)
            for name, tensor in state.items()
        }

    each, base, rows = made(tmp_path / "a", "joint", fill), base_of(MODEL), batch()
    state, layer = each.adapter.state, 1
    seen: dict[str, torch.Tensor] = {}
    block = base.sites.hook("post_block", layer, lambda h: seen.update(h=h) or h)
    with_adapter = each.adapter.attach(base)
    down = base.sites.module("post_mlp", layer).get_submodule("down_proj")
    inner = down.register_forward_pre_hook(lambda _, inputs: seen.update(F=inputs[0]) or None)
    with torch.no_grad():
        base.model(input_ids=rows.ids_BT)
    for hook in (block, inner):
        hook.remove()
    with_adapter.detach()
    parts = f"steering.{layer}.post_block"
    shift = seen["h"] @ state[f"{parts}.down"].T @ state[f"{parts}.up"].T
    (a,), (b,) = (
        [value for name, value in state.items() if f".{layer}.mlp.down_proj.lora_{part}" in name] for part in "AB"
    )
    expected = torch.cosine_similarity(shift, seen["F"] @ a.T @ b.T, dim=-1)
    found, _ = shifts.token_cosines(base, rows, each)
    for against in ("mlp", "down_proj"):
        torch.testing.assert_close(found[against, layer].float(), expected, atol=2e-3, rtol=0)


def test_down_proj_alone_leaves_the_other_projections_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    each = made(tmp_path / "a", "joint", lambda state: {name: 0.1 * torch.randn_like(x) for name, x in state.items()})
    found, _ = shifts.token_cosines(base_of(MODEL), batch(), each)
    assert not torch.allclose(found["mlp", 0], found["down_proj", 0], atol=1e-2)


def test_norms_of_known_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(state: State) -> State:
        filled = {}
        for name, tensor in state.items():
            eye = torch.zeros_like(tensor)
            if "post_block" in name:
                layer = int(name.split(".")[1])
                size = (layer + 2.0) if name.endswith("up") else 0.5
                eye.fill_diagonal_(size)
            filled[name] = eye if "post_block" in name else tensor
        return filled

    frame = analyzed("norms", [made(tmp_path / "a", "joint_orth", fill)], monkeypatch)
    assert frame["norm"].tolist() == pytest.approx([layer + 2.0 for layer in frame["layer"]])
    assert frame["product"].tolist() == pytest.approx([(layer + 2.0) / 2 for layer in frame["layer"]])
    assert len(frame) == base_of(MODEL).sites.layers


@pytest.mark.parametrize("name", ["cosines", "norms"])
def test_a_method_without_both_parts_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = made(tmp_path / "a", "lora_r8", lambda state: state)
    with pytest.raises(ActshiftError, match="name joint methods"):
        analyzed(name, [each], monkeypatch)


# Figure 3


def test_a_shift_that_is_one_vector_is_learned_in_one_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fine-tuning adds one vector to every token, R is of rank 1, and both products have that direction."""
    each = made(tmp_path / "a", "post_block_vector", lambda state: {name: x + 1.0 for name, x in state.items()})
    monkeypatch.setattr(overlap, "trained", lambda config, methods: [replace(each, method="sft")])
    asked = ["analysis.methods=[sft]", "analysis.directions=1", "analysis.rows=4", "dataset=listops"]
    frame, maps = overlap.overlaps(composed("analysis=overlap", f"model={MODEL}", *asked, "hardware=cpu"))
    found = frame.set_index(["compared", "layer"])["overlap"]
    assert found["oracle", 0] == pytest.approx(1.0, abs=1e-6)
    assert frame["compared"].unique().tolist() == ["gradient", "oracle"]
    width = base_of(MODEL).sites.model_width
    assert frame["random"].unique() == pytest.approx([1 / width])
    assert maps["compared"].unique().tolist() == ["gradient", "oracle"], "a heat map of each"


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2])
def test_trained_matrices_overlap_by_the_angle_between_them(angle: float, tmp_path: Path) -> None:
    """W2 writes into the first coordinates; B of down_proj too, but that its first direction is turned out of them."""

    def fill(state: State) -> State:
        filled = dict(state)
        for name, tensor in state.items():
            if name.endswith("post_block.up") or "down_proj.lora_B" in name:
                # Each column is smaller than the one before, so that the leading directions are known.
                wide = torch.zeros_like(tensor)
                for column in range(tensor.shape[1]):
                    wide[column, column] = 2.0**-column
                if "lora_B" in name:
                    wide[0, 0], wide[-1, 0] = math.cos(angle), math.sin(angle)
                filled[name] = wide
        return filled

    each = made(tmp_path / "a", "joint", fill, "method.lora.rank=4", "method.steering.rank=8")
    first, second = overlap.matrices(each, 1)
    assert first.shape == second.shape == (base_of(MODEL).sites.model_width, 4)
    value, random, diagonal = overlap._numbers((first, second))
    assert value == pytest.approx((3 + math.cos(angle) ** 2) / 4)
    assert diagonal == pytest.approx((3 + abs(math.cos(angle))) / 4)
    assert random == 4 / len(first)


def test_matrices_that_no_step_has_changed_are_refused(tmp_path: Path) -> None:
    each = made(tmp_path / "a", "joint", lambda state: state)
    with pytest.raises(ActshiftError, match="is still 0, for no step has changed it"):
        overlap.matrices(each, 0)
    alone = made(tmp_path / "b", "lora_r8", lambda state: state)
    with pytest.raises(ActshiftError, match=r"analysis\.joint=\.\.\."):
        overlap.matrices(alone, 0)


FEW_STEPS = ["sweep.datasets=[listops]", "sweep.rates.tiny.joint=[0.01]", "data.limit.train=8", "debug=few_steps"]


def test_matrices_after_some_steps_are_those_of_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["analyze", "overlap", "dataset=listops", "analysis.rows=3", f"results={tmp_path}"]
    both = [*asked, "analysis.early=[steps_1,steps_10]"]
    for steps in (1, 10):
        assert main(both) == 2, "steps are missing"
        assert f"`actshift sweep steps_{steps} results={tmp_path}`" in capsys.readouterr().err
        limit = f"training.max_steps={steps}"
        assert main(["sweep", f"steps_{steps}", *FEW_STEPS, limit, f"results={tmp_path}"]) == 0
    assert main(both) == 0
    frame = pd.read_csv(tmp_path / "analyses/overlap-tiny.csv")
    trained = frame[frame["compared"].eq("trained")]
    assert trained["steps"].unique().tolist() == [1, 10] and trained["method"].unique().tolist() == ["joint"]
    assert trained["overlap"].between(0, 1).all() and (trained["directions"] == 8).all()
    figure = analysis_figures.overlap_by_layer(frame)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["R: minus the gradient", "after 1 step", "after 10 steps", "random subspaces"]


# Adapters of a sweep


SMALL = [
    *("sweep.datasets=[listops]", "sweep.methods=[joint_orth]", "sweep.reference=joint_orth", "sweep.seeds=[1,2]"),
    *("sweep.rates.tiny.joint=[0.01]", "debug=few_steps", "training.max_steps=2"),
]


def test_adapters_are_trained_as_runs_of_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["analysis.methods=[joint_orth]", "dataset=listops", f"results={tmp_path}"]
    assert main(["analyze", "norms", *asked]) == 2
    assert f"actshift sweep shifts results={tmp_path}" in capsys.readouterr().err
    assert main(["sweep", "shifts", *SMALL, f"results={tmp_path}"]) == 0
    assert main(["analyze", "norms", *asked, "--train"]) == 0, "nothing is missing, so nothing is trained"
    frame = pd.read_csv(tmp_path / "analyses/norms-tiny.csv")
    assert sorted(frame["seed"].unique()) == [1, 2] and frame["method"].unique().tolist() == ["joint_orth"]
    assert main(["analyze", "cosines", *asked, "analysis.rows=3"]) == 0
    assert main(["analyze", "shares", *asked, "analysis.rows=3"]) == 0
    found = {path.name for path in (tmp_path / "analyses").iterdir()}
    assert {"cosines-tiny_pooled.csv", "cosines-tiny_pooled.png", "shares-tiny_layers.svg"} <= found
    assert main(["analyze", "norms", "analysis.methods=[joint]", *asked[1:]]) == 2
    assert "has no runs of joint on tiny, listops, paper" in capsys.readouterr().err
    before = adapters.trained(composed("analysis=norms", *asked))
    for each in before:
        shutil.rmtree(each.adapter.folder)
    (need,) = adapters.needed(composed("analysis=norms", *asked))
    assert list(need.without_adapter) == [each.adapter.description.identity for each in before]
    assert str(need) == "shifts (joint_orth): 0 of 2 adapters are there" and not need.complete
    assert main(["analyze", "norms", *asked]) == 2 and "left no adapter" in capsys.readouterr().err
    # As planned above, and not as the file of the sweep has it: a sweep of that name is known by its plan.
    again = lambda request: sweep_command(Namespace(**{**vars(request), "overrides": [*SMALL, *request.overrides]}))  # noqa: E731
    monkeypatch.setattr("actshift.commands.runs.sweep_command", again)
    assert main(["analyze", "norms", *asked, "--train"]) == 0
    after = adapters.trained(composed("analysis=norms", *asked))
    for one, other in zip(before, after, strict=True):
        assert all(torch.equal(tensor, other.adapter.state[name]) for name, tensor in one.adapter.state.items())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "analyses/norms-tiny.csv"), frame)


def test_training_is_refused_where_an_analysis_has_no_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", "theory", "--train"]) == 2
    assert "leave --train out" in capsys.readouterr().err


def test_diverged_adapters_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each = made(tmp_path / "runs/0/adapter", "joint", lambda state: state)
    diverged = replace(each.adapter, description=replace(each.adapter.description, diverged=True))
    monkeypatch.setattr(adapters, "load_adapter", lambda folder: diverged)
    run = type("Run", (), {"identity": "0" * 16, "cell": type("Cell", (), {"method": "joint"})(), "seed": 1})()
    monkeypatch.setattr(adapters, "_runs", lambda config, store, sweep, methods: [(run, None)])
    folder = tmp_path / "runs" / ("0" * 16) / "adapter"
    folder.mkdir(parents=True)
    with pytest.raises(ActshiftError, match="every training of joint"):
        adapters.trained(composed("analysis=norms", "analysis.methods=[joint]", f"results={tmp_path}"))


def test_figures_have_a_line_for_each_method_and_a_band_over_seeds() -> None:
    rows = [
        ("all", m, s, a, layer, 0.1 * s)
        for m in ("joint", "joint_orth")
        for s in (1, 2)
        for a in ("mlp", "down_proj")
        for layer in (0, 1)
    ]
    frame = pd.DataFrame(rows, columns=["tokens", "method", "seed", "against", "layer", "mean_abs"])
    figure = adapter_figures.cosines_by_layer(frame)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Joint", "Joint-Orth"]
    bands = [artist for artist in figure.get_children() if type(artist).__name__ == "Polygon"]
    assert len(bands) == 4


# Retention


def test_likelihoods_by_hand(tmp_path: Path) -> None:
    """A head of zeros predicts every word alike: log V nats a token, in windows of any size."""
    base = base_of(MODEL)
    head = base.model.get_output_embeddings().weight
    before = head.detach().clone()
    windows = [[1, 2, 3, 4], [5, 6]]
    try:
        head.data.zero_()
        found = retention._likelihood(base, windows)
    finally:
        head.data.copy_(before)
    assert found == pytest.approx(math.log(head.shape[0]), rel=1e-5)
    plain = retention._likelihood(base, windows)
    ids = torch.tensor([windows[0]])
    with torch.no_grad():
        logs = base.model(input_ids=ids).logits[0].log_softmax(-1)
        other = base.model(input_ids=torch.tensor([windows[1]])).logits[0].log_softmax(-1)
    by_hand = -(logs[0, 2] + logs[1, 3] + logs[2, 4] + other[0, 6]) / 4
    assert plain == pytest.approx(float(by_hand), rel=1e-5)
    still = made(tmp_path / "a", "post_block", lambda state: state)
    assert retention._likelihood(base, windows, still) == pytest.approx(plain, rel=1e-6), "it adds nothing yet"
    pushed = made(tmp_path / "b", "post_block_vector", lambda state: {n: x + 1.0 for n, x in state.items()})
    assert retention._likelihood(base, windows, pushed) != pytest.approx(plain, rel=1e-3)
    assert retention._likelihood(base, windows) == pytest.approx(plain), "and is taken off again"


def test_retention_beside_the_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["sweep.datasets=[listops]", "sweep.methods=[sft,joint]", "sweep.seeds=[1,2]", "debug=few_steps"]
    rates = ["sweep.rates.tiny.sft=[0.001]", "sweep.rates.tiny.joint=[0.01]", "training.max_steps=2"]
    assert main(["sweep", "shifts", *methods, *rates, f"results={tmp_path}"]) == 0
    asked = ["analyze", "retention", "dataset=listops", "analysis.methods=[sft,joint]", f"results={tmp_path}"]
    assert main([*asked, "analysis.datasets=[boolq]", "analysis.rows=4"]) == 0
    frame = pd.read_csv(tmp_path / "analyses/retention-tiny.csv")
    assert frame["method"].tolist() == ["base", "sft", "sft", "joint", "joint"]
    store = Store(tmp_path)
    scores = {(r.cell.method, r.seed): r.metrics["accuracy"] for r in store.records("test")}
    for row in frame.iloc[1:].itertuples():
        assert row.accuracy == pytest.approx(scores[row.method, row.seed])
        assert row.nll_change == pytest.approx(row.nll - frame["nll"].iloc[0], abs=1e-4)
    assert frame["on_boolq"].iloc[1:].between(0, 100).all() and len(list(tmp_path.glob("evaluations/*.json"))) == 4
    (tmp_path / "one.txt").write_text("", encoding="utf-8")
    for text, message in (("nowhere.txt", "cannot be read as text"), (str(tmp_path / "one.txt"), "two are needed")):
        assert main([*asked, f"analysis.text={text}"]) == 2
        assert message in capsys.readouterr().err


def test_a_front_is_what_no_other_beats() -> None:
    points = [(1.0, 50.0, "a"), (2.0, 40.0, "b"), (2.0, 70.0, "c"), (3.0, 70.0, "d"), (0.5, 10.0, "e")]
    assert list(front(points)) == [(0.5, 10.0), (1.0, 50.0), (2.0, 70.0)]
    frame = pd.DataFrame(
        [("base", None, None, 0.0), ("sft", 1000, 90.0, 2.0), ("joint", 100, 80.0, 0.5), ("reft", 10, 2.0, 0.6)],
        columns=["method", "trained", "accuracy", "nll_change"],
    )
    figure = adapter_figures.retention_fronts(frame)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *("SFT", "Joint", "ReFT", "no other is better in both"),
    ]
