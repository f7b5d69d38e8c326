"""Scopes: the positions they choose, wherever the padding is, and what they do to a model that generates."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from adapted import answers, attached, base_of, method_config, naive_answer, perturb, some_prompts
from hypothesis import given
from hypothesis import strategies as st

from actshift.methods.scopes import answer, first_last, get_scopes, last_prompt, prompt
from actshift.models.packing.forward_pass import ForwardPass
from actshift.schema.method import SCOPES, ScopeConfig

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=5)
ENDS = st.integers(0, 6)


def masks(lengths: list[int], *, left: bool, answer: int = 0) -> torch.Tensor:
    """Prompt tokens of rows padded on one side, an answer of some tokens after each prompt."""
    rows = []
    for length in lengths:
        padding = [False] * (max(lengths) - length)
        row = [True] * length + [False] * answer
        rows.append(padding + row if left else row + padding)
    return torch.tensor(rows, dtype=torch.bool).reshape(len(lengths), -1)


def test_a_prompt_by_hand() -> None:
    prompt_BT = torch.tensor([[0, 0, 1, 1, 1, 1, 0]], dtype=torch.bool)
    assert prompt(prompt_BT).int().tolist() == [[0, 0, 1, 1, 1, 1, 0]]
    assert last_prompt(prompt_BT).int().tolist() == [[0, 0, 0, 0, 0, 1, 0]]
    assert answer(prompt_BT).int().tolist() == [[0, 0, 0, 0, 0, 1, 1]]
    assert first_last(prompt_BT, first=1, last=2).int().tolist() == [[0, 0, 1, 0, 1, 1, 0]]
    assert first_last(prompt_BT, first=2, last=0).int().tolist() == [[0, 0, 1, 1, 0, 0, 0]]
    assert first_last(prompt_BT, first=7, last=7).int().tolist() == [[0, 0, 1, 1, 1, 1, 0]]
    odd_BT = torch.tensor([[1, 1, 1, 1, 1, 0]], dtype=torch.bool)
    assert first_last(odd_BT, first=7, last=7).int().tolist() == [[1, 1, 0, 1, 1, 0]]


@given(lengths=LENGTHS, first=ENDS, last=ENDS, left=st.booleans(), answer=st.integers(0, 3))
def test_the_ends_are_counted_from_the_real_tokens(
    lengths: list[int], first: int, last: int, left: bool, answer: int
) -> None:
    prompt_BT = masks(lengths, left=left, answer=answer)
    chosen_BT = first_last(prompt_BT, first=first, last=last)
    for row, length in enumerate(lengths):
        p, s = min(first, length // 2), min(last, length // 2)  # neither end goes beyond the half, as in pyreft
        expected = [place < p or place >= length - s for place in range(length)]
        assert chosen_BT[row][prompt_BT[row]].tolist() == expected
        assert not chosen_BT[row][~prompt_BT[row]].any()


@given(lengths=LENGTHS, left=st.booleans())
def test_the_last_prompt_token_is_one_a_row_that_has_a_prompt(lengths: list[int], left: bool) -> None:
    counts = last_prompt(masks(lengths, left=left, answer=2)).sum(-1).tolist()
    assert counts == [min(length, 1) for length in lengths]


@given(lengths=LENGTHS, first=ENDS, last=ENDS, left=st.booleans())
def test_the_two_ends_are_the_whole_and_share_no_position(
    lengths: list[int], first: int, last: int, left: bool
) -> None:
    prompt_BT = masks(lengths, left=left, answer=1)
    ends = get_scopes(ScopeConfig("first_last", first, last, True))
    first_BT, last_BT = (ends[end].positions(prompt_BT) for end in ("first", "last"))  # type: ignore[misc]
    assert not (first_BT & last_BT).any()
    assert torch.equal(first_BT | last_BT, first_last(prompt_BT, first=first, last=last))


def test_the_ends_are_pyrefts() -> None:
    locations = pytest.importorskip("pyreft.dataset").get_intervention_locations
    for length, first, last, share in product(range(1, 18), (0, 1, 7), (0, 1, 3, 7), (True, False)):
        if first + last == 0:
            continue
        per_layer = locations(
            last_position=length, positions=f"f{first}+l{last}", num_interventions=2, share_weights=share
        )
        wanted = {place for layer in per_layer for place in layer if place >= 0}
        chosen_T = first_last(torch.ones(1, length, dtype=torch.bool), first=first, last=last)[0]
        assert set(chosen_T.nonzero().flatten().tolist()) == wanted, (length, first, last, share)


def test_every_scope_of_the_options_exists() -> None:
    scopes = {kind: get_scopes(ScopeConfig(kind, 1, 1)) for kind in SCOPES}
    assert all(list(found) == [""] for found in scopes.values())
    assert [kind for kind, found in scopes.items() if found[""].positions is None] == ["all"]
    assert [kind for kind, found in scopes.items() if found[""].generated] == ["all", "answer", "every_last"]


@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3"])
@pytest.mark.parametrize(("kind", "separate"), [*((kind, False) for kind in SCOPES), ("first_last", True)])
def test_generation_under_a_scope_is_that_of_each_prompt_alone(kind: str, separate: bool, model: str) -> None:
    """Mixed lengths, some shorter than first + last, padded on the left, with a cache."""
    base = base_of(model)
    prompts = some_prompts(base, [2, 9, 5, 1])
    config = method_config("post_block", model=model)
    config = replace(config, scope=ScopeConfig(kind, 2, 2, separate))
    with attached(base, config) as adaptation:
        expected = [
            naive_answer(base, perturb(adaptation) if row == 0 else adaptation, prompt)
            for row, prompt in enumerate(prompts)
        ]
        assert answers(base, adaptation, prompts) == expected


@pytest.mark.parametrize(("kind", "separate"), [*((kind, False) for kind in SCOPES), ("first_last", True)])
def test_only_the_positions_of_the_scope_change(kind: str, separate: bool) -> None:
    base = base_of("random-llama")
    config = replace(method_config("post_block_vector", model="random-llama"), layers=[1])
    config.scope = ScopeConfig(kind, 1, 2, separate)
    prompt_BT = masks([4, 6], left=False, answer=2)
    seen: list[torch.Tensor] = []

    def record(h_BTD: torch.Tensor) -> torch.Tensor:
        seen.append(h_BTD.clone())
        return h_BTD

    before = base.sites.hook("post_block", 1, record)
    with attached(base, config) as adaptation, torch.no_grad():
        after = base.sites.hook("post_block", 1, record)
        perturb(adaptation).begin_pass(ForwardPass(prompt_BT))
        base.model(input_ids=torch.full(prompt_BT.shape, 7))
    before.remove()
    after.remove()
    (scope,) = get_scopes(ScopeConfig(kind, 1, 2)).values()
    expected_BT = torch.ones_like(prompt_BT) if scope.positions is None else scope.positions(prompt_BT)
    if scope.copies:  # in a pass without copies, the last position
        expected_BT = torch.arange(prompt_BT.shape[1]).expand_as(prompt_BT) == prompt_BT.shape[1] - 1
    assert torch.equal((seen[0] != seen[1]).any(-1), expected_BT)
    if separate:
        tensors = adaptation.state_dict()
        for end, place in (("first", 0), ("last", -1)):
            shift_BD = seen[1][0, :4][[place]] - seen[0][0, :4][[place]]
            torch.testing.assert_close(shift_BD[0], tensors[f"1.post_block.{end}.vector"], rtol=0, atol=1e-5)
