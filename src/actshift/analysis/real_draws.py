"""Examples for the theory ledger from a loaded model: its weights and hidden states in place of random ones.

Shapes: D width, M inner width, N tokens. Columns are tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from actshift.analysis.activations import batch_of, record, tokens_BT
from actshift.analysis.theory.networks import weights
from actshift.analysis.theory.statements import Draw, Example, Sizes
from actshift.errors import ActshiftError
from actshift.models.loading import Base
from actshift.runtime.session import Session, set_threads
from actshift.schema.analysis import TheoryConfig
from actshift.schema.config import Config

TOKENS = 3
"""Tokens of an example, in multiples of the width: more than a matrix can fit."""
OF_STREAMS = ("theorem_3_1", "post_block_more_expressive")
OF_WEIGHTS = ("expansion_glu_input", "expansion_glu_weights", "difference_is_the_down_term", "takeaway_1")


def families(config: Config) -> dict[str, dict[str, Draw]]:
    """By statement, a family "activations of MODEL": a layer drawn at random, and tokens of it.

    Statements about sites take what an MLP adds (X) and what stands before it (Y), those about a GLU its weights and a
    normed hidden state. Errors: a model whose MLP has another activation than SiLU.
    """
    set_threads(config.hardware)
    session = Session()
    base = session.base(config)
    activation = getattr(base.model.config, "hidden_act", None)
    if activation != "silu":
        raise ActshiftError(
            f"model {config.model.name} has the activation {activation}; the ledger's examples from a model are "
            "of GLUs with SiLU, as in Llama and Qwen 3: name such a model, or set analysis.activations=false."
        )
    batch = batch_of(config, base, rows=config.analysis_as(TheoryConfig).rows, session=session)
    _, seen = record(base, batch, sites=("post_block", "post_mlp", "pre_mlp"))
    mask_BT = tokens_BT(batch)
    columns = {place: h_BTD[mask_BT].double().cpu().numpy().T for place, h_BTD in seen.items()}
    name = f"activations of {config.model.name}"
    streams, glus = _streams(base, columns), _glus(base, columns)
    return {statement: {name: streams} for statement in OF_STREAMS} | {
        statement: {name: glus} for statement in OF_WEIGHTS
    }


def _streams(base: Base, columns: Mapping[tuple[str, int], np.ndarray]) -> Draw:
    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        layer = int(rng.integers(base.sites.layers))
        x, block = columns["post_mlp", layer], columns["post_block", layer]
        chosen = rng.choice(x.shape[1], size=min(x.shape[1], TOKENS * len(x)), replace=False)
        return {"A": weights(rng, len(x), len(x)), "X": x[:, chosen], "Y": (block - x)[:, chosen]}

    return draw


def _glus(base: Base, columns: Mapping[tuple[str, int], np.ndarray]) -> Draw:
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    matrices = [
        {name: _weight(base, layer, module) for name, module in names.items()} for layer in range(base.sites.layers)
    ]

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        layer = int(rng.integers(base.sites.layers))
        inputs, own = columns["pre_mlp", layer], matrices[layer]
        changes = {f"d_{name}": weights(rng, *matrix.shape) for name, matrix in own.items()}
        h = inputs[:, rng.integers(inputs.shape[1])]
        step = rng.standard_normal(len(h)) * np.linalg.norm(h) / np.sqrt(len(h))
        return {**own, **changes, "h": h, "step": step, "activation": "silu"}

    return draw


def _weight(base: Base, layer: int, module: str) -> np.ndarray:
    weight = base.sites.module("post_mlp", layer).get_submodule(module).weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().double().cpu().numpy()
