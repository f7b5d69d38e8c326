"""Several sites, `answer` and `every_last` against the authors' steerer: same weights, logits, losses, answers.

Its `--submodules` is the list of sites [pre_mlp, post_mlp]. Its `--intervene-last` is two things: trained by passes
that each change their last token (`every_last`), and generated with by a key/value cache that keeps what was changed
(`answer`).
Tolerances and the checkout: test_steerer.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from adapted import answers, attached, method_config
from ours import apart, filled, give, kept, logits, losses, tolerance
from reference import LOGITS, LOSSES, PROMPT, rows, shown
from steerer_reference import given
from steerer_variants import CASES, MODELS, NEW, fits, measured

KEPT = kept("steerer_variants")
PAIRS = [(model, case) for model in MODELS for case in CASES if fits(model, case)]


def ours(model: str, case: str) -> dict[str, Any]:
    variant, _, vector = case.partition(" ")
    method = "post_block_vector" if vector else "post_block"
    options = ["method.site=[pre_mlp,post_mlp]"] if variant == "submodules" else ["method.scope.kind=every_last"]
    base = filled(model)

    def value(name: str, like: Any) -> Any:
        layer, site, tensor = name.split(".")
        return given(f"{tensor} {site}", int(layer), like)

    found: dict[str, Any] = {}
    if variant == "last":
        prompts = rows()[:, :PROMPT].tolist()
        for scope, key in (("answer", "generated"), ("every_last", "generated_without_cache")):
            with attached(base, method_config(method, f"method.scope.kind={scope}", model=model)) as adaptation:
                give(adaptation, value)
                found[key] = answers(base, adaptation, prompts, new=NEW)
    with attached(base, method_config(method, *options, model=model)) as adaptation:
        give(adaptation, value)
        found["logits"] = shown(logits(base, adaptation))
        found["losses"] = losses(base, adaptation)
    return found


def agree(own: dict[str, Any], theirs: dict[str, Any], *, within: float) -> None:
    assert own.keys() == theirs.keys()
    assert apart(own["logits"], theirs["logits"]) <= within
    assert apart(own["losses"], theirs["losses"]) <= LOSSES
    for key in own.keys() - {"logits", "losses"}:
        assert own[key] == theirs[key], key


@pytest.mark.parametrize(("model", "case"), PAIRS)
def test_ours_are_the_released_numbers(model: str, case: str) -> None:
    theirs = KEPT["cases"][f"{model} {case}"]
    agree(ours(model, case), theirs, within=tolerance(model, KEPT["bases"]))
    assert theirs["losses"][-1] < theirs["losses"][0] - 0.01, "the ten steps train something"


def test_the_released_training_and_its_generation_are_two_scopes() -> None:
    """Else the kept answers could not tell `answer` from `every_last`."""
    pairs = [KEPT["cases"][f"{model} last"] for model in MODELS]
    assert any(each["generated"] != each["generated_without_cache"] for each in pairs)


@pytest.mark.parametrize(("model", "case"), PAIRS)
def test_ours_are_the_released_code(model: str, case: str) -> None:
    if "ACTSHIFT_STEERLING" not in os.environ:
        pytest.skip("needs a checkout of the released code (set ACTSHIFT_STEERLING)")
    theirs = measured(Path(os.environ["ACTSHIFT_STEERLING"]), filled(model).model, case)
    agree(ours(model, case), {**theirs, "logits": theirs["logits"]}, within=LOGITS)
