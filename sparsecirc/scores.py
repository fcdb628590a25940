"""Scores: how much each connection of a weight is worth. Higher is kept longer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Score = Callable[[NDArray[Any], str], NDArray[Any]]
"""``score(weight, name) -> array`` of the shape of ``weight``; pure, so that order and rank do not matter."""


def magnitude(weight: NDArray[Any], name: str = "") -> NDArray[Any]:
    """``|w|`` (Han et al. 2015)."""
    return np.asarray(np.abs(weight))


def generator(seed: int, name: str) -> np.random.Generator:
    """Own generator for one weight: depends on ``seed`` and ``name`` only, never on what was drawn before."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])


@dataclass(frozen=True)
class Random:
    """Uniform scores in [0, 1), the same for the same ``seed`` and weight name.

    Attributes:
        seed: 0 or more.
    """

    seed: int = 0

    def __call__(self, weight: NDArray[Any], name: str) -> NDArray[Any]:
        """Scores of the shape of ``weight``, whose values are ignored."""
        return generator(self.seed, name).random(weight.shape)


def random(seed: int | np.random.Generator = 0) -> Random:
    """Random pruning: the baseline that every other score has to beat; a generator gives its seed once, now."""
    return Random(int(seed.integers(2**32)) if isinstance(seed, np.random.Generator) else seed)
