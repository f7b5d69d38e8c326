"""The procedural text on which the embedded tiny model is pretrained.

A document is a list of segments ``(text, learn)``: `learn` marks text that follows from what precedes it (an
answer, a sum), so that pretraining can spend its loss there; the rest (names, numbers drawn at random) is noise
to a language model. Documents teach the small world and its skills, never the tasks' prompts or answer formats:
yes/no instead of True/False, `=` instead of answer tags, "The choice is" instead of "Answer:". The words of the
prompts occur in other sentences (the headers), so that adaptation does not start from unseen tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from actshift.tasks.arc_challenge import draw_question
from actshift.tasks.listops import Tree, draw_tree, tree_length, tree_text, tree_value
from actshift.tasks.world import (
    COLOURS,
    COMPARATIVES,
    COUNTABLES,
    KINDS,
    OPPOSITES,
    PEOPLE,
    THINGS,
    draw_facts,
    wrong_colour,
)

Segment = tuple[str, bool]
Document = list[Segment]

HEADERS = {
    "lists": (
        "Here are nested list expressions, each with its value.", "Every list has a numeric result.",
        "Evaluate each expression and return the final value.", "The value of a nested list comes from inside out.",
        "Expression after expression, only the result is given.", "The following expressions are lists.",
    ),
    "facts": (
        "Read the passage and then answer each question.", "This passage is about people and their things.",
        "A question about a given passage has a short answer.", "The question is based on the passage.",
        "Passage and questions:", "Question after question about the following passage.",
    ),
    "choices": (
        "The following question has several options.", "Please choose the correct option.",
        "Each multiple-choice question has one correct answer.", "A multiple-choice exam, question by question.",
        "Question and options:",
    ),
    "problems": (
        "Solve the following math problem step by step.", "A math question about things that people have.",
        "Please answer with the final number.", "Problem after problem, each with its steps.",
    ),
    "comparisons": (
        "Please fill in the blank to complete the given sentence.", "Choose the option that completes the sentence.",
        "Two things are compared in each sentence.", "The correct option goes into the blank.",
    ),
    "truths": ("True or false?", "Say True or False for each line.", "The answer is a true/false."),
    "notes": ("Short notes with tags.", "Each value is given inside its tag.", "The names and values are given."),
}  # fmt: skip


REPEATED = (PEOPLE, THINGS, COLOURS, COUNTABLES, tuple("0123456789"), *KINDS.values())


def _lists(rng: random.Random, level: float) -> Iterator[Segment]:
    tree = _draw_list(rng, level)
    text, value = tree_text(tree), tree_value(tree)
    before, after = rng.choice(
        (("", " ="), ("", " ="), ("The value of ", " is"), ("", " gives"), ("", "\n<value>"), ("", "\nResult:"))
    )
    yield f"{before}{text}{after}", False
    if rng.random() < 0.25 and after == " =":
        for step in _reductions(tree):
            yield f" {step} =", True
    yield f"{value}</value>" if after.endswith(">") else f" {value}", True
    yield rng.choice((".\n", "\n", " ;\n")), False


def _draw_list(rng: random.Random, level: float) -> Tree:
    depth = 2 if rng.random() > 0.7 * level else rng.choice((3, 3, 4))
    longest = 4 if level < 0.1 else rng.choice((4, 6, 8, 12, 16))
    while True:
        tree = draw_tree(rng, max_depth=depth, max_args=min(5, 2 + int(4 * level)))
        if not isinstance(tree, int) and tree_length(tree) <= longest:
            return tree


def _reductions(tree: Tree) -> Iterator[str]:
    """The expression with its innermost operators evaluated, again and again, down to one operator."""
    while not isinstance(tree, int) and any(not isinstance(child, int) for child in tree[1]):
        tree = _reduce(tree)
        yield tree_text(tree)


def _reduce(tree: Tree) -> Tree:
    if isinstance(tree, int) or all(isinstance(child, int) for child in tree[1]):
        return tree_value(tree)
    return tree[0], [_reduce(child) for child in tree[1]]


def _repeats(rng: random.Random, level: float) -> Iterator[Segment]:
    """Words in no order, then the same words again: the second time each follows from the first."""
    words = [rng.choice(rng.choice(REPEATED)) for _ in range(rng.randint(4, 8 + round(16 * level)))]
    text = "".join(f" {word}" for word in words)
    yield text, False
    for _ in range(2):
        yield f" ; {words[0]}", False
        yield text.removeprefix(f" {words[0]}"), True
    yield ".\n", False


def _recalls(rng: random.Random, level: float) -> Iterator[Segment]:
    """Pairs, then each of them asked for: nothing but looking back, which everything else builds on."""
    keys = rng.sample(rng.choice((PEOPLE, THINGS)), rng.randint(2, 3 + round(4 * level)))
    values = [rng.choice(rng.choice((COLOURS, THINGS, tuple("0123456789"), PEOPLE))) for _ in keys]
    pairs = list(zip(keys, values, strict=True))
    yield ",".join(f" {key} : {value}" for key, value in pairs) + ".\n", False
    for key, value in rng.sample(pairs, len(pairs)):
        yield f" {key} ?", False
        yield f" {value}", True
    yield ".\n", False


def _facts(rng: random.Random, level: float) -> Iterator[Segment]:
    facts = draw_facts(rng, count=rng.randint(1, 2 + round(2 * level)))
    yield " ".join(map(str, facts)) + "\n", False
    for _ in range(rng.randint(3, 7)):
        fact = rng.choice(facts)
        match rng.randrange(8):
            case 0:
                yield f"What colour is the {fact.thing} of {fact.person}?", False
                yield f" {fact.colour}.\n", True
            case 1:
                yield f"Who has the {fact.thing}?", False
                yield f" {fact.person}.\n", True
            case 2:
                yield f"What does {fact.person} have? a", False
                yield f" {fact.colour} {fact.thing}.\n", True
            case 3:
                yield f"The {fact.thing} of {fact.person} is", False
                yield f" {fact.colour}.\n", True
            case choice:
                truth = rng.random() < 0.5
                colour = fact.colour if truth else wrong_colour(rng, facts, fact, traps=0.7 * level)
                claim = f"{fact.person} have a {colour} {fact.thing}"
                if choice == 7:
                    yield f"{claim.replace(' have ', ' has ')}:", False
                    yield f" {'right' if truth else 'wrong'}.\n", True
                else:
                    yield f"{rng.choice(('Does', 'does'))} {claim}?", False
                    yield f" {'yes' if truth else 'no'}.\n", True


def _choices(rng: random.Random, level: float) -> Iterator[Segment]:
    question, right, wrong = draw_question(rng, choices=rng.randint(2, 2 + round(3 * level)))
    options = [right, *wrong]
    rng.shuffle(options)
    label = "ABCDE"[options.index(right)]
    style = rng.choice(("({label}) {text}", "({label}) {text}", "{label}){text}"))
    separator = rng.choice(("\n", " "))
    listed = separator.join(style.format(label="ABCDE"[i], text=text) for i, text in enumerate(options))
    yield f"{question}\n{listed}\n", False
    match rng.randrange(4):
        case 0:
            yield "The choice is", False
            yield f" ({label}) {right}.\n", True
        case 1:
            yield "It is", False
            yield f" {right}", True
            yield ", choice", False
            yield f" {label}.\n", True
        case 2:
            yield "Choose", False
            yield f" {label}.\n", True
        case _:
            yield "We choose (", False
            yield f"{label}) {right}.\n", True


def _kinds(rng: random.Random, level: float) -> Iterator[Segment]:
    kind = rng.choice(sorted(KINDS))
    left, right = rng.sample(rng.choice(OPPOSITES), 2)
    yield f"The kind of {rng.choice(KINDS[kind])} is", False
    yield f" {kind}.\n", True
    yield f"{rng.choice(KINDS[kind])} :", False
    yield f" {kind}.\n", True
    yield f"The opposite of {left} is", False
    yield f" {right}.\n", True


def _sums(rng: random.Random, level: float) -> Iterator[Segment]:
    left, right = rng.randrange(1, 10), rng.randrange(1, 10)
    form = rng.choice(("{a} + {b} =", "{a} plus {b} is", "{c} - {a} =", "{c} minus {a} is"))
    yield form.format(a=left, b=right, c=left + right), False
    yield f" {left + right if '{b}' in form else right}", True
    yield rng.choice((".\n", " ,", "\n")), False


def _draw_problem(rng: random.Random) -> tuple[str, str, int]:
    """A word problem of one or two steps over small numbers: question, worked steps, result."""
    owner, friend = rng.sample(PEOPLE, 2)
    things = rng.choice(COUNTABLES)
    start, gain = rng.randrange(2, 10), rng.randrange(1, 10)
    total = start + gain
    ask = f"How many {things} does {owner} have now?"
    match rng.randrange(4):
        case 0:
            story = f"{owner} has {start} {things}. {friend} gives {owner} {gain} {things}. {ask}"
            return story, f"{owner} has {start} + {gain} = {total} {things}.", total
        case 1:
            story = f"{owner} has {total} {things}. {owner} gives {friend} {gain} {things}. {ask}"
            return story, f"{owner} has {total} - {gain} = {start} {things}.", start
        case 2:
            ask = f"How many {things} do they have together?"
            story = f"{owner} has {start} {things}. {friend} has {gain} {things}. {ask}"
            return story, f"Together they have {start} + {gain} = {total} {things}.", total
        case _:
            loss = rng.randrange(1, total)
            story = (
                f"{owner} has {start} {things}. {friend} gives {owner} {gain} {things}. "
                f"{owner} loses {loss} {things}. {ask}"
            )
            steps = (
                f"{owner} has {start} + {gain} = {total} {things}.\n"
                f"Then {owner} has {total} - {loss} = {total - loss} {things}."
            )
            return story, steps, total - loss


def _problems(rng: random.Random, level: float) -> Iterator[Segment]:
    question, steps, result = _draw_problem(rng)
    things = rng.choice(COUNTABLES)
    equations = re.findall(r"\d+ [-+] \d+ = \d+", steps)
    yield f"{question}\n", False
    if rng.random() < 0.5:
        for step in steps.split("\n"):
            subject, rest = step.split(" ", 1)
            yield f"{subject}", False
            yield f" {rest}\n", True
    else:
        for equation in equations:
            yield f"{equation}\n", True
    yield rng.choice(("The result is", "So the number is", "Result:")), False
    yield f" {result}.\n", True
    if rng.random() < 0.3:
        yield f"{rng.choice(PEOPLE)} has {rng.randrange(1, 10)} {things}.\n", False


def _comparisons(rng: random.Random, level: float) -> Iterator[Segment]:
    more, less = rng.sample(rng.choice(COMPARATIVES), 2)
    first, second = rng.sample(THINGS, 2)
    yield f"The {first} is {more} than the {second}", False
    match rng.randrange(4):
        case 0:
            yield f". The {more} one is the", False
            yield f" {first}.\n", True
        case 1:
            yield f". The {less} one is the", False
            yield f" {second}.\n", True
        case choice:
            asked, right = rng.choice(((more, first), (less, second)))
            link = ", so the _ is" if choice == 2 else " because the _ is"
            yield f"{link} {asked}.", False
            if rng.random() < 0.5:
                options = rng.sample((first, second), 2)
                yield f"\nOption1: {options[0]}\nOption2: {options[1]}\nThe blank is the", False
                yield f" {('first', 'second')[options.index(right)]}", True
                yield " one:", False
            else:
                yield " The blank is the", False
            yield f" {right}.\n", True


def _truths(rng: random.Random, level: float) -> Iterator[Segment]:
    left, right = rng.sample(range(10), 2)
    claim, truth = rng.choice(
        ((f"{left} is more than {right}", left > right), (f"{left} is less than {right}", left < right))
    )
    yield f"{claim} :", False
    yield f" {truth}\n", True


def _notes(rng: random.Random, level: float) -> Iterator[Segment]:
    tag, text = rng.choice(
        (("name", rng.choice(PEOPLE)), ("colour", rng.choice(COLOURS)), ("number", str(rng.randrange(20))))
    )
    style = rng.randrange(3)
    if style == 0:
        yield f"{tag} {text}\n<{tag}>", False
        yield f"{text}</{tag}>\n", True
    elif style == 1:
        yield f"<{tag}>{text}</{tag}>\n{tag.capitalize()}:", False
        yield f" {text}.\n", True
    else:
        yield f"{tag.capitalize()}: {text}.\n<{tag}>", False
        yield f"{text}</{tag}>...\n", True


Subject = Callable[[random.Random, float], Iterator[Segment]]

SUBJECTS: dict[Subject, str] = {
    _lists: "lists", _repeats: "notes", _recalls: "notes", _facts: "facts", _choices: "choices", _kinds: "choices",
    _sums: "problems", _problems: "problems", _comparisons: "comparisons", _truths: "truths", _notes: "notes",
}  # fmt: skip
"""What documents are about, and the headers that go with it."""

BROAD: dict[Subject, float] = {
    _lists: 0.26, _repeats: 0.04, _recalls: 0.08, _facts: 0.22, _choices: 0.16, _kinds: 0.04,
    _sums: 0.04, _problems: 0.09, _comparisons: 0.05, _truths: 0.03, _notes: 0.03,
}  # fmt: skip
"""Shares of the first phase: everything."""

HARD: dict[Subject, float] = {
    _lists: 0.27, _repeats: 0.03, _recalls: 0.07, _facts: 0.22, _choices: 0.25, _kinds: 0.02,
    _sums: 0.03, _problems: 0.04, _comparisons: 0.05, _truths: 0.01, _notes: 0.01,
}  # fmt: skip
"""Shares of the second phase: what takes longest."""

EARLY: dict[Subject, float] = {_repeats: 0.8, _recalls: 0.5, _facts: 0.4}


def draw_document(rng: random.Random, *, level: float, words: int, shares: dict[Subject, float] = BROAD) -> Document:
    """Items of one subject, about `words` words of them. `level` in [0, 1] is the curriculum's difficulty.

    The broad phase starts with looking back; its shares hold from level 0.5 on.
    """
    early = max(0.0, 1 - 2 * level) if shares is BROAD else 0.0
    weights = [share + early * EARLY.get(subject, 0.0) for subject, share in shares.items()]
    (subject,) = rng.choices(list(shares), weights=weights)
    document: Document = []
    if rng.random() < 0.4:
        document.append((rng.choice(HEADERS[SUBJECTS[subject]]) + rng.choice(("\n", "\n\n", " ")), False))
    count = 0
    while count < words:
        item = list(subject(rng, level))
        document.extend(item)
        count += len("".join(text for text, _ in item).replace("\n", " \n ").split())
    return document
