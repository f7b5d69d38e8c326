"""Small networks in float64: activations with their derivatives, gated MLPs, norms, attention.

Shape letters: d the model's width, m the MLP's inner width, n inputs (or tokens). Columns are inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import erf, expit

from actshift.analysis.theory.statements import Example

Array = np.ndarray
Scalar = Callable[[Array], Array]

ACTIVATIONS: dict[str, tuple[Scalar, Scalar]] = {
    "silu": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * (1 - expit(x)))),
    "gelu": (
        lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        lambda x: (1 + erf(x / np.sqrt(2))) / 2 + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi),
    ),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (expit, lambda x: expit(x) * (1 - expit(x))),
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float)),
    # Its derivative exists everywhere and is continuous, but not Lipschitz at 0.
    "power_3_2": (lambda x: np.sign(x) * np.abs(x) ** 1.5, lambda x: 1.5 * np.sqrt(np.abs(x))),
}
"""Each activation and its derivative; a derivative that does not exist (relu at 0) is the one from the left."""

SMOOTH = ("silu", "gelu", "tanh", "sigmoid")
BOUNDED = {"tanh": 1.0, "sigmoid": 1.0}
"""The supremum of an activation's size; of the others there is none."""


@cache
def lipschitz(name: str) -> float:
    """The Lipschitz constant of an activation: the largest derivative on a fine grid, rounded up by 1e-8."""
    grid = np.linspace(-10, 10, 200_001)
    return float(np.abs(ACTIVATIONS[name][1](grid)).max()) + 1e-8


def word(example: Example, name: str = "activation") -> str:
    """A word of an example."""
    value = example[name]
    assert isinstance(value, str)
    return value


def arrays(example: Example, *names: str) -> list[Array]:
    """Arrays of an example, in the order of the names."""
    found = [example[name] for name in names]
    return [array for array in found if not isinstance(array, str)]


def weights(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A matrix whose product with a vector of unit variance has unit variance."""
    return rng.standard_normal((rows, columns)) / np.sqrt(columns)


def mlp(inner: Array, outer: Array, h: Array, activation: str) -> Array:
    """``W2 phi(W1 h)``; (d,) or (d, n)."""
    return outer @ ACTIVATIONS[activation][0](inner @ h)


def glu(gate: Array, up: Array, down: Array, h: Array, activation: str) -> Array:
    """``Wd (phi(Wg h) * Wu h)``; (d,) or (d, n)."""
    return down @ (ACTIVATIONS[activation][0](gate @ h) * (up @ h))


def glu_jacobian(gate: Array, up: Array, down: Array, h: Array, activation: str) -> Array:
    """(d, d): ``Wd [Diag(phi(ag)) Wu + Diag(au phi'(ag)) Wg]``, the A_GLU(h) of Appendix B."""
    phi, slope = ACTIVATIONS[activation]
    gated, value = gate @ h, up @ h
    return down @ (phi(gated)[:, None] * up + (value * slope(gated))[:, None] * gate)


def deviation(h: Array) -> Array:
    """The population standard deviation of each column."""
    return np.sqrt(np.mean((h - h.mean(axis=0)) ** 2, axis=0))


def layer_norm(h: Array) -> Array:
    """``(h - mean) / std`` of each column, without gain and bias: its norm is sqrt(d)."""
    return (h - h.mean(axis=0)) / deviation(h)


def layer_norm_jacobian(h: Array) -> Array:
    """(d, d): ``(I - 11'/d - LN(h) LN(h)'/d) / std(h)``."""
    d, normed = len(h), layer_norm(h)
    return (np.eye(d) - 1 / d - np.outer(normed, normed) / d) / deviation(h)


def rms_norm(h: Array) -> Array:
    """``h / sqrt(mean(h^2))`` of each column: what Llama, Qwen and Gemma have in place of a LayerNorm."""
    return h / np.sqrt(np.mean(h**2, axis=0))


def rms_norm_jacobian(h: Array) -> Array:
    """(d, d): ``(I - RN(h) RN(h)'/d) / rms(h)``."""
    normed = rms_norm(h)
    return (np.eye(len(h)) - np.outer(normed, normed) / len(h)) / np.sqrt(np.mean(h**2))


def softmax(scores: Array) -> Array:
    """Softmax of each column."""
    powers = np.exp(scores - scores.max(axis=0))
    return powers / powers.sum(axis=0)
