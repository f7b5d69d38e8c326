"""Many cells composed at the price of few: each option of a group goes through Hydra once, not once a cell."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actshift.config.composition import composed, resolved
from actshift.config.groups import groups, option_file
from actshift.schema.config import Config

if TYPE_CHECKING:
    from omegaconf import DictConfig


Choices = dict[str, tuple[str, ...]]
"""By group, the overrides that concern it: which option, and keys below it."""


class CachedComposer:
    """`compose` for plans, with a memory: for overrides that differ in what they say of groups (model, method, ...).

    The first cell is composed whole. Any other is a copy of it in which the nodes of its own choices stand, before
    interpolations are resolved. A choice that changes more than its group's node is composed whole with every cell.
    """

    def __init__(self) -> None:
        self._groups = groups()
        self._first: dict[tuple[str, ...], tuple[Choices, DictConfig]] = {}
        self._nodes: dict[tuple[str, ...], DictConfig | None] = {}
        self._cells: dict[tuple[str, ...], Config] = {}

    def __call__(self, overrides: Sequence[str]) -> Config:
        """The resolved configuration of some overrides; the same overrides give the same object, not to be changed."""
        if tuple(overrides) not in self._cells:
            self._cells[tuple(overrides)] = self._cell(overrides)
        return self._cells[tuple(overrides)]

    def _cell(self, overrides: Sequence[str]) -> Config:
        choices, rest = self._parted(overrides)
        key = (*choices, *rest)
        if key not in self._first:
            self._first[key] = choices, composed(overrides)
        first, whole = self._first[key]
        nodes = {name: self._node(name, choice, key, rest) for name, choice in choices.items() if choice != first[name]}
        if None in nodes.values():
            return resolved(composed(overrides), planned=True)
        cell = copy.deepcopy(whole)
        for name, node in nodes.items():
            cell[name] = node
        return resolved(cell, planned=True)

    def _parted(self, overrides: Sequence[str]) -> tuple[Choices, tuple[str, ...]]:
        """The overrides that choose a group's option, each with those of keys below it, and the others."""
        chosen: dict[str, list[str]] = {}
        rest = []
        for override in overrides:
            name, _, option = override.partition("=")
            group = name.partition(".")[0]
            if option in self._groups.get(name, ()):
                chosen.setdefault(name, []).append(override)
            elif "." in name and group in chosen:
                chosen[group].append(override)
            else:
                rest.append(override)
        return {name: tuple(words) for name, words in chosen.items()}, tuple(rest)

    def _node(self, group: str, choice: Sequence[str], key: Sequence[str], rest: Sequence[str]) -> DictConfig | None:
        """The node of a choice, or None where the choice changes something beside it."""
        name = (group, *choice, *key)
        if name not in self._nodes:
            first, whole = self._first[tuple(key)]
            others = [override for other, words in first.items() if other != group for override in words]
            node = composed([*choice, *others, *rest])
            self._nodes[name] = node[group] if _beside(node, group) == _beside(whole, group) else None
        return self._nodes[name]


def _beside(config: DictConfig, group: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != group}


def hub_models(names: Sequence[str], compose: CachedComposer) -> list[str]:
    """Those of some models that come from the hub. A model of the user's own has no configuration before its path."""
    of_users = "\nsource: local\n"
    files = {name: option_file("model", name).read_text(encoding="utf-8") for name in names}
    there = [name for name in names if of_users not in files[name]]
    return [name for name in there if compose([f"model={name}"]).model.source == "hub"]
