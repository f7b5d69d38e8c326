"""Batches: which rows a step sees, and how rows become tensors.

Shapes: A replicas, B rows, S rows of a replica, T tokens, N answer tokens of a batch, V words of the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from actshift.data.examples import Example
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.packing.last_layer import packed_hidden
from actshift.models.packing.layout import PackedLayout, common_prefix, pack


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest of them; `examples` are the rows themselves."""

    examples: Sequence[Example]
    ids_BT: torch.Tensor
    prompt_BT: torch.Tensor
    answer_BT: torch.Tensor
    """True at answer tokens, the only ones that the loss counts."""

    @property
    def lengths(self) -> list[int]:
        return [len(example.ids) for example in self.examples]

    @property
    def firsts(self) -> list[int]:
        """The position in each row that predicts its first answer token; the last one where it has none."""
        return [max(min(example.prompt_length, len(example.ids)) - 1, 0) for example in self.examples]


def collate(examples: Sequence[Example], *, pad_id: int, device: torch.device) -> Batch:
    """The batch of some rows."""
    longest = max(len(example.ids) for example in examples)
    ids_BT = torch.full((len(examples), longest), pad_id)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example.ids)] = torch.tensor(example.ids)
    place_T = torch.arange(longest)
    prompt_BT = place_T < torch.tensor([[example.prompt_length] for example in examples])
    answer_BT = (place_T < torch.tensor([[len(example.ids)] for example in examples])) & ~prompt_BT
    return Batch(examples, *(tensor.to(device) for tensor in (ids_BT, prompt_BT, answer_BT)))


def micro_batches(blocks: Sequence[Sequence[Example]], *, most: int) -> list[list[Example]]:
    """The rows of each micro-batch: at most `most` of each block, the blocks one after the other.

    Each block goes from its short rows to its long ones: attention is the one place where rows are padded. Rows that
    lost their answer to the protocol's length have no loss and no gradient, and are left out as far as blocks stay of
    equal size and not empty.
    """
    kept = max(1, *(sum(answer_tokens([row]) > 0 for row in block) for block in blocks))
    ordered = [_shortest(block, kept) for block in blocks]
    return [[row for block in ordered for row in block[start : start + most]] for start in range(0, kept, most)]


def _shortest(block: Sequence[Example], count: int) -> list[Example]:
    """So many rows of a block by length, those with an answer before the others."""
    chosen = sorted(block, key=lambda row: (answer_tokens([row]) <= 0, len(row.ids)))[:count]
    return sorted(chosen, key=lambda row: len(row.ids))


def step_rows(rows: int, *, batch_size: int, epochs: int, max_steps: int | None, seed: int) -> list[list[int]]:
    """The row numbers of every step: each epoch a new permutation, its last batch as short as it comes out."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).tolist()
        steps += [order[start : start + batch_size] for start in range(0, rows, batch_size)]
    return steps[:max_steps]


def count_steps(rows: int, *, batch_size: int, epochs: int, max_steps: int | None) -> int:
    """How many steps `step_rows` makes of so many rows."""
    steps = epochs * math.ceil(rows / batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def warmup_steps(share: float, *, steps: int) -> int:
    """A warmup given as a share of the steps, rounded up as transformers' Trainer does."""
    return math.ceil(share * steps)


def answer_tokens(examples: Iterable[Example]) -> int:
    """How many answer tokens some rows have; a row's very first token is predicted by nothing and not counted."""
    return sum(len(example.ids) - max(example.prompt_length, 1) for example in examples)


def answer_losses(base: Base, adaptation: Adaptation, batch: Batch) -> torch.Tensor:
    """The summed negative log-likelihood (nats) of the answer tokens of each of the S rows of each replica, loss_AS."""
    loss_B = row_losses(base, batch, pack_batch(adaptation, batch))
    return loss_B.unflatten(0, (adaptation.replicas, -1))


def pack_batch(adaptation: Adaptation, batch: Batch) -> PackedLayout:
    """Lay out the rows of a batch, in blocks by replica, and begin the pass with the method.

    What all rows of a replica begin with is computed once, as far as the method changes it equally in all of them.
    """
    replicas = adaptation.replicas
    prefix = common_prefix([example.ids for example in batch.examples], replicas=replicas)
    shared = min(prefix, adaptation.shared_prefix_length(batch.prompt_BT))
    packing = pack(batch.lengths, firsts=batch.firsts, replicas=replicas, shared=shared, device=batch.ids_BT.device)
    adaptation.begin_pass(ForwardPass(batch.prompt_BT, packing))
    return packing


def row_losses(base: Base, batch: Batch, packing: PackedLayout) -> torch.Tensor:
    """loss_B of rows packed so. The output head is applied at the positions that predict an answer token alone."""
    hidden_AND = packed_hidden(base, batch.ids_BT, packing, use_cache=False)
    predicts_BT = batch.answer_BT[:, 1:]
    logits_NV = head(base.model, hidden_AND.flatten(0, 1)[packing.packed_index_BT[:, :-1][predicts_BT]])
    losses_N = cross_entropy(logits_NV, batch.ids_BT[:, 1:][predicts_BT], reduction="none")
    return torch.stack([row.sum() for row in losses_N.split(predicts_BT.sum(1).tolist())])


def head(model: PreTrainedModel, hidden_ND: torch.Tensor) -> torch.Tensor:
    """logits_NV in float32, capped where the model caps them."""
    logits_NV: torch.Tensor = model.get_output_embeddings()(hidden_ND).float()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return logits_NV if softcap is None else softcap * torch.tanh(logits_NV / softcap)
