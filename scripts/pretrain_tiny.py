"""Pretrain the embedded tiny model and its tokenizer on procedural text, and write both with their card.

    python scripts/pretrain_tiny.py --out src/actshift/models/tiny_llama

The result is a function of this file, `tiny_corpus.py`, the tasks' generators and the seed, up to the rounding of
the machine's kernels.

"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import transformers
from tiny_corpus import Document, draw_document
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
# A word, digit or sign takes the space before it along; digits stay single, so that numbers are spelled out.
WORDS = r" ?\d| ?\p{L}+|\n| ?[^\s\p{L}\d]|\s+"


def train_tokenizer(*, documents: int, seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each word of the corpus ends up as one token; any other text falls back to bytes."""
    rng = random.Random(seed)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text_of(draw_document(rng, level=1.0, words=80)) for _ in range(documents))
    tokenizer.train_from_iterator(texts, trainer)
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END, clean_up_tokenization_spaces=False
    )


def text_of(document: Document) -> str:
    return "".join(text for text, _ in document)


def draw_rows(
    tokenizer: PreTrainedTokenizerFast,
    *,
    rng: random.Random,
    count: int,
    length: int,
    level: float,
    unlearned_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` rows of `length` tokens and each token's loss weight: token ids and weights, both (count, length).

    Rows hold one document, cut at `length`; three in ten are short and end in the end token.
    """
    documents = [
        draw_document(rng, level=level, words=length // 4 if rng.random() < 0.3 else length) for _ in range(count)
    ]
    encoded = tokenizer.backend_tokenizer.encode_batch([text_of(document) for document in documents])
    ids_BT = torch.full((count, length), tokenizer.pad_token_id)
    weights_BT = torch.zeros(count, length)
    for row, (document, encoding) in enumerate(zip(documents, encoded, strict=True)):
        learned = [learn for text, learn in document for _ in text]
        ids = [*encoding.ids, tokenizer.eos_token_id]
        # A token is learned where its last character is: the space it starts with may belong to the cue.
        weights = [1.0 if end and learned[end - 1] else unlearned_weight for _, end in encoding.offsets] + [1.0]
        kept = min(length, len(ids))
        ids_BT[row, :kept] = torch.tensor(ids[:kept])
        weights_BT[row, :kept] = torch.tensor(weights[:kept])
    weights_BT[:, 0] = 0
    return ids_BT, weights_BT


def learning_rate(step: int, *, steps: int, peak: float, warmup: int) -> float:
    """Linear warmup, then cosine to a twentieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.05 + 0.475 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized by five Newton-Schulz steps: W <- W - lr 0.2 sqrt(max(m, n)) orth(M).

    torch has a Muon of its own; on a CPU its bfloat16 matrix products take three times as long as the model, so
    this one works in float32 and on all matrices of a shape at once. Source: Jordan et al., 2024.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], *, lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for (m, n), parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                    average.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(average, group["momentum"]))
                step = group["lr"] * 0.2 * max(m, n) ** 0.5
                for parameter, update in zip(parameters, orthogonalize(torch.stack(updates)), strict=True):
                    parameter.mul_(1 - 0.01 * group["lr"]).sub_(update, alpha=step)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Matrices (batch, m, n) with their singular values brought near 1, by the quintic Newton-Schulz iteration."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def optimizers(model: LlamaForCausalLM, *, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [Muon(inside, lr=lr), torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


@torch.no_grad()
def skill_report(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> dict[str, float]:
    """The share of learned tokens, by subject, that are the model's first choice at full difficulty."""
    model.eval()
    report = defaultdict(list)
    rng = random.Random(seed)
    ids_BT, weights_BT = draw_rows(tokenizer, rng=rng, count=300, length=80, level=1.0, unlearned_weight=0.0)
    texts = tokenizer.batch_decode(ids_BT)
    for start in range(0, len(ids_BT), 100):
        ids, weights = ids_BT[start : start + 100], weights_BT[start : start + 100]
        hits = model(input_ids=ids).logits[:, :-1].argmax(-1) == ids[:, 1:]
        for row in range(len(ids)):
            words = weights[row, 1:].bool() & (ids[row, 1:] > 2)
            report[subject_of(texts[start + row])].append((hits[row] & words).sum().item() / max(1, words.sum().item()))
    model.train()
    return {subject: round(sum(shares) / len(shares), 3) for subject, shares in sorted(report.items())}


def subject_of(text: str) -> str:
    """A rough name for a document's subject, for the report."""
    for mark, name in (
        (" ? ", "recalls"), ("[M", "lists"), ("[S", "lists"), ("_ is", "comparisons"), (" one is the", "comparisons"),
        ("Which ", "choices"), ("What is ", "choices"), ("has a ", "facts"), ("How many", "problems"),
        ("kind of", "kinds"), ("than", "truths"), ("</", "notes"),
    ):  # fmt: skip
        if mark in text:
            return name
    return "sums"


def pretrain(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(documents=20_000, seed=args.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, intermediate_size=3 * args.width,
        num_hidden_layers=args.layers, num_attention_heads=args.width // 32, num_key_value_heads=args.width // 32,
        max_position_embeddings=4096, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.04,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    size = sum(p.numel() for p in model.parameters())
    print(f"vocabulary {len(tokenizer)}, parameters {size:,}", flush=True)
    groups = optimizers(model, lr=args.lr)
    rng = random.Random(args.seed + 1)
    started, seconds, running, log = time.monotonic(), 0.0, None, []
    step = 0
    while step < args.steps:
        level = min(1.0, step / (0.35 * args.steps))
        ids_BT, weights_BT = draw_rows(
            tokenizer, rng=rng, count=args.rows, length=args.length, level=level,
            unlearned_weight=args.unlearned_weight,
        )  # fmt: skip
        logits_BTV = model(input_ids=ids_BT).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
        loss = (losses * weights_BT[:, 1:]).sum() / weights_BT[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in groups:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps=args.steps, peak=args.lr, warmup=100)
            optimizer.step()
            optimizer.zero_grad()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        step += 1
        if step % args.report_every == 0 or step == args.steps:
            seconds = time.monotonic() - started
            skills = skill_report(model, tokenizer, seed=7)
            log.append({"step": step, "loss": round(running, 4), "skills": skills})
            print(f"step {step} {seconds:.0f}s loss {running:.3f} {json.dumps(skills)}", flush=True)
            if args.out:
                write(model, tokenizer, log, args=args, out=args.out)


def write(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: list[dict], *, args: argparse.Namespace, out: Path
) -> None:
    """The folder of an embedded model: bfloat16 weights, tokenizer, configuration and the figures of its card."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    saved = LlamaForCausalLM(model.config).to(torch.bfloat16)
    saved.load_state_dict(model.state_dict())
    saved.save_pretrained(out)
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": log[-1]["step"],
        "planned_steps": args.steps,
        "rows_per_step": args.rows,
        "tokens_per_row": args.length,
        "peak_lr": args.lr,
        "seed": args.seed,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "log": log,
    }
    (out / "pretraining.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_card(out)


def write_card(folder: Path) -> None:
    """The model card, from the figures that pretraining left in the folder."""
    figures = json.loads((folder / "pretraining.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    last = figures["log"][-1]
    skills = "\n".join(f"| {subject} | {100 * share:.1f} |" for subject, share in last["skills"].items())
    tokens = figures["steps"] * figures["rows_per_step"] * figures["tokens_per_row"]
    (folder / "README.md").write_text(
        CARD.format(**figures, config=config, loss=last["loss"], skills=skills, millions=tokens / 1e6)
    )


CARD = """# tiny_llama, the embedded model of actshift (`model=tiny`)

A Llama-architecture decoder with a tokenizer of its own, small enough to be adapted on a laptop in seconds and trained
enough for adaptation to mean something. It knows a small made-up world and nothing else.

| | |
| --- | --- |
| parameters | {parameters:,} (embedding and output head tied), stored in bfloat16 |
| width, layers, heads, MLP width | {config[hidden_size]}, {config[num_hidden_layers]}, {config[num_attention_heads]}, {config[intermediate_size]} |
| vocabulary | {config[vocab_size]}: byte-level BPE; each word of the corpus is one token, digits are single, other text falls back to bytes |
| data | procedural text of `scripts/tiny_corpus.py`: list expressions, facts about people and things, word problems, multiple choice, opposites, comparisons, notes with tags |
| steps | {steps:,} of {rows_per_step} rows of {tokens_per_row} tokens ({millions:.0f} million tokens), seed {seed} |
| optimizer | Muon for the matrices inside the blocks, AdamW for the rest; peak learning rate {peak_lr}, linear warmup, cosine decay |
| loss | {loss} nats a token at the end, on the tokens that follow from what precedes them (the rest weighs 0.02) |
| versions | torch {torch}, transformers {transformers} |

Its corpus never shows the prompts of the benchmark tasks nor their answer formats, only the skills and the words.

Share of predictable tokens that are its first choice at the end of pretraining, by subject, in percent:

| subject | share |
| --- | --- |
{skills}

Rebuild it, in about an hour on one core:

    python scripts/pretrain_tiny.py --out src/actshift/models/tiny_llama

The curve of the pretraining is in `pretraining.json`. Made by this project, under its licence.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder to write the model to; nothing is written without it")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--unlearned-weight", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=250)
    parser.add_argument("--card", type=Path, help="only write the card of this folder anew")
    arguments = parser.parse_args()
    if arguments.card:
        write_card(arguments.card)
    else:
        pretrain(arguments)
