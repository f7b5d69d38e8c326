"""The theory ledger: every verdict, what makes one change, and every evaluator on cases that are known exactly."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from actshift.analysis.theory import dynamics, expansions, joint, linear, search, sites
from actshift.analysis.theory import networks as net
from actshift.analysis.theory.evaluate import Settings, entry_of
from actshift.analysis.theory.ledger import STATEMENTS, json_text, ledger, record
from actshift.analysis.theory.statements import (
    BOUND,
    EQUALITY,
    FAILS,
    HOLDS,
    LIMITS,
    UNDER,
    Check,
    Form,
    Sizes,
    Statement,
    verdict,
)
from actshift.cli import main
from actshift.config.composition import compose
from actshift.schema.analysis import TheoryConfig
from actshift.schema.building import built

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "results" / "analyses"
SMALL = {"draws": 15, "sizes": Sizes(8, 12, 24), "searched": Sizes(3, 4, 4), "restarts": 3, "steps": 120}

EXPECTED = {
    "expansion_mlp_input": UNDER,
    "expansion_mlp_weights": UNDER,
    "expansion_glu_input": UNDER,
    "expansion_glu_weights": UNDER,
    "expansion_LayerNorm": HOLDS,
    "expansion_RMSNorm": HOLDS,
    "difference_is_the_down_term": UNDER,
    "takeaway_1": UNDER,
    "theorem_3_1": FAILS,
    "proposition_c_1": HOLDS,
    "down_projection_of_zeros": HOLDS,
    "post_block_more_expressive": UNDER,
    "takeaway_2": FAILS,
    "proposition_4_1_together": HOLDS,
    "proposition_c_3_proof": FAILS,
    "proposition_4_1_alone": UNDER,
    "takeaway_3": UNDER,
    "example_in_the_plane": HOLDS,
    "projection_5_2": HOLDS,
    "appendix_d_gradients": HOLDS,
    "proposition_4_2": HOLDS,
    "proposition_4_2_same_subspace": HOLDS,
    "proposition_4_2_sketch": HOLDS,
    "proposition_d_1": UNDER,
    "theorem_d_2_proof_flow": FAILS,
    "theorem_d_2_proof_output": FAILS,
    "theorem_d_2_proof_solution": FAILS,
    "lemma_e_1": HOLDS,
    "lemma_e_2": HOLDS,
    "lemma_e_3": HOLDS,
    "corollary_e_4": HOLDS,
    "corollary_e_4_proof": FAILS,
    "lemma_e_5": FAILS,
    "lemma_e_5_proof": FAILS,
}
WITHOUT_CORRECTION = {"takeaway_2"}
BY_NAME = {statement.name: statement for statement in STATEMENTS}


def settings(seed: int = 0) -> Settings:
    return Settings(**SMALL, seed=seed)  # type: ignore[arg-type]


# --- verdicts ---------------------------------------------------------------------------------------------------


def test_every_statement_has_an_expected_verdict() -> None:
    assert list(EXPECTED) == [statement.name for statement in STATEMENTS]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdict(name: str, seed: int) -> None:
    entry = entry_of(BY_NAME[name], settings(seed))
    assert entry.verdict == EXPECTED[name], [check for check in entry.checks if check.role in ("printed", "condition")]
    if entry.verdict == FAILS and name not in WITHOUT_CORRECTION:
        assert entry.corrected, "the corrected form fails too"
    found = entry.counterexample
    assert (found is None) == (entry.verdict == HOLDS)
    if found is not None:
        assert found["value"] > found["limit"]  # type: ignore[operator]


def test_the_committed_ledger_has_these_verdicts_and_its_own_frame() -> None:
    committed = json.loads((COMMITTED / "theory.json").read_text())
    assert {each["name"]: each["verdict"] for each in committed["statements"]} == EXPECTED
    text = (COMMITTED / "theory.csv").read_bytes()
    assert committed["frame"] == hashlib.sha256(text).hexdigest()
    frame = pd.read_csv(COMMITTED / "theory.csv")
    assert dict(zip(frame["statement"], frame["verdict"], strict=True)) == EXPECTED


@pytest.mark.slow
def test_the_committed_ledger_is_what_its_configuration_gives() -> None:
    committed = json.loads((COMMITTED / "theory.json").read_text())
    analysis = built(TheoryConfig, committed["config"])
    again = record(ledger(analysis), analysis)
    assert {each["name"]: each["verdict"] for each in again["statements"]} == EXPECTED
    assert again["code"] == committed["code"], "made by other code: do `actshift analyze theory` again"


def test_the_same_seed_is_the_same_text_and_another_is_not() -> None:
    config = compose(["analysis=theory", "analysis.draws=3", "analysis.search.restarts=1", "analysis.search.steps=5"])
    first, second = (json_text(record(ledger(config.analysis), config.analysis)) for _ in range(2))
    assert first == second
    other = replace(config.analysis, seed=1)
    assert record(ledger(other), other)["frame"] not in first


def check(role: str, *, holds: bool) -> Check:
    return Check(role, "", BOUND, "", 1, 1.0, 1.0, 1.0, holds)


def test_a_verdict_follows_from_the_printed_form_and_its_condition_alone() -> None:
    fails, passes = check("printed", holds=False), check("printed", holds=True)
    assert verdict((passes,)) == HOLDS
    assert verdict((passes, check("also", holds=False), check("corrected", holds=False))) == HOLDS
    assert verdict((passes, fails)) == FAILS
    assert verdict((fails, check("condition", holds=True))) == UNDER
    assert verdict((fails, check("condition", holds=True), check("condition", holds=False))) == FAILS
    assert verdict((fails, check("corrected", holds=True))) == FAILS
    assert verdict(()) == FAILS


def test_a_form_without_any_decided_draw_does_not_hold() -> None:
    empty = Statement("x", "", "", Form("", lambda example: float("nan"), BOUND), {"none": lambda rng, sizes: {}})
    assert entry_of(empty, settings()).verdict == FAILS


def start(example: dict[str, np.ndarray | str]) -> np.ndarray:
    return dynamics.start(example)[1]


MUTATIONS = [
    ("expansion_glu_input", net, "glu_jacobian", lambda gate, up, down, h, activation: down @ up),
    ("proposition_4_2_sketch", dynamics, "speed", lambda example: 1.0),
    ("proposition_c_1", sites, "column_basis", lambda matrix: np.linalg.qr(matrix)[0][:, :1]),
    ("appendix_d_gradients", dynamics, "output", lambda example, dh, dw: start(example) + dh @ start(example)),
    ("lemma_e_1", net, "deviation", lambda h: 1.1 * np.sqrt(np.mean((h - h.mean(axis=0)) ** 2, axis=0))),
    ("projection_5_2", joint, "column_basis", lambda matrix: matrix),
]


@pytest.mark.parametrize(("name", "module", "function", "wrong"), MUTATIONS, ids=[each[0] for each in MUTATIONS])
def test_a_wrong_formula_changes_the_verdict(
    name: str, module: object, function: str, wrong: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "lemma_e_1":  # the norm divides by the true deviation, the bound by a larger one
        true = net.deviation
        monkeypatch.setattr(net, "layer_norm", lambda h: (h - h.mean(axis=0)) / true(h))
    monkeypatch.setattr(module, function, wrong)
    assert entry_of(BY_NAME[name], settings()).verdict == FAILS


# --- closed forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.5, 1, 1.5, 2, 3])
def test_the_slope_of_a_power_is_its_exponent(power: float) -> None:
    assert linear.slope(lambda t: 7 * t**power, expansions.STEPS) == pytest.approx(power, abs=1e-9)
    assert linear.slope(lambda t: 0.0, expansions.STEPS) == 2.0


def test_activations_have_the_derivatives_that_they_name() -> None:
    at = np.array([-2.3, -0.4, 0.7, 1.9])
    for phi, derivative in net.ACTIVATIONS.values():
        np.testing.assert_allclose((phi(at + 1e-6) - phi(at - 1e-6)) / 2e-6, derivative(at), atol=1e-8)
    assert net.lipschitz("sigmoid") == pytest.approx(0.25)
    assert net.lipschitz("tanh") == pytest.approx(1.0)
    assert net.lipschitz("silu") == pytest.approx(1.0998, abs=1e-4)


def test_jacobians_of_norms_are_their_derivatives() -> None:
    h, step = np.random.default_rng(0).standard_normal((2, 6))
    for norm, jacobian in ((net.layer_norm, net.layer_norm_jacobian), (net.rms_norm, net.rms_norm_jacobian)):
        numeric = (norm(h + 1e-6 * step) - norm(h - 1e-6 * step)) / 2e-6
        np.testing.assert_allclose(jacobian(h) @ step, numeric, atol=1e-8)


@pytest.mark.parametrize(("activation", "shortfall"), [("power_3_2", 0.5), ("silu", 0.0), ("sigmoid", -1.0)])
def test_expansions_at_zero_have_the_order_of_their_taylor_series(activation: str, shortfall: float) -> None:
    one = np.ones((1, 1))
    example: dict[str, np.ndarray | str] = {"gate": one, "down": one, "h": np.zeros(1), "step": np.ones(1)}
    measure = BY_NAME["expansion_mlp_input"].printed.measure
    assert measure(example | {"activation": activation}) == pytest.approx(shortfall, abs=1e-3)


def test_takeaway_1_in_one_dimension() -> None:
    """There the step (dWd) m / (Wd phi'(h) + ...) does it, unless the derivative is 0."""
    one = np.ones((1, 1))
    example: dict[str, np.ndarray | str] = {name: one for name in ("gate", "up", "down", "d_down")}
    example |= {"h": np.ones(1), "activation": "silu"}
    measure = BY_NAME["takeaway_1"].printed.measure
    assert measure(example) == pytest.approx(1.0)
    assert measure(example | {"down": 0 * one}) == pytest.approx(0.0)


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2, np.pi / 2])
def test_theorem_3_1_in_three_samples(angle: float) -> None:
    """Row spaces span(e1, e2) and span(cos e1 + sin e3, e2): angles 0 and `angle`; singular values 3 and 1."""
    shift = np.array([[3.0, 0, 0], [0, 1, 0]])
    block = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0]])
    assert linear.best_map_error(block, shift) == pytest.approx(0.9 * np.sin(angle) ** 2)
    assert sites.vector_sum(block, shift) == pytest.approx(0.9 * np.sin(angle) ** 2)
    assert sites.principal_sum(block, shift) == pytest.approx(0.1 * np.sin(angle) ** 2)
    assert sites.principal_sum(block, shift, falling=True) == pytest.approx(0.9 * np.sin(angle) ** 2)


