"""Alpaca: the prompt of the authors' loader, no score, and rows that train."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from dataset_configs import run_config

from actshift.config.composition import compose
from actshift.data.splits import load_split
from actshift.errors import ActshiftError
from actshift.runtime.run import run
from actshift.tasks import get_task

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
    config["data"]["splits"]["train"] = {**config["data"]["splits"]["train"], "keep": "whole", "hold_out": 0.0}
    config["data"]["splits"]["validation"] = None
    rows = load_split(config, "train").rows
    assert len(rows) == 5000
    texts = json.dumps([[ALPACA.prompt(row), ALPACA.answer(row)] for row in rows])
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == RELEASED


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_both_protocols_train_it_as_instruction_tuning(protocol: str) -> None:
    """Section 6.2 of the paper, and instruction_tuning/train_it.py."""
    config = compose(["dataset=alpaca_cleaned", f"protocol={protocol}"])
    training = config["training"]
    assert (training["batch_size"], training["epochs"], training["max_tokens"]) == (16, 3, 512)
    assert (training["precision"], training["end_token"]) == ("bfloat16", True)
    assert training["schedule"] == {"kind": "cosine", "warmup": 0.03}
    assert config["evaluation"]["max_new_tokens"] == 512


def test_there_is_no_score_and_no_test_split(tmp_path: Path) -> None:
    assert ALPACA.extract("3") is None
    with pytest.raises(ActshiftError, match="no right answer"):
        ALPACA.score("3", "")
    with pytest.raises(ActshiftError, match="alpaca_cleaned has no test split"):
        load_split(run_config("alpaca_cleaned"), "test")
    for stage in ("grid", "final"):
        config = compose(["dataset=alpaca_cleaned", f"stage={stage}", f"results={tmp_path}"])
        with pytest.raises(
            ActshiftError, match=rf"stage={stage} scores answers.*AlpacaEval.*Tasks that are scored: aqua"
        ):
            run(config)
    assert list(tmp_path.iterdir()) == []


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
    config["data"]["limit"] |= {"train": 32, "validation": 4}
    set_threads(config["hardware"])
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
        attach(base, config=config["method"], seeds=(0,)),
        rows=rows["train"],
        validation_rows=list(rows["validation"]),
        training=config["training"],
        lrs=(1e-3,),
        seeds=(0,),
        micro_batch=4,
        checkpoints=Checkpoints(tmp_path, every=0),
        progress=lambda *_: None,
    )
    assert curves.loss[-1] < 0.8 * curves.loss[0]
