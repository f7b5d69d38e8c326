"""IFEval's prompts and responses to them, read from files, and how many instructions the responses follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from actshift.errors import ActshiftError
from actshift.judging.rows import read_rows
from actshift.tasks.verifiable.task import packaged_rows
from actshift.tasks.verifiable.verdicts import Prompt, Verdict, prompt_of, verdict

PROMPTS = Path("ifeval") / "input_data.jsonl"
"""The prompts within a folder of data sets."""

RESPONSE_NAMES = ("response", "output")


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file in the hub's schema: key, prompt, instruction_id_list, kwargs.

    Errors: a file, a field or an instruction that is missing or wrong, and a key or a text that occurs twice.
    """
    prompts = [prompt_of(row, where=f"{path}, line {number}") for number, row in read_rows(path)]
    for name, values in (("key", [each.key for each in prompts]), ("prompt", [each.text for each in prompts])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ActshiftError(
                f"{path}: the {name} {twice[0]!r} occurs more than once. Each prompt stands there once."
            )
    return prompts


def packaged_prompts() -> list[Prompt]:
    """The 541 prompts that are shipped with the package."""
    return [prompt_of(row, where="a prompt of the package") for row in packaged_rows()]


def read_responses(path: Path, prompts: Iterable[Prompt]) -> dict[str, str]:
    """Responses by the key of their prompt, from JSON lines or a JSON list.

    A row names its prompt by `key`, or by its text in `prompt` or `instruction`, and holds `response` or `output`.
    Errors: a row without these, a prompt that is not of the data, two responses to one prompt.
    """
    prompts = list(prompts)
    keys, texts = {each.key for each in prompts}, {each.text: each.key for each in prompts}
    responses: dict[str, str] = {}
    for number, row in read_rows(path):
        where = f"{path}, row {number}"
        key = str(row["key"]) if "key" in row else texts.get(row.get("prompt", row.get("instruction", "")), "")
        if key not in keys:
            raise ActshiftError(f"{where}: no prompt of the data has its `key`, or its text as `prompt`.")
        if key in responses:
            raise ActshiftError(f"{where}: a second response to the prompt {key}. Score one response a prompt.")
        response = next((row[name] for name in RESPONSE_NAMES if name in row), None)
        if not isinstance(response, str):
            raise ActshiftError(f"{where} has no text under {' or '.join(RESPONSE_NAMES)}, got {response!r}.")
        responses[key] = response
    return responses


def score(prompts: Sequence[Prompt], responses: Mapping[str, str], *, partial: bool = False) -> list[Verdict]:
    """The verdict of each prompt. Errors: prompts without a response, unless `partial` scores the others alone."""
    missing = [each.key for each in prompts if each.key not in responses]
    if missing and not partial:
        raise ActshiftError(
            f"{len(missing)} of {len(prompts)} prompts have no response, {missing[0]} the first: give one for each, "
            "a blank one where there is none, or score those that there are with --partial"
        )
    return [verdict(each, responses[each.key]) for each in prompts if each.key in responses]
