"""Which rows a step sees, how rows become tensors, and what their loss is."""

from __future__ import annotations

import math

import pytest
import torch
from adapted import CPU, base_of, some_rows
from hypothesis import given
from hypothesis import strategies as st

from actshift.data.examples import Example
from actshift.models.loading import Base
from actshift.models.packing.layout import pack
from actshift.training.batches import answer_tokens, collate, micro_batches, row_losses, step_rows, warmup_steps

SIZES = {"rows": st.integers(1, 40), "batch_size": st.integers(1, 12), "epochs": st.integers(1, 3)}


@given(**SIZES, seed=st.integers(0, 2**31))
def test_every_row_is_seen_once_an_epoch(rows: int, batch_size: int, epochs: int, seed: int) -> None:
    steps = step_rows(rows, batch_size=batch_size, epochs=epochs, max_steps=None, seed=seed)
    an_epoch = math.ceil(rows / batch_size)
    assert len(steps) == epochs * an_epoch
    for epoch in range(epochs):
        batches = steps[epoch * an_epoch : (epoch + 1) * an_epoch]
        assert sorted(row for batch in batches for row in batch) == list(range(rows))
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}


@given(**SIZES, limit=st.integers(1, 50))
def test_the_steps_follow_from_the_seed_and_a_limit_cuts_them(
    rows: int, batch_size: int, epochs: int, limit: int
) -> None:
    torch.manual_seed(limit)
    first = step_rows(rows, batch_size=batch_size, epochs=epochs, max_steps=None, seed=7)
    torch.manual_seed(limit + 1)
    assert step_rows(rows, batch_size=batch_size, epochs=epochs, max_steps=limit, seed=7) == first[:limit]


def test_seeds_and_epochs_differ_in_their_order() -> None:
    orders = {
        tuple(batch) for seed in range(3) for batch in step_rows(30, batch_size=30, epochs=2, max_steps=None, seed=seed)
    }
    assert len(orders) == 6


@pytest.mark.parametrize(("share", "steps", "expected"), [(0.0, 10, 0), (0.1, 100, 10), (0.06, 250, 15), (0.03, 10, 1)])
def test_a_warmup_share_is_rounded_up(share: float, steps: int, expected: int) -> None:
    assert warmup_steps(share, steps=steps) == expected


def test_a_batch_is_padded_on_the_right_and_masked_by_position() -> None:
    rows = [Example(ids=[7, 8, 9], prompt_length=2, label=""), Example(ids=[5, 6, 7, 8, 0], prompt_length=1, label="")]
    batch = collate(rows, pad_id=0, device=CPU)
    assert batch.ids_BT.tolist() == [[7, 8, 9, 0, 0], [5, 6, 7, 8, 0]]
    assert batch.prompt_BT.int().tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert batch.answer_BT.int().tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 1]], "a pad id in a text is no padding"


def loss_of(base: Base, rows: list[Example], *, pad_id: int = 0) -> tuple[float, int]:
    with torch.no_grad():
        batch = collate(rows, pad_id=pad_id, device=CPU)
        total = row_losses(base, batch, pack(batch.lengths, replicas=1, shared=0, device=CPU)).sum()
    return total.item(), answer_tokens(rows)


@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3"])
def test_the_loss_of_a_row_is_transformers_own(model: str) -> None:
    base = base_of(model)
    for row in some_rows(base, 4):
        labels = torch.tensor([[-100] * row.prompt_length + row.ids[row.prompt_length :]])
        with torch.no_grad():
            expected = base.model(input_ids=torch.tensor([row.ids]), labels=labels).loss.item()
        total, tokens = loss_of(base, [row])
        assert tokens == len(row.ids) - row.prompt_length
        assert total / tokens == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3"])
def test_padding_adds_nothing(model: str) -> None:
    base, rows = base_of(model), some_rows(base_of(model), 5)
    alone = [loss_of(base, [row]) for row in rows]
    total, tokens = loss_of(base, rows)
    assert tokens == sum(count for _, count in alone)
    assert total == pytest.approx(sum(part for part, _ in alone), rel=1e-6)
    assert loss_of(base, rows, pad_id=11)[0] == pytest.approx(total, rel=1e-6)


def test_a_row_without_an_answer_has_no_loss_and_one_without_a_prompt_does_not_predict_its_first_token() -> None:
    base = base_of("random-llama")
    assert loss_of(base, [Example(ids=[7, 8], prompt_length=2, label="")]) == (0.0, 0)
    assert loss_of(base, [Example(ids=[7, 8, 9], prompt_length=0, label="")])[1] == 2


def rows_of(lengths: list[int]) -> list[Example]:
    return [Example(ids=[5] * length, prompt_length=1, label=str(place)) for place, length in enumerate(lengths)]


ROWS = st.lists(st.integers(2, 50), min_size=1, max_size=7)


@given(lengths=ROWS, most=st.integers(1, 8), replicas=st.integers(1, 3))
def test_a_step_is_cut_into_micro_batches_with_each_row_once(lengths: list[int], most: int, replicas: int) -> None:
    blocks = [rows_of(lengths[place:] + lengths[:place]) for place in range(replicas)]
    parts = micro_batches(blocks, most=most)
    for replica, block in enumerate(blocks):
        own = []
        for part in parts:
            size = len(part) // replicas
            assert 1 <= size <= most and len(part) == replicas * size
            own += part[replica * size : (replica + 1) * size]
        assert sorted(row.label for row in own) == sorted(row.label for row in block)


def test_rows_of_one_length_stay_together_in_their_order() -> None:
    rows = rows_of([9] * 8)
    assert micro_batches([rows], most=8) == [rows]
    assert micro_batches([rows], most=4) == [rows[:4], rows[4:]]
