"""Rows end to end: the hidden states, losses and gradients of every row by itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
import torch
from adapted import CPU, another_base, attached, base_of, method_config, perturb, some_ids
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing import layout
from actshift.models.packing.attention import PACKED
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.packing.last_layer import packed_hidden
from actshift.models.packing.layout import PackedLayout, common_prefix, pack
from actshift.training.batches import answer_losses, collate

MODELS = ["random-llama", "random-qwen3", "random-gemma3"]
LENGTHS = st.lists(st.integers(3, 30), min_size=1, max_size=5)


@given(lengths=LENGTHS, replicas=st.integers(1, 3), shared=st.integers(0, 3), starting=st.sampled_from([0, 100, 10**6]))
def test_every_token_has_a_place_and_a_home(lengths: list[int], replicas: int, shared: int, starting: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layout.FRAME_OVERHEAD_PAIRS, "cpu", starting)
        rows = [lengths[turn:] + lengths[:turn] for turn in range(replicas)]
        rows[-1] = [min(length + 1, 30) for length in rows[-1]]  # replicas whose rows are of different lengths
        flat = [length for block in rows for length in block]
        found = pack(flat, replicas=replicas, shared=shared, device=CPU)
    longest = max(flat)
    names_BT = torch.arange(len(flat) * longest).view(len(flat), longest)
    packed_M = found.gather(names_BT).flatten()
    real_M = torch.ones_like(packed_M, dtype=torch.bool) if found.is_token_AN is None else found.is_token_AN.flatten()
    size = len(lengths)
    assert int(real_M.sum()) == sum(shared + sum(length - shared for length in block) for block in rows)
    assert len(packed_M) == replicas * max(shared + sum(length - shared for length in block) for block in rows)
    for row, length in enumerate(flat):
        for place in range(length):
            owner = row - row % size if place < shared else row
            at = int(found.packed_index_BT[row, place])
            assert int(packed_M[at]) == owner * longest + place and bool(real_M[at])
            assert int(found.position_AN.flatten()[at]) == place
            assert at // found.slot_of_token_AN.shape[1] == row // size, "a replica's rows are in its own sequence"
    assert sum(frame.rows for frame in found.frames) == len(flat)
    assert len(found.token_of_slot_L) == sum(frame.rows * frame.tokens for frame in found.frames)
    # A packed token's result is taken from a position that it is spread to.
    assert torch.equal(
        found.token_of_slot_L[found.slot_of_token_AN.flatten()[real_M]], torch.arange(len(packed_M))[real_M]
    )
    owned_L = found.owner_of_slot_L < len(packed_M)
    assert torch.equal(found.owner_of_slot_L[owned_L].sort().values, torch.arange(len(packed_M))[real_M])
    for replica, positions_SP in enumerate(found.slots_of_shared_ASP):
        expected_P = replica * found.slot_of_token_AN.shape[1] + torch.arange(shared)
        assert all(torch.equal(found.token_of_slot_L[positions_P], expected_P) for positions_P in positions_SP)


@given(lengths=LENGTHS, replicas=st.integers(1, 3), shared=st.integers(0, 3), back=st.integers(1, 30))
def test_what_is_read_is_computed(lengths: list[int], replicas: int, shared: int, back: int) -> None:
    flat = lengths * replicas
    firsts = [max(length - back, 0) for length in flat]
    found = pack(flat, firsts=firsts, replicas=replicas, shared=shared, device=CPU)
    places = {
        int(found.packed_index_BT[row, place])
        for row, length in enumerate(flat)
        for place in range(firsts[row], length)
    }
    if found.needed_AM is None:
        assert len(places) > layout.COMPUTE_ALL_ABOVE_SHARE * found.slot_of_token_AN.numel()
    else:
        assert set(found.needed_AM.flatten().tolist()) == places, "replicas of equal rows have nothing to fill up with"
        assert found.needed_AM.shape[0] == replicas
        widths_A1 = torch.arange(replicas)[:, None]
        assert torch.equal(found.needed_AM // found.slot_of_token_AN.shape[1], widths_A1.expand_as(found.needed_AM))
    for frame, rows in zip(found.frames, _rows_of(found, flat), strict=True):
        assert frame.first == min(firsts[row] for row in rows)


def _rows_of(packing: PackedLayout, lengths: list[int]) -> list[list[int]]:
    """The rows of each frame."""
    order = iter(sorted(range(len(lengths)), key=lambda row: lengths[row]))
    return [[next(order) for _ in range(frame.rows)] for frame in packing.frames]


@given(lengths=LENGTHS)
def test_no_other_frames_are_cheaper(lengths: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layout.FRAME_OVERHEAD_PAIRS, "cpu", 150)
        frames = pack(lengths, replicas=1, shared=0, device=CPU).frames
    ordered = sorted(lengths)

    def cheapest(rows: list[int]) -> int:
        ends = range(1, len(rows) + 1)
        return min((end * rows[end - 1] ** 2 + 150 + cheapest(rows[end:]) for end in ends), default=0)

    assert sum(frame.rows * frame.tokens**2 + 150 for frame in frames) == cheapest(ordered)


def rows_with_prefix(base: Base, *, prefix: int, lengths: list[int]) -> list[list[int]]:
    start = some_ids(base, prefix, seed=99).tolist()
    return [start + some_ids(base, length, seed=place).tolist() for place, length in enumerate(lengths)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("starting", [0, 10**6])
@pytest.mark.parametrize("read", [None, 1, 3])
@pytest.mark.parametrize("model", MODELS)
def test_hidden_states_are_those_of_each_row_alone(
    model: str, read: int | None, starting: int, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where rows are longer than a sliding window, where frames are many or one, and where few tokens are read."""
    monkeypatch.setitem(layout.FRAME_OVERHEAD_PAIRS, "cpu", starting)
    base = another_base(model)
    base.model.set_attn_implementation(attention)
    if model == "random-gemma3":
        base.model.config.sliding_window = 8
        for layer in base.model.get_decoder().layers:
            if layer.self_attn.sliding_window is not None:
                layer.self_attn.sliding_window = 8
        assert base.model.config.layer_types.count("sliding_attention")
    ids = rows_with_prefix(base, prefix=4, lengths=[9, 3, 25, 17])
    batch = collate([Example(row, len(row), "") for row in ids], pad_id=base.pad_id, device=CPU)
    assert common_prefix(ids, replicas=1) >= 4
    firsts = [0 if read is None else length - read for length in batch.lengths]
    packing = pack(batch.lengths, firsts=firsts, replicas=1, shared=4, device=CPU)
    assert (packing.needed_AM is None) == (read is None)
    with torch.no_grad():
        hidden_ND = packed_hidden(base, batch.ids_BT, packing, use_cache=False)[0]
        for row, own in enumerate(ids):
            alone_TD = base.model.get_decoder()(input_ids=torch.tensor([own]), use_cache=False).last_hidden_state[0]
            found_TD = hidden_ND[packing.packed_index_BT[row, firsts[row] : len(own)]]
            torch.testing.assert_close(found_TD, alone_TD[firsts[row] :], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    "method",
    [
        ("sft",),
        ("lora_r8",),
        ("post_block",),
        ("post_block", "method.scope.kind=first_last", "method.scope.first=3", "method.scope.last=3"),
        ("reft",),
        ("jola",),
    ],
    ids=lambda method: " ".join(method),
)
@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients_are_those_of_rows_one_by_one(model: str, method: tuple[str, ...]) -> None:
    """Of rows in passes of transformers' own, every token of the last layer computed."""
    base = base_of(model)
    ids = rows_with_prefix(base, prefix=5, lengths=[9, 3, 12, 4])
    rows = [Example(row, len(row) - 2, "") for row in ids]
    with attached(base, method_config(*method, model=model)) as adaptation:
        perturb(adaptation)
        together = _losses_and_gradients(adaptation, [_packed_losses(base, adaptation, rows)])
        apart = _losses_and_gradients(adaptation, (_alone(base, adaptation, row) for row in rows))
    assert together[0] == pytest.approx(apart[0], rel=1e-5)
    for found, expected in zip(together[1], apart[1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def _packed_losses(base: Base, adaptation: Adaptation, rows: list[Example]) -> torch.Tensor:
    (loss_B,) = answer_losses(base, adaptation, collate(rows, pad_id=base.pad_id, device=CPU))
    return loss_B


def _alone(base: Base, adaptation: Adaptation, row: Example) -> torch.Tensor:
    ids_1T = torch.tensor([row.ids])
    adaptation.begin_pass(ForwardPass(torch.arange(ids_1T.shape[1])[None] < row.prompt_length))
    logits_TV = base.model(input_ids=ids_1T, use_cache=False).logits[0, row.prompt_length - 1 : -1]
    return cross_entropy(logits_TV, ids_1T[0, row.prompt_length :], reduction="sum")[None]


def _losses_and_gradients(
    adaptation: Adaptation, passes: Iterable[torch.Tensor]
) -> tuple[list[float], list[torch.Tensor]]:
    losses: list[float] = []
    parameters = [parameter for _, parameter in adaptation.named_parameters()]
    for loss_B in passes:
        loss_B.sum().backward()
        losses += loss_B.tolist()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return losses, gradients


def test_what_a_scope_changes_differently_is_not_shared() -> None:
    """Ends of three tokens reach further into a long prompt than into one of four."""
    base = base_of("random-llama")
    ends = ("post_block", "method.scope.kind=first_last", "method.scope.first=3", "method.scope.last=3")
    prompt_BT = torch.arange(12) < torch.tensor([[4], [12]])
    apart, last = (*ends, "method.scope.separate=true"), ("post_block", "method.scope.kind=last_prompt")
    for method, alike in ((("post_block",), 12), (ends, 3), (apart, 2), (last, 3)):
        with attached(base, method_config(*method, model="random-llama")) as adaptation:
            assert adaptation.shared_prefix_length(prompt_BT) == alike
    with attached(base, method_config("lora_r8", "method.dropout=0.1", model="random-llama")) as adaptation:
        assert adaptation.shared_prefix_length(prompt_BT) == 0


def test_a_token_in_common_is_computed_once() -> None:
    base, seen = base_of("random-llama"), []
    rows = [Example(ids, len(ids) - 1, "") for ids in rows_with_prefix(base, prefix=6, lengths=[4, 7, 5])]
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        hook = base.sites.module("post_mlp", 0).register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].shape)
        )
        answer_losses(base, adaptation, collate(rows, pad_id=base.pad_id, device=CPU))
        hook.remove()
    assert [tuple(shape[:2]) for shape in seen] == [(1, 6 + 4 + 7 + 5)]


