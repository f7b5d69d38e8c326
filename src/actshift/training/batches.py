"""Batches: which rows a step sees, and how rows become tensors.

Shapes: A replicas, B rows, T tokens, N answer tokens of a batch, V words of the vocabulary.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from actshift.tasks.examples import Example


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest of them.

    Padding needs no attention mask: it comes after a row's tokens, and attention only looks back.
    """

    ids_BT: torch.Tensor
    prompt_BT: torch.Tensor
    answer_BT: torch.Tensor
    """True at answer tokens, the only ones that the loss counts."""


def collate(examples: Sequence[Example], *, pad_id: int, device: torch.device) -> Batch:
    """The batch of some rows."""
    longest = max(len(example.ids) for example in examples)
    ids_BT = torch.full((len(examples), longest), pad_id)
    for row, example in enumerate(examples):
        ids_BT[row, : len(example.ids)] = torch.tensor(example.ids)
    place_T = torch.arange(longest)
    prompt_BT = place_T < torch.tensor([[example.prompt_length] for example in examples])
    answer_BT = (place_T < torch.tensor([[len(example.ids)] for example in examples])) & ~prompt_BT
    return Batch(*(tensor.to(device) for tensor in (ids_BT, prompt_BT, answer_BT)))


STARTING = {"cpu": 64, "cuda": 256}
"""What one more micro-batch costs, in tokens: measured with the smallest model on a CPU, an estimate for CUDA."""


def micro_batches(blocks: Sequence[Sequence[Example]], *, most: int, starting: int) -> list[list[Example]]:
    """The rows of each micro-batch: at most `most` of each block, the blocks one after the other.

    Each block goes from its short rows to its long ones and is cut where that leaves least to compute: a micro-batch
    costs its tokens with the padding, and `starting` tokens on top. Rows that lost their answer to the protocol's
    length have no loss and no gradient, and are left out as far as blocks stay of equal size and not empty.
    """
    kept = max(1, *(sum(answer_tokens([row]) > 0 for row in block) for block in blocks))
    ordered = [_shortest(block, kept) for block in blocks]
    longest = [len(blocks) * max(len(row.ids) for row in rows) for rows in zip(*ordered, strict=True)]
    return [
        [row for block in ordered for row in block[start:end]]
        for start, end in pairwise(_cuts(longest, most=most, starting=starting))
    ]


def _shortest(block: Sequence[Example], count: int) -> list[Example]:
    """So many rows of a block by length, those with an answer before the others."""
    chosen = sorted(block, key=lambda row: (answer_tokens([row]) <= 0, len(row.ids)))[:count]
    return sorted(chosen, key=lambda row: len(row.ids))


def length_groups(lengths: Sequence[int], *, starting: int, tokens: int) -> list[list[int]]:
    """Row numbers in groups of about one length: of at most `tokens` positions (one row at least), and cut as
    micro-batches are, so that the positions with the padding and `starting` ones a group are fewest."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    distinct = sorted(set(lengths))
    ends = [bisect_right(order, length, key=lambda row: lengths[row]) for length in distinct]
    before = [0, *ends]
    cuts = _cuts(distinct, most=len(distinct), starting=starting, before=before)
    groups = []
    for start, end in pairwise(before[cut] for cut in cuts):
        size = max(1, tokens // max(1, lengths[order[end - 1]]))
        groups += [order[first : min(first + size, end)] for first in range(start, end, size)]
    return groups


def _cuts(lengths: Sequence[int], *, most: int, starting: int, before: Sequence[int] | None = None) -> list[int]:
    """Where to cut ascending lengths, both ends included, by the cheapest way to reach each place.

    `before` says how many rows lie before a place, where a length stands for several rows.
    """
    rows = range(len(lengths) + 1) if before is None else before
    cheapest = [(0, 0)]  # the cost of what lies before a place, and the last cut before it
    for end, length in enumerate(lengths, start=1):
        starts = range(max(0, end - most), end)
        cheapest.append(
            min((cheapest[start][0] + (rows[end] - rows[start]) * length + starting, start) for start in starts)
        )
    cuts = [len(lengths)]
    while cuts[-1] > 0:
        cuts.append(cheapest[cuts[-1]][1])
    return cuts[::-1]


def step_rows(rows: int, *, batch_size: int, epochs: int, max_steps: int | None, seed: int) -> list[list[int]]:
    """The row numbers of every step: each epoch a new permutation, its last batch as short as it comes out."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for _ in range(epochs):
        order = torch.randperm(rows, generator=generator).tolist()
        steps += [order[start : start + batch_size] for start in range(0, rows, batch_size)]
    return steps[:max_steps]


def warmup_steps(share: float, *, steps: int) -> int:
    """A warmup given as a share of the steps, rounded up as transformers' Trainer does."""
    return math.ceil(share * steps)


def answer_tokens(examples: Iterable[Example]) -> int:
    """How many answer tokens some rows have; a row's very first token is predicted by nothing and not counted."""
    return sum(len(example.ids) - max(example.prompt_length, 1) for example in examples)


def answer_loss(model: PreTrainedModel, batch: Batch, *, replicas: int = 1) -> torch.Tensor:
    """The summed negative log-likelihood (nats) of the answer tokens of each replica's block, loss_A.

    The output head is applied at the positions that predict an answer token and nowhere else.
    """
    predicts_BT = batch.answer_BT[:, 1:]
    counts = predicts_BT.unflatten(0, (replicas, -1)).sum((1, 2)).tolist()
    hidden_BTD = model.get_decoder()(input_ids=batch.ids_BT, use_cache=False).last_hidden_state
    logits_NV = model.get_output_embeddings()(hidden_BTD[:, :-1][predicts_BT]).float()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    blocks = zip(logits_NV.split(counts), batch.ids_BT[:, 1:][predicts_BT].split(counts), strict=True)
    return torch.stack([cross_entropy(logits, targets, reduction="sum") for logits, targets in blocks])
