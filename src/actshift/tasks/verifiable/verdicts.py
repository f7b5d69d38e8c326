"""IFEval: prompts whose instructions a program can verify, and which of them a response follows.

Strict: the response follows an instruction. Loose: any of eight variants of it does, with the first, the last or both
lines gone, and asterisks removed or not. By prompt: all instructions of a prompt are followed; by instruction: each
counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actshift.errors import ActshiftError
from actshift.tasks.verifiable.instructions import Instruction, instruction


@dataclass(frozen=True)
class Prompt:
    """One prompt of the data: its key, its text, its instructions."""

    key: str
    text: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Verdict:
    """Which instructions of a prompt a response follows, strictly and loosely, in the order of the prompt's."""

    prompt: Prompt
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


@dataclass(frozen=True)
class Accuracy:
    """How many of `count` prompts or instructions are followed, strictly and loosely. `strict_pct` is in percent."""

    name: str
    count: int
    strict: int
    loose: int

    @property
    def strict_pct(self) -> float:
        return 100 * self.strict / self.count

    @property
    def loose_pct(self) -> float:
        return 100 * self.loose / self.count


def variants(response: str) -> list[str]:
    """The response, and what loose scoring forgives: without its first, last or both lines, without asterisks."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    texts = [response, *cut]
    return list(dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)]))


def verdict(prompt: Prompt, response: str) -> Verdict:
    """Score one response against its prompt."""
    loose = variants(response)
    return Verdict(
        prompt,
        tuple(each.followed(response) for each in prompt.instructions),
        tuple(any(each.followed(text) for text in loose) for each in prompt.instructions),
    )


def accuracies(verdicts: Sequence[Verdict]) -> list[Accuracy]:
    """By prompt, by instruction, then by kind of instruction in the order of the alphabet. Errors: no verdict."""
    if not verdicts:
        raise ActshiftError("there is no response to score")
    by_kind: dict[str, list[tuple[bool, bool]]] = {}
    for each in verdicts:
        for one, strict, loose in zip(each.prompt.instructions, each.strict, each.loose, strict=True):
            by_kind.setdefault(one.kind, []).append((strict, loose))
    prompts = [(all(each.strict), all(each.loose)) for each in verdicts]
    every = [pair for pairs in by_kind.values() for pair in pairs]
    named = {"prompts": prompts, "instructions": every, **{kind: by_kind[kind] for kind in sorted(by_kind)}}
    return [
        Accuracy(name, len(pairs), sum(strict for strict, _ in pairs), sum(loose for _, loose in pairs))
        for name, pairs in named.items()
    ]


def prompt_of(row: Mapping[str, Any], *, where: str) -> Prompt:
    """The prompt of a row in the hub's schema. Errors: a field or an instruction that is missing or wrong."""
    missing = [name for name in ("key", "prompt", "instruction_id_list", "kwargs") if name not in row]
    if missing:
        raise ActshiftError(f"{where} has no {', '.join(missing)}: is it a file of IFEval's prompts?")
    kinds, arguments = row["instruction_id_list"], row["kwargs"]
    if len(kinds) != len(arguments):
        raise ActshiftError(f"{where}: {len(kinds)} instructions, but arguments for {len(arguments)}.")
    made = (instruction(kind, given, where=where) for kind, given in zip(kinds, arguments, strict=True))
    return Prompt(str(row["key"]), row["prompt"], tuple(made))
