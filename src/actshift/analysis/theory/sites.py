"""Section 3.3 and Appendix C.1: what steering after the MLP and after the block can do of each other's work.

X is what the MLP adds, Y what stands in the residual stream before it; a block's output is X + Y. Columns are inputs.
"""

from __future__ import annotations

import numpy as np

from actshift.analysis.theory import networks as net
from actshift.analysis.theory.linear import (
    Array,
    best_map_error,
    column_basis,
    norm,
    relative_error,
    row_basis,
    squared_sines,
)
from actshift.analysis.theory.networks import arrays, weights, word
from actshift.analysis.theory.statements import (
    BOUND,
    EQUALITY,
    EXISTS,
    Condition,
    Draw,
    Example,
    Form,
    Sizes,
    Statement,
)

NOTHING = 1e-5
"""A relative error below this is left out of ratios: rounding of 1e-15 would show in their tenth digit."""


def network(scale: float = 1.0) -> Draw:
    """A GLU on random residual streams, and a steering matrix; `scale` is the down projection's."""

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, m, n = sizes.width, sizes.inner, max(2, sizes.inputs)
        return {
            "A": weights(rng, d, d),
            "Y": rng.standard_normal((d, n)),
            "gate": weights(rng, m, d),
            "up": weights(rng, m, d),
            "down": scale * weights(rng, d, m),
            "activation": "silu",
        }

    return draw


def few_features(rng: np.random.Generator, sizes: Sizes) -> Example:
    """A down projection of rank 1 and residual streams of one direction fewer than the width."""
    example = network()(rng, sizes)
    y, down = arrays(example, "Y", "down")
    rank = max(1, sizes.width - 1)
    example["Y"] = column_basis(y)[:, :rank] @ rng.standard_normal((rank, y.shape[1]))
    example["down"] = down[:, :1] @ rng.standard_normal((1, sizes.inner))
    return example


def streams(example: Example) -> tuple[Array, Array]:
    """(d, n) each: X and Y, where X = GLU(Y) unless the example has it."""
    if "X" in example:
        x, y = arrays(example, "X", "Y")
        return x, y
    gate, up, down, y = arrays(example, "gate", "up", "down", "Y")
    return net.glu(gate, up, down, y, word(example)), y


def block_and_shift(example: Example) -> tuple[Array, Array]:
    """(d, n) each: the block's output X + Y, and the shift A X after the MLP."""
    x, y = streams(example)
    (a,) = arrays(example, "A")
    return x + y, a @ x


def principal_sum(block: Array, shift: Array, *, falling: bool = False) -> float:
    """The sum of Theorem 3.1 with the i-th principal angle; the right angle for directions without a partner."""
    values = np.linalg.svd(shift, compute_uv=False) ** 2
    sines = squared_sines(row_basis(block), row_basis(shift))
    sines = np.concatenate([sines, np.ones(max(0, len(values) - len(sines)))])
    return float(values @ (sines[::-1] if falling else sines) / values.sum())


def vector_sum(block: Array, shift: Array) -> float:
    """The sum with the angle between the shift's i-th right singular vector and the row space of the block's output."""
    _, values, right = np.linalg.svd(shift, full_matrices=False)
    sines = 1 - np.linalg.norm(row_basis(block).T @ right.T, axis=0) ** 2
    return float(values**2 @ sines / (values**2).sum())


def _least(example: Example) -> float:
    """The least relative squared error of Theorem 3.1, by least squares."""
    return best_map_error(*block_and_shift(example))


def _principal(example: Example, *, falling: bool = False) -> float:
    return principal_sum(*block_and_shift(example), falling=falling)


def _by_vectors(example: Example) -> float:
    return vector_sum(*block_and_shift(example))


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom > NOTHING else float("nan")


