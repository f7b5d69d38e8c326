"""Many cells composed at the price of few: each option of a group goes through Hydra once, not once a cell."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from actshift.composition import composed, groups, resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig


class ProductComposer:
    """`compose` with a memory, for overrides that differ in the options of groups (model, method, dataset, ...).

    The first cell is composed whole. Any other is a copy of it in which the nodes of its own options stand, before
    interpolations are resolved. An option that changes more than its group's node is composed whole with every cell.
    """

    def __init__(self) -> None:
        self._groups = groups()
        self._first: dict[tuple[str, ...], tuple[dict[str, str], DictConfig]] = {}
        self._nodes: dict[tuple[str, ...], DictConfig | None] = {}
        self._cells: dict[tuple[str, ...], dict[str, Any]] = {}

    def __call__(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The resolved configuration of some overrides; the same overrides give the same object, not to be changed."""
        if tuple(overrides) not in self._cells:
            self._cells[tuple(overrides)] = self._cell(overrides)
        return self._cells[tuple(overrides)]

    def _cell(self, overrides: Sequence[str]) -> dict[str, Any]:
        options, rest = self._parted(overrides)
        key = (*options, *rest)
        if key not in self._first:
            self._first[key] = options, composed(overrides)
        first, whole = self._first[key]
        nodes = {name: self._node(name, option, key, rest) for name, option in options.items() if option != first[name]}
        if None in nodes.values():
            return resolved(composed(overrides))
        cell = copy.deepcopy(whole)
        for name, node in nodes.items():
            cell[name] = node
        return resolved(cell)

    def _parted(self, overrides: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
        """The overrides that choose a group's option, by group, and the others."""
        pairs = [(override, *override.partition("=")[::2]) for override in overrides]
        options = {name: option for _, name, option in pairs if option in self._groups.get(name, ())}
        return options, tuple(override for override, name, _ in pairs if name not in options)

    def _node(self, group: str, option: str, key: tuple[str, ...], rest: Sequence[str]) -> DictConfig | None:
        """An option's node, or None where the option changes something beside it."""
        if (group, option, *key) not in self._nodes:
            first, whole = self._first[key]
            other = composed([*_overrides(first | {group: option}), *rest])
            self._nodes[group, option, *key] = other[group] if _beside(other, group) == _beside(whole, group) else None
        return self._nodes[group, option, *key]


def _overrides(options: Mapping[str, str]) -> list[str]:
    return [f"{group}={option}" for group, option in options.items()]


def _beside(config: DictConfig, group: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != group}
