"""Greedy generation in batches.

Shapes: B rows, T tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import DynamicCache

from actshift.methods.base import Adaptation
from actshift.models.loading import Base


def length_batches(lengths: Sequence[int], *, tokens: int) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most `tokens` positions, padding included (one row at least)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def generate(
    base: Base,
    adaptation: Adaptation,
    *,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_tokens: int,
) -> Iterator[tuple[int, list[int]]]:
    """The greedy continuation of every prompt, as (row number, token ids), longest prompts first.

    A row ends at the tokenizer's end token, which is not part of it, or after `max_new_tokens`. Prompts are padded
    on the left and continue from a key/value cache; the prompt is told from the continuation by position.
    """
    end = base.tokenizer.eos_token_id
    for rows in length_batches([len(prompt) for prompt in prompts], tokens=batch_tokens):
        new_BN = _continue(base, adaptation, [prompts[row] for row in rows], max_new_tokens=max_new_tokens)
        for row, ids in zip(rows, new_BN.tolist(), strict=True):
            yield row, ids[: ids.index(end)] if end in ids else ids


def _continue(
    base: Base, adaptation: Adaptation, prompts: Sequence[Sequence[int]], *, max_new_tokens: int
) -> torch.Tensor:
    """Continue one batch until every row has met its end token; what follows an end token is meaningless."""
    longest = max(map(len, prompts))
    padded = [[base.pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    ids_BT = torch.tensor(padded, device=base.device)
    attention_BT = (
        torch.arange(longest, device=base.device)
        >= torch.tensor([[longest - len(prompt)] for prompt in prompts], device=base.device)
    ).long()
    position_BT = (attention_BT.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=base.model.config)
    ended_B = torch.zeros(len(prompts), dtype=torch.bool, device=base.device)
    new: list[torch.Tensor] = []
    adaptation.observe(attention_BT.bool())
    while True:
        logits_BV = base.model(
            input_ids=ids_BT,
            attention_mask=attention_BT,
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        ids_BT = logits_BV.argmax(-1, keepdim=True)
        new.append(ids_BT)
        ended_B |= ids_BT[:, 0] == base.tokenizer.eos_token_id
        if len(new) == max_new_tokens or bool(ended_B.all()):
            return torch.cat(new, dim=1)
        attention_BT = torch.cat([attention_BT, torch.ones_like(ids_BT)], dim=1)
        position_BT = position_BT[:, -1:] + 1
        adaptation.observe(None)
