"""JoLA: gates, noise, penalty and its schedules, against the formulas written out here.

Shapes: A replicas, B rows, T tokens, H heads, K head size, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import attached, base_of, logits, method_config, perturb, some_ids, some_rows, training_config

from actshift.methods.base import Adaptation
from actshift.methods.heads import Jola, gate_weight
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import Curves, train

MODEL = "random-qwen3"  # H K is not the model's width
H, K = 4, 24


def config(*overrides: str) -> dict[str, Any]:
    return method_config("jola", *overrides, model=MODEL)


def part_of(*, heads: int = 2, size: int = 3, seeds: tuple[int, ...] = (0,)) -> Jola:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    part = Jola(heads * size, heads=heads, gates=config().gates, generators=generators)
    with torch.no_grad():
        for replica in range(len(seeds)):
            for _, parameter in part.replica_parameters(replica):
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7 + replica))
    return part


def published(part: Jola, o_BTHK: torch.Tensor, gate: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """(1 + g2_j a_j) o_j + g1_j v_j - o_j, head by head, of the first replica."""
    a, v, g1, g2 = part.scale[0], part.bias[0], gate(part.log_bias[0]), gate(part.log_scale[0])
    heads = [(1 + g2[j] * a[j]) * o_BTHK[:, :, j] + g1[j] * v[j] - o_BTHK[:, :, j] for j in range(part.heads)]
    return torch.stack(heads, dim=2).flatten(2)


def test_at_evaluation_gates_have_neither_noise_nor_temperature() -> None:
    part = part_of().eval()
    o_BTHK = torch.randn(2, 5, 2, 3)
    shift_BTD = part(o_BTHK.flatten(2)[None])[0]
    expected_BTD = published(part, o_BTHK, lambda log: (1.2 * torch.sigmoid(log) - 0.1).clamp(0, 1))
    torch.testing.assert_close(shift_BTD, expected_BTD)


def test_in_training_gates_are_hard_concrete_under_the_noise_of_the_step() -> None:
    part, noise = part_of().train(), iter(())
    Jola.before_step({"0.heads": part}, step=3, steps=9)
    assert part._noise_2AH is not None
    noise = iter(part._noise_2AH[:, 0])
    o_BTHK = torch.randn(2, 5, 2, 3)

    def gate(log_H: torch.Tensor) -> torch.Tensor:
        u_H = torch.sigmoid(next(noise))
        s_H = torch.sigmoid((torch.log(u_H) - torch.log(1 - u_H) + log_H) / 0.33)
        return (1.2 * s_H - 0.1).clamp(0, 1)

    torch.testing.assert_close(part(o_BTHK.flatten(2)[None])[0], published(part, o_BTHK, gate), rtol=1e-5, atol=1e-5)


def test_the_noise_follows_from_seed_layer_and_step_alone_and_is_uniform() -> None:
    together, alone = part_of(seeds=(1, 2)), part_of(seeds=(2,))
    drawn = {}
    for name in ("0.heads", "1.heads"):
        for step in (1, 2):
            Jola.before_step({name: together}, step=step, steps=9)
            torch.rand(3)
            Jola.before_step({name: alone}, step=step, steps=100)
            assert together._noise_2AH is not None and alone._noise_2AH is not None
            assert torch.equal(together._noise_2AH[:, 1], alone._noise_2AH[:, 0])
            drawn |= {(name, step, replica): together._noise_2AH[:, replica] for replica in (0, 1)}
    values = torch.stack([torch.sigmoid(noise) for noise in drawn.values()]).flatten()
    assert len(set(values.tolist())) == len(values)
    many = part_of(heads=4000, size=1)
    Jola.before_step({"0.heads": many}, step=1, steps=1)
    assert many._noise_2AH is not None
    u = torch.sigmoid(many._noise_2AH.flatten())
    assert u.mean().item() == pytest.approx(0.5, abs=0.02) and u.var().item() == pytest.approx(1 / 12, abs=0.01)


def published_penalty(adaptation: Adaptation, weight: float, layers: int) -> float:
    tensors, norms = adaptation.state_dict(), {"log_bias": 0.0, "log_scale": 0.0}
    for name in norms:
        for layer in range(layers):
            p_open_H = torch.sigmoid(tensors[f"{layer}.heads.{name}"] - 0.33 * math.log(0.1 / 1.1))
            norms[name] += p_open_H.clamp(1e-6, 1 - 1e-6).mean().item()
    return (weight * norms["log_bias"] + (1 - weight) * norms["log_scale"]) / (layers * H)


@pytest.mark.parametrize("step", [1, 2, 7])
def test_the_penalty_is_the_weighted_number_of_open_gates(step: int) -> None:
    base = base_of(MODEL)
    with attached(base, config(), seeds=(0, 1)) as adaptation:
        perturb(adaptation, scale=1.0)
        adaptation.begin(steps=20, steps_per_epoch=5)
        penalty = adaptation.penalty(step)
        assert penalty is not None
        penalty.backward()
        gradients = {name: parameter.grad is not None for name, parameter in adaptation.named_parameters(1)}
        state = adaptation.state_dict(1)
    assert gradients == {name: "log_" in name for name in gradients}
    expected = 0.0
    for seed, tensors in ((0, None), (1, state)):
        with attached(base, config(), seeds=(seed,)) as alone:
            alone.load_state_dict(tensors or _perturbed_first(base))
            expected += published_penalty(alone, 0.1 * math.exp(-0.01 * (step - 1)), base.sites.layers)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)


def _perturbed_first(base: Any) -> dict[str, torch.Tensor]:
    with attached(base, config(), seeds=(0, 1)) as both:
        return perturb(both, scale=1.0).state_dict(0)


class Counter:
    """The published trainer's bookkeeping: lambda starts at a value of its own, then a counter runs."""

    def __init__(self, start: float, formula: Callable[[int], float]) -> None:
        self.value, self.count, self.formula = start, 0, formula

    def next(self) -> float:
        used, self.count = self.value, self.count + 1
        self.value = self.formula(self.count)
        return used


