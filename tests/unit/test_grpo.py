"""GRPO in the training loop: its gradients against the plain policy gradient, rollouts, resuming, every method."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import (
    METHODS,
    ByLength,
    attached,
    base_of,
    composed,
    method_config,
    perturb,
    some_prompts,
    training_config,
)

from actshift.config.composition import compose
from actshift.data.examples import Example
from actshift.errors import ActshiftError
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.objectives.grpo import Grpo, Scored, Settings
from actshift.objectives.loss import advantages
from actshift.objectives.rollouts import Rollout, roll_out
from actshift.schema.objective import RewardsConfig
from actshift.tasks.base import Task
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import Curves, StepCallback, train

MODEL = "random-llama"
COMPLETIONS, ROWS = 4, 3


class Constant(ByLength):
    """Every output is right."""

    def score(self, output: str, label: str) -> bool:
        return True


def objective(**changes: Any) -> dict[str, Any]:
    config = composed("objective=grpo").objective
    rewards = RewardsConfig(accuracy=2.0, length=0.5)
    return replace(config, **{"completions": COMPLETIONS, "max_new_tokens": 6, "rewards": rewards, **changes})


def rows(base: Base, count: int = ROWS, *, seed: int = 0) -> list[Example]:
    prompts = some_prompts(base, [3 + place % 4 for place in range(count)], seed=seed)
    return [Example(ids=[*ids, 5], prompt_length=len(ids), label="") for ids in prompts]


def grpo(
    base: Base, adaptation: Adaptation, *, seeds: tuple[int, ...] = (3,), micro_batch: int = 5,
    task: Task | None = None, batch_tokens: int = 10**6, **changes: Any,
) -> Grpo:  # fmt: skip
    settings = Settings(
        objective=objective(**changes),
        task=task or ByLength(),
        seeds=seeds,
        ends={base.tokenizer.eos_token_id},
        micro_batch=micro_batch,
        batch_tokens=batch_tokens,
    )
    return Grpo(base, adaptation, settings)


def gradients(adaptation: Adaptation) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in adaptation.named_parameters()}
    for _, parameter in adaptation.named_parameters():
        parameter.grad = None
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


def plain_logprobs(base: Base, adaptation: Adaptation, rollout: Rollout) -> torch.Tensor:
    """Of one completion, by the model as transformers calls it: no packing, no cache, no batch."""
    ids, start = torch.tensor([rollout.ids]), rollout.prompt_length
    adaptation.begin_pass(ForwardPass(torch.arange(len(rollout.ids))[None] < start))
    logprobs_TV = base.model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    return logprobs_TV[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]


@pytest.mark.parametrize("method", ["sft", "lora_r8", "post_block", "post_block_vector"])
def test_one_update_is_the_policy_gradient(method: str) -> None:
    """The gradient of - sum over completions of A log p, divided by all tokens, by autograd over plain passes."""
    base = base_of(MODEL)
    with attached(base, method_config(method, model=MODEL)) as adaptation:
        if method != "sft":
            perturb(adaptation)
        one = grpo(base, adaptation)
        one.prepare([rows(base)], step=1)
        (loss,) = one.backward(0, alive=[0])
        ours, block = gradients(adaptation), one._blocks[0]
        rewards = torch.tensor([_reward(one, row) for row in block], dtype=torch.float64)
        factors = advantages(rewards, group=COMPLETIONS, scale_by_std=True)
        tokens = sum(len(row.completion) for row in block)
        terms = [
            -factor * plain_logprobs(base, adaptation, row).sum() / tokens
            for row, factor in zip(block, factors.tolist(), strict=True)
        ]
        sum(terms, start=torch.zeros(())).backward()
        expected = gradients(adaptation)
    assert loss == pytest.approx(
        -sum(f * len(row.completion) for row, f in zip(block, factors.tolist(), strict=True)) / tokens, abs=1e-6
    )
    assert ours.keys() == expected.keys()
    assert any(grad.abs().max() > 1e-6 for grad in expected.values())
    for name, grad in expected.items():
        assert torch.allclose(ours[name], grad, rtol=1e-4, atol=2e-6), name


def _reward(one: Grpo, row: Scored) -> float:
    done = one._completion(row)
    return 2.0 * ByLength().score(done.text, "") + 0.5 * (1 - len(row.completion) / 6)


@pytest.mark.parametrize("normalization", ["token", "sequence", "constant"])
def test_micro_batches_change_neither_loss_nor_gradient(normalization: str) -> None:
    base, found = base_of(MODEL), []
    with attached(base, method_config("post_block", model=MODEL)) as adaptation:
        perturb(adaptation)
        for size in (1, 5, 12):
            one = grpo(base, adaptation, micro_batch=size, normalization=normalization, kl=0.1, updates=1)
            with torch.no_grad():
                perturb(adaptation, seed=1, scale=0.02)  # away from the reference
            one.prepare([rows(base)], step=1)
            found.append((one.backward(0, alive=[0])[0], gradients(adaptation)))
            perturb(adaptation, seed=1, scale=-0.02)
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        assert all(torch.allclose(grads[name], grad, rtol=1e-3, atol=1e-5) for name, grad in found[0][1].items())


def test_equal_rewards_give_a_gradient_of_exactly_0() -> None:
    base = base_of(MODEL)
    with attached(base, method_config("sft", model=MODEL)) as adaptation:
        rewards = RewardsConfig(0.1, 0.0, 0.0, 0.0)
        one = grpo(base, adaptation, task=Constant(), rewards=rewards)
        one.prepare([rows(base)], step=1)
        assert one.backward(0, alive=[0]) == [0.0]
        assert all(not grad.any() for grad in gradients(adaptation).values())
        assert one.measured(0)["silent"] == 1


def test_the_reference_is_the_policy_before_training_and_there_the_divergence_is_0() -> None:
    base = base_of(MODEL)
    with attached(base, method_config("post_block", model=MODEL)) as adaptation:
        perturb(adaptation)
        one = grpo(base, adaptation, kl=0.5)
        one.prepare([rows(base)], step=1)
        one.backward(0, alive=[0])
        assert one.measured(0)["kl"] == pytest.approx(0, abs=1e-6)
        before = adaptation.state_dict()
        perturb(adaptation, seed=2, scale=0.1)
        moved = adaptation.state_dict()
        one.prepare([rows(base)], step=2)
        assert all(torch.equal(tensor, moved[name]) for name, tensor in adaptation.state_dict().items())
        one.backward(0, alive=[0])
        gradients(adaptation)
        measured, block = one.measured(0)["kl"], one._blocks[0]
        ours = torch.cat([plain_logprobs(base, adaptation, row) for row in block]).detach()
        adaptation.load_state_dict(before)
        reference = torch.cat([plain_logprobs(base, adaptation, row) for row in block]).detach()
    difference = reference - ours
    assert measured == pytest.approx(float((difference.exp() - difference - 1).mean()), rel=1e-3)
    assert measured > 1e-4


def test_a_second_update_is_clipped_by_the_ratio_to_the_first() -> None:
    base = base_of(MODEL)
    with attached(base, method_config("post_block", model=MODEL)) as adaptation:
        one = grpo(base, adaptation, updates=2, clip_low=0.0, clip_high=0.0)
        one.prepare([rows(base)], step=1)
        one.backward(0, alive=[0])
        assert one.measured(0)["clip_share"] == 0
        gradients(adaptation)
        perturb(adaptation, scale=0.1)
        one.backward(1, alive=[0])
        assert 0.1 < one.measured(0)["clip_share"] < 0.5, "half of the tokens at most, counted over two updates"


def rolled(base: Base, adaptation: Adaptation, block: list[Example], **changes: Any) -> list[Rollout]:
    given: dict[str, Any] = {"seeds": (3,), "step": 1, "batch_tokens": 10**6, "copies": COMPLETIONS}
    given |= {name: changes.pop(name) for name in list(changes) if name in given}
    ends = {base.tokenizer.eos_token_id}
    (found,) = roll_out(base, adaptation, [block], objective=objective(**changes), ends=ends, **given)
    return found


def test_rollouts_do_not_depend_on_batches_and_keep_their_log_probabilities() -> None:
    base = base_of("tiny")
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        perturb(adaptation, scale=0.02)
        block = rows(base, 5)
        together = rolled(base, adaptation, block)
        apart = rolled(base, adaptation, block, batch_tokens=1)
        assert [each.ids for each in apart] == [each.ids for each in together]
        assert [each.ids for each in rolled(base, adaptation, block, step=2)] != [each.ids for each in together]
        assert [each.ids for each in rolled(base, adaptation, block, seeds=(4,))] != [each.ids for each in together]
        assert len({tuple(each.ids) for each in together[:COMPLETIONS]}) > 1
        for each in together:
            expected = plain_logprobs(base, adaptation, each).detach()
            assert torch.tensor(each.sampled) == pytest.approx(expected, abs=1e-4)
            assert each.ended == (each.ids[-1] == base.tokenizer.eos_token_id)
            assert len(each.sampled) == len(each.entropies) == len(each.completion) <= 6


def test_what_a_step_measures() -> None:
    base = base_of("tiny")
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        one = grpo(base, adaptation)
        one.prepare([rows(base)], step=1)
        one.backward(0, alive=[0])
        measures, block = one.measured(0), one._blocks[0]
    lengths = [len(row.completion) for row in block]
    assert measures["length"] == sum(lengths) / len(block)
    assert measures["tokens"] == sum(lengths)
    assert measures["reward"] == pytest.approx(2 * measures["reward_accuracy"] + 0.5 * measures["reward_length"])
    assert 0 <= measures["mismatch"] <= measures["mismatch_max"] < 1e-4
    assert measures["entropy"] == pytest.approx(sum(map(sum, (row.entropies for row in block))) / sum(lengths))
    assert min(measures["rollout_seconds"], measures["update_seconds"]) > 0


def trained(
    folder: Path, *, method: str = "post_block", seeds: tuple[int, ...] = (3,), lrs: tuple[float, ...] = (5e-3,),
    progress: StepCallback = lambda *_: None, steps: int = 6, **changes: Any,
) -> tuple[list[dict[str, Any]], list[dict[str, torch.Tensor]]]:  # fmt: skip
    """A run to the end, from whatever is in the folder, with another state of the global generator."""
    base = base_of(MODEL)
    torch.seed()
    with attached(base, method_config(method, model=MODEL), seeds=seeds) as adaptation:
        curves = train(
            base,
            adaptation,
            rows=rows(base, 6),
            validation_rows=rows(base, 2, seed=50),
            training=training_config(batch_size=2, epochs=2, max_steps=steps, validations=2),
            lrs=lrs,
            seeds=seeds,
            micro_batch=3,
            checkpoints=Checkpoints(folder, every=2),
            progress=progress,
            objective=grpo(base, adaptation, seeds=seeds, **changes),
        )
        return [untimed(each) for each in curves], [adaptation.state_dict(r) for r in range(len(seeds))]


def untimed(curves: Curves) -> dict[str, Any]:
    facts = dataclasses.asdict(curves)
    facts["measures"] = {name: values for name, values in facts["measures"].items() if "seconds" not in name}
    return facts


class Killed(Exception):
    pass


@pytest.mark.parametrize(("method", "changes"), [("post_block", {"updates": 2}), ("sft", {"kl": 0.1})])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    def kill(done: int, *_: Any) -> None:
        if done == 5:
            raise Killed

    expected = trained(tmp_path / "whole", method=method, **changes)
    with pytest.raises(Killed):
        trained(tmp_path / "parts", method=method, progress=kill, **changes)
    assert (tmp_path / "parts" / "checkpoint-00000004").is_dir()
    (curves,), (state,) = trained(tmp_path / "parts", method=method, **changes)
    assert curves == expected[0][0]
    assert all(torch.equal(tensor, expected[1][0][name]) for name, tensor in state.items())
    assert len(curves["measures"]["reward"]) == 6 and len(curves["validation"]) == 2


def test_replicas_together_are_the_runs_alone(tmp_path: Path) -> None:
    curves, states = trained(tmp_path / "both", seeds=(3, 4), lrs=(5e-3, 2e-2))
    for replica, (seed, lr) in enumerate([(3, 5e-3), (4, 2e-2)]):
        (alone,), (state,) = trained(tmp_path / str(seed), seeds=(seed,), lrs=(lr,))
        assert curves[replica]["measures"]["reward"] == pytest.approx(alone["measures"]["reward"], abs=1e-6)
        assert curves[replica]["measures"]["tokens"] == alone["measures"]["tokens"]
        assert all(torch.allclose(states[replica][name], tensor, atol=1e-4) for name, tensor in state.items())


def test_a_diverged_replica_stops_and_the_other_goes_on(tmp_path: Path) -> None:
    curves, states = trained(tmp_path, seeds=(3, 4), lrs=(1e30, 5e-3))
    assert curves[0]["diverged_at"] is not None and not math.isfinite(curves[0]["loss"][-1])
    assert curves[1]["diverged_at"] is None and len(curves[1]["loss"]) == 6
    assert all(tensor.isfinite().all() for tensor in states[1].values())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method: str, tmp_path: Path) -> None:
    config = method_config(method, model=MODEL)
    base = base_of(MODEL)
    with attached(base, config) as adaptation:
        before = adaptation.state_dict()
        (curves,) = train(
            base, adaptation, rows=rows(base, 4), validation_rows=[],
            training=training_config(batch_size=2, epochs=1, max_steps=2), lrs=(1e-2,), seeds=(3,), micro_batch=3,
            checkpoints=Checkpoints(tmp_path, every=0), progress=lambda *_: None, objective=grpo(base, adaptation),
        )  # fmt: skip
        after = adaptation.state_dict()
    assert len(curves.measures["reward"]) == 2 and curves.diverged_at is None
    assert min(curves.measures["silent"]) < 1
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_how_many_methods_there_are() -> None:
    assert len(METHODS) >= 23


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.completions=1"], r"objective\.completions = 1 .* at least 2"),
        (["selection=halving"], r"selection = halving .* no validation loss"),
        (["objective.temperature=0"], r"objective\.temperature = 0.* a positive number"),
        (["objective.top_p=0"], r"objective\.top_p = 0.* a share in \(0, 1\]"),
        (["objective.normalization=mean"], r"unknown objective\.normalization 'mean'.* constant, sequence, token"),
        (["objective.clip_low=1"], r"objective\.clip_low = 1.* a share in \[0, 1\)"),
        (["objective.rewards.accuracy=0", "objective.rewards.format=0"], r"objective\.rewards .* at least one"),
        (["objective.rewards.style=1"], r"unknown config key 'objective\.rewards\.style'"),
        (["dataset=alpaca_cleaned", "data.source=local", "data.dir=/tmp"], r"no answer to alpaca_cleaned is right or"),
        (["dataset=boolq", "evaluation.scoring=likelihood"], r"evaluation\.scoring .* generation, since"),
    ],
)  # fmt: skip
def test_an_impossible_objective_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ActshiftError, match=message):
        compose(["objective=grpo", *overrides])


def test_the_variants_differ_from_grpo_in_what_they_are_named_for() -> None:
    base = compose(["objective=grpo"]).objective
    variants = {
        "grpo_sequence": {"normalization": "sequence", "kl": 0.04},
        "dr_grpo": {"normalization": "constant", "scale_by_std": False},
        "clip_higher": {"updates": 2, "clip_high": 0.28},
        "grpo_shuffled": {"shuffle_rewards": True},
    }
    for name, changes in variants.items():
        assert compose([f"objective={name}"]).objective == replace(base, name=name, **changes)
