"""Section 3.2 and Appendix B: the first-order expansions of an MLP in its input and in its weights.

Each form measures the slope of the remainder against the step in log-log: second order is a slope of 2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from actshift.analysis.theory import networks as net
from actshift.analysis.theory.linear import Array, best_map_error, column_basis, outside, slope
from actshift.analysis.theory.networks import arrays, weights, word
from actshift.analysis.theory.statements import (
    EQUALITY,
    EXISTS,
    ORDER,
    Condition,
    Draw,
    Example,
    Form,
    Measure,
    Sizes,
    Statement,
)

STEPS = np.geomspace(1e-2, 1e-4, 5)
GLU = ("gate", "up", "down")
CHANGES = ("d_gate", "d_up", "d_down")


def drawn(*activations: str, point: str = "random") -> Draw:
    """A GLU (whose gate and down projection make a simple MLP too), an input, a step, and changes of the weights.

    point: random; zero (the input 0, where every pre-activation is 0); gate 0 (only those of the gate are 0).
    """

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, m = sizes.width, sizes.inner
        example: Example = {
            "gate": weights(rng, m, d),
            "up": weights(rng, m, d),
            "down": weights(rng, d, m),
            "h": rng.standard_normal(d) * (point != "zero"),
            "step": rng.standard_normal(d),
            "d_gate": weights(rng, m, d),
            "d_up": weights(rng, m, d),
            "d_down": weights(rng, d, m),
            "activation": activations[rng.integers(len(activations))],
        }
        if point == "gate 0":
            gate, h = arrays(example, "gate", "h")
            example["gate"] = gate - np.outer(gate @ h, h) / (h @ h)
        return example

    return draw


SMOOTH: dict[str, Draw] = {"smooth": drawn(*net.SMOOTH), "input 0": drawn(*net.SMOOTH, point="zero")}
ROUGH: dict[str, Draw] = {"derivative not Lipschitz": drawn("power_3_2", point="gate 0")}
LIPSCHITZ = Condition("the derivative of phi is Lipschitz near the pre-activations (SiLU, GELU, tanh, sigmoid)", SMOOTH)


def order_of(
    moved: Callable[[Example, float], Array], first: Callable[[Example], Array], *, order: float = 2
) -> Measure:
    """``order`` less the slope of ``|moved(t) - moved(0) - t first|`` against t."""

    def measure(example: Example) -> float:
        start, linear = moved(example, 0.0), first(example)
        scale = max(1.0, float(np.linalg.norm(start)))
        return order - slope(lambda t: float(np.linalg.norm(moved(example, t) - start - t * linear)) / scale, STEPS)

    return measure


def _simple(example: Example, t: float) -> Array:
    gate, down, h, step = arrays(example, "gate", "down", "h", "step")
    return net.mlp(gate, down, h + t * step, word(example))


def _simple_first(example: Example) -> Array:
    gate, down, h, step = arrays(example, "gate", "down", "h", "step")
    return down @ (net.ACTIVATIONS[word(example)][1](gate @ h) * (gate @ step))


def _simple_tuned(example: Example, t: float) -> Array:
    gate, down, h, d_gate, d_down = arrays(example, "gate", "down", "h", "d_gate", "d_down")
    return net.mlp(gate + t * d_gate, down + t * d_down, h, word(example))


def _simple_tuned_first(example: Example) -> Array:
    gate, down, h, d_gate, d_down = arrays(example, "gate", "down", "h", "d_gate", "d_down")
    phi, derivative = net.ACTIVATIONS[word(example)]
    return d_down @ phi(gate @ h) + down @ (derivative(gate @ h) * (d_gate @ h))


def _steered(example: Example, t: float) -> Array:
    gate, up, down, h, step = arrays(example, *GLU, "h", "step")
    return net.glu(gate, up, down, h + t * step, word(example))


def _steered_first(example: Example) -> Array:
    gate, up, down, h, step = arrays(example, *GLU, "h", "step")
    return net.glu_jacobian(gate, up, down, h, word(example)) @ step


def _tuned(example: Example, t: float) -> Array:
    gate, up, down, h, d_gate, d_up, d_down = arrays(example, *GLU, "h", *CHANGES)
    return net.glu(gate + t * d_gate, up + t * d_up, down + t * d_down, h, word(example))


def paths(example: Example) -> Array:
    """(d,): what changes of the gate and value weights add to a GLU's output, to first order."""
    gate, up, down, h, d_gate, d_up = arrays(example, *GLU, "h", "d_gate", "d_up")
    phi, derivative = net.ACTIVATIONS[word(example)]
    gated, value = gate @ h, up @ h
    return down @ (derivative(gated) * value * (d_gate @ h) + phi(gated) * (d_up @ h))