@pytest.mark.parametrize(
    ("gates", "counter"),
    [
        ({"schedule": "exponential", "start": 0.1}, Counter(0.1, lambda n: 0.1 * math.exp(-0.01 * n))),
        ({"schedule": "linear", "start": 0.0}, Counter(0.0, lambda n: 0.0 + (0.2 - 0.0) * (n / 30))),
        ({"schedule": "cyclic", "start": 0.1}, Counter(0.1, lambda n: 0.5 + 0.5 * math.sin(2 * math.pi * (n / 20)))),
    ],
)
def test_a_schedule_is_the_published_one(gates: dict[str, Any], counter: Counter) -> None:
    full = replace(config().gates, **gates)
    for step in range(1, 31):
        assert gate_weight(full, step=step, steps=30) == pytest.approx(counter.next(), abs=1e-12)


def test_without_a_weight_there_is_no_penalty_at_all() -> None:
    base = base_of(MODEL)
    with attached(base, config("method.gates.schedule=linear", "method.gates.start=0.0")) as adaptation:
        adaptation.begin(steps=30, steps_per_epoch=30)
        first, second = adaptation.penalty(1), adaptation.penalty(2)
        assert first is not None and second is not None
        assert first.item() == 0.0 < second.item()


def test_the_weight_follows_the_loss_of_each_replica() -> None:
    """Up by 0.01 where the loss with its penalty fell, down where it rose, within [0, 1]; 50 before the first step."""
    losses = [(4.0, 60.0), (3.0, 70.0), (3.5, 65.0), (2.0, 50.0)]
    expected = [(0.1, 0.1), (0.11, 0.09), (0.12, 0.08), (0.11, 0.09), (0.12, 0.1)]
    with attached(base_of(MODEL), config("method.gates.schedule=performance"), seeds=(0, 1)) as adaptation:
        adaptation.begin(steps=4, steps_per_epoch=4)
        for step, weights in enumerate(expected, start=1):
            for replica in (0, 1):
                balances = dict(adaptation.named_buffers(replica))
                assert {name.rsplit(".", 1)[1] for name in balances} == {"balance"}
                assert all(b[0].item() == pytest.approx(weights[replica], abs=1e-6) for b in balances.values())
            if step <= len(losses):
                adaptation.penalty(step)
                adaptation.after_step(step, losses[step - 1])


def trained(folder: Path, **changes: Any) -> tuple[Curves, dict[str, torch.Tensor]]:
    base = base_of(MODEL)
    settings: dict[str, Any] = {"micro_batch": 8, "overrides": (), **changes}
    with attached(base, config(*settings["overrides"]), seeds=(3,)) as adaptation:
        (curves,) = train(
            base,
            adaptation,
            rows=some_rows(base, 16),
            validation_rows=some_rows(base, 4, seed=50),
            training=training_config(batch_size=8, epochs=2, validations=settings.get("validations", 0)),
            lrs=(1e-2,),
            seeds=(3,),
            micro_batch=settings["micro_batch"],
            checkpoints=Checkpoints(folder, every=0),
            progress=lambda *_: None,
        )
        return curves, adaptation.state_dict()


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_and_validation_change_nothing(micro_batch: int, tmp_path: Path) -> None:
    curves, state = trained(tmp_path)
    others, other = trained(tmp_path, micro_batch=micro_batch, validations=4)
    assert others.loss == pytest.approx(curves.loss, rel=1e-5)
    for name, tensor in other.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=2e-4)


def test_the_penalty_trains_the_gates(tmp_path: Path) -> None:
    """With lambda at 1 only the additive gates are penalized, and they close."""
    ends = [
        trained(tmp_path, overrides=("method.gates.schedule=linear", "method.gates.end=1.0", f"method.gates.start={s}"))
        for s in (1.0, 0.0)
    ]
    logs = [torch.stack([t for n, t in state.items() if n.endswith("log_bias")]).mean() for _, state in ends]
    assert logs[0] < logs[1]


def test_a_model_in_training_mode_draws_and_one_in_evaluation_does_not() -> None:
    base = base_of(MODEL)
    ids_BT = some_ids(base, 2, 6)
    with attached(base, config()) as adaptation:
        perturb(adaptation, scale=0.5).begin(steps=4, steps_per_epoch=4)
        plain_BTV = logits(base, adaptation, ids_BT)
        seen = []
        for step in (1, 1, 2):
            adaptation.before_step(step)
            base.model.train()
            seen.append(logits(base, adaptation, ids_BT))
            base.model.eval()
            assert torch.equal(logits(base, adaptation, ids_BT), plain_BTV)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])


def test_a_site_without_heads_is_one_head() -> None:
    base = base_of(MODEL)
    with attached(base, replace(config(), site="post_mlp")) as adaptation:
        shapes = {name.split(".", 1)[1]: tuple(p.shape) for name, p in adaptation.named_parameters()}
    assert shapes["post_mlp.bias"] == shapes["post_mlp.scale"] == (1, base.sites.model_width)
    assert shapes["post_mlp.log_bias"] == (1,)


def test_the_loop_tells_the_gates_of_every_step(tmp_path: Path) -> None:
    _, state = trained(tmp_path, overrides=("method.gates.schedule=performance",))
    balances = [tensor for name, tensor in state.items() if name.endswith("balance")]
    assert balances
    assert all(float(loss) != 50.0 for _, _, loss in balances), "50 is the loss that the authors begin with"
