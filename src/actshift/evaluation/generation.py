"""Greedy generation in batches.

Shapes: B rows, T tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from transformers import DynamicCache

from actshift.methods.base import Adaptation
from actshift.models.loading import Base

Decided = Callable[[list[int]], bool]

CLOSE_LOOK, STRIDE = 8, 8
"""Rows are asked whether they are decided at each of the first tokens, then at every eighth: asking decodes text."""
WORTH = 0.75
"""A batch drops its ended rows once at most this share is going on: dropping copies the cache, as a token does."""


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
    ends: Collection[int] | None = None,
    decided: Decided | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """The greedy continuation of every prompt, as (row number, token ids), longest prompts first.

    A row ends at one of the `ends` (the tokenizer's end token where none are given), which is not part of it, or after
    `max_new_tokens`, or once its continuation is `decided`. Prompts are padded on the left and continue from a
    key/value cache; the prompt is told from the continuation by position. Each of A replicas continues all N prompts:
    row a N + i is prompt i by replica a, and a batch of at most `batch_tokens` holds the same prompts for each.
    """
    stops = frozenset((base.tokenizer.eos_token_id,) if ends is None else ends)
    replicas = adaptation.replicas
    for batch in length_batches([len(prompt) for prompt in prompts], tokens=batch_tokens // replicas):
        rows = [replica * len(prompts) + row for replica in range(replicas) for row in batch]
        chosen = [prompts[row] for row in batch] * replicas
        new = _continue(base, adaptation, chosen, max_new_tokens=max_new_tokens, ends=stops, decided=decided)
        yield from zip(rows, new, strict=True)


def _continue(
    base: Base,
    adaptation: Adaptation,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    ends: Collection[int],
    decided: Decided | None,
) -> list[list[int]]:
    """Continue one batch until every row has ended; rows that have leave the batch when enough of them have."""
    ids_BT, attention_BT = _left_padded(prompts, pad_id=base.pad_id, device=base.device)
    position_BT = (attention_BT.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=base.model.config)
    new: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # the rows that are in the batch still
    going = set(rows)
    adaptation.observe(attention_BT.bool())
    for step in range(1, max_new_tokens + 1):
        logits_BV = base.model(
            input_ids=ids_BT,
            attention_mask=attention_BT,
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        ids_BT = logits_BV.argmax(-1, keepdim=True)
        for row, token in zip(rows, ids_BT[:, 0].tolist(), strict=True):
            if token in ends:
                going.discard(row)
            elif row in going:
                new[row].append(token)
        if decided is not None and (step <= CLOSE_LOOK or step % STRIDE == 0):
            going -= {row for row in going if decided(new[row])}
        if not going or step == max_new_tokens:
            break
        kept = _kept(rows, going, blocks=adaptation.replicas)
        if len(kept) <= WORTH * len(rows):
            rows = [rows[place] for place in kept]
            kept_B = torch.tensor(kept, device=base.device)
            cache.batch_select_indices(kept_B)
            ids_BT, attention_BT, position_BT = ids_BT[kept_B], attention_BT[kept_B], position_BT[kept_B]
        attention_BT = torch.cat([attention_BT, torch.ones_like(ids_BT)], dim=1)
        position_BT = position_BT[:, -1:] + 1
        adaptation.observe(None)
    return new


def _left_padded(
    prompts: Sequence[Sequence[int]], *, pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """ids_BT and attention_BT of prompts that all end at the last position."""
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    padded = [[pad_id] * pads + list(prompt) for pads, prompt in zip(padding, prompts, strict=True)]
    place_T = torch.arange(longest, device=device)
    attention_BT = (place_T >= torch.tensor(padding, device=device)[:, None]).long()
    return torch.tensor(padded, device=device), attention_BT


def _kept(rows: Sequence[int], going: Collection[int], *, blocks: int) -> list[int]:
    """The places of the rows that go on. Blocks stay of equal size: ended rows fill those that have fewer left."""
    size = len(rows) // blocks
    places = [range(block * size, (block + 1) * size) for block in range(blocks)]
    most = max(sum(rows[place] in going for place in block) for block in places)
    return [place for block in places for place in sorted(block, key=lambda place: rows[place] not in going)[:most]]
