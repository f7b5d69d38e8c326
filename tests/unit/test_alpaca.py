"""Alpaca: the prompt of the authors' loader, no score, and rows that train."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from dataset_configs import dataset_config, run_config

from actshift.config.composition import compose
from actshift.data.splits import load_split
from actshift.errors import ActshiftError
from actshift.evaluation.predictions import read_predictions
from actshift.evaluation.rescoring import rescore
from actshift.judging.ifeval import packaged_prompts
from actshift.runtime.run import run
from actshift.runtime.session import Session
from actshift.runtime.train import training_examples
from actshift.schema.config import ScheduleConfig
from actshift.schema.data import LimitConfig
from actshift.tasks import get_task, scoring_task
from actshift.tasks.verifiable.verdicts import accuracies, verdict

ALPACA = get_task("alpaca")

RELEASED = "3d219206e0bdee3d"
"""Hash of the prompts and responses of the first 5,000 rows.

Made by the authors' own formatting (SprocketLab/steerling @ 76b60f119a, utils/dataloaders_it.py) on the real file.
"""


def test_a_prompt_with_input_and_one_without() -> None:
    row = {"instruction": "Add them.", "input": "1 and 2", "output": "3"}
    assert ALPACA.prompt(row) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd them.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )
    assert ALPACA.answer(row) == "3"
    for blank in ("", " \n"):
        assert ALPACA.prompt({**row, "input": blank}) == (
            "Below is an instruction that describes a task. Write a response that appropriately completes the request."
            "\n\n### Instruction:\nAdd them.\n\n### Response:\n"
        )


def test_prompts_and_responses_are_those_of_the_released_loader(shared: Path) -> None:
    config = run_config("alpaca_cleaned", source="local", directory=shared / "data")
    config.data.splits.train = replace(config.data.splits.train, keep="whole", hold_out=0.0)
    config.data.splits.validation = None
    rows = load_split(config, "train").rows
    assert len(rows) == 5000
    texts = json.dumps([[ALPACA.prompt(row), ALPACA.answer(row)] for row in rows])
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == RELEASED


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_both_protocols_train_it_as_instruction_tuning(protocol: str) -> None:
    """Section 6.2 of the paper, and instruction_tuning/train_it.py."""
    config = compose(["dataset=alpaca_cleaned", f"protocol={protocol}"])
    training = config.training
    assert (training.batch_size, training.epochs, training.max_tokens) == (16, 3, 512)
    assert (training.precision, training.end_token) == ("bfloat16", True)
    assert training.schedule == ScheduleConfig("cosine", 0.03)
    assert config.evaluation.max_new_tokens == 512


def test_a_validation_split_has_a_loss_and_ifeval_tests(tmp_path: Path) -> None:
    assert ALPACA.extract("3") is None
    with pytest.raises(ActshiftError, match="no right answer"):
        ALPACA.score("3", "")
    overrides = [
        "dataset=alpaca_cleaned",
        "training.precision=float32",
        "training.max_steps=2",
        "method=post_block_r16",
    ]
    overrides += ["data.limit.train=32", "data.limit.validation=6", "data.limit.test=20", f"results={tmp_path}"]
    overrides += ["evaluation.max_new_tokens=24", "training.validations=0"]
    validation, test = (run(compose([*overrides, f"stage={stage}"])) for stage in ("grid", "final"))
    assert validation.identity == test.identity
    assert validation.metrics["rows"] == 6 and "accuracy" not in validation.metrics
    assert 0 < validation.metrics["loss"] < 10 and validation.outcome == f"loss {validation.metrics['loss']:.4f}"
    assert test.metrics["rows"] == 20 and "loss" not in test.metrics
    # What the record says is what the checkers say of the answers that are kept, by the prompts of the package.
    prompts = packaged_prompts()[:20]
    predictions = read_predictions(tmp_path / "runs" / test.identity / "predictions-test.jsonl")
    verdicts = [verdict(prompt, each.output) for prompt, each in zip(prompts, predictions, strict=True)]
    by_prompt, by_instruction = accuracies(verdicts)[:2]
    assert test.metrics["accuracy"] == by_prompt.strict_pct == test.metrics["prompts_strict"]
    assert test.metrics["prompts_loose"] == by_prompt.loose_pct
    assert test.metrics["instructions_strict"] == by_instruction.strict_pct
    assert test.metrics["instructions_loose"] == by_instruction.loose_pct
    assert 0 < test.metrics["instructions_strict"] < 100
    shown = rescore(tmp_path / "runs" / test.identity / "predictions-test.jsonl")
    assert shown.changed == [] and shown.task.name == "ifeval"


def test_the_prompts_of_the_package_are_the_published_ones_as_instructions(shared: Path) -> None:
    rows = load_split(run_config("alpaca_cleaned"), "test").rows
    assert len(rows) == 541
    task = scoring_task(dataset_config("alpaca_cleaned"), "test")
    assert task.prompt(rows[0]) == ALPACA.prompt({"instruction": rows[0]["prompt"], "input": ""})
    assert scoring_task(dataset_config("alpaca_cleaned"), "validation").name == "alpaca"
    file = shared / "data" / "ifeval" / "input_data.jsonl"
    if not file.exists():
        pytest.skip(f"needs {file}")
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows


def test_the_loss_is_that_of_the_answers_tokens(tmp_path: Path) -> None:
    """Against transformers' own loss of each row, weighted by its tokens."""
    overrides = [
        "dataset=alpaca_cleaned",
        "training.precision=float32",
        "training.max_steps=1",
        "method=post_block_r16",
    ]
    overrides += ["data.limit.train=16", "data.limit.validation=5", f"results={tmp_path}", "lr=1e-12"]
    config = compose([*overrides, "training.validations=0"])
    found = run(config).metrics
    session = Session()
    base, split = session.base(config), session.split(config, "validation")
    rows = training_examples(split, config=config, tokenizer=base.tokenizer, cache=None)
    nats = tokens = 0.0
    for row in rows:
        ids, count = torch.tensor([row.ids]), len(row.ids) - row.prompt_length
        labels = torch.tensor([[-100] * row.prompt_length + row.ids[row.prompt_length :]])
        nats, tokens = nats + count * float(base.model(ids, labels=labels).loss.detach()), tokens + count
    assert found["answer_tokens"] == tokens
    assert found["loss"] == pytest.approx(nats / tokens, rel=1e-4)


