"""ReFT against pyreft's own model on Llama: block output and MLP output, last prompt token, and first and last seven.

Tolerances: logits 1e-6, ten losses 1e-5 (float32). The interventions are placed and run by pyreft at the positions that
its own data module gives; the prompts are longer and shorter than both ends together.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapted import attached, method_config
from ours import apart, filled, logits, losses
from reference import LOGITS, LOSSES, rows, ten_steps

pyreft = pytest.importorskip("pyreft", reason="needs pyreft: pip install 'actshift[reft]'")

MODEL, RANK = "random-llama", 4
SITES = {"post_block": "block_output", "post_mlp": "mlp_output"}
ENDS = {"last_prompt": (0, 1), "first_last": (7, 7)}
LONG, SHORT = 18, 5


def config(site: str, scope: str, *, separate: bool = False) -> Any:
    first, last = ENDS[scope]
    ends = [
        f"method.scope.first={first}",
        f"method.scope.last={last}",
        f"method.scope.separate={str(separate).lower()}",
    ]
    options = [f"method.scope.kind={scope}", *(ends if scope == "first_last" else [])]
    return method_config("reft", f"method.site={site}", f"method.rank={RANK}", *options, model=MODEL)


def positions(scope: str, prompt: int, *, interventions: int, share: bool) -> list[list[int]]:
    """Where each intervention acts on one row, by pyreft's data module."""
    from pyreft.dataset import get_intervention_locations

    first, last = ENDS[scope]
    found = get_intervention_locations(
        last_position=prompt, first_n=first, last_n=last, num_interventions=interventions, share_weights=share
    )
    # It fills up with -1, for which its collator puts a pad token before each row: here no place at all.
    return [[place for place in places if place >= 0] for places in found]


def theirs(
    modules: list[Any], site: str, scope: str, prompt: int, *, share: bool = True
) -> tuple[Any, Callable[[Any], Any]]:
    """pyreft's model over the filled base, with its own copies of some interventions, and its forward pass."""
    base, layers = filled(MODEL), 3
    representations = [
        {
            "layer": place % layers,
            "component": SITES[site],
            "low_rank_dimension": RANK,
            "intervention": copy.deepcopy(module),
        }
        for place, module in enumerate(modules)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        model = pyreft.get_reft_model(base.model, pyreft.ReftConfig(representations=representations))
    own = positions(scope, prompt, interventions=len(modules), share=share)

    def forward(ids: torch.Tensor) -> torch.Tensor:
        places = [[each] * len(ids) for each in own]
        _, output = model({"input_ids": ids}, unit_locations={"sources->base": (None, places)}, use_cache=False)
        found: torch.Tensor = output.logits
        return found

    return model, forward


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for each in model.interventions.values() for parameter in each.parameters()]


@pytest.mark.parametrize("prompt", [LONG, SHORT])
@pytest.mark.parametrize("scope", ENDS)
@pytest.mark.parametrize("site", SITES)
def test_reft_is_pyrefts(site: str, scope: str, prompt: int) -> None:
    base = filled(MODEL)
    with attached(base, config(site, scope)) as adaptation:
        modules = [adaptation.part(layer).interventions[0] for layer in range(3)]
        model, forward = theirs(modules, site, scope, prompt)
        with torch.no_grad():
            their_logits = forward(rows(prompt))
        their_losses = ten_steps(forward, trained(model), prompt=prompt)
        assert apart(logits(base, adaptation, prompt=prompt), their_logits) <= LOGITS
        assert apart(losses(base, adaptation, prompt=prompt), their_losses) <= LOSSES
    assert their_losses[-1] < their_losses[0] - 1e-3


@pytest.mark.parametrize("prompt", [LONG, SHORT])
def test_both_ends_with_weights_of_their_own(prompt: int) -> None:
    """As its authors published it: another intervention for the first positions than for the last."""
    base = filled(MODEL)
    with attached(base, config("post_block", "first_last", separate=True)) as adaptation:
        modules = [
            adaptation._parts[f"{layer}.post_block.{end}"].interventions[0]
            for end in ("first", "last")
            for layer in range(3)
        ]
        model, forward = theirs(modules, "post_block", "first_last", prompt, share=False)
        with torch.no_grad():
            their_logits = forward(rows(prompt))
        their_losses = ten_steps(forward, trained(model), prompt=prompt)
        assert apart(logits(base, adaptation, prompt=prompt), their_logits) <= LOGITS
        assert apart(losses(base, adaptation, prompt=prompt), their_losses) <= LOSSES
