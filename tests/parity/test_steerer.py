"""Post-block steering and vectors against the authors' released steerer: same weights, same logits, same ten losses.

Tolerances (float32): logits 1e-6, losses 1e-5. steerer.json holds its numbers, with where they are from: on another CPU
than theirs the logits may differ by what the base model's do, thrice. With ACTSHIFT_STEERLING, the path of a checkout,
the code itself runs beside ours, where nothing is added.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from adapted import attached, method_config
from ours import apart, filled, give, kept, logits, losses, tolerance
from reference import LOGITS, LOSSES, shown
from steerer_reference import CASES, MODELS, given, measured

KEPT = kept("steerer")


def ours(model: str, case: str) -> tuple[torch.Tensor, list[float]]:
    kind = {"vector": "vector", "linear": "linear"}.get(case, "nonlinear")
    method = {"vector": "post_block_vector", "linear": "post_block"}.get(case, "post_block_nonlinear")
    options = [f"method.activation={case}"] if kind == "nonlinear" else []
    base = filled(model)
    with attached(base, method_config(method, *options, model=model)) as adaptation:
        # <layer>.<site>.<tensor>
        give(adaptation, lambda name, like: given(name.split(".")[-1], int(name.split(".")[0]), like))
        return logits(base, adaptation), losses(base, adaptation)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", MODELS)
def test_ours_are_the_released_numbers(model: str, case: str) -> None:
    own_logits, own_losses = ours(model, case)
    theirs = KEPT["cases"][f"{model} {case}"]
    assert apart(shown(own_logits), theirs["logits"]) <= tolerance(model, KEPT["bases"])
    assert apart(own_losses, theirs["losses"]) <= LOSSES
    assert theirs["losses"][-1] < theirs["losses"][0] - 0.01, "the ten steps train something"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("model", MODELS)
def test_ours_are_the_released_code(model: str, case: str) -> None:
    if "ACTSHIFT_STEERLING" not in os.environ:
        pytest.skip("needs a checkout of the released code (set ACTSHIFT_STEERLING)")
    own_logits, own_losses = ours(model, case)
    their_logits, their_losses = measured(Path(os.environ["ACTSHIFT_STEERLING"]), filled(model).model, case)
    assert apart(own_logits, their_logits) <= LOGITS
    assert apart(own_losses, their_losses) <= LOSSES
