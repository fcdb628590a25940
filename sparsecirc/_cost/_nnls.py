"""Least squares with coefficients that are not negative: a kernel never gets faster by doing more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def nonnegative_least_squares(a: F64, b: F64) -> F64:
    """The ``x >= 0`` that makes |a x - b| smallest, by active sets (Lawson and Hanson 1974, chapter 23)."""
    size = np.linalg.norm(a, axis=0)
    scale = np.where(size > 0, size, 1.0)
    a = a / scale
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], bool)
    tolerance = 1e-10 * max(float(np.linalg.norm(b)), 1.0)
    for _ in range(3 * a.shape[1] + 10):
        gradient = np.where(free, -np.inf, a.T @ (b - a @ x))
        entering = int(np.argmax(gradient))
        if gradient[entering] <= tolerance:
            break
        free[entering] = True
        while True:
            z = np.zeros_like(x)
            z[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            blocking = free & (z <= 0)
            if not blocking.any():
                break
            step = np.min(x[blocking] / np.maximum(x[blocking] - z[blocking], 1e-300))
            x = x + step * (z - x)
            free &= x > 1e-14
            x = np.where(free, x, 0.0)
        x = z
    return np.asarray(x / scale)


def fit_relative(features: F64, times: F64, rounds: int = 8) -> F64:
    """Coefficients with the smallest relative errors |features c / times - 1|, summed.

    Absolute rather than squared errors, by reweighting: a measurement that another process slowed down pulls little.
    """
    a, b = features / times[:, None], np.ones(len(times))
    weight = np.ones(len(times))
    found = np.zeros(features.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weight)
        found = nonnegative_least_squares(a * root[:, None], b * root)
        weight = 1 / np.maximum(np.abs(a @ found - b), 0.02)
    return found
