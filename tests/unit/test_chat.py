"""Special tokens and chat templates: what each kind of tokenizer adds, what is trained, where an answer ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapted import CPU, attached, perturb
from dataset_configs import run_config
from tokenizers_alike import TURNS, build

from actshift.commands.show import shown
from actshift.config.composition import compose
from actshift.data.chat import SYSTEM, Chat, chat_of, template_date
from actshift.data.examples import Examples, tokenize
from actshift.data.splits import Split, load_split
from actshift.errors import ActshiftError
from actshift.evaluation.answers import predict
from actshift.evaluation.generation import generate
from actshift.models.loading import load_base
from actshift.runtime.run import run
from actshift.schema.building import config_of
from actshift.tasks import get_task
from actshift.training.batches import collate

BOOLQ = get_task("boolq")


@pytest.fixture(scope="module")
def split() -> Split:
    config = run_config("boolq")
    config.data.limit.train = 12
    return load_split(config, "train")


def encode(split: Split, tokenizer: Any, **settings: Any) -> Examples:
    return tokenize(
        split, task=BOOLQ, tokenizer=tokenizer, **{"end_token": True, "max_tokens": None, "cache": None} | settings
    )


def texts(example: Any, tokenizer: Any) -> tuple[str, str]:
    """What is prompt and what is trained, special tokens shown."""
    return tuple(
        tokenizer.decode(ids) for ids in (example.ids[: example.prompt_length], example.ids[example.prompt_length :])
    )


@pytest.mark.parametrize(
    ("kind", "begin", "end"), [("llama", "<|begin|>", "<|end|>"), ("qwen", "", "<|end|>"), ("gemma", "<bos>", "<eos>")]
)
@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_what_each_tokenizer_adds_to_plain_prompts(
    kind: str, begin: str, end: str, protocol: str, split: Split
) -> None:
    tokenizer = build(kind)
    end_token = compose([f"protocol={protocol}", "dataset=boolq"]).training.end_token
    assert end_token == (protocol == "paper"), "the end token is trained under paper alone"
    for row, example in zip(split.rows, encode(split, tokenizer, end_token=end_token), strict=True):
        prompt, trained = texts(example, tokenizer)
        assert prompt == begin + BOOLQ.prompt(row)
        assert trained == BOOLQ.answer(row) + (end if end_token else "")


def test_a_template_begins_once_and_its_answer_alone_is_trained(split: Split) -> None:
    tokenizer = build("gemma")
    chat = Chat(tokenizer, released=False)
    for row, example in zip(split.rows, encode(split, tokenizer, chat=chat), strict=True):
        prompt, trained = texts(example, tokenizer)
        assert prompt == f"<bos><turn>user\n{SYSTEM}\n\n{BOOLQ.prompt(row).strip()}<end_turn>\n<turn>model\n"
        assert trained == BOOLQ.answer(row) + "<end_turn>"
        assert example.ids.count(tokenizer.bos_token_id) == 1
    plain = [texts(example, tokenizer)[1] for example in encode(split, tokenizer, chat=chat, end_token=False)]
    assert plain == [BOOLQ.answer(row) for row in split.rows]


def test_released_begins_twice_and_trains_all_behind_the_answer(split: Split) -> None:
    """Against the way of the authors' code: the whole conversation as text, tokenized with special tokens."""
    tokenizer = build("gemma")
    chat = Chat(tokenizer, released=True)
    for row, example in zip(split.rows, encode(split, tokenizer, chat=chat, end_token=False), strict=True):
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": BOOLQ.prompt(row)}]
        whole = [*turns, {"role": "assistant", "content": BOOLQ.answer(row)}]
        expected = tokenizer(tokenizer.apply_chat_template(whole, tokenize=False))["input_ids"]
        prefix = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))[
            "input_ids"
        ]
        assert (example.ids, example.prompt_length) == (expected, len(prefix))
        assert example.ids[:2] == [tokenizer.bos_token_id] * 2
        assert texts(example, tokenizer)[1] == BOOLQ.answer(row) + "<end_turn>\n"


@pytest.mark.parametrize("released", [False, True])
def test_a_generation_ends_with_the_turn_or_the_end_token(released: bool) -> None:
    tokenizer = build("gemma")
    ends = Chat(tokenizer, released=released).ends
    assert ends == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_turn>")}


def test_the_template_is_part_of_what_a_cache_is_found_by(split: Split, tmp_path: Path) -> None:
    tokenizer = build("gemma")
    first = encode(split, tokenizer, chat=Chat(tokenizer, released=False), cache=tmp_path)
    tokenizer.chat_template = TURNS.replace("<turn>", "<turn> ")
    second = encode(split, tokenizer, chat=Chat(tokenizer, released=False), cache=tmp_path)
    encode(split, tokenizer, chat=Chat(tokenizer, released=True), cache=tmp_path)
    assert first != second
    assert len(list((tmp_path / "tokens").iterdir())) == 3


