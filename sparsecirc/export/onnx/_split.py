"""Layers whose units fall into groups that do not read each other: several small operators in place of one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.onnx._form import Form
from sparsecirc.ir import Recurrent

Units = NDArray[np.intp]

_PER_WEIGHT = 4.2e-5
"""Microseconds of a standard runtime for one weight of a recurrent matrix, zeros included; one core, AVX-512."""
_PER_STEP = {Form.OP: 1.0, Form.SCAN: 7.0}
"""Microseconds that one operator takes for each step, whatever its size."""
_ADDITIVE = ("rnn_tanh", "rnn_relu", "lstm")
"""Cells that add the recurrent product to the input's."""
_AT_ONCE = 0.25
"""Price of a weight whose product runs over all steps at once, beside one that runs step by step."""


def groups(node: Recurrent, form: Form) -> list[Units]:
    """Units that are written together, in ascending order each; one group where splitting would not pay.

    Units belong together if one reads the other through the recurrent matrix, in any gate. Such components are joined
    into as many groups as make the layer fastest.
    """
    everything = [np.arange(node.units)]
    whole = "ih" in node.params and "hr" not in node.params and not node.feature_shape
    if form not in _PER_STEP or not whole or "hh" not in node.params:
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
    label = np.full(node.units, -1)
    found: list[Units] = []
    for first in range(node.units):
        if label[first] >= 0:
            continue
        inside = np.zeros(node.units, bool)
        inside[first] = True
        front = inside.copy()
        while front.any():
            front = linked[front].any(axis=0) & ~inside
            inside |= front
        label[inside] = len(found)
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
    which an input product cannot be; neurons would sum in another order.
    """
    everything = [np.arange(node.units)]
    if node.cell.name not in _ADDITIVE or form is not Form.OP or "hr" in node.params or "ih" not in node.params:
        return everything
    front, core, back = _levels(_linked(node))
    if len(core) > 0.75 * node.units:
        return everything
    overhead, price = _PER_STEP[form], _PER_WEIGHT * node.cell.n_gates
    best, cost = everything, overhead + price * node.units**2
    for count in (2, 3, 4, 6, 8, 12):
        size = -(-node.units // count)
        bins = [front[k : k + size] for k in range(0, len(front), size)]
        bins += [core] * bool(len(core)) + [back[k : k + size] for k in range(0, len(back), size)]
        seen, price_here = 0, 0.0
        for units in bins:
            price_here += 2 * overhead + price * (len(units) ** 2 + _AT_ONCE * len(units) * seen)
            seen += len(units)
        if price_here < cost:
            best, cost = bins, price_here
    return best


def _linked(node: Recurrent) -> NDArray[np.bool_]:
    """Whether a unit (row) reads another one in any gate."""
    linked: NDArray[np.bool_] = (node.weight("hh") != 0).reshape(node.cell.n_gates, node.units, node.units).any(axis=0)
    return linked


def _levels(linked: NDArray[np.bool_]) -> tuple[Units, Units, Units]:
    """Units that read only units before them, those on a cycle or between two, and those that only later ones read."""
    reads = linked.copy()
    np.fill_diagonal(reads, False)
    left = np.ones(len(reads), bool)
    front: list[Units] = []
    back: list[Units] = []
    for found, axis in ((front, 1), (back, 0)):
        while left.any():
            free = left & ~(reads & left[None, :] & left[:, None]).any(axis=axis)
            if not free.any():
                break
            found.append(np.flatnonzero(free))
            left &= ~free
    none = np.zeros(0, np.intp)
    return np.concatenate([*front, none]), np.flatnonzero(left), np.concatenate([*back[::-1], none])


def part_of(node: Recurrent, units: Units, k: int, reads: Units | None = None) -> Recurrent:
    """The layer with some of its units, which read each other and, through their input, the units ``reads``."""
    rows = (np.arange(node.cell.n_gates)[:, None] * node.units + units).ravel()
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
