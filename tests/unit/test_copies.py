"""Changed copies: one pass with a copy of each predicting token equals a pass for every such token."""

from __future__ import annotations

import pytest
import torch
from adapted import attached, base_of, method_config, perturb, some_rows
from torch.nn.functional import cross_entropy

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.copies import pack_with_copies
from actshift.models.packing.forward_pass import ForwardPass
from actshift.training.batches import answer_losses, collate, pack_batch

CPU = torch.device("cpu")


def stepwise(base: Base, adaptation: Adaptation, row: Example) -> torch.Tensor:
    """The summed loss of a row by passes that each end with the token that they change, as the released code trains."""
    total = torch.zeros(())
    for end in range(row.prompt_length, len(row.ids)):
        adaptation.begin_pass(ForwardPass(torch.ones(1, end, dtype=torch.bool)))
        logits_V = base.model(input_ids=torch.tensor([row.ids[:end]]), use_cache=False).logits[0, -1]
        total = total + cross_entropy(logits_V[None].float(), torch.tensor([row.ids[end]]))
    return total


@pytest.mark.parametrize("site", ["post_block", "[attn_out,post_mlp]", "heads"])
@pytest.mark.parametrize("model", ["random-llama", "random-qwen3", "random-gemma3", "random-phi3"])
def test_one_pass_with_copies_is_a_pass_a_token(model: str, site: str) -> None:
    """Losses and gradients; on Gemma 3 with layers that look back over a window."""
    base, rows = base_of(model), some_rows(base_of(model), 6)
    config = method_config("post_block_every_last", f"method.site={site}", model=model)
    with attached(base, config) as adaptation:
        losses_B = answer_losses(base, perturb(adaptation), collate(rows, pad_id=base.pad_id, device=CPU))[0]
        gradients = torch.autograd.grad(losses_B.sum(), [p for _, p in adaptation.named_parameters()])
        expected_B = torch.stack([stepwise(base, adaptation, row) for row in rows])
        wanted = torch.autograd.grad(expected_B.sum(), [p for _, p in adaptation.named_parameters()])
        plain_B = answer_losses(base, _without(adaptation), collate(rows, pad_id=base.pad_id, device=CPU))[0]
    torch.testing.assert_close(losses_B, expected_B, rtol=1e-5, atol=1e-4)
    for gradient, of_steps in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, of_steps, rtol=1e-4, atol=1e-4)
    assert (losses_B - plain_B).abs().max() > 1e-2, "the copies are changed"


def _without(adaptation: Adaptation) -> Adaptation:
    """The same with parameters that change nothing."""
    with torch.no_grad():
        for _, parameter in adaptation.named_parameters():
            parameter.zero_()
    return adaptation


def test_a_common_beginning_is_computed_once_whatever_the_scope_changes() -> None:
    base = base_of("random-llama")
    rows = [Example([7, 8, 9, 10, last, 11, 12], 5, "") for last in (20, 21)]
    batch = collate(rows, pad_id=base.pad_id, device=CPU)
    with attached(base, method_config("post_block_every_last", model="random-llama")) as adaptation:
        packing = pack_batch(perturb(adaptation), batch)
        # 4 tokens in common, the rest of two rows of 7, and a copy of each of two tokens that predict an answer token.
        assert packing.source_AN.shape == (1, 4 + 2 * 3 + 2 * 2)
        losses_B = answer_losses(base, adaptation, batch)[0]
        expected_B = torch.stack([stepwise(base, adaptation, row) for row in rows])
    torch.testing.assert_close(losses_B, expected_B, rtol=1e-5, atol=1e-4)


def test_a_layout_by_hand() -> None:
    """Rows a b c and d e; of the first, b and c stand a second time, of the second, e."""
    found = pack_with_copies([3, 2], copied=[range(1, 3), range(1, 2)], replicas=1, shared=0, device=CPU)
    assert found.source_AN.tolist() == [[0, 1, 2, 1, 2, 3, 4, 4]]
    assert found.position_AN.tolist() == [[0, 1, 2, 1, 2, 0, 1, 1]]
    assert found.is_copy_AN is not None and found.is_copy_AN.int().tolist() == [[0, 0, 0, 1, 1, 0, 0, 1]]
    assert found.packed_index_BT.tolist() == [[0, 1, 2], [5, 6, 6]]
    assert found.predictor_BT.tolist() == [[0, 3, 4], [5, 7, 7]]
    (frame,) = found.frames
    assert frame.sees_BTT is not None
    seen = {row: frame.sees_BTT[row].int().tolist() for row in range(2)}  # the shorter row first
    assert seen[1] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 1]]
    assert [line[:3] for line in seen[0][:3]] == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]
