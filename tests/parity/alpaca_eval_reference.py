"""What the alpaca_eval package makes of recorded judgments; run by a Python that has it (0.6.6), prints JSON lines.

Its two downloads are answered with files: the gamed rows that are named, and the difficulties. Each model's judgments
are scored twice: as the package does it, and with liblinear's tolerance at 1e-12.
"""

from __future__ import annotations

import json
import logging
import sys

import pandas as pd
from alpaca_eval.metrics import glm_winrate

GAMED, *FILES = sys.argv[1:]
logging.disable(logging.CRITICAL)
glm_winrate.hf_hub_download = lambda **_: GAMED
FITTED = []
fit = glm_winrate.fit_LogisticRegressionCV


def remembered(*arguments, **options):  # type: ignore[no-untyped-def]
    FITTED.append(fit(*arguments, **options))
    return FITTED[-1]


glm_winrate.fit_LogisticRegressionCV = remembered
INFO = glm_winrate.GLM_INFO["length_controlled_v1"]
for file in FILES:
    rows = pd.read_json(file, lines=True)
    found = glm_winrate.get_length_controlled_winrate(rows.copy(), save_weights_dir=None)
    penalty = float(FITTED[-1].C_[0])
    exact = {**INFO, "kwargs": {**INFO["kwargs"], "tol": 1e-12, "max_iter": 100_000, "Cs": [penalty], "n_splits": 2}}
    exactly = glm_winrate.get_length_controlled_winrate(rows.copy(), save_weights_dir=None, glm_info=exact)
    found = {name: float(value) for name, value in found.items()}
    print(json.dumps({**found, "c": penalty, "exact": float(exactly["length_controlled_winrate"])}))
