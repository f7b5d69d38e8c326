"""Linear algebra that several statements speak of.

Shape letters: d the model's width, m the MLP's inner width, n inputs. Columns are inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
TINY = 1e-12
"""Below this part of the largest singular value a direction counts as absent."""


def norm(array: Array) -> float:
    """The 2-norm of a vector, the spectral norm of a matrix."""
    return float(np.linalg.norm(array, 2)) if array.size else 0.0


def relative_error(left: Array, right: Array) -> float:
    """``|left - right|_F / max(|left|_F, |right|_F)``; 0 where both are zero."""
    scale = max(float(np.linalg.norm(left)), float(np.linalg.norm(right)))
    return float(np.linalg.norm(left - right)) / scale if scale > 0 else 0.0


def column_basis(matrix: Array) -> Array:
    """(d, r): an orthonormal basis of the column space."""
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, : int(np.sum(values > TINY * max(values.max(initial=0.0), TINY)))]


def row_basis(matrix: Array) -> Array:
    """(n, r): an orthonormal basis of the row space."""
    return column_basis(matrix.T)


def outside(matrix: Array, basis: Array) -> float:
    """The share of a matrix's norm that lies outside the span of an orthonormal basis: 0 inside, 1 orthogonal to it."""
    scale = float(np.linalg.norm(matrix))
    return float(np.linalg.norm(matrix - basis @ (basis.T @ matrix))) / scale if scale > 0 else 0.0


def squared_sines(first: Array, second: Array) -> Array:
    """Squared sines of the principal angles of two subspaces, given by orthonormal bases, in rising order."""
    cosines = np.linalg.svd(first.T @ second, compute_uv=False)
    return 1 - np.clip(cosines, 0, 1) ** 2


def best_map_error(inputs: Array, targets: Array) -> float:
    """``min_M |M inputs - targets|_F^2 / |targets|_F^2`` over all matrices M."""
    return outside(targets.T, row_basis(inputs)) ** 2


def slope(remainder: Callable[[float], float], steps: Array) -> float:
    """The slope of log remainder against log step by least squares; 2 where nothing remains at any step.

    A remainder at the level of rounding (1e-13 and less) counts as none.
    """
    values = np.array([remainder(float(step)) for step in steps])
    if np.all(values < 1e-13):
        return 2.0
    if np.any(values <= 0):
        return float("nan")
    return float(np.polyfit(np.log(steps), np.log(values), 1)[0])
