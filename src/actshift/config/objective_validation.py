"""The values that an objective can have, checked before any model or data is loaded."""

from __future__ import annotations

import math

from actshift.errors import ActshiftError, impossible
from actshift.schema.config import Config
from actshift.schema.objective import GrpoConfig
from actshift.tasks import TASKS, task_of


def validate_objective(config: Config) -> None:
    """Refuse a GRPO that has nothing to compare, nothing to reward or no way to draw; SFT has no choices."""
    objective = config.objective
    if not isinstance(objective, GrpoConfig):
        return
    if config.selection == "halving":
        raise impossible("selection", "halving", f"grid: with objective={objective.name} no validation loss is there")
    weights = objective.rewards.by_name()
    if not any(weights.values()) or not all(map(math.isfinite, weights.values())):
        raise impossible("objective.rewards", weights, "finite weights, at least one of them other than 0")
    if not task_of(config.dataset).scored:
        scored = ", ".join(name for name, task in TASKS.items() if task.scored)
        raise ActshiftError(
            f"objective={objective.name} rewards answers, and no answer to {config.dataset.name} is right or "
            f"wrong. Tasks that are scored: {scored}. Set objective=sft, or another dataset=..."
        )
    if config.evaluation.scoring != "generation":
        raise impossible(
            "evaluation.scoring",
            config.evaluation.scoring,
            f"generation, since objective={objective.name} trains what is generated",
        )
