"""What a method can be made of, as names and types: Hydra composes by it, without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from actshift.schema.fields import choice, number

SCOPES = ("all", "prompt", "last_prompt", "first_last", "answer", "every_last")
ACTIVATIONS = ("silu", "relu", "gelu", "tanh")
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear maps of a decoder layer, whose names are the same in every architecture that we know."""

GATE_SCHEDULES = ("exponential", "linear", "cyclic", "performance")
PROJECTED = ("output", "input")
MOMENTS = ("step", "epoch", "start")


@dataclass
class MethodConfig:
    """What every method has. `family` picks the protocol's schedule, `rates` the sweep's learning-rate grid."""

    name: str = MISSING  # the name of its file
    kind: str = MISSING  # a key of actshift.methods.KINDS
    family: str = MISSING  # sft | lora | steering | joint: whose schedule the protocol gives it
    rates: str = MISSING  # whose grid of learning rates a sweep gives it
    lr: float = 1e-2  # the rate of a single run that names none


@dataclass
class SftConfig(MethodConfig):
    kind: str = "sft"
    family: str = "sft"
    rates: str = "sft"


@dataclass
class LoraOptions:
    rank: int = number(least=1)  # r
    alpha: float = number(above=0)  # the change is scaled by alpha / r
    dropout: float = number(0.0, least=0, below=1)  # share of the inputs
    targets: list[str] = MISSING  # projections: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj


@dataclass
class LoraConfig(LoraOptions, MethodConfig):
    kind: str = "lora"
    family: str = "lora"
    rates: str = "lora"


@dataclass
class PeftMethodConfig(MethodConfig):
    """Any method of peft: `options` are the arguments of its config class."""

    kind: str = "peft"
    family: str = "lora"
    rates: str = "lora"
    config_class: str = MISSING  # as in peft.VeraConfig
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the config class


@dataclass
class CustomConfig(MethodConfig):
    """A class of the user's own; `options` are what it takes."""

    kind: str = "custom"
    target: str = MISSING  # module:Class, a subclass of actshift.methods.base.Adaptation
    code: str | None = None  # the SHA-256 of the file that the class stands in; composition fills it
    options: dict[str, Any] = field(default_factory=dict)  # what the class takes


@dataclass
class ScopeConfig:
    """Which positions a steering method changes; what follows `kind` is read by `first_last` alone."""

    kind: str = choice(*SCOPES, default="all")  # the positions that are changed
    first: int = number(0, least=0)  # positions at the beginning of the prompt
    last: int = number(0, least=0)  # positions at its end
    separate: bool = False  # own weights for the first positions and for the last


@dataclass
class SelectionConfig:
    """LoFiT's first stage: how long it is, how many heads it leaves, how hard the scales are kept small."""

    stage: float = number(0.5, above=0, below=1)  # share of the steps
    heads: float = number(0.03, above=0, below=1)  # share of all heads of all layers, at least one
    penalty: float = number(1e-3, least=0)  # of the scales' absolute values


@dataclass
class GatesConfig:
    """JoLA's lambda by step: `start` is its first value; each schedule reads what it names below."""

    schedule: str = choice(*GATE_SCHEDULES, default="exponential")  # how lambda changes by step
    start: float = number(0.1, least=0, most=1)  # the first value
    decay: float = number(0.01, least=0)  # exponential: rate a step
    end: float = number(0.2, least=0, most=1)  # linear: the value after the last step
    cycle: int = number(20, least=1)  # cyclic: steps
    change: float = number(0.01, least=0, most=1)  # performance: up where the loss fell, down where it rose


@dataclass
class SteeringOptions:
    site: Any = MISSING  # where in a decoder layer: post_block, post_mlp, pre_mlp, attn_out, heads, or a list of these
    scope: ScopeConfig = field(default_factory=ScopeConfig)
    parameterization: str = MISSING  # a key of actshift.methods.registry.PARAMETERIZATIONS
    rank: Any = None  # r, where the parameterization has one: a number, or a list with one for each site
    activation: str | None = choice(*ACTIVATIONS, None, default=None)  # phi, where the parameterization has one
    selection: SelectionConfig = field(default_factory=SelectionConfig)  # read by lofit_two_stage alone
    gates: GatesConfig = field(default_factory=GatesConfig)  # read by jola alone
    layers: Any = "all"  # "all" or a list of layer numbers


@dataclass
class SteeringConfig(SteeringOptions, MethodConfig):
    kind: str = "steering"
    family: str = "steering"


@dataclass
class OrthogonalityConfig:
    """What of the steering part is kept orthogonal to what LoRA writes, and when."""

    project: str | None = choice(*PROJECTED, None, default=None)  # output: W2; input: W1; null: neither
    every: Any = "step"  # step | epoch | start | a number of steps
    against: list[str] = field(default_factory=lambda: ["down_proj"])  # whose LoRA B spans what is left out


@dataclass
class JointConfig(MethodConfig):
    kind: str = "joint"
    family: str = "joint"
    rates: str = "joint"
    lora: LoraOptions = field(default_factory=LoraOptions)
    steering: SteeringOptions = field(default_factory=SteeringOptions)
    lora_lr: float | None = number(None, above=0)  # null: the run's rate for both parts
    orthogonality: OrthogonalityConfig = field(default_factory=OrthogonalityConfig)


def steering_part(method: MethodConfig) -> SteeringOptions | None:
    """The steering options of a method, or of the steering part of joint training; None where it steers nothing."""
    if isinstance(method, JointConfig):
        return method.steering
    return method if isinstance(method, SteeringOptions) else None


METHODS: dict[str, type[MethodConfig]] = {
    "sft": SftConfig,
    "lora": LoraConfig,
    "peft": PeftMethodConfig,
    "steering": SteeringConfig,
    "joint": JointConfig,
    "custom": CustomConfig,
}
"""By `method.kind`."""
