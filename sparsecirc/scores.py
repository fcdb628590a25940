"""Scores: how much each connection of a weight is worth. Higher is kept longer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsecirc.patterns import Adjacency, Keep, Lattice, Wired

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


@dataclass(frozen=True)
class LatticePersistence:
    r"""How much of the order of a layer a connection carries (lattice pruning, see `Lattice`), to rank it by.

    score = worth of the connection in the lattice + TIE \|w\| / max \|w\|

    A recurrent weight (``"... .hh"``) is an order of its units, with the gates joined; any other weight one of its
    inputs and outputs. Our definition: the paper (Sengupta 2025, arXiv:2502.16525) scores neurons, not connections.

    Attributes:
        maker: which lattice; its thresholds and densities do not matter where the adjacency is continuous.
    """

    maker: Lattice = field(default_factory=lambda: Lattice(adjacency=Adjacency.CONTINUOUS, keep=Keep.COVER))

    TIE: ClassVar[float] = 1e-6

    def __call__(self, weight: NDArray[Any], name: str) -> NDArray[Any]:
        """Scores of the shape of ``weight``, 0 or more."""
        rows, cols = weight.shape
        size = np.abs(weight).astype(np.float64)
        recurrent = name.endswith(".hh") and cols > 0 and rows % cols == 0
        gates = tuple(str(k) for k in range(rows // cols)) if recurrent else ()
        wired = Wired(name, size, gates, "units", (("units" if recurrent else "inputs", cols),))
        tie = self.TIE * size / max(float(size.max(initial=0.0)), 1e-300)
        return np.asarray(self.maker.connection_scores(wired) + tie)


def lattice(maker: Lattice | None = None) -> LatticePersistence:
    """Score by lattice persistence, for any pattern and schedule; by default that of covers (continuous adjacency)."""
    return LatticePersistence() if maker is None else LatticePersistence(maker)
