"""Optimizers by name: bytes a number, losses beside float32, draws, checkpoints, refusals, identities."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import CPU, another_base, attached, composed, method_config, some_rows, training_config

from actshift.config import packages
from actshift.config.cached import CachedComposer
from actshift.config.composition import compose
from actshift.config.identity import hashed_part, identity_of, ignored_keys
from actshift.errors import ActshiftError
from actshift.schema.building import plain
from actshift.schema.config import OPTIMIZERS, ScheduleConfig
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import StepCallback, train
from actshift.training.optimizers import build_optimizer

LOW_MEMORY = [name for name, package in OPTIMIZERS.items() if package is not None]
SFT = ("method=sft", "training.precision=bfloat16")


class Interrupted(Exception):
    """What a kill looks like from inside."""


def torchao() -> None:
    pytest.importorskip("torchao", reason="optional: pip install 'actshift[optimizers]'")


def trained(
    optimizer: str,
    *,
    folder: Path,
    method: str = "sft",
    precision: str = "bfloat16",
    lr: float = 2e-4,
    rows: int = 16,
    every: int = 0,
    progress: StepCallback = lambda *_: None,
    **changes: Any,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The curves and the state of a training over rows of random tokens, which can only be learned by heart."""
    base = another_base("random-llama", precision)
    with attached(base, method_config(method, model="random-llama")) as adaptation:
        (curves,) = train(
            base,
            adaptation,
            rows=some_rows(base, rows),
            validation_rows=(),
            training=training_config(**{"batch_size": 8, "epochs": 3, "optimizer": optimizer, **changes}),
            lrs=(lr,),
            seeds=(3,),
            micro_batch=8,
            checkpoints=Checkpoints(folder, every=every),
            progress=progress,
        )
        return dataclasses.asdict(curves), adaptation.state_dict()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the states of all parameters, the number of the step apart."""
    states = optimizer.state_dict()["state"].values()
    named = ((name, tensor) for state in states for name, tensor in state.items() if name != "step")
    return sum(tensor.nbytes for _, tensor in named)


@pytest.mark.parametrize(
    ("name", "dtype", "promised"),
    [
        ("adamw", torch.float32, 8.0),
        ("adamw", torch.bfloat16, 4.0),
        ("adamw_8bit", torch.bfloat16, 2 + 2 * 4 / 256),
        ("adamw_8bit", torch.float32, 2 + 2 * 4 / 256),
        ("adamw_bf16_stochastic", torch.bfloat16, 4.0),
    ],
)
def test_states_take_the_promised_bytes_a_number(name: str, dtype: torch.dtype, promised: float) -> None:
    if OPTIMIZERS[name]:
        torchao()
    weight = torch.nn.Parameter(torch.randn(512, 1024, dtype=dtype))
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 1e-3}], weight_decay=0.0, seed=0)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert state_bytes(optimizer) / weight.numel() == pytest.approx(promised, rel=0.01)


def test_small_updates_of_bfloat16_weights_are_lost_by_adamw_and_kept_by_the_others(tmp_path: Path) -> None:
    """The learning rate is about a thousandth of a weight: less than half of bfloat16's last digit."""
    torchao()
    common: dict[str, Any] = {"folder": tmp_path, "batch_size": 8, "epochs": 12}
    expected = trained("adamw", precision="float32", **common)[0]["loss"]
    lowered = expected[0] - expected[-1]
    assert lowered > 1.0
    shares = {name: (loss := trained(name, **common)[0]["loss"])[0] - loss[-1] for name in OPTIMIZERS}
    for name in LOW_MEMORY:
        assert shares[name] == pytest.approx(lowered, rel=0.15), shares
    assert shares["adamw"] < 0.85 * lowered, shares


@pytest.mark.parametrize("name", LOW_MEMORY)
def test_a_resumed_run_equals_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    torchao()
    changes: dict[str, Any] = {"schedule": ScheduleConfig("cosine", 0.3), "weight_decay": 0.01, "every": 2}
    expected = trained(name, folder=tmp_path / "whole", **changes)

    def stop(done: int, *_: Any) -> None:
        torch.rand(done)  # what draws elsewhere changes nothing
        if done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        trained(name, folder=tmp_path / "cut", progress=stop, **changes)
    assert [folder.name for folder in (tmp_path / "cut").iterdir()] == ["checkpoint-00000002"]
    found = trained(name, folder=tmp_path / "cut", **changes)
    assert found[0] == expected[0] and all(isinstance(rate, float) for rate in found[0]["lr"])
    assert all(torch.equal(tensor, expected[1][key]) for key, tensor in found[1].items())


