"""Best linear maps of given rank from one set of vectors to another.

Shapes: D width, N vectors (columns), R rank.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reduced_rank(inputs_DN: Array, targets_DN: Array, *, rank: int, ridge: float = 0.0) -> Array:
    """map_DD: the M of rank `rank` at most that minimizes ``|M X - S|_F^2 + ridge |M|_F^2``.

    With ``M0 = S X' (X X' + ridge I)^-1`` it is ``U U' M0``, U the first left singular vectors of ``M0 [X, sqrt(ridge)
    I]`` (Izenman 1975; the ridge is as many more inputs with the target 0). Of several solutions the pseudo-inverse
    takes the smallest.
    """
    gram_DD = inputs_DN @ inputs_DN.T + ridge * np.eye(len(inputs_DN))
    full_DD: Array = targets_DN @ inputs_DN.T @ np.linalg.pinv(gram_DD, hermitian=True)
    # |M0 [X, sqrt(ridge) I]|^2 = M0 (X X' + ridge I) M0': its eigenvectors are the left singular vectors.
    values, vectors_DD = np.linalg.eigh(full_DD @ gram_DD @ full_DD.T)
    first_DR = vectors_DD[:, np.argsort(values)[::-1][:rank]]
    return first_DR @ (first_DR.T @ full_DD)


def objective(map_DD: Array, inputs_DN: Array, targets_DN: Array, *, ridge: float = 0.0) -> float:
    """``|M X - S|_F^2 + ridge |M|_F^2``."""
    return float(np.sum((map_DD @ inputs_DN - targets_DN) ** 2) + ridge * np.sum(map_DD**2))


def explained(predicted_DN: Array, targets_DN: Array) -> float:
    """``1 - |predicted - targets|^2 / |targets|^2``: 1 where all of it is predicted, 0 for a prediction of 0."""
    return 1 - float(np.sum((predicted_DN - targets_DN) ** 2) / np.sum(targets_DN**2))