def down_term(example: Example) -> Array:
    """(d,): what a change of the down projection adds, ``(dWd) m``."""
    gate, up, d_down, h = arrays(example, "gate", "up", "d_down", "h")
    return d_down @ (net.ACTIVATIONS[word(example)][0](gate @ h) * (up @ h))


def _normed(norm: Callable[[Array], Array]) -> Callable[[Example, float], Array]:
    def moved(example: Example, t: float) -> Array:
        gate, up, down, h, step = arrays(example, *GLU, "h", "step")
        return net.glu(gate, up, down, norm(h + t * step), word(example))

    return moved


def _normed_first(norm: Callable[[Array], Array], jacobian: Callable[[Array], Array]) -> Callable[[Example], Array]:
    def first(example: Example) -> Array:
        gate, up, down, h, step = arrays(example, *GLU, "h", "step")
        return net.glu_jacobian(gate, up, down, norm(h), word(example)) @ jacobian(h) @ step

    return first


def _expansion(name: str, place: str, says: str, measure: Measure) -> Statement:
    """A second-order remainder for every activation with a derivative, and for those of the models."""
    return Statement(
        name,
        place,
        says,
        Form("the remainder is of second order in the step", measure, ORDER),
        {**SMOOTH, **ROUGH},
        condition=LIPSCHITZ,
        also=(Form("its slope is 2 and no more", lambda example: abs(measure(example)), ORDER),),
    )


def _norm_expansion(name: str, norm: Callable[[Array], Array], jacobian: Callable[[Array], Array]) -> Statement:
    measure = order_of(_normed(norm), _normed_first(norm, jacobian))
    return Statement(
        f"expansion_{name}",
        "Appendix B, LayerNorm",
        f"with a {name} in front the first-order effect of a step is A_GLU(norm(h)) J(h) times it",
        Form("the remainder is of second order in the step", measure, ORDER),
        {"smooth": drawn(*net.SMOOTH)},
    )


def _jacobian_and(example: Example) -> Array:
    gate, up, down, h = arrays(example, *GLU, "h")
    return net.glu_jacobian(gate, up, down, h, word(example))


def left_over(matrix: Array, target: Array) -> float:
    """``min_x |matrix x - target| / |target|`` by least squares; nan where the target is 0."""
    solution = np.linalg.lstsq(matrix, target, rcond=1e-12)[0]
    scale = float(np.linalg.norm(target))
    return float(np.linalg.norm(matrix @ solution - target)) / scale if scale > 1e-12 else float("nan")


def _paths_left(example: Example) -> float:
    return left_over(_jacobian_and(example), paths(example))


def _term_by_term(example: Example) -> float:
    gate, up, h, d_gate, d_up = arrays(example, "gate", "up", "h", "d_gate", "d_up")
    return left_over(np.vstack([gate, up]), np.concatenate([d_gate @ h, d_up @ h]))


def _down_reached(example: Example) -> float:
    return 1 - left_over(_jacobian_and(example), down_term(example))


def _down_outside(example: Example) -> float:
    matrix, target = _jacobian_and(example), down_term(example)
    return abs(left_over(matrix, target) - outside(target[:, None], column_basis(matrix)))


