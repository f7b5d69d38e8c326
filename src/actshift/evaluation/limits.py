"""How much evaluation holds at once: what its passes keep to, and what the memory estimate counts on."""

from __future__ import annotations

PROMPT_TOKENS = {"cpu": 2048, "cuda": 32768}
"""Prompt tokens of one packed pass, at most: more leave a CPU's cache (measured); an estimate for CUDA."""
SPARE_TOKENS = 32
"""Tokens that the keys and values of a row have room for beyond their own: they are copied once in so many tokens."""
