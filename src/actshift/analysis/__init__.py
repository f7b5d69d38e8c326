"""Analyses: what models, adapters or the theory show, each a function from its configuration to a frame."""
