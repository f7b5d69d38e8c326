"""LoFiT and JoLA against their authors' attention code, in lofit.json and jola.json: same weights, logits and losses.

Tolerances: logits 1e-5, losses 1e-5 (float32, another transformers with another attention kernel on their side). With
ACTSHIFT_LOFIT and ACTSHIFT_JOLA, paths of checkouts, their code runs beside ours, where the installed transformers
is one of theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from adapted import attached, method_config
from heads_reference import CASES, given, measured
from ours import apart, filled, first, give, kept, logits, losses

from actshift.methods import heads
from actshift.methods.base import Adaptation
from actshift.models.loading import Base

MODEL = "random-llama"
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


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_logits_are_theirs(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart(first(own_logits(case, monkeypatch)), kept(name)[case]["logits"]) <= 1e-5


@pytest.mark.parametrize(("name", "case"), [pair for pair in PAIRS if pair[1] != "evaluation"])
def test_ten_losses_are_theirs(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = kept(name)[case]["losses"]
    stage = 9 if case == "scale" else 10  # our second stage of LoFiT begins with the tenth step
    assert apart(own_losses(case, monkeypatch)[:stage], theirs[:stage]) <= 1e-5
    assert theirs[-1] < theirs[0] - 0.01, "the ten steps train something"


def test_gates_are_open_by_other_shares_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two cases of JoLA differ: the noise is at work."""
    assert apart(own_logits("training", monkeypatch), own_logits("evaluation", monkeypatch)) > 1e-3


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_ours_are_their_code(name: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"ACTSHIFT_{name.upper()}"
    if variable not in os.environ:
        pytest.skip(f"needs a checkout of the authors' code (set {variable})")
    try:
        their_logits, their_losses = measured(name, Path(os.environ[variable]), case)
    except (ImportError, AttributeError, KeyError, TypeError) as error:
        pytest.skip(f"the authors' code needs an older transformers: {error!r}")
    assert apart(own_logits(case, monkeypatch), their_logits) <= 1e-5
    if case != "evaluation":
        assert apart(own_losses(case, monkeypatch)[:9], their_losses[:9]) <= 1e-5