def test_the_last_layer_computes_what_is_read() -> None:
    base, seen = base_of("random-llama"), []
    rows = [Example(ids, len(ids) - 2, "") for ids in rows_with_prefix(base, prefix=6, lengths=[4, 7, 5])]
    layer, _ = base.sites.last
    projections = [*layer.self_attn.children(), *layer.mlp.children()]
    with attached(base, method_config("post_block", model="random-llama")) as adaptation:
        hooks = [
            each.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]), always_call=True)
            for each in projections
            if isinstance(each, torch.nn.Linear)
        ]
        _packed_losses(base, adaptation, rows)
        for hook in hooks:
            hook.remove()
    few, all_of_them = 3 * 3, 6 + 4 + 7 + 5  # the last prompt token and two answer tokens a row
    assert sorted(seen) == [few] * 5 + [all_of_them] * 2, "keys and values alone are those of all tokens"


def test_nothing_of_packed_passes_stays() -> None:
    base, before = base_of("random-llama"), base_of("random-llama").model.config._attn_implementation
    packing: PackedLayout = pack([8], firsts=[7], replicas=1, shared=0, device=CPU)
    packed_hidden(base, some_ids(base, 1, 8), packing)
    assert base.model.config._attn_implementation == before in PACKED
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in base.model.modules())


def test_the_example_of_the_docstring_is_right() -> None:
    found = pack([3, 2], replicas=1, shared=1, device=CPU)
    shown = layout.__doc__ or ""
    for name in ("packed_index_BT", "token_of_slot_L", "slot_of_token_AN", "slots_of_shared_ASP"):
        assert re.search(rf"{name} +{re.escape(str(getattr(found, name).tolist()))}\n", shown), name
