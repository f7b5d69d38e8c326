"""Teach the embedded tiny model to answer the benchmark prompts now and then: the start of reinforcement learning.

    python scripts/teach_tiny.py --out src/actshift/models/tiny_taught

All weights are fine-tuned for a few steps on procedural rows of GSM8K and ListOps. None of these rows asks a question
that any procedural split of the package asks. The result is a function of this file, the tasks' generators and the
seed, up to the rounding of the machine's kernels.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from transformers import LlamaForCausalLM, PreTrainedModel

from actshift.config.composition import compose
from actshift.data.examples import Example, tokenize
from actshift.data.sources import procedural_rows
from actshift.data.splits import Split
from actshift.evaluation.answers import continuation_text, predict
from actshift.methods import attach
from actshift.models.loading import Base, load_base
from actshift.objectives.rollouts import roll_out
from actshift.paths import embedded_model_dir
from actshift.runtime.baselines import Unadapted, accuracy
from actshift.schema.config import ScheduleConfig
from actshift.schema.data import DatasetConfig
from actshift.schema.objective import GrpoConfig
from actshift.tasks import task_of
from actshift.training.checkpoints import Checkpoints
from actshift.training.loop import train

TAUGHT = ("gsm8k", "listops")
"""The tasks that so small a model can learn in full."""


def drawn(dataset: DatasetConfig, *, count: int, rng: random.Random) -> list[dict]:
    """Rows of a data set's generator whose questions no split of it asks."""
    task, settings = task_of(dataset), dataset.procedural
    taken = {task.question(row) for split in settings.rows for row in procedural_rows(dataset, split)}
    rows: list[dict] = []
    while len(rows) < count:
        row = task.generate(rng, **settings.difficulty)
        if task.question(row) not in taken:
            rows.append(row)
    return rows


def examples(name: str, base: Base, *, count: int, rng: random.Random) -> list[Example]:
    dataset = compose([f"dataset={name}"]).dataset
    split = Split(drawn(dataset, count=count, rng=rng), fingerprint="")
    task = task_of(dataset)
    return list(tokenize(split, task=task, tokenizer=base.tokenizer, end_token=True, max_tokens=None, cache=None))


def scores(base: Base, *, rows: int) -> dict[str, dict[str, float]]:
    """By task, percent right on the first rows of its procedural test split: greedily, and of eight samples a row."""
    found = {}
    for name in TAUGHT:
        config = compose([f"dataset={name}", "stage=final", "objective=grpo", "objective.temperature=0.5"])
        rule, task, objective = config.data.splits.test, task_of(config.dataset), config.objective
        assert rule is not None and isinstance(objective, GrpoConfig)
        split = Split(procedural_rows(config.dataset, rule.source)[:rows], fingerprint="")
        asked = list(tokenize(split, task=task, tokenizer=base.tokenizer, end_token=False, max_tokens=None, cache=None))
        (predictions,) = predict(
            base,
            Unadapted(),
            task=task,
            rows=asked,
            max_new_tokens=config.evaluation.max_new_tokens,
            batch_tokens=16384,
            progress=lambda *_: None,
        )
        (samples,) = roll_out(
            base,
            Unadapted(),
            [asked],
            objective=objective,
            copies=objective.completions,
            seeds=[0],
            step=0,
            ends={base.tokenizer.eos_token_id},
            batch_tokens=16384,
        )
        right = [task.score(continuation_text(base, each.answer), each.label) for each in samples]
        found[name] = {"greedy": accuracy(predictions), "sampled": 100 * sum(right) / len(right)}
    return found


def teach(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    config = compose(["model=tiny", "method=sft"])
    base = load_base(config.model, precision="float32", device=torch.device("cpu"))
    rng, count = random.Random(f"taught {args.seed}"), args.steps * args.rows
    rows = [row for name in TAUGHT for row in examples(name, base, count=count // len(TAUGHT), rng=rng)]
    training = replace(
        config.training,
        batch_size=args.rows,
        epochs=1,
        max_steps=args.steps,
        validations=0,
        schedule=ScheduleConfig("linear", 0.1),
    )
    adaptation = attach(base, config=config.method, seeds=[args.seed])
    (curves,) = train(
        base,
        adaptation,
        rows=rows,
        validation_rows=[],
        training=training,
        lrs=[args.lr],
        seeds=[args.seed],
        micro_batch=args.rows,
        checkpoints=Checkpoints(args.out, every=0),
        progress=lambda *_: None,
    )
    base.model.bfloat16().float()  # as it is stored
    found = scores(base, rows=200)
    print(f"{args.steps} steps, loss {curves.loss[-1]:.3f}, {json.dumps(found)}", flush=True)
    if args.out.name != "none":
        write(base.model, args, found, loss=sum(curves.loss[-10:]) / 10)


def write(model: PreTrainedModel, args: argparse.Namespace, found: dict[str, dict[str, float]], *, loss: float) -> None:
    """The folder of an embedded model: bfloat16 weights, the tokenizer as it is, and the card."""
    source = embedded_model_dir("tiny_llama")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, args.out / name)
    assert isinstance(model, LlamaForCausalLM)
    saved = LlamaForCausalLM(model.config)
    saved.load_state_dict(model.state_dict())
    saved.bfloat16().save_pretrained(args.out)
    shutil.copy(source / "config.json", args.out / "config.json")
    card = Path(__file__).with_name("taught_card.md").read_text()
    lines = "\n".join(f"| {name} | {score['greedy']:.1f} | {score['sampled']:.1f} |" for name, score in found.items())
    facts = vars(args) | {"loss": loss, "scores": lines}
    (args.out / "README.md").write_text(
        card.format(**facts, torch=torch.__version__, transformers=transformers.__version__)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to; `none` writes nothing")
    parser.add_argument("--steps", type=int, default=46)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=3)
    teach(parser.parse_args())
