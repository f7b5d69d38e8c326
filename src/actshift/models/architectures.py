"""The map from architectures to their intervention sites, as names alone: configs are checked against it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Site:
    """A module below a decoder layer (the layer itself where `path` is empty) and the side of it that changes."""

    path: str
    side: str = "output"


@dataclass(frozen=True)
class Architecture:
    """What transformers calls a family of models, where it keeps its decoder layers, and its sites below each."""

    type: str
    layers: str
    sites: dict[str, Site]
    tied: bool
    """Whether its embeddings are also its head where a config.json does not say so."""
    tokenwise: tuple[str, ...] = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
    """Modules below a layer that take tokens one by one, and whose result at a token no other token looks at."""


_LLAMA = Architecture(
    type="llama",
    tied=False,
    layers="model.layers",
    sites={
        "post_block": Site(""),
        "post_mlp": Site("mlp"),
        "pre_mlp": Site("post_attention_layernorm"),
        "attn_out": Site("self_attn"),
        "heads": Site("self_attn.o_proj", side="input"),
    },
)

ARCHITECTURES = {
    "llama": _LLAMA,
    "qwen3": replace(_LLAMA, type="qwen3"),
    # Gemma 3 norms the outputs of attention and MLP once more before each addition.
    "gemma3": Architecture(
        type="gemma3_text",
        tied=True,
        layers="model.layers",
        sites={
            **_LLAMA.sites,
            "pre_mlp": Site("pre_feedforward_layernorm"),
            "post_mlp_norm": Site("post_feedforward_layernorm"),
        },
    ),
}
"""One entry a family; a new architecture is a new entry and nothing else."""


def site_names(architecture: str) -> tuple[str, ...]:
    """The sites that an architecture has."""
    return tuple(ARCHITECTURES[architecture].sites)
