"""Many cells composed at the price of few: each option of an axis goes through Hydra once, not once a cell."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.composition import composed, resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig

AXES = ("model", "method", "dataset")


class ProductComposer:
    """`compose` for overrides that begin with ``model=``, ``method=`` and ``dataset=``, with the same result.

    The first cell is composed whole. Any other is a copy of it in which the nodes of its own options stand, before
    interpolations are resolved. An option that changes more than its group's node is composed whole with every cell.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, ...], tuple[dict[str, str], DictConfig]] = {}
        self._nodes: dict[tuple[str, ...], DictConfig | None] = {}

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        names = dict(override.split("=", 1) for override in overrides[: len(AXES)])
        if tuple(names) != AXES:
            return resolved(composed(overrides))
        rest = tuple(overrides[len(AXES) :])
        if rest not in self._first:
            self._first[rest] = names, composed(overrides)
        first, whole = self._first[rest]
        others = {axis: self._node(axis, names[axis], rest) for axis in AXES if names[axis] != first[axis]}
        if None in others.values():
            return resolved(composed(overrides))
        cell = copy.deepcopy(whole)
        for axis, node in others.items():
            cell[axis] = node
        return resolved(cell)

    def _node(self, axis: str, name: str, rest: tuple[str, ...]) -> DictConfig | None:
        """An option's node, or None where the option changes something beside it."""
        key = (axis, name, *rest)
        if key not in self._nodes:
            first, whole = self._first[rest]
            other = composed([*(f"{group}={option}" for group, option in (first | {axis: name}).items()), *rest])
            self._nodes[key] = other[axis] if _beside(other, axis) == _beside(whole, axis) else None
        return self._nodes[key]


def _beside(config: DictConfig, axis: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != axis}
