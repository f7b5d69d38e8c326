"""Generation in batches: prompts are read end to end, and then continue all together.

Shapes: B rows, T tokens of the longest prompt, H key/value heads, K head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache

from actshift.data.examples import Example
from actshift.evaluation import one_token
from actshift.evaluation.cache import Part, forgetting, rows_cache
from actshift.evaluation.limits import BLOCK_ROWS, BLOCK_SHORTEST, PROMPT_TOKENS
from actshift.evaluation.sampling import Choose, greedy
from actshift.methods.base import Adaptation
from actshift.models.arguments import cache_argument
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.packing.last_layer import packed_hidden
from actshift.training.batches import collate, head, pack_batch

Decided = Callable[[list[int]], bool]

CHECK_EVERY_TOKEN_UNTIL, CHECK_INTERVAL_TOKENS = 8, 8
"""Whether a row is decided is checked at each of the first tokens, then at every eighth: a check decodes text."""
COMPACT_BELOW_SHARE = 0.75
"""A batch drops its ended rows once at most this share is going on: dropping copies the cache."""


def length_batches(lengths: Sequence[int], *, tokens: int, padded: bool = True) -> Iterator[list[int]]:
    """Row numbers, longest first, in batches of at most `tokens` tokens (one row at least).

    A row counts as long as the longest of its batch where rows are `padded`.
    """
    batch: list[int] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        counted = lengths[batch[0]] if batch and padded else lengths[row]
        if batch and counted > room:
            yield batch
            batch, counted = [], lengths[row]
        room = (room if batch else tokens) - counted
        batch.append(row)
    if batch:
        yield batch


def row_blocks(lengths: Sequence[int]) -> list[slice]:
    """The rows cut into blocks of neighbours of about one length (`BLOCK_ROWS`, `BLOCK_SHORTEST`)."""
    (least, most), starts = BLOCK_ROWS, [0]
    for row, length in enumerate(lengths):
        block = lengths[starts[-1] : row]
        alike = not block or BLOCK_SHORTEST * max(*block, length) <= min(*block, length)
        if len(block) == most or (len(block) >= least and not alike):
            starts.append(row)
    return [slice(*pair) for pair in pairwise([*starts, len(lengths)])]


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
    choose: Choose = greedy,
) -> Iterator[tuple[int, list[int]]]:
    """The continuation of every prompt, as (row number, token ids), longest prompts first.

    `choose` gives each next token by the row's number: greedily, or drawn (`Sampled`). A row ends at one of the `ends`
    (the tokenizer's end token where none are given), which is not part of it, or after `max_new_tokens`, or once its
    continuation is `decided`. Rows continue from a key/value cache in which all prompts end at one position. Each of A
    replicas continues all N prompts: row a N + i is prompt i by replica a, and a batch of at most `batch_tokens` holds
    the same prompts for each.
    """
    stops = frozenset((base.tokenizer.eos_token_id,) if ends is None else ends)
    replicas = adaptation.replicas
    lengths = [len(prompt) for prompt in prompts]
    for batch in length_batches(lengths, tokens=batch_tokens // replicas, padded=not _in_blocks(base)):
        rows = [replica * len(prompts) + row for replica in range(replicas) for row in batch]
        chosen = [prompts[row] for row in batch] * replicas
        numbered = _numbered(choose, rows)
        new = continue_prompts(
            base, adaptation, chosen, max_new_tokens=max_new_tokens, ends=stops, decided=decided, choose=numbered
        )
        yield from zip(rows, new, strict=True)


def _numbered(choose: Choose, numbers: Sequence[int]) -> Choose:
    """The same choice, by the places of rows in a batch whose rows have these numbers."""
    return lambda logits_BV, places: choose(logits_BV, [numbers[place] for place in places])


@torch.inference_mode()
def continue_prompts(
    base: Base,
    adaptation: Adaptation,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    ends: Collection[int],
    decided: Decided | None = None,
    copies: int = 1,
    choose: Choose = greedy,
    keep_end: bool = False,
) -> list[list[int]]:
    """Continue one batch until every row has ended; rows that have leave the batch when enough of them have.

    Each prompt is computed once and continued `copies` times, its copies being neighbours in the result. `choose`
    takes every next token; the end token is a part of the continuation where `keep_end` says so.
    """
    state = _read(base, adaptation, prompts, new_tokens=max_new_tokens)
    if copies > 1:
        state.keep(torch.arange(len(prompts), device=base.device).repeat_interleave(copies))
    new: list[list[int]] = [[] for _ in range(len(prompts) * copies)]
    rows = list(range(len(new)))  # the rows that are in the batch still
    going = set(rows)
    adaptation.begin_pass(ForwardPass(None))
    for step in range(1, max_new_tokens + 1):
        ids_B = choose(state.logits_BV, rows)
        for row, token in zip(rows, ids_B.tolist(), strict=True):
            if row in going and (keep_end or token not in ends):
                new[row].append(token)
            if token in ends:
                going.discard(row)
        if decided is not None and (step <= CHECK_EVERY_TOKEN_UNTIL or step % CHECK_INTERVAL_TOKENS == 0):
            going -= {row for row in going if decided(new[row])}
        if not going or step == max_new_tokens:
            break
        kept = _kept(rows, going, blocks=adaptation.replicas)
        if len(kept) <= COMPACT_BELOW_SHARE * len(rows):
            rows = [rows[index] for index in kept]
            kept_B = torch.tensor(kept, device=base.device)
            state.keep(kept_B)
            ids_B = ids_B[kept_B]
        state.advance(base, adaptation, ids_B)
    return new


@torch.inference_mode()
def continuation_logprobs(
    base: Base,
    adaptation: Adaptation,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
) -> list[list[list[float]]]:
    """log p(continuation | prompt) in nats, by replica, of each of a prompt's continuations.

    It is the sum over the continuation's tokens of log p(token | what is before it). A prompt is computed once.
    """
    replicas, device = adaptation.replicas, base.device
    every = [ids for each in continuations for ids in each] * replicas
    longest = max(map(len, every))
    state = _read(base, adaptation, [*prompts] * replicas, new_tokens=longest)
    counts = torch.tensor([len(each) for each in continuations] * replicas, device=device)
    state.keep(torch.arange(len(counts), device=device).repeat_interleave(counts))
    ids_BT = torch.tensor([[*ids, *[base.pad_id] * (longest - len(ids))] for ids in every], device=device)
    length_B, logprob_B = torch.tensor([len(ids) for ids in every], device=device), torch.zeros(len(every))
    adaptation.begin_pass(ForwardPass(None))
    for step in range(longest):
        ids_B = ids_BT[:, step]
        found_B = state.logits_BV.float().log_softmax(dim=-1).gather(1, ids_B[:, None])[:, 0]
        logprob_B += torch.where(step < length_B, found_B, 0.0).cpu()
        if step + 1 < longest:
            state.advance(base, adaptation, ids_B)
    values = iter(logprob_B.tolist())
    return [[[next(values) for _ in each] for each in continuations] for _ in range(replicas)]


@dataclass
class _State:
    """A batch on its way: what its next tokens may be and where these stand, and what they attend to."""

    logits_BV: torch.Tensor
    position_B1: torch.Tensor
    attention_BT: torch.Tensor
    """1 at tokens, 0 at the padding before them, the next tokens not among them."""
    cache: DynamicCache

    def keep(self, kept_B: torch.Tensor) -> None:
        self.cache.batch_select_indices(kept_B)
        self.logits_BV, self.position_B1 = self.logits_BV[kept_B], self.position_B1[kept_B]
        self.attention_BT = self.attention_BT[kept_B]

    def advance(self, base: Base, adaptation: Adaptation, ids_B: torch.Tensor) -> None:
        """Take the tokens that were chosen in, and let the next ones follow.

        Where a method changes copies, the changed tokens predict, and the tokens as they are stay in the cache.
        """
        self.attention_BT = torch.cat([self.attention_BT, torch.ones_like(ids_B)[:, None]], dim=1)
        newest = ids_B[:, None], self.attention_BT, self.position_B1, self.cache
        if adaptation.changes_copies:
            with forgetting(self.cache):
                self.logits_BV = _next(base, *newest)
            adaptation.begin_pass(ForwardPass(None, unchanged=True))
            _next(base, *newest)
            adaptation.begin_pass(ForwardPass(None))
        else:
            self.logits_BV = _next(base, *newest)
        self.position_B1 = self.position_B1 + 1


def _read(base: Base, adaptation: Adaptation, prompts: Sequence[Sequence[int]], *, new_tokens: int) -> _State:
    """The state of a batch after its prompts, which are computed end to end, as many at a time as suit the device."""
    replicas, device = adaptation.replicas, base.device
    size = len(prompts) // replicas
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    logits_BV = torch.empty(len(prompts), base.model.get_output_embeddings().out_features, device=device)
    parts: list[Part] = []
    for group in _groups([len(prompt) for prompt in prompts[:size]], tokens=PROMPT_TOKENS[device.type] // replicas):
        indices = [replica * size + row for replica in range(replicas) for row in group]
        chosen = [Example(list(prompts[index]), len(prompts[index]), label="") for index in indices]
        batch, cache = collate(chosen, pad_id=base.pad_id, device=device), DynamicCache()
        packing = pack_batch(adaptation, batch)
        hidden_AND = packed_hidden(base, batch.ids_BT, packing, cache=cache)
        last_B = packing.predictor_BT[:, -1]  # where rows are padded, their last token stands again
        logits_BV[indices] = head(base.model, hidden_AND.flatten(0, 1)[last_B])
        parts.append(Part(indices, packing, lengths_B[indices], cache))
    longest = int(lengths_B.max())
    attention_BT = (torch.arange(longest, device=device) >= longest - lengths_B[:, None]).long()
    blocks = row_blocks([len(prompt) for prompt in prompts]) if _in_blocks(base) else [slice(0, len(prompts))]
    whole = rows_cache(parts, config=base.model.config, lengths_B=lengths_B, new_tokens=new_tokens, blocks=blocks)
    return _State(logits_BV, lengths_B[:, None], attention_BT, whole)


def _in_blocks(base: Base) -> bool:
    """Whether keys and values of a batch lie in blocks of rows, almost without padding.

    Only attention of one token takes them so, and layers with a sliding window hold all rows in one tensor.
    """
    return one_token.suits(base) and not any(DynamicCache(config=base.model.config).is_sliding)


def _groups(lengths: Sequence[int], *, tokens: int) -> list[list[int]]:
    """Row numbers in groups of at most so many tokens in all (one row at least), rows of about one length together."""
    groups: list[list[int]] = []
    room = 0
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if lengths[row] > room or not groups:
            groups.append([])
            room = tokens
        groups[-1].append(row)
        room -= lengths[row]
    return groups


def _next(
    base: Base,
    ids_B1: torch.Tensor,
    attention_BT: torch.Tensor,
    position_B1: torch.Tensor,
    cache: DynamicCache,
) -> torch.Tensor:
    """logits_BV of the tokens to follow."""
    options: dict[str, Any] = {"position_ids": position_B1, "use_cache": True, cache_argument(base.model): cache}
    if one_token.suits(base):
        hidden_BT = one_token.hidden(attention_BT, dtype=base.model.dtype)
        with one_token.one_token_passes(base):
            found = base.model(input_ids=ids_B1, hidden_BT=hidden_BT, **options)
    else:
        found = base.model(input_ids=ids_B1, attention_mask=attention_BT, **options)
    logits_BV: torch.Tensor = found.logits[:, -1]
    return logits_BV


def _kept(rows: Sequence[int], going: Collection[int], *, blocks: int) -> list[int]:
    """The indices of the rows that go on. Blocks stay of equal size: ended rows fill those that have fewer left."""
    size = len(rows) // blocks
    indices = [range(block * size, (block + 1) * size) for block in range(blocks)]
    most = max(sum(rows[index] in going for index in block) for block in indices)
    kept = [index for block in indices for index in sorted(block, key=lambda index: rows[index] not in going)[:most]]
    return sorted(kept)
