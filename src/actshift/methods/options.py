"""What a steering method can be made of, as names alone: configs are checked against it without importing torch."""

from __future__ import annotations

SCOPES = ("all", "prompt", "last_prompt", "first_last")
ACTIVATIONS = ("silu", "relu", "gelu", "tanh")
PARAMETERIZATIONS: dict[str, tuple[str, ...]] = {
    "vector": (),
    "linear": ("rank",),
    "nonlinear": ("rank", "activation"),
}
"""Each parameterization and the method keys that it takes."""
