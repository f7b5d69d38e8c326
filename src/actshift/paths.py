"""Where the package's own files lie, in a checkout and in an installed wheel alike."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the Hydra groups: inside the package in a wheel, at the top of the checkout otherwise."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "conf"


def slurm_dir() -> Path:
    """The folder of the SLURM script and profiles: inside the package in a wheel, else at the top of the checkout."""
    installed = PACKAGE / "slurm"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "slurm"


def embedded_model_dir(name: str) -> Path:
    """The folder of a model that is shipped with the package."""
    return PACKAGE / "models" / name


def user_cache_dir() -> Path:
    """Where files are kept that can be made again and serve every results folder: converted weights, checksums.

    ACTSHIFT_CACHE names it, else XDG_CACHE_HOME/actshift, else ~/.cache/actshift.
    """
    if named := os.environ.get("ACTSHIFT_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "actshift"
