"""Batched greedy generation: against transformers' own, its batches, and where it stops."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from adapted import RANDOM_MODELS, answers, attached, base_of, method_config, naive_answer, perturb, some_prompts
from hypothesis import given, settings
from hypothesis import strategies as st

from actshift.evaluation import cache, generation, one_token
from actshift.evaluation.generation import COMPACT_BELOW_SHARE, generate, length_batches, row_blocks
from actshift.evaluation.generation import _groups as read_groups
from actshift.evaluation.limits import BLOCK_ROWS, BLOCK_SHORTEST, PROMPT_TOKENS
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass

SENTENCES = [
    "Question: is the cat in the garden? Answer:",
    "What is 3 + 4?",
    "The",
    "Tom has 5 apples and buys 7 more. He gives 2 of them to his friend. How many apples does Tom have now?",
    "[ MAX 2 9 [ MIN 4 7 ] 0 ] =",
]


@given(lengths=st.lists(st.integers(0, 60), max_size=40), tokens=st.integers(1, 200))
def test_batches_hold_every_row_once_and_no_more_tokens_than_allowed(lengths: list[int], tokens: int) -> None:
    batches = list(length_batches(lengths, tokens=tokens))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    ordered = [lengths[row] for batch in batches for row in batch]
    assert ordered == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or lengths[batch[0]] * len(batch) <= tokens
    for batch in batches[:-1]:
        assert lengths[batch[0]] * (len(batch) + 1) > tokens, "no batch is split without need"


@given(lengths=st.lists(st.integers(0, 60), max_size=40), tokens=st.integers(1, 200))
def test_batches_without_padding_hold_as_many_tokens_as_are_allowed(lengths: list[int], tokens: int) -> None:
    batches = list(length_batches(lengths, tokens=tokens, padded=False))
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths, reverse=True)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    totals = [sum(lengths[row] for row in batch) for batch in batches]
    assert all(total <= tokens or len(batch) == 1 for total, batch in zip(totals, batches, strict=True))
    for total, following in zip(totals, batches[1:], strict=False):
        assert total + lengths[following[0]] > tokens, "no batch is split without need"


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=300), ordered=st.booleans())
def test_blocks_are_neighbours_of_about_one_length(lengths: list[int], ordered: bool) -> None:
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    blocks = row_blocks(lengths)
    assert [row for block in blocks for row in range(len(lengths))[block]] == list(range(len(lengths)))
    least, most = BLOCK_ROWS
    for block in blocks:
        rows = lengths[block]
        assert 1 <= len(rows) <= most and (len(rows) >= least or block.stop == len(lengths))
        assert len(rows) <= least or min(rows) >= BLOCK_SHORTEST * max(rows)
    if ordered and len(lengths) > 100:
        assert sum(max(lengths[block]) * len(lengths[block]) for block in blocks) < 1.25 * sum(lengths) + least * 400


def theirs(base: Base, prompts: list[list[int]], *, new: int) -> list[list[int]]:
    """The continuations by transformers' generate, cut before the end token."""
    longest, end = max(map(len, prompts)), base.tokenizer.eos_token_id
    ids_BT = torch.tensor([[base.pad_id] * (longest - len(prompt)) + prompt for prompt in prompts])
    attention_BT = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    output_BT = base.model.generate(
        ids_BT, attention_mask=attention_BT, do_sample=False, max_new_tokens=new, pad_token_id=base.pad_id
    )
    rows = output_BT[:, longest:].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


@pytest.mark.parametrize("strength", [0.0, 0.02])
def test_it_is_transformers_own_greedy_generation(strength: float) -> None:
    base = base_of("tiny")
    prompts = [list(base.tokenizer(sentence)["input_ids"]) for sentence in SENTENCES]
    with attached(base, method_config("post_block", model="tiny")) as adaptation:
        perturb(adaptation, scale=strength)
        assert answers(base, adaptation, prompts, new=12) == theirs(base, prompts, new=12)


