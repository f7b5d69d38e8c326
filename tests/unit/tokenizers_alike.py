"""Tokenizers of the families' kinds, built here: what each adds to a text, and a chat template of Gemma's form."""

from __future__ import annotations

from typing import Any

TURNS = (
    "{{ bos_token }}{% set system = messages[0]['content'] %}"
    "{% for turn in messages[1:] %}"
    "{{ '<turn>' + ('model' if turn['role'] == 'assistant' else turn['role']) + '\n' }}"
    "{% if loop.first %}{{ system + '\n\n' }}{% endif %}{{ turn['content'] | trim }}{{ '<end_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
"""A template of Gemma's form: the system message goes before the first user turn, text is trimmed, turns are closed."""


def build(kind: str) -> Any:
    """A byte-level tokenizer with the special tokens of a family: what it adds, and its template if it has one."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {
        "llama": {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|end|>"},
        "qwen": {"eos_token": "<|end|>", "pad_token": "<|pad|>"},
        "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    }[kind]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*dict.fromkeys(names.values()), *(["<turn>", "<end_turn>"] if kind == "gemma" else [])])
    if "bos_token" in names:
        bos = names["bos_token"]
        specials = [(bos, backend.token_to_id(bos))]
        backend.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=specials)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    if kind == "gemma":
        tokenizer.chat_template = TURNS
    return tokenizer
