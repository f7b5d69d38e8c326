"""The values that an objective can have, checked before any model or data is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from actshift.config.objective_schema import NORMALIZATIONS
from actshift.errors import ActshiftError, impossible, unknown
from actshift.tasks import TASKS, task_of

LEAST = {"completions": 2, "updates": 1, "max_new_tokens": 1, "clip_low": 0, "clip_high": 0, "kl": 0}
"""The least values of keys below `objective`."""


def validate_objective(config: Mapping[str, Any]) -> None:
    """Refuse a GRPO that has nothing to compare, nothing to reward or no way to draw; SFT has no choices."""
    objective = config["objective"]
    if objective["kind"] == "sft":
        return
    for key, least in LEAST.items():
        if not least <= objective[key] < math.inf:
            raise impossible(f"objective.{key}", objective[key], f"at least {least}")
    if config.get("selection") == "halving":
        raise impossible(
            "selection", "halving", f"grid: with objective={objective['name']} no validation loss is there"
        )
    if not 0 < objective["temperature"] < math.inf:
        raise impossible("objective.temperature", objective["temperature"], "a positive number")
    if not 0 < objective["top_p"] <= 1:
        raise impossible("objective.top_p", objective["top_p"], "a share above 0, up to 1")
    if objective["clip_low"] >= 1:
        raise impossible("objective.clip_low", objective["clip_low"], "a number below 1, since ratios are positive")
    if objective["normalization"] not in NORMALIZATIONS:
        raise unknown("normalization", objective["normalization"], NORMALIZATIONS, where="objective.normalization")
    weights = objective["rewards"]
    if not any(weights.values()) or not all(map(math.isfinite, weights.values())):
        raise impossible("objective.rewards", weights, "finite weights, at least one of them other than 0")
    if not task_of(config["dataset"]).scored:
        scored = ", ".join(name for name, task in TASKS.items() if task.scored)
        raise ActshiftError(
            f"objective={objective['name']} rewards answers, and no answer to {config['dataset']['name']} is right or "
            f"wrong. Tasks that are scored: {scored}. Set objective=sft, or another dataset=..."
        )
    if config["evaluation"]["scoring"] != "generation":
        raise impossible(
            "evaluation.scoring",
            config["evaluation"]["scoring"],
            f"generation, since objective={objective['name']} trains what is generated",
        )
