"""Appendix E: how errors pass through norms, linear maps, gated MLPs and attention.

Every form is left over right side. epsilon and delta are the example's own differences, so that no bound has slack from
them. Shape letters: d width, m inner width, w tokens; columns are tokens.
"""

from __future__ import annotations

import numpy as np

from actshift.analysis.theory import networks as net
from actshift.analysis.theory.linear import Array, norm, relative_error
from actshift.analysis.theory.networks import arrays, weights, word
from actshift.analysis.theory.statements import BOUND, EQUALITY, Draw, Example, Form, Sizes, Statement

GLU = ("gate", "up", "down")


def pair(*, distance: float = 0.1, change: float = 0.1, flat: bool = False, activation: str | None = None) -> Draw:
    """Two inputs and two GLUs near each other; `flat`: entries of the inputs that are nearly equal.

    activation: one of those with a Lipschitz constant, at random where none is named.
    """

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, m = max(2, sizes.width), sizes.inner
        scale = 1e-3 if flat else 1.0
        h = scale * rng.standard_normal(d) + (1.0 if flat else 0.0)
        example: Example = {"h": h, "h2": h + scale * distance * rng.standard_normal(d)}
        for name, shape in zip(GLU, ((m, d), (m, d), (d, m)), strict=True):
            first = weights(rng, *shape)
            example |= {name: first, f"{name}2": first + change * weights(rng, *shape)}
        chosen = ("sigmoid", "tanh", "silu", "gelu", "relu")[rng.integers(5)]
        return example | {"activation": activation or chosen}

    return draw


def near_and_far(**options: str) -> dict[str, Draw]:
    """Families of pairs: near, far, equal weights, equal inputs, and inputs of small deviation."""
    return {
        "near": pair(**options),  # type: ignore[arg-type]
        "far": pair(distance=3.0, change=2.0, **options),  # type: ignore[arg-type]
        "equal weights": pair(change=0.0, **options),  # type: ignore[arg-type]
        "equal inputs": pair(distance=0.0, **options),  # type: ignore[arg-type]
        "small deviation": pair(flat=True, **options),  # type: ignore[arg-type]
    }


def _divided(left: float, right: float) -> float:
    """left / right; nan for 0 / 0 and where the right side is no number (a deviation of 0)."""
    return left / right if right > 0 and np.isfinite(right) else float("nan")


def _norm_ratio(example: Example, *, kind: str = "printed") -> float:
    h, other = arrays(example, "h", "h2")
    left, eps = norm(net.layer_norm(h) - net.layer_norm(other)), norm(h - other)
    s, t = float(net.deviation(h)), float(net.deviation(other))
    if min(s, t) < 1e-9 * max(norm(h), norm(other)):
        return float("nan")
    d = len(h)
    rights = {
        "printed": eps / min(s, t),
        "sharper": 2 * eps / (s + t),
        "sample": eps / min(s, t) * np.sqrt((d - 1) / d),
    }
    return _divided(left, rights[kind])


def _rms_ratio(example: Example) -> float:
    h, other = arrays(example, "h", "h2")
    least = min(float(np.sqrt(np.mean(h**2))), float(np.sqrt(np.mean(other**2))))
    return _divided(norm(net.rms_norm(h) - net.rms_norm(other)), norm(h - other) / least)


def _linear_ratio(example: Example) -> float:
    h, other, first, second = arrays(example, "h", "h2", "gate", "gate2")
    root = np.sqrt(len(h))
    h, other = h / norm(h) * root, other / norm(other) * root
    return _divided(norm(first @ h - second @ other), norm(first) * norm(h - other) + root * norm(first - second))


def _glu_sides(example: Example) -> tuple[float, float, dict[str, float]]:
    """The left side of Lemma E.3, sqrt(d), and what its right side is made of."""
    h, other, gate, up, down = arrays(example, "h", "h2", *GLU)
    gate2, up2, down2 = arrays(example, "gate2", "up2", "down2")
    activation = word(example)
    normed, normed2 = net.layer_norm(h), net.layer_norm(other)
    left = norm(
        h + net.glu(gate, up, down, normed, activation) - other - net.glu(gate2, up2, down2, normed2, activation)
    )
    eps, s = norm(h - other), min(float(net.deviation(h)), float(net.deviation(other)))
    if s < 1e-9 * max(norm(h), norm(other)):
        eps = float("nan")
    return left, np.sqrt(len(h)), {
        "eps": eps,
        "moved": eps / s,
        "delta": max(norm(gate - gate2), norm(up - up2), norm(down - down2)),
        "gate": norm(gate),
        "up": norm(up),
        "down": norm(down),
        "up2": norm(up2),
        "gated": norm(net.ACTIVATIONS[activation][0](gate2 @ normed2)),
    }  # fmt: skip


