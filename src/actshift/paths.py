"""Where files lie: the package's, in a checkout and in an installed wheel alike, and the user's configurations."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the Hydra groups: inside the package in a wheel, at the top of the checkout otherwise."""
    installed = PACKAGE / "conf"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "conf"


CONFIG_DIR = "ACTSHIFT_CONFIG_DIR"
"""The environment variable that holds the folder of ``--config-dir``: processes that this one starts have it too."""


def use_config_dir(folder: Path | str) -> None:
    """Let config groups be looked for in a folder of the user's as well, and Python modules that its files name."""
    whole = str(Path(folder).expanduser().resolve())
    os.environ[CONFIG_DIR] = whole
    if whole not in sys.path:
        sys.path.append(whole)


def user_conf_dir() -> Path | None:
    """The folder of ``--config-dir``, or None where none was given."""
    named = os.environ.get(CONFIG_DIR)
    return Path(named) if named else None


def config_dir_flags() -> list[str]:
    """The flags that give another process the folder of ``--config-dir``; none where none was given."""
    user_folder = user_conf_dir()
    return ["--config-dir", str(user_folder)] if user_folder else []


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