@pytest.mark.parametrize("angle", [0.01, 0.5, np.pi / 2])
def test_an_oblique_projection_has_the_norm_of_its_angle(angle: float) -> None:
    y, x = np.array([[1.0], [0.0]]), np.array([[np.cos(angle)], [np.sin(angle)]])
    *_, onto = sites._projected({"X": x, "Y": y, "A": np.eye(2)})
    assert linear.norm(onto) == pytest.approx(1 / np.sin(angle))
    np.testing.assert_allclose(onto @ x, x, atol=1e-12)
    np.testing.assert_allclose(onto @ y, 0 * y, atol=1e-12)


def test_tuning_and_steering_on_two_points() -> None:
    """x = (1, -1) and F = ReLU(x) = (1, 0); wanted: a x + b F = (a + b, -a)."""
    x, f, outer = np.array([[1.0, -1.0]]), np.array([[1.0, 0.0]]), np.array([[0.0]])
    a, b = 3.0, 1.0
    target = a * x + b * f
    size = np.hypot(a + b, a)
    assert joint.tuning_left(x, f, target) == pytest.approx((a - 1) / size)
    # Steering scales x = (1, -1): what is orthogonal to it is (b / 2)(1, 1).
    assert joint.steering_left(x, f, outer, target) == pytest.approx(b / np.sqrt(2) / size)


