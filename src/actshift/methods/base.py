"""The method contract: what the training loop and the evaluation know of a method, and all they know.

Shapes: A replicas, B rows of one replica, T tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from actshift.errors import ActshiftError
from actshift.models.packing.forward_pass import ForwardPass


class Adaptation(ABC):
    """A method attached to a base model: its parameters live here, its effect in the model's forward pass.

    Attached over the replica axis, it holds A independent adapters of one kind, and every batch that goes through
    the model is A blocks of equal size, block a changed by adapter a alone. A = 1 is the ordinary case.

    The base model is in training mode during the forward pass of a training step, and in evaluation mode otherwise.
    """

    replicas: int = 1

    @abstractmethod
    def named_parameters(self, replica: int = 0) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that train, of one replica, by a name that is stable between processes."""

    def named_buffers(self, replica: int = 0) -> Iterator[tuple[str, torch.Tensor]]:
        """What is saved beside the parameters of one replica: it changes or is drawn, and does not train."""
        yield from ()

    @abstractmethod
    def detach(self) -> None:
        """Take the method off: the base model is bit for bit what it was before `attach`."""

    def fold(self) -> None:
        """Put the change into the base model's own weights for good and take the method off: it then costs nothing.

        The base model computes what it computed with the method, within rounding of its weights. Errors: a change
        that no weights can make exactly; the message says why, and nothing has changed.
        """
        raise ActshiftError(f"{type(self).__name__} cannot be folded into weights: keep it as an adapter")

    def begin_pass(self, forward_pass: ForwardPass) -> None:  # noqa: B027 (most methods need not know)
        """Called before each forward pass: which positions of its rows are prompt tokens (bool), None for none of them.

        Padding and answer tokens are False. While decoding with a key/value cache, the prompt is not in the pass.
        With a `packing`, the pass has these rows end to end.
        """

    def shared_prefix_length(self, prompt_BT: torch.Tensor) -> int:
        """How many first positions the method changes equally in all rows: equal tokens there are computed once."""
        return prompt_BT.shape[1]

    def begin(self, *, steps: int, steps_per_epoch: int) -> None:  # noqa: B027
        """Called once before training, a resumed one too: how many steps there will be, and how many an epoch has."""

    def before_step(self, step: int) -> None:  # noqa: B027
        """Called before the forward passes of step `step` (1, 2, ...), however many micro-batches it has.

        What is drawn for a step must follow from the replica's seed and `step` alone: a resumed run then equals an
        uninterrupted one, and replicas trained together equal the same ones trained apart.
        """

    def penalty(self, step: int) -> torch.Tensor | None:
        """A term added to the loss of a step, summed over the replicas, or None."""
        return None

    def after_step(self, step: int, losses: Sequence[float] = ()) -> None:  # noqa: B027
        """Called after each optimizer step, `step` steps having been done; `losses` has the step's, one a replica."""

    def parameter_groups(self, *, lrs: tuple[float, ...]) -> list[dict]:
        """The optimizer's groups: one a replica, each at its own learning rate."""
        return [
            {"params": [parameter for _, parameter in self.named_parameters(replica)], "lr": lr}
            for replica, lr in enumerate(lrs)
        ]

    def trainable_parameters(self) -> int:
        """How many numbers one replica trains."""
        return sum(parameter.numel() for _, parameter in self.named_parameters())

    def state_dict(self, replica: int = 0) -> dict[str, torch.Tensor]:
        """What training changed, by name: enough to have the adapted model back on the same base."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self._saved(replica).items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, torch.Tensor], replica: int = 0) -> None:
        """Take a saved state over; names and shapes must be exactly this method's.

        Errors: what is missing, unexpected or of another shape, by name.
        """
        expected = self._saved(replica)
        wrong = [f"missing {name}" for name in expected.keys() - state.keys()]
        wrong += [f"unexpected {name}" for name in state.keys() - expected.keys()]
        wrong += [
            f"{name} has shape {tuple(state[name].shape)}, not {tuple(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ]
        if wrong:
            listed = "; ".join(sorted(wrong)[:5])
            raise ActshiftError(f"this adapter does not fit the method and base model it is loaded into: {listed}")
        for name, tensor in expected.items():
            tensor.copy_(state[name])

    def _saved(self, replica: int) -> dict[str, torch.Tensor]:
        return {**dict(self.named_parameters(replica)), **dict(self.named_buffers(replica))}
