"""LoFiT and JoLA against their authors' attention code, in lofit.json and jola.json: same weights, logits and losses.

Tolerances (float32): logits 1e-6 beyond thrice what the base model's differ by (theirs is of another transformers with
another attention kernel), losses 1e-5, gates at evaluation one rounding. With ACTSHIFT_LOFIT and ACTSHIFT_JOLA, paths
of checkouts, and ACTSHIFT_LOFIT_PYTHON and ACTSHIFT_JOLA_PYTHON, interpreters with the old transformers that they need,
their code runs beside ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from adapted import attached, method_config
from heads_reference import CASES, MODEL, given
from ours import FOLDER, apart, filled, give, kept, logits, losses, tolerance
from reference import LOSSES, SIZES, shown

from actshift.methods import heads
from actshift.methods.base import Adaptation
from actshift.models.loading import Base

METHODS = {
    "bias": ("lofit",),
    "scale": ("lofit_two_stage", "method.selection.stage=0.99999", "method.selection.penalty=0"),
    # Their trainer adds the penalty, the attention code does not.
    "evaluation": ("jola", "method.gates.start=0"),
    "training": ("jola", "method.gates.start=0"),
}
PAIRS = [(name, case) for name, cases in CASES.items() for case in cases]


@contextmanager
def ours(case: str, patch: pytest.MonkeyPatch) -> Iterator[tuple[Base, Adaptation]]:
    """Our method with the tensors and the noise of a case."""

    def uniform(key: str, *shape: int) -> torch.Tensor:
        _, name, step = key.split()
        layer = int(name.split(".")[0])
        return torch.stack([given(part, layer, step=int(step)) for part in ("noise_bias", "noise_scale")])

    patch.setattr(heads, "_uniform", uniform)
    base = filled(MODEL)
    with attached(base, method_config(*METHODS[case], model=MODEL)) as adaptation:
        give(adaptation, lambda name, like: given(name.split(".")[-1], int(name.split(".")[0])))
        adaptation.begin(steps=10, steps_per_epoch=1)
        yield base, adaptation


def own_logits(case: str, patch: pytest.MonkeyPatch) -> torch.Tensor:
    with ours(case, patch) as (base, adaptation):
        if case == "training":
            base.model.train()
            adaptation.before_step(1)
        return logits(base, adaptation)


def own_losses(case: str, patch: pytest.MonkeyPatch) -> list[float]:
    with ours(case, patch) as (base, adaptation):
        return losses(base, adaptation)


@torch.no_grad()
def own_gates(patch: pytest.MonkeyPatch) -> torch.Tensor:
    """Our gates at evaluation, in the order of theirs."""
    with ours("evaluation", patch) as (base, adaptation):
        logits(base, adaptation)  # a forward pass tells the parts that this is evaluation
        parts = [adaptation.part(layer) for layer in range(SIZES["num_hidden_layers"])]
        return torch.cat([part._gate(part._logs()).flatten() for part in parts])


def compare_logits(case: str, theirs: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    found = apart(shown(own_logits(case, patch)), theirs["cases"][case]["logits"])
    assert found <= tolerance(MODEL, theirs["bases"])


def compare_losses(case: str, theirs: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
    stage = 9 if case == "scale" else 10  # our second stage of LoFiT begins with the tenth step
    expected = theirs["cases"][case]["losses"]
    assert apart(own_losses(case, patch)[:stage], expected[:stage]) <= LOSSES
    assert expected[-1] < expected[0] - 0.01, "the ten steps train something"


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_logits_are_theirs(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_logits(case, kept(name), monkeypatch)


# In training our gates always draw: theirs at evaluation have no losses to compare.
@pytest.mark.parametrize(("name", "case"), [pair for pair in PAIRS if pair[1] != "evaluation"])
def test_ten_losses_are_theirs(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare_losses(case, kept(name), monkeypatch)


def test_gates_at_evaluation_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    own, theirs = own_gates(monkeypatch), torch.tensor(kept("jola")["cases"]["evaluation"]["gates"])
    assert apart(own, theirs) <= torch.finfo(torch.float32).eps
    for end in (0, 1):
        assert torch.equal(own == end, theirs == end) and (theirs == end).any(), "wholly closed, wholly open"


def test_gates_are_open_by_other_shares_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two cases of JoLA differ: the noise is at work."""
    assert apart(own_logits("training", monkeypatch), own_logits("evaluation", monkeypatch)) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_ours_are_their_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [f"ACTSHIFT_{name.upper()}", f"ACTSHIFT_{name.upper()}_PYTHON"]
    if not all(variable in os.environ for variable in variables):
        pytest.skip(f"needs a checkout of the authors' code and an old transformers (set {' and '.join(variables)})")
    checkout, python = (os.environ[variable] for variable in variables)
    command = [python, str(FOLDER / "heads_reference.py"), name, checkout]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    for case in CASES[name]:
        compare_logits(case, theirs, monkeypatch)
        if case != "evaluation":
            compare_losses(case, theirs, monkeypatch)
    if name == "jola":
        assert own_gates(monkeypatch).tolist() == theirs["cases"]["evaluation"]["gates"]