def subspaces(angle: float | None = None) -> Draw:
    """Residual streams and MLP outputs in subspaces that meet in 0 alone; `angle`: the least one between them."""

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, n = max(2, sizes.width), sizes.inputs
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        first, second = basis[:, : d // 2], basis[:, d // 2 : 2 * (d // 2)]
        if angle is None:
            second = second + first @ rng.standard_normal((d // 2, d // 2))
        else:
            second = np.cos(angle) * first + np.sin(angle) * second
        coefficients = rng.standard_normal((2, d // 2, n + d))
        return {"Y": first @ coefficients[0], "X": second @ coefficients[1], "A": weights(rng, d, d)}

    return draw


def _projected(example: Example) -> tuple[Array, Array, Array, Array]:
    """X, Y, A and P_B: onto the span of X along the span of Y."""
    x, y, a = arrays(example, "X", "Y", "A")
    first, second = column_basis(y), column_basis(x)
    both = np.linalg.pinv(np.hstack([first, second]))
    return x, y, a, second @ both[first.shape[1] :]


def _same_output(example: Example) -> float:
    x, y, a, onto = _projected(example)
    return relative_error(y + x + a @ x, y + x + a @ onto @ (x + y))


def _orthogonal_instead(example: Example) -> float:
    x, y, a, _ = _projected(example)
    basis = column_basis(x)
    return relative_error(y + x + a @ x, y + x + a @ basis @ basis.T @ (x + y))


def _norm_against_angle(example: Example) -> float:
    x, y, a, onto = _projected(example)
    least = np.sqrt(squared_sines(column_basis(x), column_basis(y))[0])
    return _ratio(norm(a @ onto) * least, norm(a))


def no_mlp(rng: np.random.Generator, sizes: Sizes) -> Example:
    """A GLU with a down projection of zeros, and more inputs than directions."""
    return network(0.0)(rng, Sizes(sizes.width, sizes.inner, 2 * sizes.width + sizes.inputs))


def _constant_after_zero(example: Example) -> float:
    """How much of a target that a post-block map reaches a function of the MLP's output reaches, when that is 0."""
    x, y = streams(example)
    (a,) = arrays(example, "A")
    target = a @ (x + y)
    if float(np.abs(x).max()) > 0 or best_map_error(x + y, target) > 1e-20:
        return 1.0
    constant = target.mean(axis=1, keepdims=True)  # all that a function of one and the same vector can add
    return 1 - float(np.linalg.norm(target - constant) / np.linalg.norm(target)) ** 2


def attention(rng: np.random.Generator, sizes: Sizes) -> Example:
    """A block whose attention's value map changes: `H` its inputs, `scores` of the softmax, `value`, `change`."""
    d, n = sizes.width, max(2, sizes.inputs)
    example = network()(rng, sizes)
    return {name: example[name] for name in ("gate", "up", "down", "activation")} | {
        "H": rng.standard_normal((d, n)),
        "scores": rng.standard_normal((n, n)),
        "value": weights(rng, d, d),
        "change": weights(rng, d, d),
    }


def attention_without_mlp(rng: np.random.Generator, sizes: Sizes) -> Example:
    example = attention(rng, sizes)
    (down,) = arrays(example, "down")
    return example | {"down": 1e-6 * down}


def _site_errors(example: Example) -> tuple[float, float]:
    """What the best linear maps after the block and after the MLP leave of an update of the attention."""
    gate, up, down, h, value, change = arrays(example, "gate", "up", "down", "H", "value", "change")
    mix = net.softmax(*arrays(example, "scores"))

    def block(values: Array) -> tuple[Array, Array]:
        y = h + values @ h @ mix
        return y, net.glu(gate, up, down, y, word(example))

    (y, x), (y_tuned, x_tuned) = block(value), block(value + 0.1 * change)
    target = y_tuned + x_tuned - y - x
    if norm(target) < 1e-9 * norm(x + y):
        return float("nan"), float("nan")  # no update
    return best_map_error(x + y, target), best_map_error(x, target)


PAIR = (Sizes(1, 1, 2), Sizes(2, 1, 3), Sizes(2, 2, 3), Sizes(2, 2, 4), Sizes(3, 3, 5))

STATEMENTS = (
    Statement(
        "theorem_3_1",
        "Theorem 3.1, Theorem C.2",
        "of a post-MLP shift A X the best post-block map leaves the share sum_i s_i^2 sin^2(t_i) / sum_j s_j^2, with "
        "s_i the singular values of A X and t_i the i-th principal angle of the row spaces of X + Y and A X",
        Form(
            "the least error equals the sum over principal angles",
            lambda example: abs(_least(example) - _principal(example)),
            EQUALITY,
        ),
        {"network": network(), "small MLP": network(0.05), "low rank": few_features},
        corrected=Form(
            "t_i is the angle between the i-th right singular vector of A X and the row space of X + Y",
            lambda example: abs(_least(example) - _by_vectors(example)),
            EQUALITY,
        ),
        also=(
            Form(
                "the printed sum is a lower bound of the least error",
                lambda example: _ratio(_principal(example), _least(example)),
                BOUND,
            ),
            Form(
                "the sum with the angles in falling order is an upper bound of it",
                lambda example: _ratio(_least(example), _principal(example, falling=True)),
                BOUND,
            ),
        ),
        searched=True,
        smallest=PAIR,
    ),
    Statement(
        "proposition_c_1",
        "Proposition C.1",
        "where the spans A of h + Attn(h) and B of the GLU's outputs meet in 0 alone, A_ReFT P_B after the block does "
        "what A_ReFT does after the MLP, P_B being the projection onto B along A",
        Form("both outputs are equal", _same_output, EQUALITY),
        {"random": subspaces(), "nearly touching (0.001 rad)": subspaces(1e-3)},
        also=(
            Form("with the orthogonal projection onto B instead", _orthogonal_instead, EQUALITY),
            Form("|A_ReFT P_B| <= |A_ReFT| / sin(least angle of A and B)", _norm_against_angle, BOUND),
        ),
    ),
    Statement(
        "down_projection_of_zeros",
        "Appendix C.1, the example W_d = 0",
        "with W_d = 0 steering after the MLP adds one vector to every input, and steering after the block does more",
        Form("a post-block map exists that no function of the MLP's output replaces", _constant_after_zero, EXISTS),
        {"random": no_mlp},
    ),
    Statement(
        "post_block_more_expressive",
        "Section 3.3, opening of Appendix C.2",
        "every linear shift after the MLP is a linear shift after the block",
        Form("no error is left", lambda example: float(np.sqrt(_least(example))), EQUALITY),
        {"network": network(), "small MLP": network(0.05)},
        condition=Condition(
            "the spans of Y and X meet in 0 alone (Proposition C.1's premise, or at most d inputs)",
            {"at most d inputs": lambda rng, sizes: network()(rng, Sizes(sizes.width, sizes.inner, sizes.width))},
        ),
        smallest=PAIR,
    ),
    Statement(
        "takeaway_2",
        "Takeaway 2",
        "of an update of the attention, the best linear map after the block leaves no more than the best one after the "
        "MLP",
        Form(
            "error after the block / error after the MLP",
            lambda example: _ratio(*_site_errors(example)),
            BOUND,
        ),
        {"network": attention, "MLP near 0": attention_without_mlp},
        searched=True,
        smallest=PAIR,
    ),
)
