"""Which elements carry an order: the irreducibles of the smallest lattice that contains it.

The down-sets of a partial order form a lattice too, but there every element is irreducible. The smallest one is the
Dedekind-MacNeille completion, which is the concept lattice of (P, P, <=) (Ganter & Wille 1999).
"""

from __future__ import annotations

import numpy as np

from sparsecirc._lattice._bits import Flags, Words, full, members, transpose
from sparsecirc._lattice._order import Preorder


def meet_irreducible(order: Preorder) -> Flags:
    r"""Whether each element is meet-irreducible in the Dedekind-MacNeille completion, shape (n,).

    p is irreducible where the intersection of ``down(q)`` over all q > p is not ``down(p)``; the empty intersection is
    everything, so a greatest element is reducible. It is enough to look at the elements that cover p. All elements of
    a component share the answer. Our definition, checked against brute-force concept lattices; the paper of lattice
    pruning (Sengupta 2025, arXiv:2502.16525) names meet-irreducible neurons without giving the lattice.
    """
    found: Flags = order.elements(_irreducible(order.down, order.upper_covers))
    return found


def join_irreducible(order: Preorder) -> Flags:
    """The dual of :func:`meet_irreducible`: the intersection of ``up(q)`` over all q < p is not ``up(p)``."""
    found: Flags = order.elements(_irreducible(order.up, order.covers))
    return found


def _irreducible(sets: Words, neighbours: Words) -> Flags:
    """Whether set k differs from the intersection of the sets of its neighbours, shape (m,)."""
    m = len(sets)
    out = np.ones(m, dtype=bool)
    everything = full(m)
    for k in range(m):
        near = members(neighbours[k], m)
        if len(near) == 1:
            continue  # a neighbour's set holds the neighbour, set k does not
        meet = np.bitwise_and.reduce(sets[near], axis=0) if len(near) else everything
        out[k] = not np.array_equal(meet, sets[k])
    return out


def attribute_irreducible(relation: Words, n: int) -> Flags:
    """Whether each attribute of a formal context is irreducible, shape (m,).

    Row k of ``relation`` (m, ceil(n / 64)) is the extent k' of attribute k: the objects, of ``n``, that have it.
    Attribute m is irreducible where m' differs from the intersection of the k' that strictly contain it; the empty
    intersection is all objects (attribute reduction, Ganter & Wille 1999, section 1.4). Attributes of equal extent
    share the answer. For the context of one time step the attributes are the targets and the objects the sources.
    """
    m = len(relation)
    out = np.ones(m, dtype=bool)
    for k in range(m):
        contains = np.flatnonzero(np.all(relation & relation[k] == relation[k], axis=1))
        strictly = contains[np.any(relation[contains] != relation[k], axis=1)]
        meet = np.bitwise_and.reduce(relation[strictly], axis=0) if len(strictly) else full(n)
        out[k] = not np.array_equal(meet, relation[k])
    return out


def object_irreducible(relation: Words, n: int) -> Flags:
    """The dual of :func:`attribute_irreducible`: whether each of the ``n`` objects is irreducible."""
    return attribute_irreducible(transpose(relation, n), len(relation))
