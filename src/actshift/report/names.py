"""Display names. Everywhere else a thing is called by its name in conf/; an unknown name is shown as it is."""

from __future__ import annotations

MODELS = {
    "llama3.2-1b": "Llama-3.2-1B",
    "llama3.1-8b": "Llama-3.1-8B",
    "gemma3-1b": "Gemma-3-1B",
    "qwen3-0.6b": "Qwen3-0.6B",
    "qwen3-1.7b": "Qwen3-1.7B",
    "qwen3-4b": "Qwen3-4B",
    "qwen3-8b": "Qwen3-8B",
    "tiny": "Tiny Llama",
    "smollm2-135m": "SmolLM2-135M",
}

METHODS = {
    "sft": "SFT",
    "lora_r8": "LoRA",
    "lora_r16": "LoRA r=16",
    "reft": "ReFT",
    "reft_r16": "ReFT r=16",
    "reft_4layers_r4": "ReFT r=4, 4 layers",
    "reft_published": "ReFT as published",
    "lofit": "LoFIT",
    "lofit_two_stage": "LoFIT, two stages",
    "jola": "JoLA",
    "post_block": "Ours r=8",
    "post_block_r1": "Ours r=1",
    "post_block_vector": "Ours 1-vec",
    "post_block_r16": "Ours r=16",
    "post_block_affine": "Ours r=8 with bias",
    "post_block_answer": "Ours r=8, answer",
    "post_block_every_last": "Ours r=8, every last",
    "submodules": "Ours r=8, sub-modules",
    "dora_r8": "DoRA",
    "ia3": "IA3",
    "vera_r64": "VeRA r=64",
    "post_block_nonlinear": "Ours r=8 nonlinear",
    "post_block_nonlinear_r1": "Ours r=1 nonlinear",
    "post_block_nonlinear_r16": "Ours r=16 nonlinear",
    "post_block_nonlinear_r64": "Ours r=64 nonlinear",
    "adapter_r64": "Adapter",
    "joint": "Joint",
    "joint_orth": "Joint-Orth",
}

DATASETS = {
    "boolq": "BoolQ",
    "winogrande": "WinoG",
    "arc_challenge": "ARC-C",
    "gsm8k": "GSM8K",
    "aqua": "AQuA",
    "listops": "ListOps",
    "sst2": "SST-2",
    "trec": "TREC",
    "winogrande_xl": "WinoG xl",
    "alpaca_cleaned": "Alpaca cleaned",
    "alpaca": "Alpaca",
    "code_alpaca": "CodeAlpaca",
}

DEVIATIONS = {1: 11, 2: 12, 4: 13}
"""The paper's table of standard deviations of each of its tables of accuracies."""


def model(name: str) -> str:
    """The name of a model as a table shows it."""
    return MODELS.get(name, name)


def method(name: str) -> str:
    """The name of a method as a table shows it."""
    return METHODS.get(name, name)


def dataset(name: str) -> str:
    """The name of a data set as a table shows it."""
    return DATASETS.get(name, name)