def _glu_ratio(example: Example) -> float:
    """Lemma E.3, L and B the activation's own."""
    left, root, p = _glu_sides(example)
    lipschitz, bound = net.lipschitz(word(example)), net.BOUNDED.get(word(example), np.inf)
    part = min(bound, p["gated"])
    first = root * p["down"] * p["up"] * min(2 * bound, lipschitz * (p["gate"] * p["moved"] + root * p["delta"]))
    second = p["down"] * (p["up"] * p["moved"] + root * p["delta"]) * part
    return _divided(left, p["eps"] + first + second + root * p["up2"] * p["delta"] * part)


def _sigmoid_bounds(example: Example) -> tuple[float, float, float]:
    """Corollary E.4: the left side, the right side before it is collected, and the printed one."""
    left, root, p = _glu_sides(example)
    moved, delta = p["moved"], p["delta"]
    product = p["down"] * p["up"]
    before = p["eps"] + root / 4 * product * (p["gate"] * moved + root * delta)
    before += p["down"] * (p["up"] * moved + root * delta) + root * p["up2"] * delta
    printed = p["eps"] + product * moved * (root / 4 * p["gate"] + 1)
    printed += root * delta * (root / 4 * product + p["down"] + root * p["up2"])
    return left, before, printed


def _collected(example: Example, *, last: float) -> float:
    """The right side of E.4 before and after it is collected; `last`: the power of sqrt(d) at the last ``|Wu'|``."""
    _, root, p = _glu_sides(example)
    _, before, printed = _sigmoid_bounds(example)
    after = printed - root * p["delta"] * p["up2"] * (root - root**last)
    return relative_error(np.array([before]), np.array([after])) if np.isfinite(before) else float("nan")


def _sigmoid_ratio(example: Example, *, sharper: bool = False) -> float:
    left, before, printed = _sigmoid_bounds(example)
    return _divided(left, before if sharper else printed)


def tokens(*, flat: bool = False) -> Draw:
    """Two sequences and two attentions near each other.

    flat: the weights are equal, attention is uniform, and all that differs is a first token of small deviation, whose
    entries' differences from their mean change signs.
    """

    def draw(rng: np.random.Generator, sizes: Sizes) -> Example:
        d, w = max(2, sizes.width), max(2, sizes.inputs)
        first, noise = rng.standard_normal((d, w)), 0.1 * rng.standard_normal((d, w))
        if flat:
            small = 0.01 * (first[:, 0] - first[:, 0].mean())
            first[:, 0], noise = 1 + small, np.zeros((d, w))
            noise[:, 0] = -2 * small
        example: Example = {"H": first, "H2": first + noise}
        for name in ("query", "key", "value"):
            matrix = weights(rng, d, d)
            example |= {name: matrix, f"{name}2": matrix + (0.0 if flat else 0.1) * weights(rng, d, d)}
        if flat:
            example |= {name: np.zeros((d, d)) for name in ("query", "query2", "key", "key2")}
        return example

    return draw


def _attended(h: Array, query: Array, key: Array, value: Array) -> tuple[Array, Array]:
    """The last token's output, and its attention weights."""
    normed = net.layer_norm(h)
    mix = net.softmax((query @ normed[:, -1]) @ (key @ normed))
    return h[:, -1] + value @ normed @ mix, mix


