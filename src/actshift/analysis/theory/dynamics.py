"""Proposition 4.2 and Appendix D: what gradient descent on both parts learns first.

The model is ``G^ = (I + dh)(X + (W + dW) F)`` with the loss ``|G - G^|_F^2 / 2``; Y = X + W F and R = G - G^. Columns
are inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import expm

from actshift.analysis.theory.linear import Array, column_basis, norm, outside, relative_error, slope
from actshift.analysis.theory.networks import arrays, weights
from actshift.analysis.theory.statements import EQUALITY, ORDER, Condition, Draw, Example, Form, Sizes, Statement

TIMES = np.geomspace(1e-2, 1e-4, 5)
"""Moments of the flow, in units of 1 / |[Y; F]|^2: the fastest direction's own time."""


def task(*, rank: str = "full", target: str = "any") -> Draw:
    """Inputs X, weights W, features F, targets G, and directions of change.

    rank: low puts X and W into half of the directions. target: any, or inside the column space of Y.
    """

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, m, n = sizes.width, sizes.inner, sizes.inputs
        x, w, f = rng.standard_normal((d, n)), weights(rng, d, m), rng.standard_normal((m, n))
        if rank == "low":
            basis = np.linalg.qr(rng.standard_normal((d, d)))[0][:, : max(1, d // 2)]
            x, w = basis @ (basis.T @ x), basis @ (basis.T @ w)
        g = rng.standard_normal((d, n))
        if target == "inside":
            y = column_basis(x + w @ f)
            g = y @ (y.T @ g)
        if target == "one subspace":  # a residual of rank k: both products have its column space
            k = _rank_of(d)
            g = x + w @ f + rng.standard_normal((d, k)) @ rng.standard_normal((k, n))
        moves = {"dh": weights(rng, d, d), "dW": weights(rng, d, m), "sketch": weights(rng, _rank_of(d), d)}
        return {"X": x, "W": w, "F": f, "G": g, **moves}

    return draw


def _rank_of(width: int) -> int:
    return max(1, width // 4)


def start(example: Example) -> tuple[Array, Array, Array, Array]:
    """X, Y, F and the residual R before training."""
    x, w, f, g = arrays(example, "X", "W", "F", "G")
    y = x + w @ f
    return x, y, f, g - y


def output(example: Example, dh: Array, dw: Array) -> Array:
    """(d, n): ``(I + dh)(Y + dW F)``."""
    _, y, f, _ = start(example)
    moved = y + dw @ f
    return moved + dh @ moved


def gradients(example: Example, dh: Array, dw: Array) -> tuple[Array, Array]:
    """Minus the gradients: ``R (Y + dW F)'`` and ``(I + dh)' R F'``."""
    _, y, f, _ = start(example)
    (g,) = arrays(example, "G")
    r = g - output(example, dh, dw)
    return r @ (y + dw @ f).T, (r + dh.T @ r) @ f.T


def speed(example: Example) -> float:
    """The largest eigenvalue of the flow near 0, ``|[Y; F]|^2``."""
    _, y, f, _ = start(example)
    return norm(np.vstack([y, f])) ** 2


def descended(example: Example, time: float, *, steps: int = 10) -> tuple[Array, Array]:
    """dh and dW after `steps` steps of gradient descent that make up `time`, in units of 1 / speed."""
    (w, x) = arrays(example, "W", "X")
    dh, dw = np.zeros((len(x), len(x))), np.zeros_like(w)
    rate = time / steps / speed(example)
    for _ in range(steps):
        first, second = gradients(example, dh, dw)
        dh, dw = dh + rate * first, dw + rate * second
    return dh, dw


def top(matrix: Array, k: int) -> Array:
    """(d, k): the first k left singular vectors."""
    return np.linalg.svd(matrix, full_matrices=False)[0][:, :k]


def apart(first: Array, second: Array, k: int) -> float:
    """The sine of the largest angle between the spans of the first k left singular vectors of two matrices."""
    one, two = top(first, k), top(second, k)
    return norm(two - one @ (one.T @ two))


def _products(example: Example) -> tuple[Array, Array]:
    _, y, f, r = start(example)
    return r @ y.T, r @ f.T


def _alignment(example: Example) -> float:
    """1 less the slope at which both parts' dominant subspaces reach those of R Y' and R F' as the time goes to 0."""
    wanted, k = _products(example), _rank_of(len(_products(example)[0]))

    def angle(part: int) -> Callable[[float], float]:
        return lambda time: apart(descended(example, time)[part], wanted[part], k)

    return 1 - min(slope(angle(0), TIMES), slope(angle(1), TIMES))


def _same_subspace(example: Example) -> float:
    k = _rank_of(len(_products(example)[0]))
    return 1 - slope(lambda time: apart(*descended(example, time), k), TIMES)


def _proportional(example: Example) -> float:
    """2 less the slope of ``|dh(t) - t R Y'|`` and ``|dW(t) - t R F'|``."""
    wanted, pace = _products(example), speed(example)

    def rest(part: int) -> Callable[[float], float]:
        scale = norm(wanted[part]) / pace
        return lambda time: norm(descended(example, time)[part] - time / pace * wanted[part]) / scale

    return 2 - min(slope(rest(0), TIMES), slope(rest(1), TIMES))


def _adam_first_step(example: Example) -> float:
    wanted = _products(example)[0]
    return apart(np.sign(wanted), wanted, _rank_of(len(wanted)))


def _low_rank_first_step(example: Example) -> float:
    (sketch,) = arrays(example, "sketch")
    wanted = _products(example)[0]
    return apart(wanted @ sketch.T, wanted, _rank_of(len(wanted)))


def _gradient_formulas(example: Example) -> float:
    """Both formulas against the derivative of the loss along a line, which five values of a quartic give exactly."""
    dh, dw, g = arrays(example, "dh", "dW", "G")
    along = np.random.default_rng(0)
    move_h, move_w = along.standard_normal(dh.shape), along.standard_normal(dw.shape)

    def loss(t: float) -> float:
        return 0.5 * float(np.linalg.norm(g - output(example, dh + t * move_h, dw + t * move_w)) ** 2)

    numeric = (loss(-2) - 8 * loss(-1) + 8 * loss(1) - loss(2)) / 12
    first, second = gradients(example, dh, dw)
    exact = -float(np.sum(first * move_h) + np.sum(second * move_w))
    return abs(numeric - exact) / max(abs(numeric), abs(exact), abs(loss(2)))


def _directions(example: Example, *, inside: Callable[[Example], Array]) -> float:
    """The largest share that parameters have outside a subspace in 1, 3 and 10 steps of gradient descent."""
    basis, worst = inside(example), 0.0
    for steps in (1, 3, 10):
        dh, dw = descended(example, 0.5 * steps, steps=steps)
        worst = max(worst, *(outside(part, basis) for part in (dh, dw, dh.T)))
    return worst


def _of_y(example: Example) -> Array:
    return column_basis(start(example)[1])


def _of_y_and_g(example: Example) -> Array:
    _, y, _, r = start(example)
    return column_basis(np.hstack([y, r]))


def _flow_sign(example: Example, sign: float) -> float:
    wanted = gradients(example, *(np.zeros_like(part) for part in arrays(example, "dh", "dW")))
    return max(relative_error(sign * product, part) for product, part in zip(_products(example), wanted, strict=True))


def _linear_output(example: Example, *, base: int) -> float:
    """2 less the slope of the remainder of ``base + dW F + dh Y``, where base is X (0) or Y (1)."""
    dh, dw = arrays(example, "dh", "dW")
    x, y, f, _ = start(example)
    first = (x, y)[base]
    scale = norm(y)

    def rest(t: float) -> float:
        return norm(output(example, t * dh, t * dw) - first - t * (dw @ f + dh @ y)) / scale

    return 2 - slope(rest, TIMES)


def _solution(example: Example, *, growth: float) -> float:
    """``-B U L^-1 (e^{growth t L} - 1) U' / growth`` against the exact solution of the flow without products.

    The exact one is the integral of ``C e^{-s A}`` with C = R [Y' F'], read off the exponential of [[-A, I], [0, 0]].
    """
    _, y, f, r = start(example)
    both = np.vstack([y, f])
    a, c, size = both @ both.T, r @ both.T, len(both)
    time = 1 / norm(a)
    block = np.block([[-a, np.eye(size)], [np.zeros((size, 2 * size))]])
    exact = c @ expm(time * block)[:size, size:]
    values, vectors = np.linalg.eigh(a)
    lengths = np.maximum(values, 1e-300)
    factor = np.where(values > 1e-12 * values[-1], np.expm1(growth * time * lengths) / lengths, growth * time)
    return relative_error(c @ vectors * (factor * np.sign(growth)) @ vectors.T, exact)


ANY: dict[str, Draw] = {"random": task(), "Y of low rank": task(rank="low")}
PLAIN: dict[str, Draw] = {"random": task()}
SMALL = (Sizes(1, 1, 1), Sizes(2, 1, 1), Sizes(2, 2, 2))

STATEMENTS = (
    Statement(
        "appendix_d_gradients",
        "Appendix D",
        "minus the gradients are R (Y + dW F)' for dh and (I + dh)' R F' for dW",
        Form("they are the loss's derivative along random lines", _gradient_formulas, EQUALITY),
        ANY,
    ),
    Statement(
        "proposition_4_2",
        "Proposition 4.2, Theorem D.2",
        "early in gradient descent from 0 the dominant left singular vectors of dh and dW are those of R Y' and R F'",
        Form("both angles go to 0 with the time, at least as fast as it", _alignment, ORDER),
        PLAIN,
        also=(
            Form("the first step of Adam, the gradient's sign, has them too", _adam_first_step, EQUALITY),
            Form("W2 of an adapter whose W1 is random has them after its first step", _low_rank_first_step, EQUALITY),
        ),
    ),
    Statement(
        "proposition_4_2_same_subspace",
        "Proposition 4.2 (second sentence)",
        "where the dominant subspaces of R Y' and R F' coincide, dh and dW learn one subspace early on",
        Form("their angle goes to 0 with the time, at least as fast as it", _same_subspace, ORDER),
        {"residual of rank k": task(target="one subspace")},
    ),
    Statement(
        "proposition_4_2_sketch",
        "Proposition 4.2 (sketch of the proof)",
        "dh and dW are a R Y' and a R F' with one factor a (the time), up to higher order",
        Form("the remainder is of second order in the time", _proportional, ORDER),
        PLAIN,
    ),
    Statement(
        "proposition_d_1",
        "Proposition D.1",
        "under gradient descent the columns of dh and dW and the rows of dh stay in the column space of Y",
        Form("nothing is outside", lambda example: _directions(example, inside=_of_y), EQUALITY),
        ANY,
        condition=Condition(
            "the targets lie in the column space of Y",
            {"targets inside": task(rank="low", target="inside")},
        ),
        corrected=Form(
            "they stay in the column space of [Y, G]",
            lambda example: _directions(example, inside=_of_y_and_g),
            EQUALITY,
        ),
        smallest=SMALL,
    ),
    Statement(
        "theorem_d_2_proof_flow",
        "Appendix D, proof of Theorem D.2",
        "the flow starts with (G^ - G) Y' for dh and (G^ - G) F' for dW",
        Form("it does", lambda example: _flow_sign(example, -1.0), EQUALITY),
        PLAIN,
        corrected=Form(
            "it starts with (G - G^) Y' and (G - G^) F'", lambda example: _flow_sign(example, 1.0), EQUALITY
        ),
        smallest=SMALL,
    ),
    Statement(
        "theorem_d_2_proof_output",
        "Appendix D, proof of Theorem D.2",
        "near 0 the output is X + dW F + dh Y, up to second order",
        Form("the remainder is of second order", lambda example: _linear_output(example, base=0), ORDER),
        PLAIN,
        corrected=Form(
            "it is Y + dW F + dh Y: W F is left out", lambda example: _linear_output(example, base=1), ORDER
        ),
        smallest=SMALL,
    ),
    Statement(
        "theorem_d_2_proof_solution",
        "Appendix D, proof of Theorem D.2",
        "the flow without products of dh and dW is solved by -B U L^-1 (e^(tL) - 1) U', B = (G^ - G)[Y' F']",
        Form("it is", lambda example: _solution(example, growth=1.0), EQUALITY),
        PLAIN,
        corrected=Form(
            "by -B U L^-1 (1 - e^(-tL)) U', with t in place of 0 / 0",
            lambda example: _solution(example, growth=-1.0),
            EQUALITY,
        ),
        smallest=SMALL,
    ),
)
