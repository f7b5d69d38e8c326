"""Download a sweep's weights, tokenizers and data once, on a machine with a network: `actshift prefetch` as a script.

python scripts/prefetch.py SWEEP [overrides] [--check]
"""

from __future__ import annotations

import sys

from actshift.cli import main

if __name__ == "__main__":
    sys.exit(main(["prefetch", *sys.argv[1:]]))
