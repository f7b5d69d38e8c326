"""Rows as token ids: the prompt as the tokenizer makes it, the answer after it, and a cache by content.

The cache holds whole rows without the end token; ending, cutting to a length and leaving out are done afterwards, so
that one file serves every protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from actshift.data.chat import Chat
from actshift.data.splits import Split
from actshift.errors import ActshiftError
from actshift.files import write_file
from actshift.tasks.base import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

FORMAT = 2
"""Raised whenever the same texts would be tokenized or stored differently."""


@dataclass(frozen=True)
class Example:
    """``ids[:prompt_length]`` is the prompt, the rest is trained; `label` is what an output is scored against."""

    ids: list[int]
    prompt_length: int
    label: str


class Rows(Protocol):
    """Examples in order: a list of them, or an `Examples`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Example]: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True, eq=False)
class Tokens:
    """Rows end to end: row i is ``flat[offsets[i]:offsets[i + 1]]`` and its first ``prompts[i]`` ids are the prompt."""

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]
    prompts: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Examples:
    """A sequence of `Example`, made from flat arrays when asked for: a large split stays small in memory."""

    tokens: Tokens
    labels: list[str]
    end: tuple[int, ...]
    max_tokens: int | None
    dropped: int = 0
    """Rows that were longer than `max_tokens` and are not among these."""

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        start, stop = self.tokens.offsets[index : index + 2]
        ids = [*self.tokens.flat[start:stop].tolist(), *self.end][: self.max_tokens]
        return Example(ids=ids, prompt_length=min(int(self.tokens.prompts[index]), len(ids)), label=self.labels[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Examples) and list(self) == list(other)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every row, as cut."""
        return self._uncut if self.max_tokens is None else np.minimum(self._uncut, self.max_tokens)

    @property
    def truncated(self) -> int:
        """Rows that `max_tokens` cuts."""
        return int((self.lengths < self._uncut).sum())

    @property
    def lost_answers(self) -> int:
        """Rows without one answer token left: nothing of them is trained."""
        return int((self.lengths <= self.tokens.prompts).sum())

    @property
    def _uncut(self) -> NDArray[np.int64]:
        return np.diff(self.tokens.offsets) + len(self.end)


def tokenize(
    split: Split,
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    end_token: bool,
    max_tokens: int | None,
    cache: Path | None,
    overlong: str = "cut",
    chat: Chat | None = None,
) -> Examples:
    """The split's rows as prompt + answer (+ end token), a row over `max_tokens` being cut from the right or dropped.

    The prompt gets the special tokens that the tokenizer adds, or stands in its chat template; the answer gets none.
    Cut, as in the released code, a long prompt loses its answer; `Examples` counts the rows of either kind.
    Evaluation does not cut: pass None there. Errors: a limit that leaves no row.
    """
    if max_tokens is not None and max_tokens < 1:
        raise ActshiftError(f"training.max_tokens must be 1 or more, or null for no limit; got {max_tokens}.")
    end = _end_ids(tokenizer, chat) if end_token or (chat is not None and chat.released) else ()
    prompts = [task.prompt(row) for row in split.rows]
    prompts = prompts if chat is None else [chat.prompt(prompt) for prompt in prompts]
    answers = [task.answer(row) for row in split.rows]
    special = chat is None or chat.begins_again
    key = _key(split, prompts, answers, tokenizer, special=special) if cache else ""
    path = cache / "tokens" / f"{key}.safetensors" if cache else None
    tokens = _read(path, rows=len(prompts)) if path else None
    if tokens is None:
        tokens = _encode(prompts, answers, tokenizer, special=special)
        if path:
            _write(path, tokens)
    whole = Examples(tokens=tokens, labels=[task.label(row) for row in split.rows], end=end, max_tokens=max_tokens)
    return _without_overlong(whole) if overlong == "drop" else whole


def _without_overlong(examples: Examples) -> Examples:
    """The rows that `max_tokens` leaves whole."""
    kept = np.flatnonzero(examples.lengths == examples._uncut)
    if len(kept) == len(examples):
        return examples
    if not len(kept):
        raise ActshiftError(
            f"every row is longer than training.max_tokens={examples.max_tokens}, and training.overlong=drop leaves "
            "such rows out: raise the limit, or set it to null."
        )
    tokens = examples.tokens
    rows = [tokens.flat[tokens.offsets[row] : tokens.offsets[row + 1]] for row in kept]
    return Examples(
        tokens=Tokens(np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64), tokens.prompts[kept]),
        labels=[examples.labels[row] for row in kept],
        end=examples.end,
        max_tokens=examples.max_tokens,
        dropped=len(examples) - len(kept),
    )


def _end_ids(tokenizer: PreTrainedTokenizerBase, chat: Chat | None) -> tuple[int, ...]:
    if chat is not None:
        return chat.closing
    if tokenizer.eos_token_id is None:
        raise ActshiftError("training.end_token=true needs a tokenizer with an end token, and this one has none.")
    return (int(tokenizer.eos_token_id),)


def _encode(prompts: list[str], answers: list[str], tokenizer: PreTrainedTokenizerBase, *, special: bool) -> Tokens:
    prompt_ids = _ids(tokenizer, prompts, add_special_tokens=special)
    answer_ids = _ids(tokenizer, answers, add_special_tokens=False)
    if any(ids and ids[-1] == tokenizer.eos_token_id for ids in prompt_ids):
        # An answer after the end token would be trained as if it had no prompt.
        raise ActshiftError("the tokenizer closes every prompt with its end token; load it with add_eos_token=False.")
    rows = [prompt + answer for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
    return Tokens(
        flat=np.fromiter((token for row in rows for token in row), dtype=np.int32),
        offsets=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        prompts=np.array([len(ids) for ids in prompt_ids], dtype=np.int32),
    )


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
    # verbose=False: rows longer than the tokenizer's own limit are counted here, not warned about.
    encoded: Any = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    return list(encoded["input_ids"])


def _key(
    split: Split, prompts: list[str], answers: list[str], tokenizer: PreTrainedTokenizerBase, *, special: bool
) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ActshiftError(f"{type(tokenizer).__name__} is no fast tokenizer; use one with a tokenizer.json.")
    facts = {
        "format": FORMAT,
        "data": split.fingerprint,
        "special": special,
        "texts": _digest(json.dumps(pair).encode() for pair in zip(prompts, answers, strict=True)),
        "tokenizer": _digest([backend.to_str().encode()]),
    }
    return _digest([json.dumps(facts, sort_keys=True).encode()])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _seal(tokens: Tokens, *, key: str) -> dict[str, str]:
    """The file's metadata: one digest of its key and its contents."""
    return {"sha256": _digest([key.encode(), *(array.tobytes() for array in vars(tokens).values())])}


def _read(path: Path, *, rows: int) -> Tokens | None:
    """The cached rows, or None where the file is absent, torn, altered, or another one's."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            tokens = Tokens(*(file.get_tensor(name) for name in ("flat", "offsets", "prompts")))
    except (OSError, SafetensorError):
        return None
    intact = metadata == _seal(tokens, key=path.stem) and len(tokens.prompts) == rows
    return tokens if intact else None


def _write(path: Path, tokens: Tokens) -> None:
    from safetensors.numpy import save

    write_file(path, save(vars(tokens), metadata=_seal(tokens, key=path.stem)))
