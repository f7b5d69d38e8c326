"""Base models: loading, architectures, sites, and rows packed for them."""

import logging

# transformers imports torchao where it is installed, which then tells every process what it cannot accelerate here.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
