"""The training loop: the loss of a step, learning rates, curves, divergence, dropout."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import (
    CPU,
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
from torch.nn import functional

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.config import ScheduleConfig
from actshift.training.batches import answer_losses, collate, micro_batches, step_rows
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import Curves, train
from actshift.training.objective import mean_loss

MODEL = "random-llama"
METHODS = ["sft", "lora_r8", "post_block"]


def trained(
    base: Base, adaptation: Adaptation, *, folder: Path, lr: float = 1e-3, micro_batch: int = 8, **changes: Any
) -> Curves:
    """Train on 16 rows, 8 a step, two epochs: 4 steps."""
    progress = changes.pop("progress", lambda *_: None)
    (curves,) = train(
        base,
        adaptation,
        rows=changes.pop("rows", some_rows(base, 16)),
        validation_rows=some_rows(base, 5, seed=50),
        training=training_config(**{"batch_size": 8, "epochs": 2, **changes}),
        lrs=(lr,),
        seeds=(3,),
        micro_batch=micro_batch,
        checkpoints=Checkpoints(folder, every=0),
        progress=progress,
    )
    return curves


def plain_losses(base: Base, adaptation: Adaptation, *, lr: float, steps: int, rows: list[Example]) -> list[float]:
    """The same training, written out: one row at a time, transformers' logits, plain AdamW at one rate."""
    parameters = [parameter for _, parameter in adaptation.named_parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    losses = []
    for batch in step_rows(len(rows), batch_size=8, epochs=2, max_steps=steps, seed=3):
        terms = []
        for row in (rows[index] for index in batch):
            adaptation.begin_pass(ForwardPass(torch.arange(len(row.ids))[None] < row.prompt_length))
            scores_TV = base.model(input_ids=torch.tensor([row.ids])).logits[0]
            for place in range(row.prompt_length, len(row.ids)):
                terms.append(-functional.log_softmax(scores_TV[place - 1], -1)[row.ids[place]])
        loss = torch.stack(terms).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", METHODS)
def test_micro_batches_change_nothing(method: str, tmp_path: Path) -> None:
    base, results = base_of(MODEL), {}
    for micro_batch in (1, 2, 4, 8):
        with attached(base, method_config(method, model=MODEL)) as adaptation:
            curves = trained(base, adaptation, folder=tmp_path, lr=2e-5, micro_batch=micro_batch, max_steps=3)
            results[micro_batch] = curves.loss, adaptation.state_dict()
    losses, state = results.pop(8)
    assert len(losses) == 3
    for other_losses, other in results.values():
        assert other_losses == pytest.approx(losses, rel=1e-6, abs=1e-6)
        for name, tensor in other.items():
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "lr"),
    [
        pytest.param(("sft",), 1e-3, id="sft"),
        pytest.param(("lora_r8",), 1e-2, id="lora_r8"),
        pytest.param(("post_block",), 1e-2, id="post_block"),
        pytest.param(("post_block", "method.scope.kind=last_prompt"), 1e-2, id="post_block, last_prompt"),
    ],
)
def test_the_loop_is_adamw_on_the_mean_loss_of_a_steps_answer_tokens(
    method: tuple[str, ...], lr: float, tmp_path: Path
) -> None:
    base, config = base_of(MODEL), method_config(*method, model=MODEL)
    constant = ScheduleConfig("constant", 0.0)
    with attached(base, config) as adaptation:
        expected = plain_losses(base, adaptation, lr=lr, steps=4, rows=some_rows(base, 16))
    with attached(base, config) as adaptation:
        losses = trained(base, adaptation, folder=tmp_path, lr=lr, micro_batch=3, schedule=constant).loss
        rows = some_rows(base, 8)
        alone = [mean_loss(base, adaptation, rows=[row], micro_batch=1)[0] for row in rows]
        counts = [len(row.ids) - row.prompt_length for row in rows]
        mean = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
        assert mean_loss(base, adaptation, rows=rows, micro_batch=3) == [pytest.approx(mean, rel=1e-6)]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert sum(losses[2:]) < sum(losses[:2]), "the second epoch meets the first one's rows"