@pytest.mark.parametrize("name", LOW_MEMORY)
def test_draws_follow_from_the_seed_and_the_step(name: str) -> None:
    torchao()

    def moved(seed: int, *, drawn: int = 0) -> torch.Tensor:
        weight = torch.nn.Parameter(torch.ones(64, 256, dtype=torch.bfloat16))
        optimizer = build_optimizer(name, [{"params": [weight], "lr": 1e-3}], weight_decay=0.0, seed=seed)
        for _ in range(2):
            torch.rand(drawn)
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return weight.detach().float()

    state = torch.get_rng_state()
    once = moved(1)
    assert torch.equal(torch.get_rng_state(), state), "nothing else draws otherwise for it"
    assert torch.equal(moved(1, drawn=7), once) and not torch.equal(moved(2), once)
    # Two steps of 1e-3 at 1, where the digits below are 2 to the -8 apart: some weights go one down, most stay.
    assert set(once.flatten().tolist()) <= {1.0, 1 - 2**-8, 1 - 2**-7}
    assert once.mean().item() == pytest.approx(1 - 2e-3, abs=1e-4)


def test_8_bit_states_serve_adapters_too(tmp_path: Path) -> None:
    torchao()
    changes: dict[str, Any] = {"method": "post_block", "precision": "float32", "lr": 1e-3}
    small, plain = (trained(name, folder=tmp_path, **changes) for name in ("adamw_8bit", "adamw"))
    # States of fewer than 4,096 numbers stay as they are.
    assert small[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-5)


def test_a_rate_is_the_number_that_it_was_given_as() -> None:
    torchao()
    weight = torch.nn.Parameter(torch.ones(2, device=CPU))
    optimizer = build_optimizer("adamw_8bit", [{"params": [weight], "lr": 1e-3}], weight_decay=0.0, seed=0)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled on CUDA alone")
@pytest.mark.parametrize("name", LOW_MEMORY)
def test_a_compiled_step_holds_no_copy_of_a_weight_and_its_state_goes_to_disk_and_back(name: str) -> None:
    torchao()

    def optimizer_of(weight: torch.nn.Parameter) -> torch.optim.Optimizer:
        return build_optimizer(name, [{"params": [weight], "lr": 1e-3}], weight_decay=0.0, seed=0)

    weight = torch.nn.Parameter(torch.randn(4096, 4096, dtype=torch.bfloat16, device="cuda"))
    optimizer = optimizer_of(weight)
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    optimizer.step()
    assert torch.cuda.max_memory_allocated() - before < weight.nbytes

    twin = torch.nn.Parameter(weight.detach().clone())
    state = optimizer.state_dict()
    moved = {place: {key: each.cpu() for key, each in own.items()} for place, own in state["state"].items()}
    other = optimizer_of(twin)
    other.load_state_dict({**state, "state": moved})
    twin.grad = weight.grad.clone()
    optimizer.step()
    other.step()
    assert torch.equal(twin, weight)


# --- what is refused, and what counts -----------------------------------------------------------------------------


def test_an_optimizer_whose_package_is_missing_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(ActshiftError, match=r"needs torchao, which is not installed here.*actshift\[optimizers\]"):
        compose([*SFT, "training.optimizer=adamw_8bit"])
    assert CachedComposer()([*SFT, "training.optimizer=adamw_8bit"]), "a plan needs no package yet"
    assert compose(SFT).training.optimizer == "adamw"


@pytest.mark.parametrize("overrides", [("method=post_block", SFT[1]), ("method=sft", "training.precision=float32")])
def test_rounding_to_bfloat16_is_refused_where_what_trains_is_float32(overrides: tuple[str, ...]) -> None:
    with pytest.raises(ActshiftError, match="adamw_bf16_stochastic is impossible: it must be adamw or adamw_8bit"):
        compose([*overrides, "training.optimizer=adamw_bf16_stochastic"])


def test_an_unknown_optimizer_is_refused_with_the_nearest() -> None:
    with pytest.raises(ActshiftError, match=r"adamw_8bits'. Did you mean 'adamw_8bit'"):
        compose(["training.optimizer=adamw_8bits"])


def test_the_optimizer_counts_unless_it_is_the_one_of_the_runs_before_it() -> None:
    config, ignore = composed(*SFT), ignored_keys()
    values = plain(config)
    before = values | {"training": {key: own for key, own in values["training"].items() if key != "optimizer"}}
    assert identity_of(config, ignore=ignore) == identity_of(before, ignore=ignore)
    assert "optimizer" not in hashed_part(config, ignore=ignore)["training"]
    other = replace(config, training=replace(config.training, optimizer="adamw_8bit"))
    assert identity_of(other, ignore=ignore) != identity_of(config, ignore=ignore)
    assert hashed_part(other, ignore=ignore)["training"]["optimizer"] == "adamw_8bit"


@pytest.mark.parametrize("name", LOW_MEMORY)
def test_every_step_draws_anew(name: str) -> None:
    torchao()
    weight = torch.nn.Parameter(torch.ones(64, 256, dtype=torch.bfloat16))
    optimizer = build_optimizer(name, [{"params": [weight], "lr": 1e-3}], weight_decay=0.0, seed=1)
    drawn = []
    for _ in range(3):
        with optimizer._drawing():  # type: ignore[attr-defined]
            drawn.append(torch.rand(4))
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert not any(torch.equal(first, second) for first, second in combinations(drawn, 2))
