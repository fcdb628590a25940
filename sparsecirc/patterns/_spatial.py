"""Wiring in space: connections that fall off with distance, small worlds, and the signs of Dale's law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import check_scores, check_sparsity, live_count, top
from sparsecirc.patterns._tiered import check_probability

Places = Callable[[int], NDArray[np.float64]]
"""Units -> their places, (units, axes)."""


def sheet(units: int) -> NDArray[np.float64]:
    """Row by row on a square grid inside the unit square, (units, 2)."""
    side = max(1, math.ceil(math.sqrt(units)))
    k = np.arange(units)
    return np.stack([k % side + 0.5, k // side + 0.5], axis=1) / side


def distances(targets: NDArray[np.float64], sources: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (rows, cols) of places (rows, axes) and (cols, axes)."""
    gap = targets[:, None, :] - sources[None, :, :]
    return np.asarray(np.sqrt((gap * gap).sum(-1)))


@dataclass(frozen=True)
class DistanceDependent:
    """Near units are connected more likely, in proportion to exp(-d / scale) (Kaiser & Hilgetag 2004).

    Exactly round((1 - sparsity) rows cols) connections: with random scores they are drawn one after the other in
    proportion to their weights among those that are left (Efraimidis & Spirakis 2006: the largest log(u) / w). Other
    scores count by their rank.

    Attributes:
        scale: lambda, in units of the places: the side of the sheet is 1.
        places: where the units lie, rows and columns alike.

    Raises:
        UsageError: the scale is not positive; on call, where the sparsity is missing.
    """

    scale: float = 0.1
    places: Places = sheet

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UsageError(f"scale of the fall-off is {self.scale}: expected a length above 0; the sheet has side 1")

    @property
    def origin(self) -> str:
        """E.g. ``"distance 0.1"``."""
        return f"distance {self.scale:g}"

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        array = check_scores(scores)
        if sparsity is None:
            raise UsageError(f"pattern {self.origin} needs a sparsity, got None: expected a number in [0, 1)")
        rows, cols = array.shape
        rank = np.empty(array.size)
        rank[np.argsort(array.ravel(), kind="stable")] = np.arange(array.size)
        uniform = (rank.reshape(array.shape) + 0.5) / max(array.size, 1)
        weight = np.exp(-distances(self.places(rows), self.places(cols)) / self.scale)
        keys = np.log(uniform) / np.maximum(weight, np.finfo(np.float64).tiny)
        return Pattern.from_mask(top(keys, live_count(array.size, check_sparsity(sparsity))), self.origin)


@dataclass(frozen=True)
class SmallWorld:
    """Rows on a ring, connected to the nearest columns; some lead anywhere (Watts & Strogatz 1998).

    Each row has k = round((1 - sparsity) cols) connections. Of its k nearest columns it keeps the k - round(beta k)
    with the best scores, and has the round(beta k) best elsewhere. Row i lies at i / rows of the ring,
    column j at j / cols.

    Attributes:
        beta: share of connections that lead elsewhere.

    Raises:
        UsageError: beta is no probability; on call, where the sparsity is missing.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_probability(self.beta, "beta")

    @property
    def origin(self) -> str:
        """E.g. ``"small world 0.1"``."""
        return f"small world {self.beta:g}"

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        array = check_scores(scores)
        if sparsity is None:
            raise UsageError(f"pattern {self.origin} needs a sparsity, got None: expected a number in [0, 1)")
        rows, cols = array.shape
        k = live_count(cols, check_sparsity(sparsity))
        far = min(round(self.beta * k), cols - k)
        gap = np.abs(np.arange(rows)[:, None] / max(rows, 1) - np.arange(cols)[None, :] / max(cols, 1))
        order = np.argsort(np.minimum(gap, 1 - gap), axis=1, kind="stable")
        keep = np.zeros(array.shape, bool)
        for part, count in ((order[:, :k], k - far), (order[:, k:], far)):
            best = np.argsort(-np.take_along_axis(array, part, 1), axis=1, kind="stable")[:, :count]
            np.put_along_axis(keep, np.take_along_axis(part, best, 1), True, axis=1)
        return Pattern.from_mask(keep, self.origin)


def distance_dependent(scale: float = 0.1, *, places: Places = sheet) -> DistanceDependent:
    """Maker of connections that fall off with distance; arguments and errors as `DistanceDependent`."""
    return DistanceDependent(scale, places)


def small_world(beta: float = 0.1) -> SmallWorld:
    """Maker of a ring with connections that lead elsewhere; arguments and errors as `SmallWorld`."""
    return SmallWorld(beta)


def dale_signs(units: int, excitatory: float = 0.8, seed: int = 0) -> NDArray[np.int8]:
    """+1 or -1 for each presynaptic unit, round(excitatory units) of them +1, in a random order (Dale's law).

    Raises:
        UsageError: ``excitatory`` is no share.
    """
    signs = np.full(units, -1, np.int8)
    signs[: round(check_probability(excitatory, "excitatory") * units)] = 1
    return np.random.default_rng(seed).permutation(signs)