def closed_formula(kind: str, step: int, *, warmup: int, steps: int) -> float:
    """The share of the learning rate at which step number `step`, counted from 0, is taken."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / (steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[kind]


@pytest.mark.parametrize("warmup", [0.0, 0.25])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_schedules_follow_their_formulas(kind: str, warmup: float, tmp_path: Path) -> None:
    base = base_of(MODEL)
    with attached(base, method_config("post_block_vector", model=MODEL)) as adaptation:
        schedule = ScheduleConfig(kind, warmup)
        curves = trained(base, adaptation, folder=tmp_path, lr=0.02, schedule=schedule, batch_size=4)
    steps = 8
    expected = [0.02 * closed_formula(kind, step, warmup=int(warmup * steps), steps=steps) for step in range(steps)]
    assert curves.lr == pytest.approx(expected, abs=1e-12)


def test_progress_is_told_after_each_step_and_the_last_step_is_validated(tmp_path: Path) -> None:
    base, told = base_of(MODEL), []

    def progress(step: int, steps: int, curves: Sequence[Curves]) -> None:
        told.append((step, steps, curves[0].loss[-1], curves[0].lr[-1]))

    with attached(base, method_config("post_block", model=MODEL)) as adaptation:
        curves = trained(base, adaptation, folder=tmp_path, validations=2, progress=progress)
        (last,) = mean_loss(base, adaptation, rows=some_rows(base, 5, seed=50), micro_batch=2)
    assert told == [(step + 1, 4, curves.loss[step], curves.lr[step]) for step in range(4)]
    assert [step for step, _ in curves.validation] == [2, 4]
    assert curves.validation[-1][1] == pytest.approx(last, rel=1e-6)
    assert curves.diverged_at is None


@pytest.mark.parametrize("validations", [0, 1, 3, 9])
def test_validation_points_change_no_training(validations: int, tmp_path: Path) -> None:
    base = base_of(MODEL)
    states = []
    for points in (0, validations):
        with attached(base, method_config("post_block", model=MODEL)) as adaptation:
            curves = trained(base, adaptation, folder=tmp_path, validations=points)
            states.append(adaptation.state_dict())
    assert all(torch.equal(tensor, states[0][name]) for name, tensor in states[1].items())
    points = [step for step, _ in curves.validation]
    assert points == sorted(set(points)) and len(points) == min(validations, 4)
    assert not validations or points[-1] == 4


@pytest.mark.parametrize("lr", [1e30, math.inf])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_diverges_stops_and_says_where(method: str, lr: float, tmp_path: Path) -> None:
    base = base_of(MODEL)
    schedule = ScheduleConfig("constant", 0.0)
    with attached(base, method_config(method, model=MODEL)) as adaptation:
        curves = trained(base, adaptation, folder=tmp_path, lr=lr, schedule=schedule, validations=4)
    assert curves.diverged_at == len(curves.loss) == len(curves.lr) and 2 <= curves.diverged_at < 4
    assert not math.isfinite(curves.loss[-1]) and all(map(math.isfinite, curves.loss[:-1]))


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_every_loss_that_is_not_finite_is_where_training_diverged(loss: float) -> None:
    curves = Curves()
    curves.add(1, loss=2.5, lr=0.1)
    assert curves.diverged_at is None
    curves.add(2, loss=loss, lr=0.1)
    assert curves.diverged_at == 2


def test_what_training_draws_follows_from_the_seed(tmp_path: Path) -> None:
    """Dropout draws from torch's generator, which a training seeds with its own seed whatever drew before."""
    base, states = base_of("random-llama"), []
    for before in (1, 2):
        torch.manual_seed(before)
        with attached(base, method_config("lora_r8", model="random-llama")) as adaptation:
            trained(
                base,
                adaptation,
                folder=tmp_path / str(before),
                progress=lambda *_: states.append(torch.initial_seed()),
            )
    assert set(states) == {3}


def test_a_loss_that_is_not_finite_changes_no_parameter(tmp_path: Path) -> None:
    base = base_of(MODEL)
    with attached(base, method_config("post_block_vector", model=MODEL)) as adaptation, torch.no_grad():
        first = next(parameter for _, parameter in adaptation.named_parameters())
        first[0] = math.inf
        before = adaptation.state_dict()
        with torch.enable_grad():
            curves = trained(base, adaptation, folder=tmp_path)
        assert curves.diverged_at == 1 and curves.validation == []
        assert all(torch.equal(tensor, before[name]) for name, tensor in adaptation.state_dict().items())


def test_a_step_whose_rows_lost_their_answers_has_no_loss_and_no_effect(tmp_path: Path) -> None:
    base = base_of(MODEL)
    cut = [
        Example(ids=row.ids[: row.prompt_length], prompt_length=row.prompt_length, label="")
        for row in some_rows(base, 8)
    ]
    with attached(base, method_config("post_block", model=MODEL)) as adaptation:
        before = perturb(adaptation).state_dict()
        curves = trained(base, adaptation, folder=tmp_path, rows=cut)
        assert curves.loss == [0.0, 0.0] and curves.diverged_at is None
        assert all(torch.equal(tensor, before[name]) for name, tensor in adaptation.state_dict().items())


