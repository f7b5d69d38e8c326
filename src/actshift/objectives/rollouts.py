"""Rollouts: completions sampled from the policy as it is, with what their loss will need.

Shapes: A replicas, B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from actshift.data.examples import Example
from actshift.evaluation.generation import continue_prompts, length_batches
from actshift.evaluation.sampling import Choose
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.objectives.sampling import Sampler, uniforms
from actshift.schema.objective import GrpoConfig


@dataclass(frozen=True)
class Rollout(Example):
    """A prompt and a sampled completion, which ends in its end token where it `ended` by itself.

    `sampled` and `entropies` have, for each completion token, its log-probability and the policy's entropy (nats) when
    it was drawn.
    """

    ended: bool
    sampled: tuple[float, ...]
    entropies: tuple[float, ...]

    @property
    def completion(self) -> list[int]:
        return self.ids[self.prompt_length :]

    @property
    def answer(self) -> list[int]:
        """The completion without its end token."""
        return self.completion[:-1] if self.ended else self.completion


def roll_out(
    base: Base,
    adaptation: Adaptation,
    blocks: Sequence[Sequence[Example]],
    *,
    objective: GrpoConfig,
    copies: int,
    seeds: Sequence[int],
    step: int,
    ends: Collection[int],
    batch_tokens: int,
    choose: Choose | None = None,
) -> list[list[Rollout]]:
    """So many completions (`copies`) of the rows of each replica, those of a row next to each other.

    Each completion has random numbers that follow from its replica's seed, the step, its row's place in the step and
    its own number, unless `choose` takes its tokens in another way. A batch has at most `batch_tokens` prompt tokens,
    each prompt counted once a completion.
    """
    limit = objective.max_new_tokens
    prompts = [[row.ids[: row.prompt_length] for row in block] for block in blocks]
    longest = [max(map(len, of_row)) for of_row in zip(*prompts, strict=True)]
    found: list[dict[int, list[Rollout]]] = [{} for _ in blocks]
    for batch in length_batches(longest, tokens=batch_tokens // (len(blocks) * copies)):
        draws = [
            uniforms(seeds[replica], step, row, copy, count=limit)
            for replica in range(len(blocks))
            for row in batch
            for copy in range(copies)
        ]
        sampler = Sampler(
            torch.from_numpy(np.stack(draws)).to(base.device),
            temperature=objective.temperature,
            top_p=objective.top_p,
        )
        new = continue_prompts(
            base,
            adaptation,
            [prompts[replica][row] for replica in range(len(blocks)) for row in batch],
            max_new_tokens=limit,
            ends=ends,
            copies=copies,
            choose=choose or sampler,
            keep_end=True,
        )
        logprobs, entropies = sampler.logprobs_BT.tolist(), sampler.entropies_BT.tolist()
        for index, ids in enumerate(new):
            replica, place = divmod(index // copies, len(batch))
            example = blocks[replica][batch[place]]
            rollout = Rollout(
                ids=[*prompts[replica][batch[place]], *ids],
                prompt_length=example.prompt_length,
                label=example.label,
                ended=ids[-1] in ends,
                sampled=tuple(logprobs[index][: len(ids)]),
                entropies=tuple(entropies[index][: len(ids)]),
            )
            found[replica].setdefault(batch[place], []).append(rollout)
    return [[each for row in sorted(own) for each in own[row]] for own in found]
