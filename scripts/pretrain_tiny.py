"""Pretrain the embedded tiny model and its tokenizer on procedural text, and write both with their card.

    python scripts/pretrain_tiny.py --out phase1
    python scripts/pretrain_tiny.py --out src/actshift/models/tiny_llama --phase 2 --init phase1

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
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tiny_corpus import BROAD, HARD, Document, Subject, draw_document
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
# A word, digit or sign takes the space before it along; digits stay single, so that numbers are spelled out.
WORDS = r" ?\d| ?\p{L}+|\n| ?[^\s\p{L}\d]|\s+"


@dataclass(frozen=True)
class Phase:
    """One stretch of pretraining: its shares of the subjects, its schedule, and how the curriculum's level rises."""

    shares: dict[Subject, float]
    planned_steps: int
    steps: int
    """Where it ends; the learning rate's cosine is that of `planned_steps`."""
    peak_lr: float
    first_level: float
    rising_share: float
    """The share of the planned steps over which the level rises by one."""


PHASES = {
    1: Phase(BROAD, planned_steps=6000, steps=2100, peak_lr=4e-3, first_level=0.0, rising_share=0.35),
    2: Phase(HARD, planned_steps=4200, steps=4200, peak_lr=3e-3, first_level=0.2, rising_share=0.6),
}


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
    shares: dict[Subject, float] = BROAD,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` rows of `length` tokens and each token's loss weight: token ids and weights, both (count, length).

    Rows hold one document, cut at `length`; three in ten are short and end in the end token.
    """
    documents = [
        draw_document(rng, level=level, words=length // 4 if rng.random() < 0.3 else length, shares=shares)
        for _ in range(count)
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


def new_model(tokenizer: PreTrainedTokenizerFast, *, width: int, layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width,
        num_hidden_layers=layers, num_attention_heads=width // 32, num_key_value_heads=width // 32,
        max_position_embeddings=4096, tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, initializer_range=0.04,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def pretrain(args: argparse.Namespace) -> None:
    """Run one phase and write the model at every report."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    phase = PHASES[args.phase]
    if args.init:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.init)
        model = LlamaForCausalLM.from_pretrained(args.init, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(documents=20_000, seed=args.seed)
        model = new_model(tokenizer, width=args.width, layers=args.layers)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    print(f"vocabulary {len(tokenizer)}, parameters {model.num_parameters():,}", flush=True)
    groups = optimizers(model, lr=phase.peak_lr)
    rng = random.Random(args.seed + args.phase)
    started, running, log = time.monotonic(), 0.0, []
    for step in range(phase.steps):
        level = min(1.0, phase.first_level + step / (phase.rising_share * phase.planned_steps))
        ids_BT, weights_BT = draw_rows(
            tokenizer, rng=rng, count=args.rows, length=args.length, level=level,
            unlearned_weight=args.unlearned_weight, shares=phase.shares,
        )  # fmt: skip
        logits_BTV = model(input_ids=ids_BT).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
        loss = (losses * weights_BT[:, 1:]).sum() / weights_BT[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in groups:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps=phase.planned_steps, peak=phase.peak_lr, warmup=100)
            optimizer.step()
            optimizer.zero_grad()
        running = 0.98 * running + 0.02 * loss.item() if step else loss.item()
        if (step + 1) % args.report_every == 0 or step + 1 == phase.steps:
            skills = skill_report(model, tokenizer, seed=7)
            log.append({"step": step + 1, "loss": round(running, 4), "skills": skills})
            seconds = time.monotonic() - started
            print(f"step {step + 1} {seconds:.0f}s loss {running:.3f} {json.dumps(skills)}", flush=True)
            write(model, tokenizer, log, args=args)


def write(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, log: list[dict], *, args: argparse.Namespace
) -> None:
    """The folder of an embedded model: bfloat16 weights, tokenizer, configuration, the figures and the card."""
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.out)
    saved = LlamaForCausalLM(model.config)
    saved.load_state_dict(model.state_dict())
    saved.bfloat16().save_pretrained(args.out)
    before = json.loads((args.init / "pretraining.json").read_text())["phases"] if args.init else []
    phase = {
        "phase": args.phase,
        "steps": log[-1]["step"],
        "rows_per_step": args.rows,
        "tokens_per_row": args.length,
        "peak_lr": PHASES[args.phase].peak_lr,
        "seed": args.seed,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "log": log,
    }
    (args.out / "pretraining.json").write_text(json.dumps({"phases": [*before, phase]}, indent=1) + "\n")
    write_card(args.out)


def write_card(folder: Path) -> None:
    """The model card, from the figures that pretraining left in the folder."""
    phases = json.loads((folder / "pretraining.json").read_text())["phases"]
    config = json.loads((folder / "config.json").read_text())
    model = LlamaForCausalLM(LlamaConfig(**config))
    steps = [
        f"| phase {phase['phase']} | {phase['steps']:,} steps of {phase['rows_per_step']} rows of "
        f"{phase['tokens_per_row']} tokens, peak learning rate {phase['peak_lr']}, "
        f"loss {phase['log'][0]['loss']} after {phase['log'][0]['step']} steps, {phase['log'][-1]['loss']} at the end |"
        for phase in phases
    ]
    skills = [f"| {subject} | {100 * share:.1f} |" for subject, share in phases[-1]["log"][-1]["skills"].items()]
    template = Path(__file__).with_name("tiny_card.md").read_text()
    (folder / "README.md").write_text(
        template.format(
            parameters=model.num_parameters(),
            config=config,
            phases="\n".join(steps),
            skills="\n".join(skills),
            seed=phases[-1]["seed"],
            torch=phases[-1]["torch"],
            transformers=phases[-1]["transformers"],
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--phase", type=int, choices=PHASES, default=1)
    parser.add_argument("--init", type=Path, help="folder of the model to go on from (phase 2)")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=80)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--unlearned-weight", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=300)
    parser.add_argument("--card", action="store_true", help="only write the card of --out anew")
    arguments = parser.parse_args()
    if arguments.card:
        write_card(arguments.out)
    else:
        pretrain(arguments)