@pytest.mark.parametrize("lost", [(3, 0), (2, 5), (7, 1)])
def test_rows_that_lost_their_answers_are_left_out_and_change_nothing(lost: tuple[int, ...]) -> None:
    """Of two replicas' blocks: the sizes stay equal, the losses are those of all rows, and so are the gradients."""
    base, whole = base_of(MODEL), some_rows(base_of(MODEL), 16)
    blocks = [whole[:8], whole[8:]]
    for block, count in zip(blocks, lost, strict=True):
        block[:count] = [dataclasses.replace(row, ids=row.ids[: row.prompt_length]) for row in block[:count]]
    parts = micro_batches(blocks, most=3)
    assert sum(map(len, parts)) == 2 * (8 - min(lost)) and all(len(part) % 2 == 0 for part in parts)
    found: list[tuple[list[float], dict[int, list[torch.Tensor]]]] = []
    for cut in (parts, [[*blocks[0], *blocks[1]]]):
        with attached(base, method_config("post_block", model=MODEL), seeds=(0, 1)) as adaptation:
            perturb(adaptation)
            total_A = torch.zeros(2)
            for part in cut:
                batch = collate(part, pad_id=0, device=torch.device("cpu"))
                loss_A = answer_losses(base, adaptation, batch).sum(1)
                loss_A.sum().backward()
                total_A += loss_A.detach()
            gradients = {each: [p.grad for _, p in adaptation.named_parameters(each)] for each in (0, 1)}
        found.append((total_A.tolist(), gradients))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for replica in (0, 1):
        for cut, full in zip(found[0][1][replica], found[1][1][replica], strict=True):
            torch.testing.assert_close(cut, full, rtol=1e-4, atol=1e-5)


def test_gradients_are_clipped_and_weights_decay(tmp_path: Path) -> None:
    """One step of AdamW moves a weight by the rate, whatever the gradient's size; its decay comes on top."""
    base, ends = base_of(MODEL), {}
    for decay in (0.0, 0.5):
        with attached(base, method_config("post_block", model=MODEL)) as adaptation:
            start = perturb(adaptation).state_dict()
            schedule = ScheduleConfig("constant", 0.0)
            trained(base, adaptation, folder=tmp_path, lr=0.1, max_steps=1, weight_decay=decay, schedule=schedule)
            ends[decay] = adaptation.state_dict()
    for name, tensor in ends[0.5].items():
        torch.testing.assert_close(tensor, ends[0.0][name] - 0.1 * 0.5 * start[name], rtol=0, atol=1e-6)


def test_dropout_acts_while_training_and_only_then(tmp_path: Path) -> None:
    base, losses = base_of(MODEL), {}
    ids_BT = some_ids(base, 2, 6)
    for dropout in (0.0, 0.5):
        config = method_config("lora_r8", f"method.dropout={dropout}", model=MODEL)
        with attached(base, config) as adaptation:
            perturb(adaptation)
            assert torch.equal(logits(base, adaptation, ids_BT), logits(base, adaptation, ids_BT)), "not before"
            losses[dropout] = trained(base, adaptation, folder=tmp_path, max_steps=1, validations=1).loss
            assert torch.equal(logits(base, adaptation, ids_BT), logits(base, adaptation, ids_BT)), "nor after"
            values = {mean_loss(base, adaptation, rows=some_rows(base, 3), micro_batch=2)[0] for _ in range(2)}
            assert len(values) == 1
    assert losses[0.0] != losses[0.5]
    assert base.device == CPU and not any(module.training for module in base.model.modules())


@pytest.mark.parametrize("method", ["sft", "lora_r8", "post_block", "reft", "jola", "joint_orth"])
@pytest.mark.parametrize("model", ["random-llama", "random-gemma3"])
def test_layers_that_are_computed_again_change_no_loss(model: str, method: str, tmp_path: Path) -> None:
    """Gradient checkpointing: the same curves, with every kind of method on the layers."""
    curves = []
    for again in (False, True):
        base = another_base(model)
        with attached(base, method_config(method, model=model)) as adaptation:
            (own,) = train(
                base,
                adaptation,
                rows=some_rows(base, 12),
                validation_rows=[],
                training=training_config(batch_size=4, epochs=2, max_steps=None),
                lrs=(1e-3,),
                seeds=(0,),
                micro_batch=2,
                checkpoints=Checkpoints(tmp_path / str(again), every=0),
                progress=lambda *_: None,
                gradient_checkpointing=again,
            )
        assert not base.model.is_gradient_checkpointing
        curves.append(own.loss)
    assert curves[1] == pytest.approx(curves[0], abs=1e-6)