def test_the_printed_proof_of_c_3_in_one_dimension() -> None:
    """A = 2, B = 1: A (A - 1)^-1 B = 2 in place of 1, and A A^-1 B = 1."""
    example: dict[str, np.ndarray | str] = {"x": np.zeros((1, 3)), "W1": np.ones((1, 1)), "W2": np.zeros((1, 1))}
    example |= {"alpha": np.full((1, 1), 2.0), "beta": np.ones((1, 1)), "activation": "sigmoid"}
    assert BY_NAME["proposition_c_3_proof"].printed.measure(example) == pytest.approx(0.5)
    assert BY_NAME["proposition_c_3_proof"].corrected.measure(example) == pytest.approx(0.0)  # type: ignore[union-attr]


def scalar_task(**changed: float) -> dict[str, np.ndarray | str]:
    values = {"X": 0.0, "W": 1.0, "F": 2.0, "G": 5.0, "dh": 0.5, "dW": 0.25} | changed
    return {name: np.full((1, 1), value) for name, value in values.items()}


def test_gradients_and_flow_of_one_number() -> None:
    example = scalar_task()
    dh, dw = np.full((1, 1), 0.5), np.full((1, 1), 0.25)
    # Y + dW F = 2.5, G^ = 3.75, R = 1.25.
    first, second = dynamics.gradients(example, dh, dw)
    assert (float(first[0, 0]), float(second[0, 0])) == (1.25 * 2.5, 1.5 * 1.25 * 2)
    # Y = F = 2 and R = 3: A = [[4, 4], [4, 4]], C = [6, 6], t = 1/8; Z = 6/8 (1 - e^-1) [1, 1] exactly.
    solution = BY_NAME["theorem_d_2_proof_solution"]
    printed, exact = (np.e - 1) * 0.75, (1 - np.exp(-1)) * 0.75
    assert solution.printed.measure(example) == pytest.approx((printed - exact) / printed)
    assert solution.corrected.measure(example) < 1e-12  # type: ignore[union-attr]