def ending_at(base: Base, token: int) -> Base:
    """The base with another end token."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(token)
    assert tokenizer.eos_token_id == token
    return dataclasses.replace(base, tokenizer=tokenizer)


def test_a_row_stops_at_the_end_token_and_the_others_go_on() -> None:
    base = base_of("random-llama")
    prompts = some_prompts(base, [4, 7, 5])
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        full = answers(base, perturb(adaptation), prompts, new=8)
        assert [len(row) for row in full] == [8, 8, 8]
        end = next(token for place, token in enumerate(full[1]) if place >= 2 and token not in full[1][:place])
        expected = [row[: row.index(end)] if end in row else row for row in full]
        ending = ending_at(base, end)
        assert answers(ending, adaptation, prompts, new=8) == expected
        assert 2 <= len(expected[1]) < 8 and max(map(len, expected)) == 8
        assert naive_answer(ending, adaptation, prompts[1], new=8) == expected[1]
        first = full[1][0]
        assert answers(ending_at(base, first), adaptation, prompts, new=8)[1] == []


def test_generation_ends_when_every_row_has() -> None:
    base = base_of("random-llama")
    (prompt,) = some_prompts(base, [6])
    passes = []
    counter = base.model.get_decoder().register_forward_pre_hook(lambda *_: passes.append(1))
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        (full,) = answers(base, perturb(adaptation), [prompt], new=8)
        assert len(passes) == 8
        end = next(token for place, token in enumerate(full) if place >= 2 and token not in full[:place])
        passes.clear()
        answers(ending_at(base, end), adaptation, [prompt, prompt], new=8)
    counter.remove()
    assert len(passes) == full.index(end) + 1


def test_at_most_so_many_tokens_are_new_longest_prompts_first() -> None:
    base = base_of("random-qwen3")
    prompts = some_prompts(base, [3, 9, 6, 9])
    with attached(base, method_config("post_block", model="random-qwen3")) as adaptation:
        for new in (1, 4):
            pairs = list(generate(base, adaptation, prompts=prompts, max_new_tokens=new, batch_tokens=18))
            assert [row for row, _ in pairs] == [1, 3, 2, 0]
            assert all(len(ids) == new for _, ids in pairs)
        assert list(generate(base, adaptation, prompts=[], max_new_tokens=4, batch_tokens=18)) == []


def test_generating_leaves_no_gradient_behind_and_training_can_go_on() -> None:
    base = base_of("random-llama")
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        answers(base, perturb(adaptation), some_prompts(base, [3, 5]))
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        adaptation.begin_pass(ForwardPass(None))
        base.model(input_ids=torch.tensor([[7, 8]])).logits.sum().backward()
        assert all(parameter.grad is not None for _, parameter in adaptation.named_parameters())


def test_any_of_several_end_tokens_ends_a_row() -> None:
    base = base_of("random-llama")
    prompts = some_prompts(base, [4, 7, 5])
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        full = answers(base, perturb(adaptation), prompts, new=8)
        ends = {full[0][2], full[2][5]}
        pairs = generate(base, adaptation, prompts=prompts, max_new_tokens=8, batch_tokens=100, ends=ends)
        cut = [next((place for place, token in enumerate(row) if token in ends), 8) for row in full]
        assert [ids for _, ids in sorted(pairs)] == [row[:end] for row, end in zip(full, cut, strict=True)]
        assert min(cut) <= 2


@settings(max_examples=20, deadline=None)
@given(ended=st.lists(st.integers(1, 8), min_size=6, max_size=6))
def test_rows_that_are_decided_leave_the_batch_and_change_no_other(ended: list[int]) -> None:
    base = base_of("random-llama")
    prompts = some_prompts(base, [4, 7, 5, 3, 9, 6])
    widths: list[int] = []
    counter = base.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        full = answers(base, perturb(adaptation), prompts, new=8)
        assert widths == [6] * 7
        widths.clear()
        enough = {tuple(row[:length]) for row, length in zip(full, ended, strict=True)}
        # A row may begin as another one does.
        ended = [next(end for end in range(1, 9) if tuple(row[:end]) in enough) for row in full]
        pairs = generate(
            base,
            adaptation,
            prompts=prompts,
            max_new_tokens=8,
            batch_tokens=100,
            decided=lambda ids: tuple(ids) in enough,
        )
        stopped = [ids for _, ids in sorted(pairs)]
    counter.remove()
    assert stopped == [row[:length] for row, length in zip(full, ended, strict=True)]
    assert len(widths) == max(ended) - 1, "the first token follows from reading the prompts"
    for token, width in enumerate(widths, start=1):
        going = sum(length > token for length in ended)
        assert going <= width <= max(going, going / COMPACT_BELOW_SHARE + 1)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), tokens=st.integers(1, 300))
def test_groups_hold_every_row_once_from_short_to_long(lengths: list[int], tokens: int) -> None:
    groups = read_groups(lengths, tokens=tokens)
    assert [lengths[row] for group in groups for row in group] == sorted(lengths)
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    for group, following in zip(groups, [*groups[1:], None], strict=True):
        total = sum(lengths[row] for row in group)
        assert len(group) == 1 or total <= tokens
        assert following is None or total + lengths[following[0]] > tokens


@pytest.mark.parametrize("rows", [(1, 2), (8, 64)], ids=["blocks", "one_block"])
@pytest.mark.parametrize(
    ("model", "method"), [("random-llama", "post_block"), ("random-llama", "reft"), ("random-gemma3", "post_block")]
)
def test_prompts_read_in_groups_are_answered_as_each_alone(
    model: str, method: str, rows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths on both sides of a sliding window, more new tokens than a cache has room for, rows that leave.

    All begin with the same two tokens, which a group reads once. The cache holds them in several blocks, or in one.
    """
    monkeypatch.setattr(cache, "SPARE_TOKENS", 3)
    monkeypatch.setattr(generation, "BLOCK_ROWS", rows)
    base = base_of(model)
    window = getattr(base.model.config, "sliding_window", None) or 20
    monkeypatch.setitem(PROMPT_TOKENS, "cpu", 2 * window)
    prompts = [[9, 11, *prompt] for prompt in some_prompts(base, [window + 5, 1, window - 3, 1, window + 1, 6])]
    groups = read_groups([len(prompt) for prompt in prompts], tokens=2 * window)
    assert 1 < len(groups) < len(prompts)
    with attached(base, method_config(method, model=model)) as adaptation:
        perturb(adaptation)
        passes: list[int] = []
        counter = base.model.get_decoder().register_forward_pre_hook(lambda *_: passes.append(1))
        found = answers(base, adaptation, prompts, new=9)
        counter.remove()
        assert len(passes) == len(groups) + 8
        assert found == [naive_answer(base, adaptation, prompt, new=9) for prompt in prompts]
        pairs = generate(base, adaptation, prompts=prompts, max_new_tokens=9, batch_tokens=10**6, decided=ends_on_even)
        assert [ids for _, ids in sorted(pairs)] == [until_even(ids) for ids in found]