def _attention_ratio(example: Example, *, every_token: bool, expanded: bool) -> float:
    """Lemma E.5 as stated, or the bound at the end of its proof (`expanded`); s over the last or over every token."""
    h, other = arrays(example, "H", "H2")
    maps, maps2 = arrays(example, "query", "key", "value"), arrays(example, "query2", "key2", "value2")
    (out, mix), (out2, mix2) = _attended(h, *maps), _attended(other, *maps2)
    deviations = np.stack([net.deviation(h), net.deviation(other)])
    if deviations.min() < 1e-9:
        return float("nan")
    s = float(deviations.min() if every_token else deviations[:, -1].min())
    d, w = h.shape
    eps = float(np.linalg.norm(h - other, axis=0).max())
    delta = max(norm(one - two) for one, two in zip(maps, maps2, strict=True))
    query, key, value = map(norm, maps)
    if not expanded:
        right = eps + value * np.sqrt(d) * float(np.abs(mix - mix2).sum()) + value * eps / s + delta * np.sqrt(d)
    else:
        right = eps + value * w * d * eps / (2 * s) * (query + norm(maps2[0])) * key
        right += w * d**1.5 * value * delta * (key + norm(maps2[0]))
        right += value * np.sqrt(w) * eps / s + delta * np.sqrt(w * d)
    return _divided(norm(out - out2), right)


def _attention(name: str, place: str, says: str, *, expanded: bool) -> Statement:
    return Statement(
        name,
        place,
        says,
        Form(
            "left side / right side, s the least deviation of the last token",
            lambda example: _attention_ratio(example, every_token=False, expanded=expanded),
            BOUND,
        ),
        {"near": tokens(), "a token of small deviation": tokens(flat=True)},
        corrected=Form(
            "s is the least deviation of every token, and every token moves by epsilon at most",
            lambda example: _attention_ratio(example, every_token=True, expanded=expanded),
            BOUND,
        ),
        searched=True,
        smallest=(Sizes(2, 1, 2), Sizes(3, 1, 2)),
    )


SMALL = (Sizes(2, 1, 1), Sizes(2, 2, 1), Sizes(3, 2, 1))

STATEMENTS = (
    Statement(
        "lemma_e_1",
        "Lemma E.1",
        "LayerNorm moves by epsilon / min(std, std') at most (population deviations)",
        Form("left side / right side", _norm_ratio, BOUND),
        {"near": pair(), "far": pair(distance=3.0), "small deviation": pair(flat=True)},
        also=(
            Form("2 epsilon / (std + std') in its place", lambda example: _norm_ratio(example, kind="sharper"), BOUND),
            Form("with sample deviations (d - 1)", lambda example: _norm_ratio(example, kind="sample"), BOUND),
            Form("RMSNorm by epsilon / min(rms, rms')", _rms_ratio, BOUND),
        ),
        searched=True,
        smallest=SMALL,
    ),
    Statement(
        "lemma_e_2",
        "Lemma E.2",
        "|W h - W' h'| <= |W| epsilon + sqrt(d) delta for |h| = |h'| = sqrt(d)",
        Form("left side / right side", _linear_ratio, BOUND),
        near_and_far(),
        searched=True,
        smallest=SMALL,
    ),
    Statement(
        "lemma_e_3",
        "Lemma E.3",
        "a gated MLP with LayerNorm and skip connection moves by the lemma's bound at most, L and B the activation's",
        Form("left side / right side", _glu_ratio, BOUND),
        near_and_far(),
        searched=True,
        smallest=SMALL,
    ),
    Statement(
        "corollary_e_4",
        "Corollary E.4",
        "with a sigmoid the bound of Lemma E.3 is the corollary's",
        Form("left side / right side", _sigmoid_ratio, BOUND),
        near_and_far(activation="sigmoid"),
        also=(
            Form(
                "without the last factor sqrt(d), which Lemma E.3 does not have",
                lambda example: _sigmoid_ratio(example, sharper=True),
                BOUND,
            ),
        ),
        searched=True,
        smallest=SMALL,
    ),
    Statement(
        "corollary_e_4_proof",
        "Corollary E.4, last equality of its proof",
        "the collected bound, with sqrt(d) |Wu'| in its last term, equals the one that it is collected from",
        Form("both are equal", lambda example: _collected(example, last=1.0), EQUALITY),
        {"near": pair(activation="sigmoid")},
        corrected=Form("with |Wu'| there", lambda example: _collected(example, last=0.0), EQUALITY),
        smallest=SMALL,
    ),
    _attention(
        "lemma_e_5",
        "Lemma E.5",
        "attention's output at the last token moves by epsilon + |Wv| sqrt(d) |a - a'|_1 + |Wv| epsilon / s + delta "
        "sqrt(d) at most",
        expanded=False,
    ),
    _attention(
        "lemma_e_5_proof",
        "Lemma E.5, the bound at the end of its proof",
        "it moves by the bound without attention weights at most",
        expanded=True,
    ),
)
