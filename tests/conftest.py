"""Fixtures that every room of the tests uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real data and the paper's numbers, beside the checkout or where ACTSHIFT_SHARED says."""
    folder = Path(os.environ.get("ACTSHIFT_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real data in {folder} (set ACTSHIFT_SHARED)")
    return folder