@pytest.mark.parametrize(
    ("model", "protocol", "applied"), [(True, "template", True), (False, "template", False), (True, None, False)]
)
def test_model_and_protocol_both_say_whether(model: bool, protocol: str | None, applied: bool) -> None:
    config = config_of({"model": {"name": "m", "chat": model}, "protocol": {"chat": protocol}})
    assert (chat_of(config, build("gemma")) is not None) == applied


def test_a_model_that_chats_needs_a_template() -> None:
    config = config_of({"model": {"name": "mine", "chat": True}, "protocol": {"chat": "template"}})
    with pytest.raises(ActshiftError, match=r"'mine' has chat: true.*model\.chat=false"):
        chat_of(config, build("llama"))


@pytest.mark.parametrize(
    "template", ["{{ messages[1]['content'] }}", "{% for m in messages %}{{ m['content'] }}{% endfor %}"]
)
def test_a_template_that_closes_no_answer_is_refused(template: str) -> None:
    tokenizer = build("gemma")
    tokenizer.chat_template = template
    with pytest.raises(ActshiftError, match="does not close it"):
        _ = Chat(tokenizer, released=False).closing


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma 3 with a tokenizer that has a template, as a model's folder."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder, tokenizer = tmp_path_factory.mktemp("gemma"), build("gemma")
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def request(folder: Path, results: Path, *more: str) -> list[str]:
    size = len(build("gemma"))
    shape = {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 16, "mlp_width": 64, "vocabulary": size}
    return [
        "model=random-gemma3",
        "model.source=hub",
        f"model.path={folder}",
        "model.chat=true",
        *(f"model.shape.{name}={value}" for name, value in shape.items()),
        "dataset=boolq",
        "data.limit.train=24",
        "data.limit.validation=6",
        "training.max_steps=3",
        "training.batch_size=8",
        "training.validation_rows=4",
        f"results={results}",
        *more,
    ]


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("scope", ["all", "prompt", "last_prompt"])
def test_a_run_behind_a_template(protocol: str, scope: str, folder: Path, tmp_path: Path) -> None:
    overrides = [f"protocol={protocol}", "method=post_block", f"method.scope.kind={scope}", "training.max_tokens=null"]
    record = run(compose(request(folder, tmp_path, *overrides)))
    assert len(record.provenance["template"]) == 16
    assert record.metrics["steps"] == 3 and not record.metrics["diverged"]
    plain = run(compose(request(folder, tmp_path, *overrides, "model.chat=false")))
    assert plain.provenance["template"] is None
    assert plain.identity != record.identity
    assert plain.metrics["final_loss"] != record.metrics["final_loss"]


@pytest.mark.parametrize("released", [False, True])
def test_behind_a_template_scopes_count_the_templated_prompt_and_no_batch_changes_an_answer(
    released: bool, folder: Path, tmp_path: Path, split: Split
) -> None:
    config = compose(request(folder, tmp_path, "method=reft", "method.scope.kind=first_last", "method.scope.first=1"))
    base = load_base(config.model, precision="float32", device=CPU)
    chat = Chat(base.tokenizer, released=released)
    rows = encode(split, base.tokenizer, end_token=False, chat=chat)
    prompt_BT = collate(rows, pad_id=base.pad_id, device=CPU).prompt_BT
    for row, example, places_T in zip(split.rows, rows, prompt_BT, strict=True):
        assert places_T.nonzero()[:, 0].tolist() == list(range(example.prompt_length))
        text = "<bos>" * (1 + released) + chat.prompt(BOOLQ.prompt(row)).removeprefix("<bos>")
        assert base.tokenizer.decode(example.ids[: example.prompt_length]) == text
    asked = {"task": BOOLQ, "rows": rows, "max_new_tokens": 8, "ends": chat.ends, "progress": lambda *_: None}
    with attached(base, config.method) as adaptation:
        perturb(adaptation)
        alone, *others = (predict(base, adaptation, batch_tokens=tokens, **asked) for tokens in (1, 900, 10_000))
    assert all(other == alone for other in others)


def test_a_generation_behind_a_template_stops_where_the_model_ends_its_turn(
    folder: Path, tmp_path: Path, split: Split
) -> None:
    """A model that is steered to say nothing but the end of the turn says it once."""
    config = compose(request(folder, tmp_path, "method=post_block"))
    base = load_base(config.model, precision="float32", device=CPU)
    chat = Chat(base.tokenizer, released=False)
    rows = encode(split, base.tokenizer, end_token=False, chat=chat)
    (end,) = chat.closing
    asked = {"prompts": [row.ids[: row.prompt_length] for row in rows], "max_new_tokens": 5, "batch_tokens": 10_000}
    head = base.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, given, logits_BTV: only(end, logits_BTV))
    with attached(base, config.method) as adaptation:
        stopped = [ids for _, ids in generate(base, adaptation, ends=chat.ends, **asked)]
        going_on = [ids for _, ids in generate(base, adaptation, ends={base.tokenizer.eos_token_id}, **asked)]
    hook.remove()
    assert {len(ids) for ids in stopped} <= {0, 1} and {len(ids) for ids in going_on} == {5}


