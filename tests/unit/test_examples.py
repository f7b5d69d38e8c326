"""Rows as token ids: what is prompt, what is trained, what a limit cuts, and a cache that is never wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from dataset_configs import DATASETS, run_config, task_of

from actshift.data.examples import Example, Examples, tokenize
from actshift.data.splits import Split, fingerprint, load_split
from actshift.errors import ActshiftError
from actshift.tasks import get_task

BOOLQ = get_task("boolq")


def build_tokenizer(*, begin: bool = True, end: bool = False, limit: int | None = None) -> Any:
    """One token a byte; begin and end tokens as asked, by the tokenizer's own template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<begin>", "<end>"])
    specials = [(token, backend.token_to_id(token)) for token in ("<begin>", "<end>")]
    if begin or end:
        template = " ".join(["<begin>"] * begin + ["$A"] + ["<end>"] * end)
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=specials)
    names = {"bos_token": "<begin>", "eos_token": "<end>", "pad_token": "<end>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names, **({"model_max_length": limit} if limit else {}))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="module")
def split() -> Split:
    config = run_config("boolq")
    config.data.limit.train = 40
    return load_split(config, "train")


def encode(split: Split, tokenizer: Any, **changes: Any) -> Examples:
    settings: dict[str, Any] = {"task": BOOLQ, "end_token": False, "max_tokens": None, "cache": None} | changes
    return tokenize(split, tokenizer=tokenizer, **settings)


# --- ids ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("begin", [True, False])
def test_ids_are_prompt_then_answer(name: str, begin: bool) -> None:
    task, tokenizer = task_of(name), build_tokenizer(begin=begin)
    config = run_config(name)
    config.data.limit.train = 20
    split = load_split(config, "train")
    for row, example in zip(split.rows, encode(split, tokenizer, task=task, end_token=True), strict=True):
        prompt, answer = example.ids[: example.prompt_length], example.ids[example.prompt_length :]
        assert tokenizer.decode(prompt) == "<begin>" * begin + task.prompt(row)
        assert tokenizer.decode(answer) == task.answer(row) + "<end>"
        assert example.label == task.label(row)
        assert all(type(token) is int for token in example.ids)


def test_the_end_token_is_trained_where_asked(split: Split, tokenizer: Any) -> None:
    without, with_end = encode(split, tokenizer), encode(split, tokenizer, end_token=True)
    for a, b in zip(without, with_end, strict=True):
        assert b == Example(ids=[*a.ids, tokenizer.eos_token_id], prompt_length=a.prompt_length, label=a.label)
    assert (with_end.lengths == without.lengths + 1).all()


def test_examples_are_a_sequence(split: Split, tokenizer: Any) -> None:
    examples = encode(split, tokenizer)
    assert len(examples) == len(split.rows) == len(list(examples))
    assert examples[-1] == list(examples)[39]
    assert examples.lengths.tolist() == [len(example.ids) for example in examples]
    with pytest.raises(IndexError):
        examples[40]


def test_a_tokenizer_that_ends_prompts_is_refused(split: Split) -> None:
    with pytest.raises(ActshiftError, match="closes every prompt with its end token"):
        encode(split, build_tokenizer(end=True))


def test_no_end_token_to_train_is_refused(split: Split) -> None:
    tokenizer = build_tokenizer()
    tokenizer.eos_token = None
    assert len(encode(split, tokenizer)) == 40
    with pytest.raises(ActshiftError, match=r"training\.end_token=true needs a tokenizer with an end token"):
        encode(split, tokenizer, end_token=True)


# --- lengths ------------------------------------------------------------------------------------------------------


def rows_of_lengths(*lengths: int) -> Split:
    """GSM8K rows whose prompts have so many tokens (begin token and newline included) and whose answers have 11."""
    rows = [{"question": "q" * (length - 2), "answer": "x\n#### 3"} for length in lengths]
    return Split(rows=rows, fingerprint=fingerprint(rows))


def test_a_limit_cuts_from_the_right_and_counts(tokenizer: Any) -> None:
    split = rows_of_lengths(5, 9, 10, 18, 19, 20, 21, 40)
    task = get_task("gsm8k")
    whole, cut = (encode(split, tokenizer, task=task, max_tokens=limit) for limit in (None, 20))
    assert [len(example.ids) - example.prompt_length for example in whole] == [11] * 8
    assert [example.ids for example in cut] == [example.ids[:20] for example in whole]
    assert [len(example.ids) - example.prompt_length for example in cut] == [11, 11, 10, 2, 1, 0, 0, 0]
    assert [example.prompt_length for example in cut] == [5, 9, 10, 18, 19, 20, 20, 20]
    assert (cut.truncated, cut.lost_answers) == (6, 3)
    assert (whole.truncated, whole.lost_answers) == (0, 0)
    # The end token is the first to go.
    assert encode(split, tokenizer, task=task, max_tokens=20, end_token=True).truncated == 7


@pytest.mark.parametrize("limit", [0, -1])
def test_an_impossible_limit_is_refused(split: Split, tokenizer: Any, limit: int) -> None:
    with pytest.raises(ActshiftError, match=r"training\.max_tokens must be 1 or more"):
        encode(split, tokenizer, max_tokens=limit)


def test_long_rows_do_not_warn(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(rows_of_lengths(100), build_tokenizer(limit=16), task=get_task("gsm8k"))
    assert "".join(capfd.readouterr()) == ""


# --- cache --------------------------------------------------------------------------------------------------------


class Counting:
    """A tokenizer that counts its calls."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        return self.inner(*args, **keywords)


def files(cache: Path) -> list[Path]:
    return sorted((cache / "tokens").iterdir())


def test_a_second_call_reads_the_cache(split: Split, tokenizer: Any, tmp_path: Path) -> None:
    first, counting = encode(split, tokenizer, cache=tmp_path), Counting(tokenizer)
    assert encode(split, counting, cache=tmp_path) == first == encode(split, tokenizer)
    assert counting.calls == 0
    # Limits and ends are settings of the use, not of the cache.
    for settings in ({"max_tokens": 50}, {"end_token": True}, {"max_tokens": 50, "end_token": True}):
        assert encode(split, counting, cache=tmp_path, **settings) == encode(split, tokenizer, **settings)
    assert counting.calls == 0
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"]


def test_other_content_is_another_file(split: Split, tokenizer: Any, tmp_path: Path) -> None:
    class Shouting(type(BOOLQ)):  # type: ignore[misc]
        def answer(self, row: Any) -> str:
            return super().answer(row).upper()

    variants: list[tuple[Split, Any, dict[str, Any]]] = [
        (split, tokenizer, {}),
        (split, build_tokenizer(begin=False), {}),
        (Split(rows=split.rows[::-1], fingerprint=fingerprint(split.rows[::-1])), tokenizer, {}),
        (split, tokenizer, {"task": Shouting()}),
    ]
    for count, (rows, tokens, changes) in enumerate(variants, start=1):
        examples = encode(rows, tokens, cache=tmp_path, **changes)
        assert len(files(tmp_path)) == count
        assert examples == encode(rows, tokens, **changes)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: b"\x00" * len(data),
        lambda data: b"not safetensors at all",
        lambda data: data.replace(b'"flat"', b'"flut"'),
        lambda data: data.replace(b'"sha256"', b'"sha257"'),
    ],
)
def test_a_damaged_cache_is_rebuilt(split: Split, tokenizer: Any, tmp_path: Path, damage: Any) -> None:
    first = encode(split, tokenizer, cache=tmp_path)
    (path,) = files(tmp_path)
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    assert path.read_bytes() != intact
    counting = Counting(tokenizer)
    assert encode(split, counting, cache=tmp_path) == first
    assert counting.calls > 0
    assert files(tmp_path) == [path] and path.read_bytes() == intact


def test_a_cache_file_under_another_name_is_not_trusted(split: Split, tokenizer: Any, tmp_path: Path) -> None:
    reversed_rows = Split(rows=split.rows[::-1], fingerprint=fingerprint(split.rows[::-1]))
    encode(split, tokenizer, cache=tmp_path)
    (path,) = files(tmp_path)
    expected = encode(reversed_rows, tokenizer, cache=tmp_path)
    (other,) = set(files(tmp_path)) - {path}
    other.write_bytes(path.read_bytes())
    assert encode(reversed_rows, tokenizer, cache=tmp_path) == expected


def test_a_write_that_fails_leaves_nothing_behind(
    split: Split, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        encode(split, tokenizer, cache=tmp_path)
    assert files(tmp_path) == []


def test_lengths_of_the_real_data(tokenizer: Any, shared: Path) -> None:
    """The limit of `released` on bytes, where nearly every passage is too long: counted, and no row disappears."""
    config = run_config("boolq", protocol="released", source="local", directory=shared / "data")
    split = load_split(config, "test")
    whole, cut = (encode(split, tokenizer, max_tokens=limit) for limit in (None, 256))
    assert len(cut) == 654
    assert cut.truncated == sum(len(example.ids) > 256 for example in whole) == 645
    assert (
        cut.lost_answers
        == sum(example.prompt_length >= 256 for example in whole)
        == sum(example.prompt_length == len(example.ids) for example in cut)
    )
