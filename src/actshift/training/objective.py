"""What a training step minimizes: the contract that the loop knows, and SFT, which follows it.

Shapes: A replicas, S rows of each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from transformers import PreTrainedModel

from actshift.data.examples import Example
from actshift.errors import ActshiftError
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.models.packing.last_layer import packed_passes
from actshift.observe.profiling import phase
from actshift.training.batches import Batch, answer_losses, answer_tokens, collate, micro_batches


class Objective(ABC):
    """The loss of a step's rows, of each of A replicas by itself.

    A step of the loop is: `prepare`, then `updates` times `backward` and an optimizer step.
    """

    updates: int = 1

    def passes(self) -> AbstractContextManager[None]:
        """What all steps of a training are within."""
        return nullcontext()

    @abstractmethod
    def prepare(self, blocks: Sequence[Sequence[Example]], *, step: int) -> None:
        """Take the rows of step `step` (1, 2, ...), a block of S a replica.

        What is drawn must follow from the replica's seed and `step` alone, so that a resumed run equals another.
        """

    @abstractmethod
    def backward(self, update: int, *, alive: Sequence[int]) -> list[float]:
        """The loss of each replica on what was prepared, and its gradients in the parameters of those `alive`."""

    def measured(self, replica: int) -> Mapping[str, float]:
        """What this step measured of a replica beside its loss, by name."""
        return {}

    @abstractmethod
    def watch(self, rows: Sequence[Example]) -> list[float]:
        """A figure of each replica on validation rows, nothing being trained."""


class Supervised(Objective):
    """SFT: the mean negative log-likelihood (nats) of the answer tokens of a step, whatever the micro-batches."""

    def __init__(self, base: Base, adaptation: Adaptation, *, micro_batch: int) -> None:
        self._base, self._adaptation, self._micro_batch = base, adaptation, micro_batch
        self._blocks: Sequence[Sequence[Example]] = []

    def passes(self) -> AbstractContextManager[None]:
        # A backward pass that recomputes is a packed pass again, so all steps are within `packed_passes`.
        return packed_passes(self._base)

    def prepare(self, blocks: Sequence[Sequence[Example]], *, step: int) -> None:
        self._blocks = blocks

    def backward(self, update: int, *, alive: Sequence[int]) -> list[float]:
        # A step whose rows lost every answer token (cut by the protocol's length) has a loss and gradients of zero.
        tokens_A = torch.tensor([max(answer_tokens(block), 1) for block in self._blocks], device=self._base.device)
        total_A = torch.zeros(len(self._blocks), dtype=torch.float64, device=self._base.device)
        for batch in batches(self._base, self._blocks, size=self._micro_batch):
            with phase("forward"):
                loss_A = answer_losses(self._base, self._adaptation, batch).sum(1)
            refuse_constant(loss_A, self._adaptation)
            with phase("backward"):
                (loss_A / tokens_A)[list(alive)].sum().backward()
            total_A += loss_A.detach()
        losses: list[float] = (total_A / tokens_A).tolist()
        return losses

    def watch(self, rows: Sequence[Example]) -> list[float]:
        return mean_loss(self._base, self._adaptation, rows=rows, micro_batch=self._micro_batch)


def refuse_constant(loss_A: torch.Tensor, adaptation: Adaptation) -> None:
    """Refuse a loss that no parameter of the method changes: nothing would be trained."""
    if not loss_A.requires_grad:
        raise ActshiftError(
            f"the loss depends on no parameter of {type(adaptation).__name__}: its parameters change nothing in the "
            "model's forward pass. Register hooks that use them, and compute with them outside of torch.no_grad()."
        )


@torch.no_grad()
def mean_loss(base: Base, adaptation: Adaptation, *, rows: Sequence[Example], micro_batch: int) -> list[float]:
    """Mean negative log-likelihood per answer token (nats) of some rows by each replica, nothing being trained."""
    blocks = [rows] * adaptation.replicas
    total_A = torch.zeros(len(blocks), dtype=torch.float64, device=base.device)
    with model_mode(base.model, training=False):
        for batch in batches(base, blocks, size=micro_batch):
            total_A += answer_losses(base, adaptation, batch).sum(1)
    means: list[float] = (total_A / max(answer_tokens(rows), 1)).tolist()
    return means


def batches(base: Base, blocks: Sequence[Sequence[Example]], *, size: int) -> Iterator[Batch]:
    """Micro-batches of at most `size` rows of each block."""
    for rows in micro_batches(blocks, most=size):
        with phase("data"):
            batch = collate(rows, pad_id=base.pad_id, device=base.device)
        yield batch


@contextmanager
def model_mode(model: PreTrainedModel, *, training: bool) -> Iterator[None]:
    """Training mode, in which dropout acts, or evaluation mode, in which a base model otherwise is."""
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
