"""What each kind of method and each parameterization says of itself: its class, its options, its size, what it keeps.

Configurations are checked and costs are estimated by these entries, which import no torch. A new parameterization is a
class and an entry of `PARAMETERIZATIONS`; a new kind is a class and an entry of `KINDS` in `actshift.methods`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from actshift.models.architectures import ARCHITECTURES, projection_names
from actshift.schema.config import ModelConfig
from actshift.schema.method import JointConfig, LoraOptions, SteeringOptions


@dataclass(frozen=True)
class ParameterizationEntry:
    """One parameterization of a steering part.

    `path` is ``module:class``, imported when it is first attached. `options` are the keys of a method's YAML that it
    takes. `numbers` counts what one part trains, from the width D of its site, its heads H (1 where a site has none)
    and the rank R.
    """

    path: str
    numbers: Callable[[int, int, int], int]
    options: tuple[str, ...] = ()
    starts_as_base: bool = True
    """Whether the initial shift is zero, so that an untrained adapter changes nothing."""
    has_factors: bool = False
    """Whether it has W1 (`down`) and W2 (`up`) of the site's width, which can be kept orthogonal to LoRA's B."""
    package: str | None = None
    """The optional Python package that it needs."""


_SHIFTS = "actshift.methods.parameterizations"
_HEADS = "actshift.methods.heads"
PARAMETERIZATIONS: dict[str, ParameterizationEntry] = {
    "vector": ParameterizationEntry(f"{_SHIFTS}:Vector", lambda D, H, R: D),
    "scale": ParameterizationEntry(f"{_SHIFTS}:Scale", lambda D, H, R: D),
    "linear": ParameterizationEntry(f"{_SHIFTS}:Linear", lambda D, H, R: 2 * D * R, ("rank",), has_factors=True),
    "affine": ParameterizationEntry(f"{_SHIFTS}:Affine", lambda D, H, R: 2 * D * R + D, ("rank",), has_factors=True),
    "nonlinear": ParameterizationEntry(
        f"{_SHIFTS}:Nonlinear", lambda D, H, R: 2 * D * R, ("rank", "activation"), has_factors=True
    ),
    "loreft": ParameterizationEntry(
        "actshift.methods.loreft:Loreft",
        lambda D, H, R: 2 * D * R + R,
        ("rank",),
        starts_as_base=False,
        package="pyreft",
    ),
    "lofit": ParameterizationEntry(f"{_HEADS}:Lofit", lambda D, H, R: D, starts_as_base=False),
    "lofit_two_stage": ParameterizationEntry(
        f"{_HEADS}:LofitTwoStage", lambda D, H, R: 2 * D, ("selection",), starts_as_base=False
    ),
    "jola": ParameterizationEntry(f"{_HEADS}:Jola", lambda D, H, R: 2 * D + 2 * H, ("gates",), starts_as_base=False),
}


@dataclass(frozen=True)
class Kind:
    """One kind of method.

    `path` is ``module:class``, imported when it is first attached: some kinds bring slow libraries along. Its options
    are the dataclass of this name in `actshift.schema.method.METHODS`. `check` is called with these and ``model=``, the
    model's config, and refuses what no model can have. `numbers` counts what it trains beside the base model's weights,
    from its config and the model's; None where nothing but attaching it can tell.
    """

    path: str
    numbers: Callable[..., int] | None = None
    check: Callable[..., None] | None = None
    replicated: bool = False
    """Whether it can hold several adapters over one base at once."""
    trains_base: bool = False
    """Whether it trains the base model's own weights, in the base model's precision."""
    changes_projections: bool = False
    """Whether autograd keeps the inputs of projections, in float32, for factors that train beside them."""
    changes_sites: bool = False
    """Whether autograd keeps the float32 hidden state of a site in each layer."""
    frozen_below: bool = False
    """Whether nothing trains below the output of the first layer, so that nothing there is kept for a gradient."""
    peft_files: bool = False
    """Whether it is saved in the form that `peft.PeftModel.from_pretrained` reads."""


def load(path: str) -> Any:
    """The object of a ``module:name`` path."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def lora_numbers(lora: LoraOptions, model: ModelConfig) -> int:
    """r (inputs + outputs) of every targeted projection of every layer; projections that are one matrix share A."""
    shape = model.shape
    width, mlp = shape.width, shape.mlp_width
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    sizes = {"q_proj": (width, queries), "k_proj": (width, keys), "v_proj": (width, keys), "o_proj": (queries, width)}
    sizes |= {"gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}
    fused, ends = ARCHITECTURES[str(model.architecture)].fused, 0
    for matrix in projection_names(lora.targets, fused):
        parts = fused.get(matrix, (matrix,))
        ends += sizes[parts[0]][0] + sum(sizes[part][1] for part in parts)
    numbers: int = shape.layers * lora.rank * ends
    return numbers


def steering_numbers(steering: SteeringOptions, model: ModelConfig) -> int:
    """What one part trains, summed over sites, times the chosen layers, times two where both ends have their own."""
    shape = model.shape
    layers = shape.layers if steering.layers == "all" else len(steering.layers)
    entry = PARAMETERIZATIONS[steering.parameterization]
    ends = 2 if steering.scope.separate else 1
    return (
        layers
        * ends
        * sum(
            entry.numbers(site_width(site, model), shape.heads if site == "heads" else 1, rank or 0)
            for site, rank in zip(sites_of(steering), ranks_of(steering), strict=True)
        )
    )


def sites_of(steering: SteeringOptions) -> list[str]:
    """The sites of a steering part, of which its config has one or a list."""
    site = steering.site
    return list(site) if isinstance(site, list | tuple) else [site]


def ranks_of(steering: SteeringOptions) -> list[int | None]:
    """The rank at each site: the one number of the config, or its list."""
    rank = steering.rank
    return list(rank) if isinstance(rank, list | tuple) else [rank] * len(sites_of(steering))


def site_width(site: str, model: ModelConfig) -> int:
    """D of a site in a model."""
    shape = model.shape
    width: int = shape.heads * shape.head_size if site == "heads" else shape.width
    return width


def joint_numbers(joint: JointConfig, model: ModelConfig) -> int:
    """The sum of both parts."""
    return lora_numbers(joint.lora, model) + steering_numbers(joint.steering, model)
