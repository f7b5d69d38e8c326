"""Sections 4 and 5.2, Appendix C.2: what weights and steering express together and alone, and the projection.

A model is ``x + W2 F(x)``; both together give ``(I + dh)(x + (W2 + dW) F(x))``. Columns are inputs.
"""

from __future__ import annotations

import numpy as np

from actshift.analysis.theory import networks as net
from actshift.analysis.theory.linear import Array, best_map_error, column_basis, norm, outside, relative_error
from actshift.analysis.theory.networks import arrays, weights, word
from actshift.analysis.theory.statements import EQUALITY, EXISTS, Condition, Draw, Example, Form, Sizes, Statement


def features(*, paired: bool = False, activation: str = "silu", singular: float | None = None) -> Draw:
    """Inputs, a feature map F = phi(W1 x), its output weights, and a wanted combination ``alpha x + beta F``.

    paired: W1 holds each row with both signs, as phi(a) - phi(-a) = a for SiLU, GELU and ReLU. singular: the least
    singular value of alpha, over the largest. There are more inputs than x and F have directions together.
    """

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, m = sizes.width, sizes.inner
        inner = weights(rng, m, d)
        if paired:
            half = weights(rng, max(m, d), d)
            inner = np.vstack([half, -half])
        m = len(inner)
        alpha = weights(rng, d, d)
        if singular is not None:
            left, values, right = np.linalg.svd(alpha)
            values[-1] = singular * values[0]
            alpha = left @ np.diag(values) @ right
        return {
            "x": rng.standard_normal((d, 4 * (d + m))),
            "W1": inner,
            "W2": weights(rng, d, m),
            "alpha": alpha,
            "beta": weights(rng, d, m),
            "activation": activation,
        }

    return draw


def parts(example: Example) -> tuple[Array, Array, Array, Array, Array]:
    """x (d, n), F (m, n), W2 (d, m), alpha (d, d), beta (d, m)."""
    x, inner, outer, alpha, beta = arrays(example, "x", "W1", "W2", "alpha", "beta")
    return x, net.ACTIVATIONS[word(example)][0](inner @ x), outer, alpha, beta


def _together(example: Example) -> float:
    """``dh = alpha - I``, ``dW = alpha^-1 beta - W2``, and what they give against what is wanted."""
    x, f, outer, alpha, beta = parts(example)
    change = np.linalg.solve(alpha, beta) - outer
    return relative_error(alpha @ (x + (outer + change) @ f), alpha @ x + beta @ f)


def _as_in_the_proof(example: Example) -> float:
    x, f, outer, alpha, beta = parts(example)
    if max(np.linalg.cond(alpha), np.linalg.cond(alpha - np.eye(len(alpha)))) > 1e6:
        return float("nan")  # the proof's "almost always", and ours
    change = np.linalg.solve(alpha - np.eye(len(alpha)), beta) - outer
    return relative_error(alpha @ (x + (outer + change) @ f), alpha @ x + beta @ f)


def _norm_in_the_proof(example: Example) -> float:
    """With alpha singular, what ``beta F`` keeps outside the column space of alpha: no dW reaches it."""
    _, f, _, alpha, beta = parts(example)
    left, values, right = np.linalg.svd(alpha)
    values[-1] = 0.0
    return outside(beta @ f, column_basis(left @ np.diag(values) @ right))


def tuning_left(x: Array, f: Array, target: Array) -> float:
    """The share of a target that the best ``x + (W2 + dW) F`` leaves, as a norm."""
    wanted = target - x
    return float(np.sqrt(best_map_error(f, wanted)) * np.linalg.norm(wanted) / np.linalg.norm(target))


def steering_left(x: Array, f: Array, outer: Array, target: Array) -> float:
    """The share of a target that the best ``(I + dh)(x + W2 F)`` leaves, as a norm."""
    return float(np.sqrt(best_map_error(x + outer @ f, target)))


def _alone(example: Example) -> float:
    x, f, outer, alpha, beta = parts(example)
    if not f.any():
        return float("nan")  # without features there is nothing to combine
    target = alpha @ x + beta @ f
    return 1 - min(tuning_left(x, f, target), steering_left(x, f, outer, target))


def _each_its_own(example: Example) -> float:
    """1 where steering gives what fine-tuning gives, or the other way round."""
    x, f, outer, alpha, beta = parts(example)
    if not f.any():
        return float("nan")
    tuned, steered = x + (outer + beta) @ f, alpha @ (x + outer @ f)
    return 1 - min(steering_left(x, f, outer, tuned), tuning_left(x, f, steered))


def plane(rng: np.random.Generator, sizes: Sizes) -> Example:
    """Numbers x of both signs, and two wanted coefficients: not [1, .] nor equal ones, which one of the two gives."""
    x = rng.standard_normal(2 * sizes.inputs + 2)
    x[:2] = 1.0, -1.0
    return {"x": x, "gamma": rng.uniform(0.5, 2.0, 2) * np.array([-1.0, 1.0])}


