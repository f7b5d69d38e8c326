"""A fraction of a factorial design: a study's methods as combinations of levels, and the contrasts named for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from actshift.errors import ActshiftError, impossible, unknown
from actshift.schema.config import ContrastConfig, SweepConfig

Levels = Mapping[str, str]
"""By factor, the level of one combination."""


@dataclass(frozen=True)
class Combination:
    """One combination of levels: its name, the method that it begins with, and the overrides that its levels add."""

    name: str
    method: str
    overrides: tuple[str, ...]
    levels: Levels


@dataclass(frozen=True)
class Contrast:
    """A difference named beforehand, in percent points: the first level less the second of each factor in `compares`.

    One factor: the mean over all pairs of combinations that differ in it alone. Two factors: the mean difference of the
    differences (an interaction). With `together` all factors move at once, and there is one pair of combinations.
    `within` restricts the other factors to some levels. The methods that a sweep names have one factor, `method`.
    """

    name: str
    about: str
    compares: Mapping[str, tuple[str, ...]]
    within: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    together: bool = False
    claim: str = ""

    def pairs(self, there: Mapping[Any, Levels]) -> list[dict[Any, int]]:
        """The signed sums of combinations that are averaged: by combination, +1 or -1. None where some are missing."""
        by_levels = {tuple(sorted(levels.items())): name for name, levels in there.items()}
        found = []
        for others in self._others(there):
            corners = {}
            for signs in product((0, 1), repeat=len(self.compares)):
                if self.together and len(set(signs)) > 1:
                    continue
                moved = {name: pair[sign] for (name, pair), sign in zip(self.compares.items(), signs, strict=True)}
                corner = by_levels.get(tuple(sorted({**others, **moved}.items())))
                corners[corner] = -1 if (signs[0] if self.together else sum(signs) % 2) else 1
            if None not in corners:
                found.append(corners)
        return found

    def _others(self, there: Mapping[Any, Levels]) -> Iterator[dict[str, str]]:
        """The levels of the factors that are held equal, each set once."""
        seen = []
        for levels in there.values():
            others = {name: level for name, level in levels.items() if name not in self.compares}
            if others not in seen and all(others.get(name) in allowed for name, allowed in self.within.items()):
                seen.append(others)
                yield others

    def to_json(self) -> dict[str, Any]:
        lists = {key: {name: list(levels) for name, levels in getattr(self, key).items()} for key in _LISTS}
        return {"name": self.name, "about": self.about, **lists, "together": self.together, "claim": self.claim}

    @classmethod
    def of(cls, name: str, given: ContrastConfig) -> Contrast:
        """The contrast of a sweep's file."""
        compares, within = (
            {factor: tuple(levels) for factor, levels in part.items()} for part in (given.compares, given.within)
        )
        return cls(
            name=name,
            about=given.about,
            compares=compares,
            within=within,
            together=given.together,
            claim=given.claim,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Contrast:
        """The contrast of a JSON object."""
        tuples = {key: {name: tuple(levels) for name, levels in data[key].items()} for key in _LISTS}
        return cls(**{**data, **tuples})


_LISTS = ("compares", "within")
METHOD = "method"
"""The factor of a sweep's named methods."""


@dataclass(frozen=True)
class Fraction:
    """What a manifest keeps of a fraction beside its cells: the blocks, each a whole product, and the contrasts."""

    factors: tuple[str, ...]
    """In the order in which names have their levels."""
    blocks: tuple[Mapping[str, tuple[str, ...]], ...]
    contrasts: tuple[Contrast, ...]

    def to_json(self) -> dict[str, Any]:
        blocks = [{factor: list(levels) for factor, levels in block.items()} for block in self.blocks]
        contrasts = [contrast.to_json() for contrast in self.contrasts]
        return {"factors": list(self.factors), "blocks": blocks, "contrasts": contrasts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fraction:
        """The fraction of a JSON object."""
        factors = tuple(data["factors"])
        blocks = tuple({factor: tuple(block[factor]) for factor in factors} for block in data["blocks"])
        return cls(factors, blocks, tuple(Contrast.from_json(contrast) for contrast in data["contrasts"]))


def fraction_of(sweep: SweepConfig) -> Fraction | None:
    """The fraction of a sweep, None where it has none. Errors: as of `combinations` and `contrasts`."""
    given = sweep.fraction
    if not given.blocks:
        return None
    named = contrasts(sweep)  # refuses what is not there
    fraction = Fraction.from_json({"factors": list(given.factors), "blocks": given.blocks, "contrasts": ()})
    return replace(fraction, contrasts=named)


def combinations(sweep: SweepConfig) -> dict[str, Combination]:
    """The combinations of a sweep's fraction by name, in the order of its blocks, each once.

    A name is the levels in the order of the factors, joined by "-". One level of each combination gives `method=NAME`.
    Errors: a block that leaves a factor out or names a level that is not there; a combination without a method.
    """
    factors = sweep.fraction.factors
    found: dict[str, Combination] = {}
    where = f"sweep.fraction of conf/sweep/{sweep.name}.yaml"
    for block in sweep.fraction.blocks:
        if block.keys() != factors.keys():
            raise impossible("a block", sorted(block), f"levels of each of the factors {', '.join(factors)} ({where})")
        for factor, levels in block.items():
            for level in levels:
                if level not in factors[factor]:
                    raise unknown(f"level of {factor}", level, factors[factor], where=where)
        for chosen in product(*(block[factor] for factor in factors)):
            combination = _combination(dict(zip(factors, chosen, strict=True)), factors, where=where)
            found.setdefault(combination.name, combination)
    return found


def contrasts(sweep: SweepConfig) -> tuple[Contrast, ...]:
    """The contrasts of a sweep's fraction. Errors: a factor or level that is not there, one that no pair answers."""
    named: dict[str, list[str]] = {method: [] for method in sweep.methods}
    factors = {**sweep.fraction.factors, METHOD: named}
    there = {each.name: each.levels for each in combinations(sweep).values()} | {name: {METHOD: name} for name in named}
    found = []
    for name, given in sweep.fraction.contrasts.items():
        where = f"sweep.fraction.contrasts.{name}"
        for levels in (given.compares, given.within):
            for factor in levels:
                if factor not in factors:
                    raise unknown("factor", factor, factors, where=where)
                for level in levels[factor]:
                    if level not in factors[factor]:
                        raise unknown(f"level of {factor}", level, factors[factor], where=where)
        if not given.compares or any(len(pair) != 2 for pair in given.compares.values()):
            raise impossible(f"{where}.compares", given.compares, "two levels of each of its factors")
        contrast = Contrast.of(name, given)
        if not contrast.pairs(there):
            raise ActshiftError(f"{where}: no combinations of the blocks differ so. Add them, or leave it out.")
        found.append(contrast)
    return tuple(found)


def _combination(levels: dict[str, str], factors: Mapping[str, Any], *, where: str) -> Combination:
    overrides = [override for factor, level in levels.items() for override in factors[factor][level]]
    methods = [override.removeprefix("method=") for override in overrides if override.startswith("method=")]
    if len(methods) != 1:
        raise impossible(f"the combination {'-'.join(levels.values())}", methods, f"one override method=NAME ({where})")
    others = tuple(override for override in overrides if not override.startswith("method="))
    return Combination("-".join(levels.values()), methods[0], others, levels)