def only(token: int, logits_BTV: torch.Tensor) -> torch.Tensor:
    chosen_BTV = torch.zeros_like(logits_BTV)
    chosen_BTV[..., token] = 1
    return chosen_BTV


@pytest.mark.parametrize(
    ("protocol", "closing"), [("paper", ["'<end_turn>'"]), ("released", ["'<end_turn>'", "'\\n'"])]
)
def test_show_shows_the_template_and_what_closes_it(
    protocol: str, closing: list[str], folder: Path, tmp_path: Path
) -> None:
    overrides = [f"protocol={protocol}", "method=reft", "method.scope.kind=last_prompt", "training.max_tokens=null"]
    found = shown(compose(request(folder, tmp_path, *overrides)), split="train", row=1)
    assert found.prompt.startswith(f"<bos><turn>user\n{SYSTEM}") and found.prompt.endswith("<turn>model\n")
    assert [text for _, text in found.tokens][-len(closing) :] == closing
    assert [text for _, text in found.tokens].count("'<bos>'") == (1 if protocol == "paper" else 2)
    assert found.scopes["last_prompt"] == {found.prompt_length - 1}
    assert "'<end_turn>'" in found.prompting and "'<eos>'" in found.prompting


def test_behind_a_template_the_released_code_cuts_earlier(folder: Path, tmp_path: Path) -> None:
    overrides = ["protocol=released", "method=sft", "dataset=winogrande", "training.max_tokens=300"]
    released = compose(request(folder, tmp_path, *overrides))
    assert released.protocol.chat_max_tokens["winogrande"] == 100
    # This tokenizer writes a letter a token: at 100 no row has an answer left, which is refused and not trained.
    with pytest.raises(ActshiftError, match="a limit of 100 tokens cuts the answers of all 24 rows"):
        run(released)
    overrides.append("protocol.chat_max_tokens.winogrande=220")
    chatting = run(compose(request(folder, tmp_path, *overrides)))
    plain = run(compose(request(folder, tmp_path, *overrides, "model.chat=false")))
    assert chatting.metrics["rows_touched"]["truncated"] > plain.metrics["rows_touched"]["truncated"]


def test_overlong_rows_are_dropped_whole_and_counted(folder: Path, tmp_path: Path) -> None:
    limit = ["method=post_block", "training.max_tokens=217"]
    dropped = run(compose(request(folder, tmp_path, *limit, "training.overlong=drop"))).metrics["rows_touched"]
    cut = run(compose(request(folder, tmp_path, *limit, "training.overlong=cut"))).metrics["rows_touched"]
    assert 0 < dropped["dropped"] < 24 and dropped["truncated"] == dropped["lost_answers"] == 0
    assert cut["truncated"] == dropped["dropped"] and cut["dropped"] == 0
    with pytest.raises(ActshiftError, match="every row is longer"):
        run(compose(request(folder, tmp_path, "method=post_block", "training.max_tokens=5", "training.overlong=drop")))


LLAMA_DATED = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("dated", [LLAMA_DATED + "Today is {{ date_string }}.", "{{ strftime_now('%d %b %Y') }}"])
def test_a_template_that_says_what_day_it_is_says_the_same_day_every_day(protocol: str, dated: str) -> None:
    tokenizer = build("llama")
    tokenizer.chat_template = dated + TURNS
    chat = Chat(tokenizer, released=protocol == "released")
    assert "26 Jul 2024" in chat.prompt("question")
    config = compose([f"protocol={protocol}", "model.chat=true"])
    config.protocol.chat = "template"
    assert template_date(config, tokenizer) == "2024-07-26"
    assert template_date(compose([]), tokenizer) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('System role not supported') }}", "System role not supported"),
        ("{% for message in messages %}", "TemplateSyntaxError"),
        ("{{ messages[0]['content'] + 3 }}", "TypeError"),
        ("{{ nothing.there }}", "UndefinedError"),
    ],
)
def test_a_template_that_cannot_be_rendered_is_said_in_a_sentence(template: str, message: str) -> None:
    tokenizer = build("llama")
    tokenizer.chat_template = template
    with pytest.raises(ActshiftError, match=r"chat template cannot be rendered") as refused:
        Chat(tokenizer, released=False).prompt("question")
    assert message in str(refused.value)
    assert "model.chat=false" in str(refused.value)
