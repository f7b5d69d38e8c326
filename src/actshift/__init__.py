"""Adaptation results that can be trusted: methods, protocols, sweeps, and tables that carry their evidence."""

import logging

# transformers imports torchao where it is installed, which then tells every process what it cannot accelerate here.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
