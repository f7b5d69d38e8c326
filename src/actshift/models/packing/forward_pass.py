"""What a forward pass is about: the one thing that a method knows of it.

Shapes: A replicas, B rows of all replicas, T tokens, S chosen positions of a replica.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from actshift.models.packing.layout import PackedLayout, compact_true_indices


@dataclass(frozen=True)
class ForwardPass:
    """Which positions of a pass are prompt tokens, and how its rows lie in the hidden states.

    `prompt_BT` is True at prompt tokens and False at padding and answer tokens. It is None where no prompt token is in
    the pass: while decoding with a key/value cache.
    """

    prompt_BT: torch.Tensor | None
    layout: PackedLayout | None = None
    """None: hidden states are h_BTD. Otherwise the rows are packed, h_AND."""
    unchanged: bool = False
    """True for a pass of tokens whose changed copies are in a pass of their own (`Adaptation.changes_copies`)."""

    def positions(self, mask_BT: torch.Tensor, *, replicas: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where a mask of the rows is True, as indices into the flattened hidden states of this pass.

        index_AS counts through all replicas. Where a replica has fewer positions than another, others follow that are
        False in is_chosen_AS.
        """
        chosen = mask_BT if self.layout is None else self.layout.gather(mask_BT)
        return compact_true_indices(chosen.reshape(replicas, -1))

    def copies(self, *, replicas: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `positions`, of the changed copies; in a pass without copies, of the last position of each row."""
        if self.layout is None:
            assert self.prompt_BT is not None
            last_BT = torch.zeros_like(self.prompt_BT)
            last_BT[:, -1] = True
            return compact_true_indices(last_BT.reshape(replicas, -1))
        assert self.layout.is_copy_AN is not None, "a layout with copies, as `Adaptation.changes_copies` says"
        return compact_true_indices(self.layout.is_copy_AN)
