"""How long the rows of each data set are in tokens, and what each protocol's limit does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from actshift.errors import ActshiftError
from actshift.report.markdown_text import table as markdown_table
from actshift.schema.config import Config

if TYPE_CHECKING:
    from rich.console import Group
    from transformers import PreTrainedTokenizerBase

    from actshift.data.splits import Split

COLUMNS = (
    "Data set",
    "Protocol",
    "Split",
    "Rows",
    "Median",
    "95%",
    "Longest",
    "Limit",
    "Cut",
    "Lost answers",
    "Dropped",
    "Asked later",
)


LEGEND = (
    "Tokens of prompt and answer together, with the end token where it is trained, before any limit. Only training has "
    "a limit: evaluation asks whole prompts. Cut rows lose their end, lost answers are those of them that have nothing "
    "of their answer left, dropped rows are left out whole. Asked later: rows whose question a later split asks too, "
    "left out before under paper, kept under released."
)


@dataclass(frozen=True)
class Lengths:
    """One split under one protocol: rows; tokens of prompt and answer before any limit; rows that the limit touches.

    `cut` rows lose their end, `lost` ones of them all of their answer; `dropped` ones are left out. Only training has a
    limit. `overlap` counts the rows that a later split asks too, and that the protocol leaves out or keeps.
    """

    dataset: str
    protocol: str
    split: str
    rows: int
    median: int
    high: int
    longest: int
    limit: int | None
    cut: int
    lost: int
    dropped: int
    overlap: int


def lengths(
    configs: Iterable[Config],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    absent: Callable[[str], object] = print,
) -> Iterator[Lengths]:
    """Every split of resolved configs, by their own model's tokenizer or another.

    `absent` is told of each split that a local folder does not hold. Errors: those of `load_split`.
    """
    from actshift.data.sources import has_split
    from actshift.data.splits import load_split
    from actshift.models.loading import load_tokenizer

    for config in configs:
        data, dataset = config.data, config.dataset
        chosen = tokenizer or load_tokenizer(config.model)
        for name, rule in data.splits.by_name().items():
            if rule is None:
                continue
            if data.source == "local" and not has_split(dataset, rule.source, directory=data.dir):
                absent(f"{dataset.name}, {config.protocol.name}: no {name} split in {data.dir}")
            else:
                yield _lengths(config, load_split(config, name), name=name, tokenizer=chosen)


def tokenizer_in(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder. Errors: no folder, or nothing in it that can be opened."""
    from transformers import AutoTokenizer

    try:
        if not Path(folder).expanduser().is_dir():
            raise OSError("there is no such folder")
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(Path(folder).expanduser())
    except (OSError, ValueError) as error:
        raise ActshiftError(
            f"--tokenizer={folder} cannot be opened: {error}. Give a folder with a tokenizer.json, as save_pretrained "
            "writes it, or leave it out for the model's own."
        ) from error
    return found


def _lengths(config: Config, split: Split, *, name: str, tokenizer: PreTrainedTokenizerBase) -> Lengths:
    from actshift.data.chat import chat_of
    from actshift.runtime.train import most_tokens, training_examples

    limit = most_tokens(config, chat=chat_of(config, tokenizer) is not None) if name == "train" else None
    whole = training_examples(split, config=config, tokenizer=tokenizer, cache=None, limited=False)
    cut, drops = replace(whole, max_tokens=limit), config.training.overlong == "drop"
    return Lengths(
        config.dataset.name,
        config.protocol.name,
        name,
        len(whole),
        *_quantiles(whole.lengths.tolist()),
        limit,
        cut=0 if drops else cut.truncated,
        lost=0 if drops else cut.lost_answers,
        dropped=cut.truncated if drops else 0,
        overlap=split.overlap,
    )


def _quantiles(counts: Sequence[int]) -> tuple[int, int, int]:
    """The median, the 95th percentile and the largest, each one of the lengths that there are."""
    ordered = sorted(counts)
    return ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 95 // 100], ordered[-1]


def texts(row: Lengths) -> tuple[str, ...]:
    """A line of the table; what is none is a dash."""
    return tuple(
        f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value) for value in astuple(row)
    )


def terminal(rows: Iterable[Lengths]) -> Group:
    """The table as a rich renderable."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if index < 3 else "right")
    for row in rows:
        table.add_row(*texts(row))
    return Group(table, Text(LEGEND))


def markdown(rows: Iterable[Lengths]) -> str:
    """The table as Markdown."""
    return f"{markdown_table(COLUMNS, map(texts, rows), right=COLUMNS[3:])}\n\n{LEGEND}\n"


def csv(rows: Iterable[Lengths]) -> str:
    """The table as CSV: names of the fields, numbers without separators."""
    fields = list(Lengths.__dataclass_fields__)
    lines = [",".join("" if value is None else str(value) for value in astuple(row)) for row in rows]
    return "\n".join([",".join(fields), *lines]) + "\n"
