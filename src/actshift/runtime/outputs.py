"""What adapted models answer to AlpacaEval's instructions: files that a judge compares with the reference's.

Answers are written as they come, and an interrupted file goes on where it stopped: rows are computed in parts that
follow from the instructions alone, so that what is computed anew comes out as it would have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from actshift.data.chat import chat_of
from actshift.errors import ActshiftError
from actshift.evaluation.generation import generate
from actshift.evaluation.limits import batch_tokens
from actshift.evaluation.sampling import Choose, Sampled, check, greedy
from actshift.files import append_line, write_file
from actshift.observe.progress import Progress
from actshift.runtime.session import Interrupted, Session, set_threads
from actshift.schema.building import config_of
from actshift.schema.config import Config, HardwareConfig
from actshift.store.adapter_card import ADAPTER_CARD, read_adapter_card
from actshift.store.adapters import load_adapter
from actshift.store.records import read_json
from actshift.tasks import task_of, tested_by_ifeval

INSTRUCTIONS = Path("alpaca_eval") / "eval_split.jsonl"
"""AlpacaEval's instructions within a folder of data sets, their inputs apart."""
PART_ROWS = {"cpu": 32, "cuda": 256}
"""Rows that are computed at once, and lost by a kill."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: greedily, or where a temperature is given, drawn from streams of `seed` and the row."""

    max_new_tokens: int
    temperature: float | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature is not None:
            check(self.temperature, self.top_p)
        if self.max_new_tokens < 1:
            raise ActshiftError(f"--max-new-tokens {self.max_new_tokens} is impossible: it must be 1 or more")
        if self.seed < 0:
            raise ActshiftError(f"--seed {self.seed} is impossible: it must be 0 or more")

    @property
    def name(self) -> str:
        """What is added to a file's name: nothing of greedy answers."""
        return "" if self.temperature is None else f".t{self.temperature:g}-p{self.top_p:g}-s{self.seed}"

    def choose(self, rows: Sequence[int]) -> Choose:
        if self.temperature is None:
            return greedy
        return Sampled(self.temperature, self.top_p, streams=[(self.seed, row) for row in rows])


def trained_config(adapter: Path) -> Config:
    """The resolved configuration that an adapter was trained with. Errors: a folder that holds none of a run."""
    facts = adapter / "facts.json"
    if not (adapter / ADAPTER_CARD).exists() or not facts.exists():
        raise ActshiftError(f"{adapter} holds no adapter of a run: name results/runs/<identity>/adapter.")
    return config_of(read_json(facts)["config"])


def write_outputs(
    adapter: Path,
    instructions: Sequence[Mapping[str, Any]],
    decoding: Decoding,
    *,
    hardware: HardwareConfig,
    session: Session,
    progress: Progress,
) -> Path:
    """Answer the instructions by an adapter's model; returns `model_outputs<decoding>.json` beside its folder.

    The file is AlpacaEval's: dataset, instruction, output, generator. A file that is whole already is only read.
    Errors: an adapter that was not tuned on instructions or diverged, a file that was made otherwise, `Interrupted`.
    """
    config = replace(trained_config(adapter), hardware=hardware)
    card = read_adapter_card(adapter)
    if not tested_by_ifeval(config.dataset):
        raise ActshiftError(
            f"{adapter} was trained on {card.dataset}: only a model tuned on instructions answers them."
        )
    if card.diverged:
        raise ActshiftError(f"the training of the adapter in {adapter} diverged: it answers nothing.")
    path = adapter.parent / f"model_outputs{decoding.name}.json"
    made_by = {"adapter": card.sha256, "instructions": _digest(instructions), **vars(decoding)}
    partial = path.with_suffix(".jsonl")
    done = _done(partial, made_by)
    if path.exists() and len(done) == len(instructions):
        return path
    if len(done) < len(instructions):
        for row, text in _answers(config, adapter, instructions, decoding, set(done), session, progress):
            append_line(partial, json.dumps({"row": row, "output": text}))
            done[row] = text
    generator = f"{card.model.name} {card.method.name} {card.identity}{decoding.name}"
    rows = [_output(each, done[row], generator, config) for row, each in enumerate(instructions)]
    write_file(path, json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    return path


def _output(row: Mapping[str, Any], text: str, generator: str, config: Config) -> dict[str, str]:
    """A row of the file. The released script writes the instruction without its input, under which nobody finds it."""
    bare = config.protocol.name == "released"
    instruction = row["instruction"] if bare else merged(row)
    return {"dataset": row["dataset"], "instruction": instruction, "output": text.strip(), "generator": generator}


def merged(row: Mapping[str, Any]) -> str:
    """An instruction with its input, as AlpacaEval writes it in one."""
    given = row["input"] if row["input"].strip() else ""
    return f"{row['instruction']}\n\n{given}" if given else str(row["instruction"])


def _answers(
    config: Config,
    adapter: Path,
    instructions: Sequence[Mapping[str, Any]],
    decoding: Decoding,
    done: set[int],
    session: Session,
    progress: Progress,
) -> Iterator[tuple[int, str]]:
    """The rows that are not done with their answers, part by part."""
    set_threads(config.hardware)
    base = session.base(config)
    task, chat = task_of(config.dataset), chat_of(config, base.tokenizer)
    texts = [task.prompt(row) for row in instructions]
    texts = texts if chat is None else [chat.prompt(text) for text in texts]
    special = chat is None or chat.begins_again
    prompts: list[list[int]] = base.tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
    adaptation = load_adapter(adapter, config=config).attach(base)
    progress.start("answer")
    try:
        for part in parts([len(prompt) for prompt in prompts], rows=PART_ROWS[base.device.type]):
            if done.issuperset(part):
                continue
            found = generate(
                base,
                adaptation,
                prompts=[prompts[row] for row in part],
                max_new_tokens=decoding.max_new_tokens,
                batch_tokens=batch_tokens(config),
                ends=None if chat is None else chat.ends,
                choose=decoding.choose(part),
            )
            new = {part[place]: ids for place, ids in found}
            for row in sorted(set(new) - done):
                yield row, str(base.tokenizer.decode(new[row], skip_special_tokens=True))
            done |= set(part)
            progress.update(len(done), len(instructions))
            if session.stop.is_set():
                raise Interrupted
        progress.end()
    finally:
        adaptation.detach()


def parts(lengths: Sequence[int], *, rows: int) -> list[list[int]]:
    """Row numbers in parts of so many, those of about one length together; they follow from the lengths alone."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    return [order[start : start + rows] for start in range(0, len(order), rows)]


def _digest(instructions: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps([dict(row) for row in instructions]).encode()).hexdigest()


def _done(partial: Path, made_by: Mapping[str, Any]) -> dict[int, str]:
    """The answers of an interrupted file; a new one begins with what makes it. Errors: one that was made otherwise."""
    if not partial.exists():
        append_line(partial, json.dumps(made_by))
        return {}
    header, *lines = _lines(partial)
    if header != made_by:
        raise ActshiftError(
            f"{partial} holds answers of another adapter, to other instructions, or decoded otherwise. Move it away, "
            "or ask for what it holds."
        )
    return {line["row"]: line["output"] for line in lines}


def _lines(partial: Path) -> list[Any]:
    """The whole lines of a file: a kill may have halved the last, which is cut off so that the next begins anew."""
    data = partial.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        write_file(partial, whole)
    try:
        return [json.loads(line) for line in whole.splitlines()] or [None]
    except ValueError as error:
        raise ActshiftError(f"{partial} is not a file of answers ({error}): move it away.") from error
