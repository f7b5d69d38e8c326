"""The small closed world that procedural rows talk about: its people, things, kinds and opposites.

The embedded tiny model was pretrained on text about this world, so the words are part of its interface:
changing a list changes what `model=tiny` knows and asks for a new pretraining.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PEOPLE = tuple("Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Mia Noah Olga Paul".split())
COLOURS = tuple("red blue green yellow black white brown pink".split())
THINGS = tuple("ball cup box hat book lamp chair coat key bag pen ring shoe bell kite drum".split())
COUNTABLES = tuple("apples books coins shells stamps pencils eggs cards stones flowers".split())

KINDS = {
    "fruit": tuple("apple banana cherry grape lemon pear plum peach".split()),
    "animal": tuple("dog cat horse cow sheep goat duck lion".split()),
    "vehicle": tuple("car bus train boat bike plane truck ship".split()),
    "tool": tuple("hammer saw drill knife spade brush rake axe".split()),
    "metal": tuple("iron gold silver copper tin zinc lead steel".split()),
    "drink": tuple("water milk tea coffee juice wine beer soup".split()),
    "place": tuple("school park farm shop bank beach forest city".split()),
    "plant": tuple("tree grass rose fern moss bush oak lily".split()),
}

OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("heavy", "light"), ("old", "new"), ("hard", "soft"),
    ("dark", "bright"), ("tall", "short"), ("wet", "dry"), ("rich", "poor"), ("strong", "weak"), ("full", "empty"),
)  # fmt: skip

COMPARATIVES = (
    ("bigger", "smaller"), ("heavier", "lighter"), ("faster", "slower"), ("older", "newer"),
    ("taller", "shorter"), ("harder", "softer"), ("stronger", "weaker"), ("darker", "brighter"),
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """One person has one coloured thing."""

    person: str
    colour: str
    thing: str

    def __str__(self) -> str:
        return f"{self.person} has a {self.colour} {self.thing}."


def draw_facts(rng: random.Random, *, count: int) -> list[Fact]:
    """`count` facts about different people and different things; colours may repeat."""
    people, things = rng.sample(PEOPLE, count), rng.sample(THINGS, count)
    return [Fact(person, rng.choice(COLOURS), thing) for person, thing in zip(people, things, strict=True)]


def wrong_colour(rng: random.Random, facts: list[Fact], fact: Fact, *, traps: float) -> str:
    """A colour that `fact` does not have: with probability `traps` one that another fact has, else one that none has.

    A trap cannot be told by seeing the colour; it takes knowing whose it is.
    """
    others = [other.colour for other in facts if other.colour != fact.colour]
    if others and rng.random() < traps:
        return rng.choice(others)
    seen = {other.colour for other in facts}
    return rng.choice([colour for colour in COLOURS if colour not in seen])