@pytest.mark.parametrize("rows", [(1, 2), (8, 64)], ids=["blocks", "one_block"])
def test_replicas_answer_as_each_of_them_alone(rows: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BLOCK_ROWS", rows)
    base = base_of("random-llama")
    prompts = some_prompts(base, [4, 7, 5, 3])
    config = method_config("post_block", model="random-llama")
    with attached(base, config, seeds=(0, 1, 2)) as adaptation:
        perturb(adaptation)
        states = [adaptation.state_dict(replica) for replica in range(3)]
        together = [
            sorted(generate(base, adaptation, prompts=prompts, max_new_tokens=6, batch_tokens=tokens, decided=decided))
            for tokens, decided in ((1000, None), (45, None), (1, None), (1000, ends_on_even))
        ]
    alone: list[list[list[int]]] = []
    for state in states:
        with attached(base, config) as adaptation:
            adaptation.load_state_dict(state)
            alone.append(answers(base, adaptation, prompts))
    expected = [ids for replica in alone for ids in replica]
    assert len({tuple(ids) for ids in expected}) > len(prompts), "the replicas differ"
    for pairs in together[:3]:
        assert pairs == list(enumerate(expected))
    assert together[3] == [(place, until_even(ids)) for place, ids in enumerate(expected)]
    assert len({len(ids) for _, ids in together[3]}) > 2


def ends_on_even(ids: list[int]) -> bool:
    return bool(ids) and ids[-1] % 2 == 0


def until_even(ids: list[int]) -> list[int]:
    return next((ids[: end + 1] for end, token in enumerate(ids) if token % 2 == 0), ids)


@pytest.mark.parametrize("model", RANDOM_MODELS)
def test_one_token_by_batched_products_is_that_of_the_fused_kernel(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every architecture, with prompts of several lengths, and longer than the window of those that slide.

    Each prompt is a block of its own where layers do not slide.
    """
    monkeypatch.setattr(generation, "BLOCK_ROWS", (1, 2))
    base = base_of(model)
    prompts = some_prompts(base, [3, 40, 17], seed=1)
    found = {}
    for name in ("batched", "fused"):
        noted: list[torch.Tensor] = []

        def choose(logits_BV: torch.Tensor, rows: list[int], noted: list[torch.Tensor] = noted) -> torch.Tensor:
            noted.append(logits_BV.clone())
            return torch.tensor([7 + len(noted) + row for row in rows])  # both ways go on from the same tokens

        with monkeypatch.context() as patch, attached(base, method_config("post_block", model=model)) as adaptation:
            if name == "fused":
                patch.setattr(one_token, "suits", lambda base: False)
            perturb(adaptation, scale=0.02)
            list(
                generate(
                    base, adaptation, prompts=prompts, max_new_tokens=12, batch_tokens=10**6, ends=(), choose=choose
                )
            )
        found[name] = torch.stack(noted)
    assert one_token.suits(base), "the batched way was at work"
    torch.testing.assert_close(found["batched"], found["fused"], rtol=0, atol=1e-5 * float(found["fused"].abs().max()))
    assert not torch.equal(found["batched"], found["fused"]), "the two ways are two"
