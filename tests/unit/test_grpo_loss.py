"""GRPO's pure functions, by values worked out by hand: rewards, advantages, losses, sampling, outcomes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actshift.errors import ActshiftError
from actshift.objectives.loss import advantages, divergence, silent, token_losses, token_weights
from actshift.objectives.outcome import outcome
from actshift.objectives.rewards import REWARDS, Completion, best, rewards_of, total
from actshift.objectives.sampling import Sampler, draw, nucleus, uniforms
from actshift.tasks import get_task
from actshift.training.loop import Curves

LISTOPS, GSM8K = get_task("listops"), get_task("gsm8k")
numbers = st.floats(-3, 3, allow_nan=False, width=32)


def completion(text: str, *, label: str = "7", tokens: int = 4, ended: bool = True) -> Completion:
    return Completion(text, label, tokens, limit=10, ended=ended)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("accuracy", completion("<answer>7</answer>"), 1),
        ("accuracy", completion("<answer>8</answer>"), 0),
        ("accuracy", completion("7"), 0),
        ("format", completion("<answer>8</answer>"), 1),
        ("format", completion("<answer>8</answer> and on", ended=False), 1),  # nothing can change this answer
        ("format", completion("<answer>8", ended=False), 0),
        ("format", completion("8"), 0),
        ("think", completion("so\n</think>\n7"), 1),
        ("think", completion("so\n</think>\n7\n</think>\n"), 0),
        ("think", completion("so </think> 7"), 0),
        ("length", completion("", tokens=4), 0.6),
        ("length", completion("", tokens=10, ended=False), 0),
    ],
)
def test_a_reward(name: str, given: Completion, expected: float) -> None:
    assert REWARDS[name](given, LISTOPS) == pytest.approx(expected)


def test_a_number_that_may_go_on_is_no_answer_yet() -> None:
    assert REWARDS["format"](completion("Answer: 7", ended=False), GSM8K) == 0
    assert REWARDS["format"](completion("Answer: 7"), GSM8K) == 1


def test_the_accuracy_is_the_tasks_own_score() -> None:
    assert REWARDS["accuracy"](completion("Then 3 + 4 = 7.\nAnswer: 7", label="7.0"), GSM8K) == 1
    assert REWARDS["accuracy"](completion("Then 3 + 4 = 7.\nAnswer: 6", label="7"), GSM8K) == 0


def test_rewards_of_weight_0_are_left_out_and_the_rest_is_summed() -> None:
    weights = {"accuracy": 2.0, "format": 1.0, "think": 0.0, "length": -0.5}
    found = rewards_of(completion("<answer>7</answer>"), LISTOPS, weights=weights)
    assert found == {"accuracy": 1, "format": 1, "length": pytest.approx(0.6)}
    assert total(found, weights=weights) == pytest.approx(2 + 1 - 0.3)
    assert best(weights) == 3


def test_advantages_by_hand() -> None:
    rewards_S = torch.tensor([0.0, 1.0, 2.0, 3.0, 3.0, 3.0], dtype=torch.float64)
    found = advantages(rewards_S, group=3, scale_by_std=True)
    assert found[:3].tolist() == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001], abs=1e-12)
    assert found[3:].tolist() == [0, 0, 0]
    assert advantages(rewards_S, group=3, scale_by_std=False)[:3].tolist() == [-1, 0, 1]
    assert silent(rewards_S, group=3).tolist() == [False, True]


@given(st.lists(numbers, min_size=4, max_size=4), st.booleans())
def test_advantages_have_mean_zero_in_each_group(rewards: list[float], scale: bool) -> None:
    found = advantages(torch.tensor([*rewards, 1.0, 0.0, 0.0, 0.0], dtype=torch.float64), group=4, scale_by_std=scale)
    assert found.view(2, 4).mean(1).tolist() == pytest.approx([0, 0], abs=1e-9)


@given(numbers)
def test_equal_rewards_have_no_advantage_at_all(reward: float) -> None:
    found = advantages(torch.full((6,), reward * 0.1, dtype=torch.float64), group=6, scale_by_std=True)
    assert found.tolist() == [0.0] * 6, "a mean that is rounded would leave 1e-16 / 1e-4"


def test_what_a_token_counts() -> None:
    assert token_weights([2, 4], normalization="token", limit=10) == [1 / 6, 1 / 6]
    assert token_weights([2, 4], normalization="sequence", limit=10) == [1 / 4, 1 / 8]
    assert token_weights([2, 4], normalization="constant", limit=10) == [1 / 20, 1 / 20]
    with pytest.raises(ActshiftError, match=r"unknown normalization 'mean'.*constant, sequence, token"):
        token_weights([2], normalization="mean", limit=10)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
def test_the_divergence_is_never_negative_and_0_at_the_reference(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = torch.tensor(pairs, dtype=torch.float64).T
    assert (divergence(ours, theirs) >= -1e-12).all()
    assert divergence(ours, ours).tolist() == [0.0] * len(pairs)
    assert (divergence(ours, ours + 0.5) > 0.1).all()


def test_the_mean_divergence_over_samples_of_the_policy_is_the_kl() -> None:
    policy, reference = (torch.tensor(p, dtype=torch.float64) for p in ([0.7, 0.2, 0.1], [0.3, 0.3, 0.4]))
    kl = float((policy * (policy / reference).log()).sum())
    expected = float((policy * divergence(policy.log(), reference.log())).sum())
    assert expected == pytest.approx(kl, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.6, True),  # 1 + 0.3
        (1.5, -2.0, 3.0, False),
        (0.5, 2.0, -1.0, False),
        (0.5, -2.0, 1.6, True),  # 1 - 0.2
    ],
)
def test_the_loss_of_a_token(ratio: float, advantage: float, loss: float, clipped: bool) -> None:
    old = torch.tensor([-1.0], dtype=torch.float64)
    logprobs = (old + math.log(ratio)).requires_grad_()
    found = token_losses(logprobs, old, torch.tensor([advantage]), clip_low=0.2, clip_high=0.3, kl=0.0)
    assert (found.loss_N.item(), found.clipped_N.item()) == (pytest.approx(loss), clipped)
    found.loss_N.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(0 if clipped else -ratio * advantage)


def test_the_divergence_is_added_with_its_weight() -> None:
    logprobs, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0])
    losses = token_losses(
        logprobs, logprobs, torch.zeros(2), clip_low=0.2, clip_high=0.2, kl=0.1, reference_N=reference
    )
    assert losses.loss_N.tolist() == pytest.approx([0.1 * (math.exp(-0.5) - 0.5), 0.0])


def test_a_token_is_drawn_where_the_cumulative_probability_exceeds_the_number() -> None:
    probs = torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25]] * 6)
    found = draw(probs, torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999], dtype=torch.float64), top_p=1.0)
    assert found.tolist() == [1, 1, 2, 2, 4, 4]


def test_the_nucleus_is_the_fewest_likeliest_tokens() -> None:
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    assert nucleus(probs, 0.7).tolist() == [[0, 0.5, 0, 0.25]]
    assert nucleus(probs, 0.5).tolist() == [[0, 0.5, 0, 0]]
    assert draw(probs, torch.tensor([0.9]), top_p=0.7).item() == 3


def test_random_numbers_follow_from_seed_step_row_and_completion_alone() -> None:
    keys = [(0, 1, 2, 3), (1, 1, 2, 3), (0, 2, 2, 3), (0, 1, 3, 3), (0, 1, 2, 4)]
    drawn = {key: tuple(uniforms(*key, count=5)) for key in keys}
    torch.manual_seed(9)
    assert len(set(drawn.values())) == 5
    assert tuple(uniforms(*keys[0], count=8)[:5]) == drawn[keys[0]]


def test_the_sampler_draws_by_the_policys_frequencies_and_keeps_its_log_probability() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(20_000, 3)
    rows = list(range(20_000))
    generator = torch.Generator().manual_seed(0)
    sampler = Sampler(torch.rand(20_000, 1, generator=generator, dtype=torch.float64), temperature=2.0, top_p=1.0)
    ids = sampler(logits, rows)
    policy = torch.softmax(torch.tensor([0.5, 0.0, -0.5]), 0)
    assert (torch.bincount(ids) / 20_000).tolist() == pytest.approx(policy.tolist(), abs=0.015)
    assert torch.allclose(sampler.logprobs_BT[:, 0], policy.log()[ids])
    assert sampler.entropies_BT[0, 0].item() == pytest.approx(-float((policy * policy.log()).sum()), abs=1e-6)


def curves(rewards: list[float], silent_shares: list[float], *, diverged_at: int | None = None) -> Curves:
    return Curves(diverged_at=diverged_at, measures={"reward": rewards, "silent": silent_shares})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (curves([1.0] * 30, [0.5] * 30), "trained"),
        (curves([1.0] * 20 + [3.0] * 10, [0.5] * 20 + [1.0] * 10), "solved"),
        (curves([2.0] * 20 + [0.9] * 10, [0.5] * 30), "collapsed"),
        (curves([2.0] * 30, [0.5] * 20 + [1.0] * 10), "collapsed"),
        (curves([0.0] * 30, [1.0] * 30), "no signal"),
        (curves([1.0, 1.2], [0.5, 0.5]), "trained"),
        (curves([1.0] * 30, [0.5] * 30, diverged_at=30), "diverged"),
    ],
)
def test_how_a_training_ended(given: Curves, expected: str) -> None:
    assert outcome(given, best=3.0) == expected
