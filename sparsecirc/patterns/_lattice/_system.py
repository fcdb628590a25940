"""Which neurons act on which: one adjacency over all layers, from the weight matrices that join them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice import Strengths
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import Scores, Wired

Flags = NDArray[np.bool_]
Aggregate = Callable[[Scores], Scores]
"""From the strengths of the gates, (gates, units, cols), to one strength per pair, (units, cols)."""


def gate_max(strengths: Scores) -> Scores:
    """The strongest gate: a neuron depends on another as soon as one of its gates does."""
    top: Scores = strengths.max(axis=0)
    return top


def gate_norm(strengths: Scores) -> Scores:
    """Root of the sum of squares over the gates."""
    norm: Scores = np.sqrt((strengths**2).sum(axis=0))
    return norm


@dataclass(frozen=True)
class Block:
    """Where a weight matrix lies in the adjacency.

    Attributes:
        matrix: the weight.
        rows: positions of its targets, shape (units,).
        cols: positions of its sources, shape (cols,).
    """

    matrix: Wired
    rows: NDArray[np.intp]
    cols: NDArray[np.intp]

    def per_gate(self) -> Scores:
        """Strengths (gates, units, cols); 0 at dead connections."""
        m = self.matrix
        scores = np.where(np.isneginf(m.scores), 0.0, m.scores)
        return scores.reshape(m.n_gates, len(self.rows), len(self.cols))

    def tiled(self, values: NDArray[Any]) -> NDArray[Any]:
        """The part of an (n, n) matrix that belongs to this weight, once per gate: (gates * units, cols)."""
        return np.tile(values[np.ix_(self.rows, self.cols)], (self.matrix.n_gates, 1))


@dataclass(frozen=True, eq=False)
class System:
    """The adjacency of some layers.

    Attributes:
        groups: positions of each layer (or input) in the adjacency, in order.
        strengths: S (n, n), entry (i, j) of the connection from j to i, zero on the diagonal.
        possible: pairs that some weight joins.
        inner: neurons that are judged: they have a weight on either side. Inputs and read-outs are not, unless there
            is nothing else.
        blocks: the weights.
        gate: name of the gate that this is the adjacency of; empty where the gates are taken together.
    """

    groups: Mapping[str, range]
    strengths: Strengths
    possible: Flags
    inner: Flags
    blocks: tuple[Block, ...]
    gate: str = ""

    @property
    def n(self) -> int:
        """Number of neurons, inputs and outputs counted."""
        return len(self.inner)

    def names(self) -> list[str]:
        """Name of each neuron: ``"rnn.l0[17]"``."""
        return [f"{group}[{k}]" for group, where in self.groups.items() for k in range(len(where))]


def build(matrices: Sequence[Wired], aggregate: Aggregate) -> System:
    """The adjacency of all ``matrices``, each gate counted.

    Raises:
        UsageError: two weights disagree on the size of a layer, or a strength is negative.
    """
    return _build(matrices, aggregate, "")


def build_per_gate(matrices: Sequence[Wired], aggregate: Aggregate) -> list[tuple[int, System]]:
    """One adjacency per gate, with its number; weights without gates belong to each.

    Raises:
        UsageError: as :func:`build`, or the weights have different numbers of gates.
    """
    gates = {m.gates for m in matrices if m.gates}
    if len(gates) > 1:
        raise UsageError(
            f"weights with the gates {' and '.join(''.join(g) for g in sorted(gates))} have no gate in common: prune "
            "them one layer at a time, or leave per_gate out"
        )
    names = gates.pop() if gates else ("",)
    return [
        (k, _build([_gate(m, k) if m.gates else m for m in matrices], aggregate, name)) for k, name in enumerate(names)
    ]


def _gate(matrix: Wired, k: int) -> Wired:
    height = matrix.scores.shape[0] // matrix.n_gates
    return replace(matrix, scores=matrix.scores[k * height : (k + 1) * height], gates=())


def _build(matrices: Sequence[Wired], aggregate: Aggregate, gate: str) -> System:
    groups = _groups(matrices)
    n = sum(len(where) for where in groups.values())
    strengths, possible = np.zeros((n, n)), np.zeros((n, n), dtype=bool)
    blocks = []
    for m in matrices:
        if np.any((m.scores < 0) & ~np.isneginf(m.scores)):
            raise UsageError(
                f"the scores of weight '{m.name}' are negative in places: a lattice needs 0 or more, as |w|"
            )
        rows = np.asarray(groups[m.target], dtype=np.intp)
        cols = np.concatenate([np.arange(groups[s].start, groups[s].start + width) for s, width in m.sources])
        block = Block(m, rows, cols)
        at = np.ix_(rows, cols)
        strengths[at] = np.maximum(strengths[at], aggregate(block.per_gate()))
        possible[at] = True
        blocks.append(block)
    np.fill_diagonal(strengths, 0.0)
    inner: Flags = np.asarray(possible.any(axis=0) & possible.any(axis=1))
    if not inner.any():
        inner[:] = True
    return System(groups, strengths, possible, inner, tuple(blocks), gate)


def _groups(matrices: Sequence[Wired]) -> dict[str, range]:
    sizes: dict[str, tuple[int, str]] = {}
    for m in matrices:
        rows, cols = m.scores.shape
        widths = sum(width for _, width in m.sources)
        if widths != cols:
            raise UsageError(f"the sources of weight '{m.name}' have {widths} neurons: expected {cols}, one per column")
        for group, size in [*m.sources, (m.target, rows // m.n_gates)]:
            known = sizes.setdefault(group, (size, m.name))
            if known[0] != size:
                raise UsageError(
                    f"'{group}' has {known[0]} neurons for weight '{known[1]}' and {size} for '{m.name}': say with "
                    "wiring={weight: [(layer, width), ...]} which layers its columns come from"
                )
    groups, start = {}, 0
    for group, (size, _) in sizes.items():
        groups[group] = range(start, start + size)
        start += size
    return groups
