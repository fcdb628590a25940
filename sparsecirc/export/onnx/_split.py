"""Layers whose units fall into groups that do not read each other: several small operators in place of a large one."""

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
    linked = (node.weight("hh") != 0).reshape(node.cell.n_gates, node.units, node.units).any(axis=0)
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


def part_of(node: Recurrent, units: Units, k: int) -> Recurrent:
    """The layer with some of its units, which read no others."""
    rows = (np.arange(node.cell.n_gates)[:, None] * node.units + units).ravel()
    params: dict[str, NDArray[Any]] = {}
    for role in node.params:
        value = node.weight(role)
        if role == "hh":
            params[role] = value[np.ix_(rows, units)]
        elif role in ("ih", "bias_ih", "bias_hh"):
            params[role] = value[rows]
        else:  # what neurons hold: one entry per unit, or one for all
            params[role] = value[units] if value.size == node.units else value
    return replace(node, name=f"{node.name}.part{k}", params=params, patterns={}, units=len(units))
