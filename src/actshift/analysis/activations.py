"""Hidden states of a model on the rows of a data set.

Shapes: B rows, T tokens, D width, N the tokens that are no padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from actshift.errors import ActshiftError
from actshift.models.architectures import site_names
from actshift.models.loading import Base
from actshift.models.packing.forward_pass import ForwardPass
from actshift.models.sites import Change
from actshift.runtime.session import Session
from actshift.runtime.train import training_examples
from actshift.schema.analysis import OracleConfig
from actshift.schema.config import Config
from actshift.store.adapters import load_adapter
from actshift.training.batches import Batch, collate

Places = dict[tuple[str, int], torch.Tensor]
"""Hidden states by site and layer."""


SINK = 10.0
"""A token whose hidden state is so many times the median norm is an attention sink."""


def batch_of(config: Config, base: Base, *, rows: int, session: Session, split: str = "train") -> Batch:
    """The first rows of a split of a configuration's data as one batch, answers included."""
    examples = training_examples(session.split(config, split), config=config, tokenizer=base.tokenizer, cache=None)
    return collate([examples[row] for row in range(min(rows, len(examples)))], pad_id=base.pad_id, device=base.device)


def tokens_BT(batch: Batch) -> torch.Tensor:
    """True where a token is no padding."""
    return batch.prompt_BT | batch.answer_BT


def contribution_site(base: Base) -> str:
    """The site of what the MLP adds to the residual stream: after the norm that some models have there."""
    return "post_mlp_norm" if "post_mlp_norm" in site_names(base.sites.architecture) else "post_mlp"


def token_sets(places: Places, mask_BT: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tokens by name: "all" of a mask and, where there are attention sinks among them, those "without sinks".

    A sink is a token whose block output has more than `SINK` times the median norm, in some layer.
    """
    sink_BT = torch.zeros_like(mask_BT)
    for (site, _), h_BTD in places.items():
        if site == "post_block":
            norm_BT = h_BTD.norm(dim=-1)
            sink_BT |= mask_BT & (norm_BT > SINK * norm_BT[mask_BT].median())
    return {"all": mask_BT} | ({"without sinks": mask_BT & ~sink_BT} if sink_BT.any() else {})


def noting(seen: Places, place: tuple[str, int]) -> Change:
    """A change that changes nothing and keeps the hidden state."""

    def note(h_BTD: torch.Tensor) -> torch.Tensor:
        seen[place] = h_BTD.clone()
        return h_BTD

    return note


@torch.no_grad()
def record(base: Base, batch: Batch, *, sites: tuple[str, ...]) -> tuple[torch.Tensor, Places]:
    """The logits of a batch, and the hidden states at some sites of every layer."""
    seen: Places = {}
    with ExitStack() as hooks:
        for site in sites:
            for layer in range(base.sites.layers):
                hooks.callback(base.sites.hook(site, layer, noting(seen, (site, layer))).remove)
        return base.model(input_ids=batch.ids_BT).logits, seen


@torch.no_grad()
def overwritten(base: Base, batch: Batch, values: Places, *, added: bool = False) -> torch.Tensor:
    """The logits of a batch with the hidden states of some places replaced or, `added`, with the values added."""

    def change(value_BTD: torch.Tensor) -> Change:
        return lambda h_BTD: h_BTD + value_BTD if added else value_BTD

    with ExitStack() as hooks:
        for (site, layer), value_BTD in values.items():
            hooks.callback(base.sites.hook(site, layer, change(value_BTD)).remove)
        logits: torch.Tensor = base.model(input_ids=batch.ids_BT).logits
    return logits


@contextmanager
def tuned(base: Base, batch: Batch, analysis: OracleConfig) -> Iterator[None]:
    """The base model with an adapter attached or, without one, with every weight of its layers changed at random.

    A random change has the relative size `analysis.change` in each weight matrix. Afterwards the model is as before.
    """
    if analysis.adapter is None:
        with _changed(base, size=analysis.change, seed=analysis.seed):
            yield
        return
    adapter = load_adapter(analysis.adapter)
    if adapter.description.diverged:
        raise ActshiftError(f"the training of the adapter in {analysis.adapter} diverged: there is nothing to see.")
    adaptation = adapter.attach(base)
    try:
        adaptation.begin_pass(ForwardPass(batch.prompt_BT))
        yield
    finally:
        adaptation.detach()


@contextmanager
def _changed(base: Base, *, size: float, seed: int) -> Iterator[None]:
    generator = torch.Generator().manual_seed(seed)
    layers = [base.sites.module("post_block", layer) for layer in range(base.sites.layers)]
    weights = [weight for layer in layers for weight in layer.parameters()]
    before = [weight.detach().clone() for weight in weights]
    try:
        for weight in weights:
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.data += size * noise * weight.norm() / noise.norm()
        yield
    finally:
        for weight, old in zip(weights, before, strict=True):
            weight.data.copy_(old)