def _plane_example(example: Example) -> float:
    """1 where the split and weighting of the example in the plane miss gamma, or one of the two suffices alone."""
    x, gamma = arrays(example, "x", "gamma")
    f = np.maximum(x, 0)
    target = np.stack([gamma[0] * x + gamma[1] * f, 0 * x])
    split = np.stack([x + f, f])  # fine-tuning writes F into the second direction
    steer = np.array([[gamma[0], gamma[1] - gamma[0]], [0, 0]])
    if relative_error(steer @ split, target) > 1e-12:
        return 1.0
    base = np.stack([x, 0 * x])
    tuned = tuning_left(base, f[None], target)
    return 1 - min(tuned, steering_left(base, f[None], np.array([[1.0], [0.0]]), target))


def projected(*, dependent: bool = False) -> Draw:
    """A LoRA (B, A), an adapter (W2, W1) and an input; `dependent`: B's last column repeats its first."""

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, rank = max(2, sizes.width), max(1, sizes.width // 3)
        b = weights(rng, d, rank)
        if dependent:
            b[:, -1] = b[:, 0]
        shapes = {"W2": (d, rank), "W1": (rank, d), "A": (rank, sizes.inner), "h": (d,), "m": (sizes.inner,)}
        return {"B": b, **{name: rng.standard_normal(shape) for name, shape in shapes.items()}}

    return draw


def _column_spaces(example: Example) -> float:
    b, outer = arrays(example, "B", "W2")
    basis = column_basis(b)
    return norm(b.T @ (outer - basis @ (basis.T @ outer))) / (norm(b) * norm(outer))


def _shifts(example: Example) -> float:
    b, a, outer, inner, h, m = arrays(example, "B", "A", "W2", "W1", "h", "m")
    basis = column_basis(b)
    steered, tuned = (outer - basis @ (basis.T @ outer)) @ inner @ h, b @ a @ m
    return abs(float(steered @ tuned)) / (norm(outer) * norm(inner @ h) * norm(tuned))


def _without_unit_length(example: Example) -> float:
    """A basis whose vectors are orthogonal, but of the lengths that B's singular values give."""
    b, outer = arrays(example, "B", "W2")
    left, values, _ = np.linalg.svd(b, full_matrices=False)
    basis = left * values
    return norm(b.T @ (outer - basis @ (basis.T @ outer))) / (norm(b) * norm(outer))


INDEPENDENT: dict[str, Draw] = {"features independent of x": features(), "tanh": features(activation="tanh")}
CONTAINED: dict[str, Draw] = {
    "SiLU features that contain x": features(paired=True),
    "ReLU features that contain x": features(paired=True, activation="relu"),
}
APART = Condition(
    "the functions x_j and F_j are linearly independent (no combination of features is linear)", INDEPENDENT
)
FEW = (Sizes(1, 1, 1), Sizes(2, 2, 1), Sizes(3, 3, 1))

STATEMENTS = (
    Statement(
        "proposition_4_1_together",
        "Proposition 4.1, Proposition C.3 (positive part)",
        "steering and a weight update together give almost any alpha x + beta F(x)",
        Form("dh = alpha - I and dW = alpha^-1 beta - W2 give it", _together, EQUALITY),
        {"random": features(), "alpha nearly singular (1e-4)": features(singular=1e-4)},
        also=(Form("with alpha singular too (so not any, but almost any)", _norm_in_the_proof, EQUALITY),),
    ),
    Statement(
        "proposition_c_3_proof",
        "Appendix C.2, proof of Proposition C.3",
        "dh = A - I and dW = (A - I)^-1 B - W2 give A x + B F(x)",
        Form("they do", _as_in_the_proof, EQUALITY),
        {"random": features()},
        corrected=Form("dW = A^-1 B - W2", _together, EQUALITY),
        smallest=FEW,
    ),
    Statement(
        "proposition_4_1_alone",
        "Proposition 4.1, Proposition C.3 (negative part)",
        "for any feature map, fine-tuning alone and steering alone miss some alpha x + beta F(x)",
        Form("neither of them gives a random combination", _alone, EXISTS),
        {**INDEPENDENT, **CONTAINED},
        condition=APART,
        smallest=FEW,
        kept=("x", "W2", "alpha", "beta"),
    ),
    Statement(
        "takeaway_3",
        "Takeaway 3",
        "fine-tuning gives functions that steering does not, and the other way round; both together give both",
        Form("each gives something that the other does not", _each_its_own, EXISTS),
        {**INDEPENDENT, **CONTAINED},
        condition=APART,
        smallest=FEW,
        kept=("x", "W2", "alpha", "beta"),
    ),
    Statement(
        "example_in_the_plane",
        "Section 4, the example in R^2",
        "with F = ReLU in one direction both together give any [gamma1 x + gamma2 F(x), 0], and neither does alone",
        Form("split, then weight", _plane_example, EXISTS),
        {"random": plane},
    ),
    Statement(
        "projection_5_2",
        "Section 5.2",
        "with V a basis of B's column space, W2 - V V' W2 and B have orthogonal columns",
        Form("B' W2 = 0 afterwards", _column_spaces, EQUALITY),
        {"random": projected(), "dependent columns": projected(dependent=True)},
        also=(
            Form("W2 W1 h and B A m are orthogonal for every h and m", _shifts, EQUALITY),
            Form("with an orthogonal basis not of unit length", _without_unit_length, EQUALITY),
        ),
    ),
)
