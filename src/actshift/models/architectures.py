"""The map from architectures to their intervention sites, as names alone: configs are checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Site:
    """A module below a decoder layer (the layer itself where `path` is empty) and the side of it that changes."""

    path: str
    side: str = "output"


@dataclass(frozen=True)
class Beside:
    """The matrices below a layer whose `side` is a site: its whole output, or input that nothing else takes."""

    paths: tuple[str, ...]
    side: str


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
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Projections that are one matrix: its name, and the names that they have in other architectures."""
    beside: Mapping[str, Beside] = field(default_factory=dict)
    """By site, the matrices beside it. At `post_block`: the one whose bias is added to the output of the block."""
    norms: int = 2
    """Norms of the model's width in a layer."""
    norms_queries: bool = False
    """Whether queries and keys are normed, head by head."""
    norm_scales_float32: bool = False
    """Whether norms multiply by their scales in float32, whatever the precision."""


_BESIDE = {
    "post_mlp": Beside(("mlp.down_proj",), "output"),
    "pre_mlp": Beside(("mlp.gate_proj", "mlp.up_proj"), "input"),
    "attn_out": Beside(("self_attn.o_proj",), "output"),
    "heads": Beside(("self_attn.o_proj",), "input"),
}
"""Where a norm follows the MLP, as in Gemma 3 and OLMo 2, no matrix is beside the block's output."""

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
    beside={**_BESIDE, "post_block": Beside(("mlp.down_proj",), "output")},
)

ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": replace(_LLAMA, type="mistral"),
    "qwen2": replace(_LLAMA, type="qwen2"),
    # Every fourth layer of SmolLM3 has no rotary embedding.
    "smollm3": replace(_LLAMA, type="smollm3", tied=True),
    # Phi-3 has queries, keys and values in one matrix, and gate and up in another.
    "phi3": replace(
        _LLAMA,
        type="phi3",
        tokenwise=("self_attn.o_proj", "mlp"),
        fused={"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")},
    ),
    # OLMo 2 norms the outputs of attention and MLP, and not their inputs.
    "olmo2": replace(
        _LLAMA,
        type="olmo2",
        norms_queries=True,
        beside=_BESIDE,
        sites={
            **_LLAMA.sites,
            "pre_mlp": Site("mlp", side="input"),
            "post_mlp_norm": Site("post_feedforward_layernorm"),
        },
    ),
    "qwen3": replace(_LLAMA, type="qwen3", norms_queries=True),
    # Gemma 3 norms the outputs of attention and MLP once more before each addition.
    "gemma3": Architecture(
        type="gemma3_text",
        tied=True,
        norms=4,
        norms_queries=True,
        norm_scales_float32=True,
        layers="model.layers",
        beside=_BESIDE,
        sites={
            **_LLAMA.sites,
            "pre_mlp": Site("pre_feedforward_layernorm"),
            "post_mlp_norm": Site("post_feedforward_layernorm"),
        },
    ),
}
"""One entry a family; a new architecture is a new entry and nothing else."""


def projection_names(targets: Iterable[str], fused: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The matrices of an architecture that targeted projections are in, each once, in the order of the targets."""
    inside = {part: whole for whole, parts in fused.items() for part in parts}
    return list(dict.fromkeys(inside.get(target, target) for target in targets))


def site_names(architecture: str) -> tuple[str, ...]:
    """The sites that an architecture has."""
    return tuple(ARCHITECTURES[architecture].sites)
