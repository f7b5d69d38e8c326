"""Batches: which rows a step sees, and how rows become tensors.

Shapes: B rows, T tokens, N answer tokens of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from actshift.tasks.examples import Example


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest of them."""

    ids_BT: torch.Tensor
    attention_BT: torch.Tensor
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
    attention_BT = place_T < torch.tensor([[len(example.ids)] for example in examples])
    prompt_BT = attention_BT & (place_T < torch.tensor([[example.prompt_length] for example in examples]))
    answer_BT = attention_BT & ~prompt_BT
    return Batch(*(tensor.to(device) for tensor in (ids_BT, attention_BT, prompt_BT, answer_BT)))


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


def answer_loss(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, int]:
    """The summed negative log-likelihood (nats) of a batch's answer tokens, and their number N.

    The output head is applied at the positions that predict an answer token and nowhere else.
    """
    hidden_BTD = model.get_decoder()(
        input_ids=batch.ids_BT, attention_mask=batch.attention_BT.long(), use_cache=False
    ).last_hidden_state
    predicts_BT = batch.answer_BT[:, 1:]
    logits_NV = model.get_output_embeddings()(hidden_BTD[:, :-1][predicts_BT]).float()
    softcap = getattr(model.config, "final_logit_softcapping", None)
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    targets_N = batch.ids_BT[:, 1:][predicts_BT]
    return torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="sum"), len(targets_N)
