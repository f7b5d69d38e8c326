"""How much evaluation holds at once: what its passes keep to, and what the memory estimate counts on."""

from __future__ import annotations

from actshift.schema.config import BYTES, Config, ShapeConfig

PROMPT_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Prompt tokens of one packed pass, at most: more leave a CPU's cache (measured); an estimate for CUDA."""
BLOCK_ROWS, BLOCK_SHORTEST = (8, 64), 0.85
"""On a CPU, how many rows have their keys and values in one tensor, and the share of its longest that each is at least.

Smaller blocks have less padding, and cost more calls (measured). A block is cut for its lengths from 8 rows on.
"""
SPARE_TOKENS = 32
"""Tokens that the keys and values of a row have room for beyond their own.

Where these are used up they are copied, with room for as many again, or for a quarter of what they hold.
"""


def cached_bytes(shape: ShapeConfig, size: int) -> int:
    """Bytes that the keys and values of one token take in a layer, at `size` bytes a number."""
    keys: int = shape.kv_heads * shape.head_size
    return 2 * keys * size


def batch_tokens(config: Config) -> int:
    """Prompt tokens of one evaluation batch, at most.

    They are `hardware.evaluation_tokens`, or, where that is fewer, the tokens whose keys and values take
    `hardware.evaluation_bytes`; one at least.
    """
    hardware, shape = config.hardware, config.model.shape
    if hardware.evaluation_bytes is None:
        return int(hardware.evaluation_tokens)
    a_token = shape.layers * cached_bytes(shape, BYTES[config.training.precision])
    return int(min(hardware.evaluation_tokens, max(1, hardware.evaluation_bytes // a_token)))
