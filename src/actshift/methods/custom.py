"""Methods of the user's own: a class that is named by its import path in a YAML, as in ``target: my_file:MyMethod``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actshift.errors import ActshiftError
from actshift.libraries.user_code import load_user_class
from actshift.methods.base import Adaptation
from actshift.models.loading import Base
from actshift.schema.method import CustomConfig


def attach_custom(base: Base, *, config: CustomConfig, seeds: Sequence[int]) -> Adaptation:
    """Build ``target(base, config=..., seeds=...)``: what the class takes lies below ``config.options``."""
    method: Callable[..., Adaptation] = load_user_class(config.target, Adaptation, key="method.target")
    adaptation = method(base, config=config, seeds=seeds)
    parameters = dict(adaptation.named_parameters())
    if not parameters or not all(parameter.requires_grad for parameter in parameters.values()):
        fixed = [name for name, parameter in parameters.items() if not parameter.requires_grad]
        raise ActshiftError(
            f"method.target = {config.target} has "
            f"{'parameters that need no gradient: ' + ', '.join(fixed) if fixed else 'no parameters'}. Its "
            "named_parameters() must yield what trains, each an nn.Parameter with requires_grad."
        )
    return adaptation
