"""Our checkers of IFEval against the reference's, where it is installed: josejg/instruction_following_eval, nltk."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from actshift.judging import ifeval
from actshift.tasks.verifiable.instructions import CHECKERS, Instruction

PAIRS = 12_000
APART = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
"""Kinds that ask langdetect there: another judge of languages is no disagreement about an instruction."""


def changed(text: str, one: Instruction, rng: random.Random) -> str:
    """A response that follows some instruction more often than what a model wrote for another prompt."""
    given = one.arguments
    head = given.get("keywords", [given.get("keyword", given.get("first_word", "My answer is yes."))])
    heading = given.get("section_spliter", "Section")
    parts = text.split("\n\n")
    return rng.choice(
        [
            text,
            text[: rng.randrange(1, 400)],
            f'"{text}"',
            text.replace(",", ""),
            f"{text}\n\n{given.get('end_phrase', given.get('postscript_marker', 'P.S. x'))}",
            f"{given.get('prompt_to_repeat', '')}\n{text}",
            "***".join(parts),
            f"<<{text[:30]}>>\n{text}",
            f"{text}\n******\n{text[::-1]}",
            text.upper(),
            text.lower(),
            f"```json\n{json.dumps({'a': text})}\n```",
            "\n".join(f"{heading} {number}\n{part}" for number, part in enumerate(parts, start=1)),
            "\n".join(rng.choice(["* ", "- ", "** ", "*"]) + line + rng.choice(["", "*", "**"]) for line in parts),
            f"{' '.join(head)} [{text[:9]}] {text}",
        ]
    )


def responses(shared: Path) -> list[str]:
    files = sorted((shared / "data" / "alpaca_eval" / "model_outputs").glob("*.jsonl.gz"))
    if not files:
        pytest.skip(f"needs responses in {shared / 'data' / 'alpaca_eval' / 'model_outputs'}")
    lines = [line for file in files for line in gzip.decompress(file.read_bytes()).decode().splitlines()]
    return [json.loads(line)["output"] for line in lines]


def followed_there(registry: Any, one: Instruction, text: str) -> bool:
    checker = registry.INSTRUCTION_DICT[one.kind](one.kind)
    checker.build_description(**{name: value for name, value in one.arguments.items()})
    return bool(checker.check_following(text))


def test_the_reference_agrees(shared: Path) -> None:
    why = "the reference is not installed"
    registry = pytest.importorskip("instruction_following_eval.instructions_registry", reason=why)
    rng, texts = random.Random(0), responses(shared)
    by_kind = defaultdict(list)
    for prompt in ifeval.read_prompts(shared / "data" / ifeval.PROMPTS):
        for one in prompt.instructions:
            if one.kind not in APART and one.arguments.get("letter") not in ("#", "!"):
                by_kind[one.kind].append(one)
    assert set(by_kind) == set(CHECKERS) - APART
    pairs, differ, there = Counter[str](), Counter[str](), Counter[str]()
    for _ in range(PAIRS):
        one = rng.choice(by_kind[rng.choice(sorted(by_kind))])
        text = changed(rng.choice(texts), one, rng)
        if text.strip():
            expected = followed_there(registry, one, text)
            pairs[one.kind] += 1
            there[one.kind] += expected
            differ[one.kind] += expected != one.followed(text)
    assert pairs.total() > 10_000 and all(0 < there[kind] < pairs[kind] for kind in by_kind)
    loose = {"length_constraints:number_sentences": 0.03, "change_case:capital_word_frequency": 0.01}
    assert {kind: count for kind, count in differ.items() if count > loose.get(kind, 0.0) * pairs[kind]} == {}