def test_a_kind_that_is_not_the_task_s_is_refused() -> None:
    for overrides in (["dataset=alpaca_cleaned", "dataset.kind=benchmark"], ["dataset.kind=instruction"]):
        with pytest.raises(ActshiftError, match=r"dataset\.kind = "):
            compose(overrides)


def test_it_trains(tmp_path: Path) -> None:
    """A few steps of the tiny model: the loss on responses falls, and the end token is among what is trained."""
    from actshift.data.examples import tokenize
    from actshift.methods import attach
    from actshift.runtime.session import Session, set_threads
    from actshift.training.checkpoints import Checkpoints
    from actshift.training.loop import train

    config = compose(
        [
            "dataset=alpaca_cleaned",
            "method=sft",
            "training.precision=float32",
            "training.max_steps=6",
            "training.batch_size=4",
        ]
    )
    config.data.limit = LimitConfig(32, 4)
    set_threads(config.hardware)
    session = Session()
    base = session.base(config)
    rows = {
        split: tokenize(
            session.split(config, split),
            task=ALPACA,
            tokenizer=base.tokenizer,
            end_token=True,
            max_tokens=512,
            cache=None,
        )
        for split in ("train", "validation")
    }
    assert all(row.ids[-1] == base.tokenizer.eos_token_id for row in rows["train"])
    (curves,) = train(
        base,
        attach(base, config=config.method, seeds=(0,)),
        rows=rows["train"],
        validation_rows=list(rows["validation"]),
        training=config.training,
        lrs=(1e-3,),
        seeds=(0,),
        micro_batch=4,
        checkpoints=Checkpoints(tmp_path, every=0),
        progress=lambda *_: None,
    )
    assert curves.loss[-1] < 0.8 * curves.loss[0]
