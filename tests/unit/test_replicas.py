"""Replicas: A adapters trained at once over one base are A separate runs, whatever happens to one of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import METHODS, attached, base_of, method_config, perturb, some_rows, training_config

from actshift.methods import REPLICATED
from actshift.methods.registry import PARAMETERIZATIONS
from actshift.schema.config import ScheduleConfig
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import Curves, train
from actshift.training.objective import mean_loss

MODEL = "random-llama"
RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
CONSTANT = ScheduleConfig("constant", 0.0)

State = dict[str, torch.Tensor]


class Interrupted(Exception):
    """What a kill looks like from inside."""


def representatives() -> dict[str, str]:
    """One named method for each parameterization, and for each other kind of method that has replicas.

    Of several ranks that of Table 1 is taken: rounding is magnified with the rank.
    """
    found: dict[str, str] = {}
    for method in METHODS:
        config = method_config(method, model=MODEL)
        if config.kind in REPLICATED:
            name = getattr(config, "parameterization", config.kind)
            if name not in found or (config.rank == 8 and config.scope.kind == "all"):
                found[name] = method
    return found


REPLICATED_METHODS = representatives()


def trained(
    method: str | dict[str, Any],
    *,
    lrs: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    spread: Sequence[float] = (),
    **changes: Any,
) -> tuple[list[Curves], list[State]]:
    """Train replicas on 19 rows, 4 a step, which leaves a batch of three at the end of each epoch.

    `spread` says how far each replica is moved off its initial value before training.
    """
    base, config = base_of(MODEL), method_config(method, model=MODEL) if isinstance(method, str) else method
    with attached(base, config, seeds=seeds) as adaptation:
        for replica, scale in enumerate(spread):
            state = adaptation.state_dict(replica)
            generator = torch.Generator().manual_seed(5)
            moved = {k: t + scale * torch.randn(t.shape, generator=generator) for k, t in state.items()}
            adaptation.load_state_dict(moved, replica)
        curves = train(
            base,
            adaptation,
            rows=some_rows(base, 19),
            validation_rows=some_rows(base, 5, seed=50),
            micro_batch=changes.pop("micro_batch", 4),
            checkpoints=Checkpoints(folder, every=changes.pop("every", 0)),
            progress=changes.pop("progress", lambda *_: None),
            training=training_config(**{"batch_size": 4, "epochs": 2, "validations": 2, **changes}),
            lrs=lrs,
            seeds=seeds,
        )
        return curves, [adaptation.state_dict(replica) for replica in range(len(seeds))]


def assert_equal_to_separate_runs(
    method: str | dict[str, Any],
    *,
    lrs: Sequence[float],
    seeds: Sequence[int],
    folder: Path,
    tolerance: float = 1e-5,
    **changes: Any,
) -> None:
    spread = changes.pop("spread", ())
    together, _ = trained(method, lrs=lrs, seeds=seeds, folder=folder, spread=spread, **changes)
    for place, (lr, seed) in enumerate(zip(lrs, seeds, strict=True)):
        own = spread[place : place + 1]
        ((alone,), _) = trained(method, lrs=(lr,), seeds=(seed,), folder=folder, spread=own, **changes)
        assert together[place].loss == pytest.approx(alone.loss, rel=tolerance, abs=tolerance)
        assert together[place].lr == pytest.approx(alone.lr, rel=1e-12)
        steps, losses = zip(*alone.validation, strict=True)
        assert [step for step, _ in together[place].validation] == list(steps)
        assert [loss for _, loss in together[place].validation] == pytest.approx(losses, rel=tolerance, abs=tolerance)


def test_every_parameterization_is_among_the_named_methods() -> None:
    assert set(PARAMETERIZATIONS) <= set(REPLICATED_METHODS)


@pytest.mark.parametrize("parameterization", REPLICATED_METHODS)
def test_five_learning_rates_at_once_are_five_runs(parameterization: str, tmp_path: Path) -> None:
    schedule = ScheduleConfig("cosine", 0.1)
    method = REPLICATED_METHODS[parameterization]
    assert_equal_to_separate_runs(
        method, lrs=RATES, seeds=(3,) * 5, folder=tmp_path, epochs=10, max_steps=50, schedule=schedule
    )


@pytest.mark.parametrize("parameterization", REPLICATED_METHODS)
def test_five_seeds_at_once_are_five_runs(parameterization: str, tmp_path: Path) -> None:
    method = REPLICATED_METHODS[parameterization]
    assert_equal_to_separate_runs(
        method, lrs=(4e-3,) * 5, seeds=(1, 2, 3, 4, 5), folder=tmp_path, epochs=4, max_steps=20
    )


def test_a_scope_inside_the_prompt_is_each_rows_own(tmp_path: Path) -> None:
    config = method_config("post_block", "method.scope.kind=last_prompt", model=MODEL)
    assert_equal_to_separate_runs(config, lrs=RATES[:2], seeds=(1, 2), folder=tmp_path)


def test_micro_batches_of_replicas_change_nothing(tmp_path: Path) -> None:
    settings = {"lrs": (1e-3, 1e-2), "seeds": (1, 2), "folder": tmp_path}
    expected, states = trained("post_block", **settings, micro_batch=4)
    for size in (1, 3):
        curves, others = trained("post_block", **settings, micro_batch=size)
        for replica in range(2):
            assert curves[replica].loss == pytest.approx(expected[replica].loss, rel=1e-5)
            for name, tensor in others[replica].items():
                torch.testing.assert_close(tensor, states[replica][name], rtol=0, atol=1e-5)


def test_each_replica_is_clipped_by_its_own_norm(tmp_path: Path) -> None:
    """The second replica's gradients are far larger, and differently so at each step."""
    assert_equal_to_separate_runs(
        "post_block", lrs=(5e-3, 5e-3), seeds=(1, 1), folder=tmp_path, spread=(0.0, 1.0), clip=0.05, tolerance=1e-4
    )