def test_angles_of_dominant_subspaces() -> None:
    turned = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    assert dynamics.apart(np.diag([2.0, 1.0]), turned @ np.diag([2.0, 1.0]), 1) == pytest.approx(np.sin(0.3))
    assert dynamics.apart(np.diag([2.0, 1.0]), turned @ np.diag([2.0, 1.0]), 2) == pytest.approx(0, abs=1e-12)


def test_proposition_d_1_on_one_input() -> None:
    """Y = e1 and G = e2: the first step's dh is a multiple of (e2 - e1) e1', half of whose square is outside e1."""
    example: dict[str, np.ndarray | str] = {"X": np.array([[1.0], [0]]), "W": np.zeros((2, 1)), "F": np.zeros((1, 1))}
    example |= {"G": np.array([[0.0], [1.0]])}
    dh, _ = dynamics.descended(example, 0.5, steps=1)
    assert linear.outside(dh, dynamics._of_y(example)) == pytest.approx(np.sqrt(0.5))
    assert linear.outside(dh, dynamics._of_y_and_g(example)) == pytest.approx(0, abs=1e-12)


BOUNDS = [name for name in EXPECTED if name.startswith(("lemma_e_1", "lemma_e_2", "lemma_e_3", "corollary_e_4"))]


def gated(**changed: np.ndarray) -> dict[str, np.ndarray | str]:
    zero = {name: np.zeros((2, 2)) for name in ("gate", "gate2", "up", "up2", "down", "down2")}
    h = {"h": np.array([1.0, -1.0]), "h2": np.array([-1.0, 1.0])}
    return {**zero, **h, **changed, "activation": "sigmoid"}


def test_bounds_of_appendix_e_where_both_sides_are_known() -> None:
    # LayerNorm of (1, -1) is itself: 2 sqrt(2) on both sides. RMSNorm and sharper: the same.
    for form in (BY_NAME["lemma_e_1"].printed, BY_NAME["lemma_e_1"].also[0], BY_NAME["lemma_e_1"].also[2]):
        assert form.measure(gated()) == pytest.approx(1.0)
    assert BY_NAME["lemma_e_1"].also[1].measure(gated()) == pytest.approx(np.sqrt(2))  # d - 1 = 1 in place of 2
    # W = u v' along h - h', W' = 0.
    along = np.array([[1.0, -1.0], [0, 0]])
    assert BY_NAME["lemma_e_2"].printed.measure(gated(gate=along, gate2=along)) == pytest.approx(1.0)
    # Without weights a gated MLP is the identity.
    assert BY_NAME["lemma_e_3"].printed.measure(gated()) == pytest.approx(1.0)
    assert BY_NAME["corollary_e_4"].printed.measure(gated()) == pytest.approx(1.0)
    # Wu' = I, everything else 0, equal inputs: sqrt(2) against 2 in the printed equality.
    same = {"h": np.array([1.0, -1.0]), "h2": np.array([1.0, -1.0])}
    value = BY_NAME["corollary_e_4_proof"].printed.measure(gated(up2=np.eye(2), **same))
    assert value == pytest.approx(1 - 1 / np.sqrt(2))


