"""Joint training: the two parts, the orthogonality constraint, the two learning rates.

Shapes: D model width, R rank of the steering part, S LoRA's rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import (
    another_base,
    attached,
    base_of,
    logits,
    method_config,
    perturb,
    some_ids,
    some_rows,
    training_config,
)

from actshift.methods.base import Adaptation
from actshift.methods.joint import Joint, column_basis
from actshift.schema.config import ScheduleConfig
from actshift.training.checkpoints import Checkpoints, read_tensors
from actshift.training.loop import Curves, train

MODEL = "random-llama"
LAYERS = 3
State = dict[str, torch.Tensor]


def config(*overrides: str, method: str = "joint_orth", rank: int = 16) -> dict[str, Any]:
    return method_config(method, f"method.steering.rank={rank}", *overrides, model=MODEL)


def trained(
    settings: dict[str, Any], folder: Path, *, watch: Any = lambda _: None, every: int = 0, lr: float = 1e-2
) -> tuple[Curves, State]:
    """8 steps in 2 epochs; `watch` is called with the adaptation at every forward pass."""
    base = base_of(MODEL)
    with attached(base, settings) as adaptation:
        handle = base.model.get_decoder().register_forward_pre_hook(lambda *_: watch(adaptation))
        try:
            (curves,) = train(
                base,
                adaptation,
                rows=some_rows(base, 16),
                validation_rows=some_rows(base, 4, seed=50),
                training=training_config(
                    batch_size=4, epochs=2, validations=4, schedule=ScheduleConfig("cosine", 0.06)
                ),
                lrs=(lr,),
                seeds=(0,),
                micro_batch=2,
                checkpoints=Checkpoints(folder, every=every),
                progress=lambda *_: None,
            )
        finally:
            handle.remove()
        return curves, adaptation.state_dict()


def written(state: State, layer: int, against: Sequence[str]) -> torch.Tensor:
    """B_DS of the named projections, found by name alone."""
    names = [next(n for n in state if f"layers.{layer}." in n and f"{p}.lora_B" in n) for p in against]
    return torch.cat([state[name].double() for name in names], dim=1)


def overlap(state: State, layer: int, *, against: Sequence[str] = ("down_proj",), side: str = "output") -> float:
    """|V^T W2| / |W2|, or |W1 V| / |W1|: V by QR in float64, nothing where B is 0."""
    B_DS = written(state, layer, against)
    W_DR = state[f"steering.{layer}.post_block.{'up' if side == 'output' else 'down'}"].double()
    W_DR = W_DR if side == "output" else W_DR.T
    if not B_DS.any() or not W_DR.any():
        return 0.0
    V_DS = torch.linalg.qr(B_DS).Q
    return ((V_DS.T @ W_DR).norm() / W_DR.norm()).item()


@pytest.mark.parametrize("against", [("down_proj",), ("o_proj", "down_proj")])
@pytest.mark.parametrize("side", ["output", "input"])
def test_projected_each_step_it_holds_at_every_forward_pass_and_in_what_is_saved(
    side: str, against: tuple[str, ...], tmp_path: Path
) -> None:
    overlaps: list[float] = []
    rule = {"against": against, "side": side}

    def watch(adaptation: Adaptation) -> None:
        state = adaptation.state_dict()
        overlaps.extend(overlap(state, layer, **rule) for layer in range(LAYERS))

    settings = config(f"method.orthogonality.project={side}", f"method.orthogonality.against=[{','.join(against)}]")
    _, state = trained(settings, tmp_path, watch=watch, every=3)
    assert len(overlaps) >= (8 * 2 + 4) * LAYERS
    assert max(overlaps) <= 1e-6
    saved = {
        name.removeprefix("0/"): t for name, t in read_tensors(tmp_path / "checkpoint-00000006", "adapter").items()
    }
    for each in (saved, state):
        assert all(each[f"steering.{layer}.post_block.up"].norm() > 1e-3 for layer in range(LAYERS))
        assert all(0 < overlap(each, layer, **rule) <= 1e-6 for layer in range(LAYERS))


@pytest.mark.parametrize(
    ("every", "projected"),
    [("step", range(1, 9)), ("3", (3, 6)), ("epoch", (4, 8)), ("start", ())],
)
def test_it_is_projected_when_the_config_says(every: str, projected: Sequence[int], tmp_path: Path) -> None:
    held: dict[int, bool] = {}
    base = base_of(MODEL)
    with attached(base, config(f"method.orthogonality.every={every}")) as adaptation:

        def note(step: int, *_: Any) -> None:
            held[step] = max(overlap(adaptation.state_dict(), layer) for layer in range(LAYERS)) <= 1e-6

        train(
            base,
            adaptation,
            rows=some_rows(base, 16),
            validation_rows=(),
            training=training_config(batch_size=4, epochs=2, schedule=ScheduleConfig("constant", 0.0)),
            lrs=(1e-2,),
            seeds=(0,),
            micro_batch=4,
            checkpoints=Checkpoints(tmp_path, every=0),
            progress=note,
        )
    assert [step for step, holds in held.items() if holds] == list(projected)


def test_projecting_at_the_start_acts_on_what_training_starts_from() -> None:
    with attached(base_of(MODEL), config("method.orthogonality.every=start")) as adaptation:
        perturb(adaptation).begin(steps=8, steps_per_epoch=4)
        adaptation.before_step(2)
        assert overlap(adaptation.state_dict(), 0) > 1e-2, "a resumed training has started already"
        adaptation.before_step(1)
        assert overlap(adaptation.state_dict(), 0) <= 1e-6


def test_the_projection_is_I_minus_V_Vt() -> None:
    for side, name in (("output", "up"), ("input", "down")):
        with attached(base_of(MODEL), config(f"method.orthogonality.project={side}")) as adaptation:
            assert isinstance(adaptation, Joint)
            before = perturb(adaptation).state_dict()
            adaptation.project()
            after = adaptation.state_dict()
        for layer in range(LAYERS):
            B_DS, key = written(before, layer, ["down_proj"]), f"steering.{layer}.post_block.{name}"
            P_DD = torch.eye(len(B_DS)).double() - B_DS @ torch.linalg.pinv(B_DS)
            W = before[key].double()
            torch.testing.assert_close(
                after[key].double(), P_DD @ W if side == "output" else W @ P_DD, rtol=0, atol=1e-6
            )
        assert all(torch.equal(after[k], before[k]) for k in after if f".{name}" not in k)


def test_where_lora_writes_nothing_nothing_is_projected() -> None:
    assert not column_basis(torch.zeros(2, 8, 3)).any()
    flat_LDS = torch.randn(1, 8, 1).expand(1, 8, 3)
    V_DS = column_basis(flat_LDS)[0]
    assert torch.linalg.matrix_rank(V_DS) == 1
    torch.testing.assert_close(V_DS @ (V_DS.T @ flat_LDS[0].double()), flat_LDS[0].double())


def test_without_a_constraint_nothing_is_projected(tmp_path: Path) -> None:
    _, naive = trained(config(method="joint"), tmp_path)
    assert min(overlap(naive, layer) for layer in range(LAYERS)) > 1e-3


def test_the_parts_are_lora_and_steering_themselves() -> None:
    base, ids_BT = base_of(MODEL), some_ids(base_of(MODEL), 3, 7)
    with attached(base, config(method="joint")) as joint:
        both = perturb(joint).state_dict()
        for part in ("lora", "steering"):
            other = {n: t if n.startswith(f"{part}.") else 0 * t for n, t in both.items()}
            joint.load_state_dict(other)
            halves = {n.removeprefix(f"{part}."): t for n, t in both.items() if n.startswith(f"{part}.")}
            output_BTV = logits(base, joint, ids_BT)
            joint.load_state_dict(both)
            expected = {"lora": "lora_r8", "steering": "post_block"}[part]
            _check_alone(expected, halves, ids_BT, output_BTV)


def _check_alone(method: str, state: State, ids_BT: torch.Tensor, output_BTV: torch.Tensor) -> None:
    base = another_base(MODEL)
    rank = () if method == "lora_r8" else ("method.rank=16",)
    with attached(base, method_config(method, *rank, model=MODEL)) as alone:
        alone.load_state_dict(state)
        torch.testing.assert_close(logits(base, alone, ids_BT), output_BTV, rtol=0, atol=1e-5)


def test_a_rate_of_its_own_reaches_loras_parameters(tmp_path: Path) -> None:
    settings = config("method.lora_lr=1e-30", method="joint")
    with attached(base_of(MODEL), settings) as adaptation:
        start = adaptation.state_dict()
        groups = adaptation.parameter_groups(lrs=(0.5,))
        own = {id(parameter): name for name, parameter in adaptation.named_parameters()}
    assert [group["lr"] for group in groups] == [0.5, 1e-30]
    names = [{own[id(parameter)].split(".")[0] for parameter in group["params"]} for group in groups]
    assert names == [{"steering"}, {"lora"}]
    assert sum(len(group["params"]) for group in groups) == len(own)
    curves, end = trained(settings, tmp_path, lr=1e-2)
    assert max(curves.lr) == pytest.approx(1e-2, rel=0.1), "the run's rate is the steering part's"
    moved = {name.split(".")[0]: False for name in start}
    for name in start:
        moved[name.split(".")[0]] |= not torch.allclose(start[name], end[name], rtol=0, atol=1e-12)
    assert moved == {"steering": True, "lora": False}
