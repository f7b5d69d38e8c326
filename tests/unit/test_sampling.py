"""Sampled decoding: the distribution that is drawn from, and streams that no batch changes."""

from __future__ import annotations

import pytest
import torch
from adapted import attached, base_of, method_config, perturb, some_prompts

from actshift.errors import ActshiftError
from actshift.evaluation.generation import generate
from actshift.evaluation.sampling import Choose, Sampled, greedy
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.runtime.outputs import Decoding

P = [0.5, 0.3, 0.15, 0.05]
DRAWS = 20_000


def frequencies(temperature: float, top_p: float) -> list[float]:
    logits_BV = torch.tensor(P).log().repeat(DRAWS, 1)
    drawn = Sampled(temperature, top_p, streams=[(7, row) for row in range(DRAWS)])(logits_BV, range(DRAWS))
    assert drawn.shape == (DRAWS,)
    return (torch.bincount(drawn, minlength=4) / DRAWS).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [
        (1.0, 1.0, P),
        (1.0, 0.8, [5 / 8, 3 / 8, 0, 0]),  # 0.5 + 0.3 reach 0.8: as few as have it together
        (1.0, 0.81, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (1.0, 1e-9, [1, 0, 0, 0]),
        # p^2 / sum p^2, as softmax(log p / 0.5)
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    ],
)
def test_tokens_are_drawn_from_the_tempered_nucleus(temperature: float, top_p: float, expected: list[float]) -> None:
    found = frequencies(temperature, top_p)
    assert found == pytest.approx(expected, abs=0.015)
    assert [value == 0 for value in found] == [value == 0 for value in expected]


def continued(base: Base, adaptation: Adaptation, prompts: list[list[int]], choose: Choose, *, tokens: int) -> dict:
    found = generate(base, adaptation, prompts=prompts, max_new_tokens=12, batch_tokens=tokens, ends=[], choose=choose)
    return dict(found)


def test_the_composition_of_batches_changes_no_draw() -> None:
    base = base_of("tiny")
    prompts = some_prompts(base, [4, 7, 5, 7])
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        perturb(adaptation)
        streams = [(1, row) for row in range(4)]
        together = continued(base, adaptation, prompts, Sampled(1.0, 0.9, streams=streams), tokens=10_000)
        apart = continued(base, adaptation, prompts, Sampled(1.0, 0.9, streams=streams), tokens=1)
        assert together == apart
        # Of one row alone, with its own stream, comes what came of it among others: how an interrupted file goes on.
        alone = continued(base, adaptation, prompts[2:3], Sampled(1.0, 0.9, streams=streams[2:3]), tokens=10_000)
        assert alone[0] == together[2]
        other = continued(
            base, adaptation, prompts, Sampled(1.0, 0.9, streams=[(2, row) for row in range(4)]), tokens=10_000
        )
        assert other != together and len({tuple(ids) for ids in together.values()}) == 4
        likeliest = continued(base, adaptation, prompts, greedy, tokens=10_000)
        assert continued(base, adaptation, prompts, Sampled(1e-4, streams=streams), tokens=10_000) == likeliest
        assert likeliest != together


def test_replicas_have_streams_of_their_own() -> None:
    base = base_of("tiny")
    prompts = some_prompts(base, [4, 6])
    with attached(base, method_config("post_block", model="tiny"), seeds=(0, 1)) as adaptation:
        found = continued(
            base, adaptation, prompts, Sampled(1.0, streams=[(3, row) for row in range(4)]), tokens=10_000
        )
        # Both replicas are the base model still: what differs is drawn.
        assert sorted(found) == [0, 1, 2, 3] and found[0] != found[2] and found[1] != found[3]


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0.0, 1.0), (-1.0, 1.0), (float("inf"), 1.0), (1.0, 0.0), (1.0, 1.1)]
)
def test_what_is_no_distribution_is_refused(temperature: float, top_p: float) -> None:
    with pytest.raises(ActshiftError, match="is impossible: it must be a"):
        Sampled(temperature, top_p, streams=[0])


def test_every_row_of_a_file_of_answers_draws_from_its_own_stream() -> None:
    flat_BV = torch.zeros(2, 50_000)
    choose = Decoding(8, temperature=1.0, seed=3).choose([4, 9])
    drawn = [choose(flat_BV, [0, 1]).tolist() for _ in range(3)]
    assert drawn == [Sampled(1.0, streams=[(3, 4), (3, 9)])(flat_BV, [0, 1]).tolist(), *drawn[1:]]
    assert all(first != second for first, second in drawn)
