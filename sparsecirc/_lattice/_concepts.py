"""The lattice itself, listed concept by concept: exponential, the reference that the fast tests are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UsageError

LARGEST = 20
"""Attributes up to which the subsets are listed."""


@dataclass(frozen=True)
class ConceptLattice:
    """All concepts of a formal context by their extents.

    Attributes:
        extents: sets of objects, closed under intersection, the largest set first.
        attributes: extent of each attribute.
    """

    extents: tuple[frozenset[int], ...]
    attributes: tuple[frozenset[int], ...]

    def meet_irreducible(self) -> list[bool]:
        """Whether the concept of each attribute is meet-irreducible: just one concept covers it."""
        return [len(self._covers(extent)) == 1 for extent in self.attributes]

    def _covers(self, extent: frozenset[int]) -> list[frozenset[int]]:
        above = [e for e in self.extents if e > extent]
        return [e for e in above if not any(extent < other < e for other in above)]


def concept_lattice(relation: NDArray[Any]) -> ConceptLattice:
    """Every concept of the context whose attribute k (row) has object j (column) where ``relation[k, j]``.

    Raises:
        UsageError: more than 20 attributes.
    """
    flags = np.asarray(relation, dtype=bool)
    m, n = flags.shape
    if m > LARGEST:
        raise UsageError(f"a context of {m} attributes is too large to list: expected at most {LARGEST}")
    attributes = tuple(frozenset(np.flatnonzero(row).tolist()) for row in flags)
    extents = {frozenset(range(n))}
    for extent in attributes:  # all intersections of attribute extents
        extents |= {extent & other for other in extents}
    return ConceptLattice(tuple(sorted(extents, key=lambda e: (-len(e), sorted(e)))), attributes)