@pytest.mark.parametrize("parameterization", REPLICATED_METHODS)
def test_a_replica_that_diverges_leaves_the_others_as_they_are(parameterization: str, tmp_path: Path) -> None:
    """At a rate of nan its parameters are nan from the second step on, and still pass through the model."""
    method, lr = REPLICATED_METHODS[parameterization], math.nan
    settings = {"seeds": (1, 2, 3), "folder": tmp_path, "schedule": CONSTANT, "weight_decay": 0.1}
    expected, expected_states = trained(method, lrs=(1e-3, 1e-3, 1e-2), **settings)
    curves, states = trained(method, lrs=(1e-3, lr, 1e-2), **settings)
    for replica in (0, 2):
        assert dataclasses.asdict(curves[replica]) == dataclasses.asdict(expected[replica])
        assert all(torch.equal(t, expected_states[replica][name]) for name, t in states[replica].items())
    ((alone,), _) = trained(method, lrs=(lr,), **{**settings, "seeds": (2,)})
    stopped = curves[1]
    assert stopped.diverged_at == alone.diverged_at == len(stopped.loss) == len(stopped.lr) < len(curves[0].loss)
    assert not math.isfinite(stopped.loss[-1]) and stopped.validation == []


@pytest.mark.parametrize("lr", [1e30, math.inf])
def test_a_replica_that_diverged_stays_as_it_was(lr: float, tmp_path: Path) -> None:
    settings = {"lrs": (1e-3, lr, 1e-2), "seeds": (1, 2, 3), "folder": tmp_path, "schedule": CONSTANT}
    curves, states = trained("post_block", **settings, weight_decay=0.1)
    (stop,) = [own.diverged_at for own in curves if own.diverged_at is not None]
    _, before = trained("post_block", **settings, weight_decay=0.1, max_steps=stop - 1)
    for name, tensor in states[1].items():
        torch.testing.assert_close(tensor, before[1][name], rtol=0, atol=0, equal_nan=True)


def test_training_stops_once_every_replica_has_diverged(tmp_path: Path) -> None:
    told: list[int] = []
    curves, _ = trained(
        "post_block",
        lrs=(1e30, math.inf),
        seeds=(1, 2),
        folder=tmp_path,
        schedule=CONSTANT,
        progress=lambda step, *_: told.append(step),
    )
    assert [own.diverged_at for own in curves] == [2, 2] and told == [1]


@pytest.mark.parametrize("diverging", [False, True])
def test_resumed_replicas_equal_uninterrupted_ones(diverging: bool, tmp_path: Path) -> None:
    settings = {
        "lrs": (1e-3, 1e30 if diverging else 1e-2, 5e-3),
        "seeds": (1, 2, 3),
        "schedule": ScheduleConfig("cosine", 0.0),
        "every": 2,
        "epochs": 2,
    }

    def stop(step: int, *_: object) -> None:
        if step == 5:
            raise Interrupted

    expected, expected_states = trained("post_block", folder=tmp_path / "whole", **settings)
    with pytest.raises(Interrupted):
        trained("post_block", folder=tmp_path / "cut", progress=stop, **settings)
    told: list[int] = []
    curves, states = trained(
        "post_block", folder=tmp_path / "cut", progress=lambda step, *_: told.append(step), **settings
    )
    assert told == list(range(5, 11)) and (expected[1].diverged_at is not None) == diverging
    assert repr(curves) == repr(expected), "not by ==: a loss of nan equals nothing"
    for state, other in zip(states, expected_states, strict=True):
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_the_mean_loss_is_each_replicas_own() -> None:
    base, rows = base_of(MODEL), some_rows(base_of(MODEL), 5)
    config = method_config("post_block", model=MODEL)
    with attached(base, config, seeds=(1, 2, 3)) as together:
        means = mean_loss(base, perturb(together), rows=rows, micro_batch=2)
        states = [together.state_dict(replica) for replica in range(3)]
    with attached(base, config) as alone:
        for mean, state in zip(means, states, strict=True):
            alone.load_state_dict(state)
            assert mean_loss(base, alone, rows=rows, micro_batch=5) == [pytest.approx(mean, rel=1e-5)]
    assert len(set(means)) == 3


def test_rates_and_seeds_are_one_each_a_replica(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 replicas, but 1 learning rates and 2 seeds"):
        trained("post_block", lrs=(1e-3,), seeds=(1, 2), folder=tmp_path)
