"""How long the rows of each data set are in tokens, and what each protocol's limit does to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

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
    configs: Iterable[Mapping[str, Any]], *, tokenizer: PreTrainedTokenizerBase | None = None
) -> Iterator[Lengths]:
    """Every split of resolved configs, by their own model's tokenizer or another."""
    from actshift.models.loading import load_tokenizer
    from actshift.tasks.chat import chat_of
    from actshift.tasks.splits import load_split
    from actshift.train import most_tokens, training_examples

    for config in configs:
        own = tokenizer or load_tokenizer(config["model"])
        limit = most_tokens(config, chat=chat_of(config, own) is not None)
        for name, rule in config["data"]["splits"].items():
            if rule is None:
                continue
            split = load_split(config, name)
            training = {**config["training"], "max_tokens": limit if name == "train" else None}
            whole = {**config, "training": {**training, "max_tokens": None}, "protocol": _unlimited(config)}
            counts = training_examples(split, config=whole, tokenizer=own, cache=None).lengths
            touched = training_examples(split, config={**whole, "training": training}, tokenizer=own, cache=None)
            yield Lengths(
                config["dataset"]["name"],
                config["protocol"]["name"],
                name,
                len(counts),
                *_quantiles(counts.tolist()),
                limit if name == "train" else None,
                touched.truncated,
                touched.lost_answers,
                touched.dropped,
                split.overlap,
            )


def _unlimited(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config["protocol"], "chat_max_tokens": {}}


def _quantiles(counts: Sequence[int]) -> tuple[int, int, int]:
    """The median, the 95th percentile and the largest, each one of the lengths that there are."""
    ordered = sorted(counts)
    return ordered[(len(ordered) - 1) // 2], ordered[(len(ordered) - 1) * 95 // 100], ordered[-1]


def texts(row: Lengths) -> tuple[str, ...]:
    """A line of the table; what is none is a dash."""
    return tuple(
        f"{value:,}" if isinstance(value, int) else "–" if value is None else str(value) for value in astuple(row)
    )


def terminal(rows: Iterable[Lengths]) -> Table:
    """The table as a rich renderable."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if place < 3 else "right")
    for row in rows:
        table.add_row(*texts(row))
    return table


def markdown(rows: Iterable[Lengths]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, ("---",) * 3 + ("---:",) * (len(COLUMNS) - 3), *map(texts, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def csv(rows: Iterable[Lengths]) -> str:
    """The table as CSV: names of the fields, numbers without separators."""
    fields = list(Lengths.__dataclass_fields__)
    lines = [",".join("" if value is None else str(value) for value in astuple(row)) for row in rows]
    return "\n".join([",".join(fields), *lines]) + "\n"
