"""The intervention sites of a loaded model: where in a decoder a change can act.

Shapes: B batch, T tokens, D width of the site (the model's width, or heads x head size at `heads`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from actshift.errors import ActshiftError, unknown
from actshift.models.architectures import ARCHITECTURES, projection_names

Change = Callable[[torch.Tensor], torch.Tensor]


class Sites:
    """The sites of one loaded model."""

    def __init__(self, model: PreTrainedModel, *, architecture: str) -> None:
        if architecture not in ARCHITECTURES:
            raise unknown("architecture", architecture, ARCHITECTURES, where="conf/model/*.yaml")
        self._map = ARCHITECTURES[architecture]
        self._layers: list[nn.Module] = list(_submodule(model, self._map.layers).children())
        self.architecture = architecture
        self.layers = len(self._layers)
        config = model.config
        self.model_width: int = config.hidden_size
        self.heads: int = config.num_attention_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def width(self, site: str) -> int:
        """D of the hidden state at a site."""
        return self.heads * self.head_size if site == "heads" else self.model_width

    def module(self, site: str, layer: int) -> nn.Module:
        """The module that carries a site in one layer."""
        if site not in self._map.sites:
            raise unknown("site", site, self._map.sites, where=f"method.site (architecture {self.architecture})")
        return _submodule(self._layers[layer], self._map.sites[site].path)

    def beside(self, site: str, layer: int) -> tuple[list[nn.Linear], str]:
        """The matrices of a layer whose output, or whose input, is a site, and which of the two it is.

        Errors: a site that has none, since a norm or a sum is between it and every matrix.
        """
        self.module(site, layer)
        found = self._map.beside.get(site)
        if found is None:
            raise ActshiftError(
                f"what acts at {site} of architecture {self.architecture} cannot be folded into weights: a norm stands "
                f"between the site and every matrix. Possible there: {', '.join(self._map.beside)}."
            )
        whole = projection_names([path.rpartition(".")[-1] for path in found.paths], self._map.fused)
        folder = found.paths[0].rpartition(".")[0]
        modules = [_submodule(self._layers[layer], f"{folder}.{name}") for name in whole]
        return cast(list[nn.Linear], modules), found.side

    @property
    def last(self) -> tuple[nn.Module, list[nn.Module]]:
        """The last decoder layer, and its modules whose result at a token matters for that token alone."""
        layer = self._layers[-1]
        return layer, [_submodule(layer, path) for path in self._map.tokenwise]

    def hook(self, site: str, layer: int, change: Change) -> RemovableHandle:
        """Replace the hidden state h_BTD at a site by ``change(h_BTD)`` in every forward pass until removed."""
        module = self.module(site, layer)
        if self._map.sites[site].side == "input":
            return module.register_forward_pre_hook(lambda _, inputs: (change(inputs[0]), *inputs[1:]))

        def replace(_: nn.Module, __: object, output: object) -> object:
            if isinstance(output, tuple):
                return (change(output[0]), *output[1:])
            assert isinstance(output, torch.Tensor)
            return change(output)

        return module.register_forward_hook(replace)


def _submodule(module: nn.Module, path: str) -> nn.Module:
    """`module.get_submodule(path)`, with an error that lists what there is where the path breaks off."""
    for step in path.split(".") if path else ():
        children = dict(module.named_children())
        if step not in children:
            raise ActshiftError(
                f"{type(module).__name__} has no module '{step}' (of path '{path}'). It has: {', '.join(children)}. "
                "Correct the architecture's entry in actshift/models/architectures.py, or model.architecture."
            )
        module = children[step]
    return module
