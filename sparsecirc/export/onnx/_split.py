"""Layers whose units fall into groups that do not read each other: several small operators in place of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import GRU
from sparsecirc.export.onnx._form import Form
from sparsecirc.ir import Recurrent

Units = NDArray[np.intp]

_PER_WEIGHT = 4.2e-5
"""Microseconds of a standard runtime for one weight of a recurrent matrix, zeros included; one core, AVX-512."""
_PER_STEP = {Form.OP: 1.0, Form.SCAN: 7.0}
"""Microseconds that one operator takes for each step, whatever its size."""
_IN_TURN = {Form.OP: 2.0, Form.SCAN: 7.0}
"""The same where it reads what earlier ones gave, which has to be put beside its input."""
_AT_ONCE = 0.25
"""Price of a weight whose product runs over all steps at once, beside one that runs step by step."""


def groups(node: Recurrent, form: Form) -> list[Units]:
    """Units that are written together, in ascending order each; one group where splitting would not pay.

    Units belong together if one reads the other through the recurrent matrix, in any gate. Such components are joined
    into as many groups as make the layer fastest.
    """
    everything = [np.arange(node.units)]
    whole = "ih" in node.params and "hr" not in node.params and not node.feature_shape
    if form is Form.CUSTOM:  # for who runs the functions; our kernels gain a little too
        form = Form.SCAN if node.cell.vectors else Form.OP
    if not whole or "hh" not in node.params:
        return everything
    parts = sorted(components(node), key=len, reverse=True)
    if len(parts) == 1:
        return everything
    overhead, price = _PER_STEP[form], _PER_WEIGHT * node.cell.n_gates
    best, cost = everything, overhead + price * node.units**2
    capacities = {len(parts[0]) * k for k in (1, 2, 3, 4, 6, 8)} | {node.units // k for k in (2, 3, 4, 6, 8)}
    for capacity in sorted(c for c in capacities if len(parts[0]) <= c < node.units):
        bins = _packed(parts, capacity)
        price_here = sum(overhead + price * len(b) ** 2 for b in bins)
        if price_here < cost:
            best, cost = bins, price_here
    return best


def components(node: Recurrent) -> list[Units]:
    """Units that are connected through the recurrent matrix, in either direction."""
    linked = _linked(node)
    linked |= linked.T
    left = np.ones(node.units, bool)
    found: list[Units] = []
    while left.any():
        inside = _reached(linked, int(np.argmax(left)))
        left &= ~inside
        found.append(np.flatnonzero(inside))
    return found


def _packed(parts: list[Units], capacity: int) -> list[Units]:
    """The largest first, each into the first group that has room."""
    bins: list[list[Units]] = []
    sizes: list[int] = []
    for part in parts:
        k = next((k for k, size in enumerate(sizes) if size + len(part) <= capacity), len(bins))
        if k == len(bins):
            bins.append([])
            sizes.append(0)
        bins[k].append(part)
        sizes[k] += len(part)
    return [np.sort(np.concatenate(b)) for b in bins]


def in_order(node: Recurrent, form: Form) -> list[Units]:
    """Units in groups that read only themselves and earlier groups; one group where that would not pay.

    What a group reads of earlier ones is known for all steps before it begins, so it enters through its input matrix,
    whose product runs over all steps at once. The new gate of a GRU multiplies its recurrent product by the reset,
    which an input product cannot be: its groups are Scans that take both.
    """
    everything = [np.arange(node.units)]
    whole = "ih" in node.params and "hh" in node.params and "hr" not in node.params and not node.feature_shape
    if form not in _PER_STEP or not whole:
        return everything
    parts = strong_components(_linked(node))
    if max(map(len, parts)) > 0.75 * node.units:
        return everything
    price, each = _PER_WEIGHT * node.cell.n_gates, _IN_TURN[Form.SCAN if node.cell is GRU else form]
    best, cost = everything, _PER_STEP[form] + price * node.units**2
    for count in (2, 3, 4, 6, 8, 12):
        bins = _in_turn(parts, -(-node.units // count))
        seen, price_here = 0, 0.0
        for units in bins:
            price_here += each + price * (len(units) ** 2 + _AT_ONCE * len(units) * seen)
            seen += len(units)
        if price_here < cost:
            best, cost = bins, price_here
    return best


def _in_turn(parts: list[Units], capacity: int) -> list[Units]:
    """Neighbours joined as long as they fit; their order stays."""
    bins: list[list[Units]] = [[]]
    for part in parts:
        if bins[-1] and sum(map(len, bins[-1])) + len(part) > capacity:
            bins.append([])
        bins[-1].append(part)
    return [np.concatenate(b) for b in bins]


def _linked(node: Recurrent) -> NDArray[np.bool_]:
    """Whether a unit (row) reads another one in any gate."""
    linked: NDArray[np.bool_] = (node.weight("hh") != 0).reshape(node.cell.n_gates, node.units, node.units).any(axis=0)
    return linked


def strong_components(linked: NDArray[np.bool_]) -> list[Units]:
    """Units that read each other around a cycle, and single ones, each group behind all that it reads.

    Around a unit: what it reads, its own group, the others, what reads it (Fleischer, Hendrickson & Pinar 2000).
    """
    reads = linked.copy()
    np.fill_diagonal(reads, False)
    found: list[Units] = []
    todo = [np.arange(len(reads))]
    settled: list[bool] = [False]
    while todo:
        units, done = todo.pop(), settled.pop()
        if done or len(units) < 2:
            found += [units] * bool(len(units))
            continue
        here = reads[np.ix_(units, units)]
        front, core, back = _peeled(here)
        pieces = [(np.array([u]), True) for u in front]
        if len(core):
            below, above = _reached(here, core[0]), _reached(here.T, core[0])
            inside = np.zeros(len(units), bool)
            inside[core] = True
            pieces += [
                (np.flatnonzero(inside & below & ~above), False),
                (np.flatnonzero(inside & below & above), True),
                (np.flatnonzero(inside & ~below & ~above), False),
                (np.flatnonzero(inside & above & ~below), False),
            ]
        pieces += [(np.array([u]), True) for u in back]
        todo += [units[piece] for piece, _ in reversed(pieces)]
        settled += [whole for _, whole in reversed(pieces)]
    return found


def _peeled(reads: NDArray[np.bool_]) -> tuple[Units, Units, Units]:
    """Units that read only units before them, those on a cycle or between two, and those that only later ones read."""
    left = np.ones(len(reads), bool)
    ends: list[Units] = []
    for linked in (reads, reads.T):
        count = linked[:, left].sum(axis=1)
        taken: list[Units] = []
        while len(free := np.flatnonzero(left & (count == 0))):
            taken.append(free)
            left[free] = False
            count = count - linked[:, free].sum(axis=1)
        ends.append(np.concatenate([*taken, np.zeros(0, np.intp)]))
    return ends[0], np.flatnonzero(left), ends[1][::-1]


def _reached(reads: NDArray[np.bool_], first: int) -> NDArray[np.bool_]:
    """A unit and all that it reads, through others too."""
    inside = np.zeros(len(reads), bool)
    inside[first] = True
    front = inside
    while front.any():
        front = reads[front].any(axis=0) & ~inside
        inside = inside | front
    return inside


def rows_of(node: Recurrent, units: Units) -> Units:
    """Rows of the layer's matrices that belong to some of its units."""
    return (np.arange(node.cell.n_gates)[:, None] * node.units + units).ravel()


def part_of(node: Recurrent, units: Units, k: int, reads: Units | None = None) -> Recurrent:
    """The layer with some of its units, which read each other and, through their input, the units ``reads``."""
    rows = rows_of(node, units)
    params: dict[str, NDArray[Any]] = {}
    for role in node.params:
        value = node.weight(role)
        if role == "hh":
            params[role] = value[np.ix_(rows, units)]
        elif role == "ih" and reads is not None:
            params[role] = np.concatenate([value[rows], node.weight("hh")[np.ix_(rows, reads)]], axis=1)
        elif role in ("ih", "bias_ih", "bias_hh"):
            params[role] = value[rows]
        else:  # what neurons hold: one entry per unit, or one for all
            params[role] = value[units] if value.size == node.units else value
    return replace(node, name=f"{node.name}.part{k}", params=params, patterns={}, units=len(units))
