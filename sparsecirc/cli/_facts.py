"""Facts about the weights of a graph: sizes, operations, detected patterns, and what looks wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.ir import Conv, Embedding, Graph, Node, Recurrent, interpret
from sparsecirc.patterns import combined_digest

STARVED = 0.2
"""A gate whose density is below this part of its weight's density is reported."""


@dataclass(frozen=True)
class Activity:
    """How busy a graph's values are on one input.

    Attributes:
        events: value name -> mean number of non-zero entries per step by feature, flattened; only for values that
            are 0 or 1 throughout (spikes).
        rates: spiking layer -> spikes per unit and step.
    """

    events: dict[str, NDArray[np.float64]]
    rates: dict[str, float]


def measure_activity(graph: Graph, x: Mapping[str, NDArray[Any]]) -> Activity:
    """Run ``graph`` on ``x`` by the interpreter and count spikes; nothing to run where no layer spikes."""
    if not graph.spiking:
        return Activity({}, {})
    values = interpret(graph, x, keep_values=True).values
    events = {}
    for name, value in values.items():
        if value.size and np.all((value == 0) | (value == 1)):
            lead = 2 if graph.specs[name].time else 1
            events[name] = value.reshape(int(np.prod(value.shape[:lead])), -1).mean(axis=0, dtype=np.float64)
    read = {value for n in graph.nodes for value in n.inputs} | set(graph.outputs.values())
    rates = {
        n.name: float(events[n.name].mean())
        for n in graph.recurrent  # an integrator whose spikes nobody reads is left out
        if n.name in events and ({n.name, f"{n.name}.spk"} & read or {"hh", "hh_diag"} & set(n.params))
    }
    return Activity(events, rates)


def live_patterns(graph: Graph) -> dict[str, Pattern]:
    """Pattern by weight name, of the weights that have one."""
    return {v.name: v.pattern for v in graph.weights() if v.role in v.node.patterns}


def mask_hash(graph: Graph, origin: Mapping[str, Any]) -> str:
    """16 hex digits over the live connections, and over the units that are left where some were taken out.

    Args:
        graph: the network.
        origin: how its torch module is built again, see `Loaded`.
    """
    patterns = live_patterns(graph)
    for k, layers in enumerate(origin.get("kept_units", ())):
        for name, numbers in layers.items():
            flags = np.zeros((1, 1 + max(numbers)), bool)
            flags[0, numbers] = True
            patterns[f"{k}: units of {name}"] = Pattern.from_mask(flags, "units")
    return combined_digest(patterns)


def pattern_name(pattern: Pattern) -> str:
    """The most regular family that ``pattern`` belongs to, in the words of ``prune --pattern``."""
    rows, cols = pattern.shape
    if pattern.nnz == rows * cols:
        return "dense"
    if pattern.nnz == 0:
        return "empty"
    block = pattern.block_shape()
    if block != (1, 1):
        return f"block:{block[0]}x{block[1]}"
    mask = pattern.mask()
    for n, m in ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8)):
        if cols % m == 0 and np.all(mask.reshape(rows, cols // m, m).sum(axis=2) == n):
            return f"{n}:{m}"
    fan_in = pattern.fan_in()
    if rows > 1 and fan_in.min() == fan_in.max():
        return f"fan-in:{int(fan_in[0])}"
    return "unstructured"


def _positions(graph: Graph, node: Node) -> int:
    """How often one weight is used per step: output positions of a convolution, leading axes of a linear layer."""
    shape = graph.specs[node.name].shape
    if isinstance(node, Conv):
        return int(np.prod(shape[1:]))
    return 1 if isinstance(node, Recurrent) else int(np.prod(shape[:-1]))


def _synops(node: Node, role: str, pattern: Pattern, positions: int, activity: Activity) -> float | None:
    """Additions that spikes cause per step; ``None`` where the weight is not fed by spikes."""
    source = node.name if role in ("hh", "hh_diag") else node.inputs[0]
    events = activity.events.get(source)
    if events is None or role == "hr" or isinstance(node, Embedding):
        return None
    fan_out = pattern.fan_out()
    if len(fan_out) == len(events):
        return float(fan_out @ events)
    return float(pattern.nnz * positions * events.mean())


def weight_rows(graph: Graph, activity: Activity, *, per_gate: bool) -> list[dict[str, Any]]:
    """One row of facts per weight matrix, or per gate block of it."""
    rows = []
    for view in graph.weights(per_gate=per_gate):
        node, pattern = view.node, view.pattern
        positions = 0 if isinstance(node, Embedding) else _positions(graph, node)
        size = pattern.shape[0] * pattern.shape[1]
        rows.append(
            {
                "name": view.name,
                "node": node.name,
                "kind": node.cell.name if isinstance(node, Recurrent) else node.kind,
                "shape": list(view.value.shape if per_gate else node.params[view.role].shape),
                "size": size,
                "nnz": pattern.nnz,
                "density": pattern.density,
                "gates": list(node.gates(view.role)),
                "pattern": pattern_name(pattern),
                "digest": pattern.digest,
                "bytes_dense": size * view.value.itemsize,
                "bytes_live": pattern.nnz * view.value.itemsize,
                "macs_per_step": pattern.nnz * positions,
                "macs_dense_per_step": size * positions,
                "per_step": graph.specs[node.name].time,
                "synops_per_step": _synops(node, view.role, pattern, positions, activity),
            }
        )
    return rows


def graph_warnings(graph: Graph) -> list[str]:
    """What a user should look at before going on."""
    found = []
    for view in graph.weights():
        pattern = view.pattern
        if pattern.nnz == 0 and view.value.size:
            found.append(f"weight '{view.name}' has no live connection")
            continue
        zeros = 1.0 - np.count_nonzero(view.value) / max(view.value.size, 1)
        if zeros - pattern.sparsity > 0.05:
            found.append(
                f"weight '{view.name}' has {zeros:.0%} zeros but a density of {pattern.density:.0%}: "
                "zeros outside the pattern are stored and computed with"
            )
        dead = int((pattern.fan_in() == 0).sum())
        if dead and view.role in ("weight", "ih") and not view.node.gates(view.role):
            found.append(f"weight '{view.name}' has {dead} of {pattern.shape[0]} rows without any connection")
    whole = {v.name: v.pattern.density for v in graph.weights()}
    for view in graph.weights(per_gate=True):
        parent = f"{view.node.name}.{view.role}"
        if view.name != parent and view.pattern.density < STARVED * whole[parent]:
            found.append(
                f"gate '{view.name}' keeps {view.pattern.density:.1%} where '{parent}' keeps {whole[parent]:.1%}: "
                "prune with --scope per-gate"
            )
    return found
