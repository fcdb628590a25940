"""Preorders: from any relation to its components, its transitive closure and its Hasse diagram.

A relation is a square matrix whose entry (i, j) says that j acts on i: rows are targets, as in a weight. Its reflexive
and transitive closure is a preorder, ``j <= i``, in which influence flows upwards. Elements on a cycle are equivalent;
the classes of equivalent elements (the strongly connected components) form a partial order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._lattice._bits import Flags, Words, integers, members, pack, positions, transpose, unpack, words_for
from sparsecirc.errors import UsageError

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Preorder:
    """The preorder that a relation generates, as a partial order of classes.

    Classes are numbered from below: whatever lies under class k has a number under k, so the relation of the classes
    is lower triangular. Sets of classes are bits, see `sparsecirc._lattice._bits`.

    Attributes:
        component: class of each element, shape (n,).
        under: classes strictly below each class, shape (m, ceil(m / 64)).
        covers: of these, the ones with nothing in between: the Hasse diagram (transitive reduction), same shape.
    """

    component: Index
    under: Words
    covers: Words

    @property
    def n(self) -> int:
        """Number of elements."""
        return len(self.component)

    @property
    def m(self) -> int:
        """Number of classes."""
        return len(self.under)

    @cached_property
    def down(self) -> Words:
        """Each class with what is below it."""
        return self.under | pack(np.eye(self.m, dtype=bool)) if self.m else self.under

    @cached_property
    def up(self) -> Words:
        """Each class with what is above it."""
        return transpose(self.down, self.m)

    @cached_property
    def upper_covers(self) -> Words:
        """Classes that cover each class."""
        return transpose(self.covers, self.m)

    @cached_property
    def sizes(self) -> Index:
        """Elements per class, shape (m,)."""
        return np.bincount(self.component, minlength=self.m)

    @cached_property
    def level(self) -> Index:
        """Longest chain below each class, shape (m,); 0 for the minimal ones."""
        out = np.zeros(self.m, dtype=np.intp)
        for k in range(self.m):
            below = members(self.covers[k], self.m)
            if len(below):
                out[k] = out[below].max() + 1
        return out

    def matrix(self) -> Flags:
        """``j <= i`` for elements as flags (n, n), True on the diagonal."""
        found: Flags = unpack(self.down, self.m)[np.ix_(self.component, self.component)]
        return found

    def elements(self, per_class: NDArray[Any]) -> NDArray[Any]:
        """A value per class as a value per element."""
        return per_class[self.component]


def components(relation: Words) -> Index:
    """Strongly connected component of each element; numbered so that influence goes from lower to higher numbers.

    Kosaraju's algorithm on bit sets (Sharir 1981): each element is entered once, and the next one to enter is found in
    one pass over a set, so dense relations cost no more than sparse ones.
    """
    n = len(relation)
    sources, targets = integers(relation), integers(transpose(relation, n))
    finished: list[int] = []
    left = (1 << n) - 1
    for root in range(n):
        if not left >> root & 1:
            continue
        left ^= 1 << root
        stack = [root]
        while stack:
            ahead = sources[stack[-1]] & left
            if ahead:
                low = ahead & -ahead
                left ^= low
                stack.append(low.bit_length() - 1)
            else:
                finished.append(stack.pop())
    found = np.zeros(n, dtype=np.intp)
    left, count = (1 << n) - 1, 0
    for root in reversed(finished):
        if not left >> root & 1:
            continue
        left ^= 1 << root
        front = [root]
        while front:
            here = front.pop()
            found[here] = count
            ahead = targets[here] & left
            left ^= ahead
            front.extend(positions(ahead))
        count += 1
    # The last element to finish reaches whatever acts on it, so it is on top: count from below instead.
    return count - 1 - found


def preorder(relation: Words) -> Preorder:
    """The preorder that a relation (n, ceil(n / 64)) generates; the diagonal does not matter.

    Classes are visited from below. What is strictly below a class is its direct predecessors and what is strictly
    below those; a direct predecessor that is not below another one is covered. Time O(edges n / 64).
    """
    n = len(relation)
    component = components(relation)
    m = int(component.max()) + 1 if n else 0
    under = np.zeros((m, words_for(m)), dtype=np.uint64)
    covers = np.zeros_like(under)
    order = np.argsort(component, kind="stable")
    ends = np.cumsum(np.bincount(component, minlength=m))
    for k in range(m):
        inside = order[ends[k - 1] if k else 0 : ends[k]]
        flags = np.zeros(m, dtype=bool)
        flags[component[members(np.bitwise_or.reduce(relation[inside], axis=0), n)]] = True
        flags[k] = False
        below = np.flatnonzero(flags)
        if len(below):
            direct = pack(flags)
            indirect = np.bitwise_or.reduce(under[below], axis=0)
            covers[k] = direct & ~indirect
            under[k] = direct | indirect
    return Preorder(component, under, covers)


def refuse_one_component(order: Preorder) -> None:
    """Refuse a preorder that says nothing because one component holds more than half of the elements.

    Raises:
        UsageError: it does; names the size and what to do.
    """
    largest = int(order.sizes.max(initial=0))
    if largest > max(1, order.n / 2):
        raise UsageError(
            f"one component holds {largest} of the {order.n} neurons, so nearly all of them are equivalent: "
            "use a higher threshold (a mean degree of 0.5 to 3), or order='acyclic'"
        )