def test_attention_that_turns_a_token_of_small_deviation_round() -> None:
    """Uniform weights over two tokens; the first goes from 1 + s (1, -1) to 1 - s (1, -1), the last has deviation 4."""
    s, value = 0.1, np.eye(2)
    first = np.array([[1 + s, 4.0], [1 - s, -4.0]])
    second = np.array([[1 - s, 4.0], [1 + s, -4.0]])
    zero = np.zeros((2, 2))
    example: dict[str, np.ndarray | str] = {"H": first, "H2": second, "value": value, "value2": value}
    example |= {name: zero for name in ("query", "query2", "key", "key2")}
    left, eps = np.sqrt(2), 2 * np.sqrt(2) * s
    assert BY_NAME["lemma_e_5"].printed.measure(example) == pytest.approx(left / (eps + eps / 4))
    corrected = BY_NAME["lemma_e_5"].corrected
    assert corrected is not None
    assert corrected.measure(example) == pytest.approx(left / (eps + eps / s))
    assert BY_NAME["lemma_e_5_proof"].printed.measure(example) == pytest.approx(left / (eps + np.sqrt(2) * eps / 4))


def test_a_projection_leaves_nothing_in_one_direction() -> None:
    example = {"B": np.array([[1.0], [0]]), "W2": np.array([[3.0], [4.0]])}
    assert joint._column_spaces(example) == pytest.approx(0, abs=1e-15)  # type: ignore[arg-type]
    assert joint._without_unit_length({"B": 2 * example["B"], "W2": example["W2"]}) == pytest.approx(9 / 5)


# --- search -----------------------------------------------------------------------------------------------------


def test_a_climb_finds_the_top() -> None:
    rng = np.random.default_rng(0)
    value, place = search.climb(lambda e: 3 - float(np.sum((e["x"] - 2) ** 2)), {"x": np.ones(3)}, rng, steps=600)  # type: ignore[operator]
    assert value == pytest.approx(3, abs=1e-4)
    np.testing.assert_allclose(place["x"], 2, atol=0.02)  # type: ignore[arg-type]


def test_the_smallest_counterexample_is_small_and_simple() -> None:
    """That |x|_1 <= |x|_2 fails in two dimensions, first at (1, 1)."""
    form = Form("", lambda e: float(np.abs(e["x"]).sum() / np.linalg.norm(e["x"])), BOUND)  # type: ignore[arg-type]
    draws = {"any": lambda rng, sizes: {"x": rng.standard_normal(sizes.width)}}
    sizes = (Sizes(1, 1, 1), Sizes(2, 1, 1), Sizes(3, 1, 1))
    found = search.smallest_counterexample(form, draws, sizes, np.random.default_rng(0), tries=5, steps=20)  # type: ignore[arg-type]
    assert found is not None
    size, value, example = found
    assert size.width == 2
    assert value == pytest.approx(np.sqrt(2))
    np.testing.assert_array_equal(np.abs(example["x"]), [1, 1])  # type: ignore[arg-type]
    true = Form("", lambda e: -1.0, EQUALITY)
    assert search.smallest_counterexample(true, draws, sizes, np.random.default_rng(0), tries=5, steps=20) is None  # type: ignore[arg-type]


def test_what_is_no_number_refutes_nothing() -> None:
    assert search.value_of(lambda example: float("nan"), {}) == -np.inf
    assert search.value_of(lambda example: 1 / 0, {}) == -np.inf
    assert set(LIMITS) == set(search.MARGINS)


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_writes_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        "analysis.activations=false",
        "analysis.draws=2",
        "analysis.search.restarts=1",
        "analysis.search.steps=3",
        f"results={tmp_path}",
    ]
    assert main(["analyze", "theory", *few]) == 0
    assert {file.name for file in (tmp_path / "analyses").iterdir()} == {"theory.json", "theory.csv", "theory.md"}
    page = (tmp_path / "analyses" / "theory.md").read_text()
    assert all(f"## {name}" in page for name in EXPECTED)
    assert "theorem_3_1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["theoy"], "unknown analysis 'theoy'. Did you mean 'theory'?"),
        (["theory", "analysis.draws=0"], "analysis.draws = 0 is impossible"),
        (["theory", "analysis.search.sizes.width=1"], "analysis.search.sizes.width = 1 is impossible"),
        (["theory", "analysis.drws=3"], "unknown config key 'analysis.drws'"),
        (["theory", "analysis=theory"], "the analysis is the command's first word"),
    ],
)
def test_a_wrong_request_says_what_is_allowed(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", *arguments]) == 2
    assert message in capsys.readouterr().err