def _post_mlp_map(example: Example) -> float:
    gate, up, down, d_down, h, step = arrays(example, *GLU, "d_down", "h", "step")
    # Inputs along a curve through h: as many as decide whether one matrix serves all of them.
    inputs = np.stack([np.roll(h, k) * (1 + k) + step * k for k in range(2 * max(down.shape))], axis=1)
    inner = net.ACTIVATIONS[word(example)][0](gate @ inputs) * (up @ inputs)
    return np.sqrt(best_map_error(down @ inner, d_down @ inner))


def narrow(rng: np.random.Generator, sizes: Sizes) -> Example:
    """A GLU whose inner width is below the model's, so that A_GLU(h) is singular."""
    inner = max(1, sizes.width // 2)
    return drawn(*net.SMOOTH)(rng, Sizes(max(2, sizes.width), inner, sizes.inputs))


def low_rank(rng: np.random.Generator, sizes: Sizes) -> Example:
    """A GLU whose gate and value projections have rank 1."""
    example = drawn(*net.SMOOTH)(rng, sizes)
    row = rng.standard_normal((1, sizes.width))
    return example | {name: rng.standard_normal((sizes.inner, 1)) @ row for name in ("gate", "up")}


STATEMENTS = (
    _expansion(
        "expansion_mlp_input",
        "Appendix B.1",
        "a simple MLP's output moves by W2 Diag(phi'(W1 h)) W1 dh, up to O(|dh|^2)",
        order_of(_simple, _simple_first),
    ),
    _expansion(
        "expansion_mlp_weights",
        "Appendix A",
        "a simple MLP's output moves by dW2 phi(a) + W2 Diag(phi'(a)) dW1 h, up to second order in the changes",
        order_of(_simple_tuned, _simple_tuned_first),
    ),
    _expansion(
        "expansion_glu_input",
        "Section 3.2, Appendix B (GLU)",
        "a GLU's output moves by A_GLU(h) dh, the sum of a gated and an un-gated path, up to O(|dh|^2)",
        order_of(_steered, _steered_first),
    ),
    _expansion(
        "expansion_glu_weights",
        "Section 3.2",
        "a GLU's output moves by (dWd) m and the two paths of dWg h and dWu h, up to second order in the changes",
        order_of(_tuned, lambda example: paths(example) + down_term(example)),
    ),
    _norm_expansion("LayerNorm", net.layer_norm, net.layer_norm_jacobian),
    _norm_expansion("RMSNorm", net.rms_norm, net.rms_norm_jacobian),
    Statement(
        "difference_is_the_down_term",
        "Section 3.2",
        "to first order, some step dh of the input does all that changes of Wg and Wu do: only (dWd) m is left",
        Form("some dh has A_GLU(h) dh = the two paths of dWg h and dWu h", _paths_left, EQUALITY),
        {"random": drawn(*net.SMOOTH), "gate and value of rank 1": low_rank},
        condition=Condition(
            "A_GLU(h) reaches the column space of Wd (its inner factor has full rank)", {"random": drawn(*net.SMOOTH)}
        ),
        also=(Form("path by path: Wg dh = dWg h and Wu dh = dWu h", _term_by_term, EQUALITY),),
    ),
    Statement(
        "takeaway_1",
        "Takeaway 1",
        "for small changes, no step of an MLP's input has the effect of a change of Wd, and one of its output has",
        Form("no dh has A_GLU(h) dh = (dWd) m", _down_reached, EXISTS),
        {"inner width above the model's": drawn(*net.SMOOTH), "inner width below the model's": narrow},
        condition=Condition("A_GLU(h) is singular, as with an inner width below the model's", {"narrow": narrow}),
        corrected=Form(
            "what no dh can do is the part of (dWd) m outside the column space of A_GLU(h)",
            _down_outside,
            EQUALITY,
        ),
        also=(Form("one linear map of the MLP's output gives (dWd) m for every input", _post_mlp_map, EQUALITY),),
        smallest=(Sizes(1, 1, 1), Sizes(2, 2, 1)),
    ),
)
