"""One row as the model will see it: text, tokens, which of them are trained, where scopes act, how it is scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.schema.config import Config
from actshift.schema.method import MethodConfig, ScopeConfig, steering_part

if TYPE_CHECKING:
    from rich.console import Group
    from transformers import PreTrainedTokenizerBase

    from actshift.data.chat import Chat

SCOPES = {
    "all": "all",
    "prompt": "prompt",
    "last_prompt": "last",
    "first_last": "first_last",
    "answer": "answer",
    "every_last": "every_last",
}
"""The scopes that are shown, and the heads of their columns."""


@dataclass(frozen=True)
class Shown:
    """A row of a split. `scopes` holds, by the name of a scope, the positions at which it acts in training.

    `mark` is what the answer's tokens are: trained, left out with a row that is too long, or the gold of a row that is
    only prompted. `acts` says where the method does, `note` what a limit does to the row, `prompting` how it is
    evaluated.
    """

    title: str
    prompt: str
    answer: str
    label: str
    score: str
    tokens: list[tuple[int, str]]
    prompt_length: int
    mark: str
    scopes: dict[str, set[int]]
    acts: str
    note: str
    prompting: str


def shown(config: Config, *, split: str, row: int) -> Shown:
    """The row of a split of a resolved config. Errors: a split or a row that is not there."""
    from actshift.data.chat import chat_of
    from actshift.data.splits import Split, load_split
    from actshift.models.loading import load_tokenizer
    from actshift.runtime.train import most_tokens, training_examples
    from actshift.tasks import scoring_task

    loaded = load_split(config, split)
    if not 0 <= row < len(loaded.rows):
        raise ActshiftError(
            f"row={row} is not one of the {len(loaded.rows):,} rows of the {split} split: 0 to {len(loaded.rows) - 1}"
        )
    task = scoring_task(config.dataset, split, rule=config.evaluation.rule)
    tokenizer, fields = load_tokenizer(config.model), loaded.rows[row]
    chat = chat_of(config, tokenizer)
    limit, drops = most_tokens(config, chat=chat is not None), config.training.overlong == "drop"
    limit = limit if split == "train" else None  # a prompt that is prompting may be of any length
    (example,) = training_examples(
        Split([fields], ""), config=config, tokenizer=tokenizer, cache=None, limited=False, name=split
    )
    over = limit is not None and len(example.ids) > limit
    ids = example.ids if drops else example.ids[:limit]
    answer, label = task.answer(fields), task.label(fields)
    facts = [config.dataset.name, f"{split} split, row {row} of {len(loaded.rows):,} (the first is 0)"]
    if loaded.overlap and config.data.overlap == "drop":
        facts.append(f"{loaded.overlap:,} rows left out that ask a question of a later split (data.overlap)")
    facts += [f"protocol {config.protocol.name}", f"source {config.data.source}", config.model.name]
    return Shown(
        title=", ".join(facts),
        prompt=task.prompt(fields) if chat is None else chat.prompt(task.prompt(fields)),
        answer=answer,
        label=label,
        score=_score(task, answer, label),
        tokens=[(token, _text(tokenizer, token)) for token in ids],
        prompt_length=min(example.prompt_length, len(ids)),
        mark="gold" if split != "train" else "left out" if over and drops else "trained",
        scopes=_scopes(len(ids), prompt=min(example.prompt_length, len(ids)), config=config),
        acts=_acts(config.method),
        note=_note(len(example.ids), limit, drops=drops) if split == "train" else f"{len(example.ids)} tokens",
        prompting=_prompting(config, example.prompt_length, tokenizer, chat)
        if task.scored
        else "outputs are judged elsewhere",
    )


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return repr(text)


def _score(task: Any, answer: str, label: str) -> str:
    if not task.scored:
        return "not scored here"
    return f"the gold answer names {task.extract(answer)!r}: {'right' if task.score(answer, label) else 'WRONG'}"


def _scopes(tokens: int, *, prompt: int, config: Config) -> dict[str, set[int]]:
    """The positions of each scope, ends as the method has them (7 and 7 where it has none)."""
    import torch

    from actshift.methods.scopes import get_scopes

    prompt_BT = torch.zeros(1, tokens, dtype=torch.bool)
    prompt_BT[:, :prompt] = True
    steering = steering_part(config.method)
    first, last = (steering.scope.first or 7, steering.scope.last or 7) if steering else (7, 7)
    found = {}
    for kind in SCOPES:
        (scope,) = get_scopes(ScopeConfig(kind, first, last)).values()
        positions = torch.ones_like(prompt_BT) if scope.positions is None else scope.positions(prompt_BT)
        found[kind] = set(positions[0].nonzero()[:, 0].tolist())
    return found


def _acts(method: MethodConfig) -> str:
    from actshift.methods.registry import sites_of

    steering = steering_part(method)
    if steering is None:
        return f"{method.name} changes weights, and with them every position"
    layers = "every layer" if steering.layers == "all" else f"layers {', '.join(map(str, steering.layers))}"
    beside = ", beside weights that change every position" if steering is not method else ""
    sites = " and ".join(sites_of(steering))
    return f"{method.name} acts at {sites} of {layers}, scope {steering.scope.kind}{beside}"


def _note(tokens: int, limit: int | None, *, drops: bool) -> str:
    if limit is None:
        return f"{tokens} tokens; no limit"
    if tokens <= limit:
        return f"{tokens} tokens, of at most {limit}"
    done = "the row is left out of training" if drops else f"cut to {limit} from the right"
    return f"{tokens} tokens, {tokens - limit} over the limit of {limit}: {done}"


def _prompting(config: Config, prompt: int, tokenizer: PreTrainedTokenizerBase, chat: Chat | None) -> str:
    if config.evaluation.scoring == "likelihood":
        return f"prompted with the {prompt} tokens of the prompt; the answer of the largest likelihood is taken"
    ends = {tokenizer.eos_token_id} if chat is None else chat.ends
    names = " or ".join(_text(tokenizer, token) for token in sorted(ends - {None})) or "no token"
    most = config.evaluation.max_new_tokens
    return f"prompted with the {prompt} tokens of the prompt; at most {most} new ones are generated, ended by {names}"


def terminal(row: Shown, *, method: MethodConfig) -> Group:
    """The row for the terminal: texts first, then a line a token."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    steering = steering_part(method)
    own = steering.scope.kind if steering else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("position", "id", "token", ""):
        table.add_column(name, justify="right" if name in ("position", "id") else "left", no_wrap=True)
    for kind, head in SCOPES.items():
        table.add_column(f"{head}*" if kind == own else head)
    for position, (token, text) in enumerate(row.tokens):
        is_answer = position >= row.prompt_length
        marks = ("x" if position in row.scopes[kind] else "" for kind in SCOPES)
        line = (str(position), str(token), text, row.mark if is_answer else "", *marks)
        table.add_row(*map(Text, line), style="bold" if is_answer else None)
    return Group(*_lines(row, own), table)


def _lines(row: Shown, own: str | None) -> Iterator[Any]:
    from rich.text import Text

    yield Text(row.title, style="bold")
    for name, text in (("prompt", row.prompt), ("answer", row.answer), ("label", row.label), ("score", row.score)):
        yield Text(f"{name}:", style="underline")
        yield Text(text)
    yield Text(f"\n{row.note}; {row.prompt_length} of prompt, {len(row.tokens) - row.prompt_length} {row.mark}")
    yield Text(row.prompting)
    yield Text(f"{row.acts} (x: where a scope acts in training{'; * the scope of the method' if own else ''})")
