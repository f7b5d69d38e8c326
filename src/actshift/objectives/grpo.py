"""GRPO as an objective of the training loop: roll out, reward, and take the gradients of the loss.

Shapes: A replicas, S completions of a replica, N completion tokens of a micro-batch.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from actshift.data.examples import Example
from actshift.evaluation.answers import continuation_text
from actshift.evaluation.sampling import greedy
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.last_layer import packed_passes
from actshift.objectives.loss import TokenLosses, advantages, silent, token_losses, token_weights
from actshift.objectives.rewards import Completion, chosen, rewards_of, total
from actshift.objectives.rollouts import Rollout, roll_out
from actshift.observe.profiling import phase
from actshift.schema.objective import GrpoConfig
from actshift.tasks.base import Task
from actshift.training.batches import Batch, answer_logits, collate, pack_batch
from actshift.training.objective import Objective, model_mode, refuse_constant


@dataclass(frozen=True)
class Settings:
    """What a training by GRPO takes beside the model: a resolved objective config, the task, seeds by replica.

    A completion ends at one of the `ends`. At most `micro_batch` completions of each replica go through the model at
    once in an update, all of one prompt, and at most `batch_tokens` prompt tokens are in one batch of rollouts.
    """

    objective: GrpoConfig
    task: Task
    seeds: Sequence[int]
    ends: Collection[int]
    micro_batch: int
    batch_tokens: int


@dataclass(frozen=True)
class Scored(Rollout):
    """A rollout with what its loss needs: its advantage, what each of its tokens counts, and its place in the step.

    `signal` says that its group has completions of different rewards.
    """

    advantage: float
    signal: bool
    weight: float
    place: int


class Grpo(Objective):
    """The clipped policy-gradient of sampled completions, compared within their groups (`actshift.objectives.loss`).

    The old policy's log-probabilities are those of a teacher-forced pass before the first update; how far the sampled
    ones are from them is measured. The reference is the policy before training.
    """

    def __init__(self, base: Base, adaptation: Adaptation, settings: Settings) -> None:
        self._base, self._adaptation, self._settings = base, adaptation, settings
        self._config = settings.objective
        self.updates = self._config.updates
        self._weights = chosen(self._config.rewards.by_name())
        self._blocks: list[list[Scored]] = []
        self._old: dict[int, torch.Tensor] = {}
        self._reference: dict[int, torch.Tensor] = {}
        self._measures: list[dict[str, float]] = []
        self._sums: list[dict[str, float]] = []
        # Attached and not trained yet: a checkpoint is taken over later.
        self._first = [adaptation.state_dict(replica) for replica in self._replicas] if self._config.kl else []

    @property
    def _replicas(self) -> range:
        return range(self._adaptation.replicas)

    def prepare(self, blocks: Sequence[Sequence[Example]], *, step: int) -> None:
        started = time.perf_counter()
        with model_mode(self._base.model, training=False), phase("rollout"):
            rollouts = roll_out(
                self._base,
                self._adaptation,
                blocks,
                objective=self._config,
                copies=self._config.completions,
                seeds=self._settings.seeds,
                step=step,
                ends=self._settings.ends,
                batch_tokens=self._settings.batch_tokens,
            )
        self._measures = [defaultdict(float) for _ in self._replicas]
        self._sums = [defaultdict(float) for _ in self._replicas]
        self._old = {}
        with phase("reward"):
            self._blocks = [self._scored(own, replica, step=step) for replica, own in enumerate(rollouts)]
        self._reference = self._reference_logprobs() if self._config.kl else {}
        for measures in self._measures:
            measures["rollout_seconds"] = time.perf_counter() - started

    def _scored(self, rollouts: Sequence[Rollout], replica: int, *, step: int) -> list[Scored]:
        """The rollouts of a replica with their advantages, and what they measured."""
        completions = [self._completion(rollout) for rollout in rollouts]
        found = [rewards_of(each, self._settings.task, weights=self._weights) for each in completions]
        rewards = [total(each, weights=self._weights) for each in found]
        measures, count, group = self._measures[replica], len(rollouts), self._config.completions
        measures |= {f"reward_{name}": sum(each[name] for each in found) / count for name in self._weights}
        if self._config.shuffle_rewards:
            random.Random(f"{self._settings.seeds[replica]} {step}").shuffle(rewards)
        rewards_S = torch.tensor(rewards, dtype=torch.float64)
        advantages_S = advantages(rewards_S, group=group, scale_by_std=self._config.scale_by_std)
        lengths = [len(rollout.sampled) for rollout in rollouts]
        weights = token_weights(lengths, normalization=self._config.normalization, limit=self._config.max_new_tokens)
        tokens, silent_P = sum(lengths), silent(rewards_S, group=group)
        measures |= {
            "reward": sum(rewards) / count,
            "silent": float(silent_P.double().mean()),
            "length": tokens / count,
            "ended": sum(rollout.ended for rollout in rollouts) / count,
            "entropy": sum(sum(rollout.entropies) for rollout in rollouts) / tokens,
            "tokens": tokens,
        }
        return [
            Scored(
                **vars(rollout),
                advantage=advantage,
                signal=not silent_P[place // group],
                weight=weight,
                place=replica * count + place,
            )
            for place, (rollout, advantage, weight) in enumerate(
                zip(rollouts, advantages_S.tolist(), weights, strict=True)
            )
        ]

    def _completion(self, rollout: Rollout) -> Completion:
        text, tokens = continuation_text(self._base, rollout.answer), len(rollout.completion)
        return Completion(text, rollout.label, tokens, self._config.max_new_tokens, rollout.ended)

    @torch.no_grad()
    def _reference_logprobs(self) -> dict[int, torch.Tensor]:
        """By its place, the log-probabilities of each completion's tokens by the policy before training."""
        now = [self._adaptation.state_dict(replica) for replica in self._replicas]
        found: dict[int, torch.Tensor] = {}
        self._take(self._first)
        with model_mode(self._base.model, training=False), packed_passes(self._base):
            for batch in self._batches():
                found |= _by_place(batch, self._logprobs(batch))
        self._take(now)
        return found

    def _take(self, states: Sequence[Mapping[str, torch.Tensor]]) -> None:
        for replica, state in enumerate(states):
            self._adaptation.load_state_dict(state, replica)

    def backward(self, update: int, *, alive: Sequence[int]) -> list[float]:
        started = time.perf_counter()
        total_A = torch.zeros(len(self._blocks), dtype=torch.float64, device=self._base.device)
        with packed_passes(self._base):
            for batch in self._batches(all_groups=bool(self._config.kl)):
                with phase("forward"):
                    loss_A = self._losses(batch, self._logprobs(batch), first=update == 0)
                refuse_constant(loss_A, self._adaptation)
                with phase("backward"):
                    loss_A[list(alive)].sum().backward()
                total_A += loss_A.detach()
        for measures in self._measures:
            measures["update_seconds"] += time.perf_counter() - started
        losses: list[float] = total_A.tolist()
        return losses

    def _losses(self, batch: Batch, logprobs_N: torch.Tensor, *, first: bool) -> torch.Tensor:
        """loss_A of a micro-batch, the share of it in the loss of the step."""
        if first:
            self._old |= _by_place(batch, logprobs_N.detach())
        rows = _scored_rows(batch)
        old_N = torch.cat([self._old[row.place] for row in rows])
        found = token_losses(
            logprobs_N,
            old_N,
            _per_token([row.advantage for row in rows], batch, like=logprobs_N),
            clip_low=self._config.clip_low,
            clip_high=self._config.clip_high,
            kl=self._config.kl,
            reference_N=torch.cat([self._reference[row.place] for row in rows]) if self._reference else None,
        )
        apart_N = (old_N - old_N.new_tensor([each for row in rows for each in row.sampled])).abs() if first else None
        sizes = [sum(own) for own in _parts(batch.answer_lengths, self._adaptation.replicas)]
        self._note(found, apart_N, sizes=sizes)
        weights_N = _per_token([row.weight for row in rows], batch, like=logprobs_N)
        return torch.stack([each.sum() for each in (weights_N * found.loss_N).split(sizes)])

    def _note(self, found: TokenLosses, apart_N: torch.Tensor | None, *, sizes: Sequence[int]) -> None:
        """Add what the tokens of a micro-batch measure; `measured` makes means of the sums."""
        for replica, clipped_N in enumerate(found.clipped_N.split(list(sizes))):
            sums = self._sums[replica]
            sums["clip_share"] += float(clipped_N.sum())
            sums["passes"] += len(clipped_N)
            if found.divergence_N is not None:
                sums["kl"] += float(found.divergence_N.detach().split(list(sizes))[replica].sum())
            if apart_N is not None:
                own_N = apart_N.split(list(sizes))[replica]
                sums["mismatch"] += float(own_N.sum())
                sums["tokens"] += len(own_N)
                sums["mismatch_max"] = max(sums["mismatch_max"], float(own_N.max()))

    def measured(self, replica: int) -> Mapping[str, float]:
        sums = self._sums[replica]
        means = {
            "clip_share": sums["clip_share"] / sums["passes"],
            "mismatch": sums["mismatch"] / sums["tokens"],
            "mismatch_max": sums["mismatch_max"],
        }
        return self._measures[replica] | means | ({"kl": sums["kl"] / sums["passes"]} if self._config.kl else {})

    def _batches(self, *, all_groups: bool = True) -> Iterator[Batch]:
        """Micro-batches of completions of one prompt, whose tokens are then computed once for all of them.

        Unless `all_groups` are wanted, those without signal are left out: their gradients are 0. One batch there is.
        """
        group, most = self._config.completions, self._settings.micro_batch
        firsts = range(0, len(self._blocks[0]), group)
        wanted = [first for first in firsts if any(block[first].signal for block in self._blocks)] or firsts[:1]
        for first in firsts if all_groups else wanted:
            for start in range(first, first + group, most):
                end = min(start + most, first + group)
                rows = [row for block in self._blocks for row in block[start:end]]
                with phase("data"):
                    batch = collate(rows, pad_id=self._base.pad_id, device=self._base.device)
                yield batch

    def _logprobs(self, batch: Batch) -> torch.Tensor:
        """log p of each completion token of a micro-batch under the policy as it is, logprobs_N."""
        logits_NV = answer_logits(self._base, batch, pack_batch(self._adaptation, batch))
        return -cross_entropy(logits_NV / self._config.temperature, batch.answer_ids_N, reduction="none")

    def watch(self, rows: Sequence[Example]) -> list[float]:
        """The mean weighted reward of each replica's greedy completions."""
        with model_mode(self._base.model, training=False):
            found = roll_out(
                self._base,
                self._adaptation,
                [rows] * self._adaptation.replicas,
                objective=self._config,
                copies=1,
                seeds=self._settings.seeds,
                step=0,
                ends=self._settings.ends,
                batch_tokens=self._settings.batch_tokens,
                choose=greedy,
            )
        weights, task = self._weights, self._settings.task
        return [
            sum(total(rewards_of(self._completion(each), task, weights=weights), weights=weights) for each in own)
            / len(own)
            for own in found
        ]


def _scored_rows(batch: Batch) -> list[Scored]:
    return [row for row in batch.examples if isinstance(row, Scored)]


def _by_place(batch: Batch, values_N: torch.Tensor) -> dict[int, torch.Tensor]:
    """Values of the tokens of a micro-batch by the place of their completion in the step."""
    parts = values_N.split(batch.answer_lengths)
    return {row.place: part_T for row, part_T in zip(_scored_rows(batch), parts, strict=True)}


def _per_token(values: Sequence[float], batch: Batch, *, like: torch.Tensor) -> torch.Tensor:
    """A value of each completion at each of its tokens."""
    lengths = torch.tensor(batch.answer_lengths, device=like.device)
    return like.new_tensor(values).repeat_interleave(lengths)


def _parts(values: Sequence[int], parts: int) -> list[Sequence[int]]:
    """The values of each replica: blocks of equal size."""
    size = len(values) // parts
    return [values[start : start + size] for start in range(0, len(values), size)]
