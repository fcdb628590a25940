"""Units that do nothing are found and removed, and the smaller network is proved to be the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from sparsecirc._prune import MIXING, driven_layer
from sparsecirc._shrink._remove import Flags, layers, remove_units, width_of
from sparsecirc.errors import MismatchError
from sparsecirc.ir import (
    Affine,
    Concat,
    Elementwise,
    Flatten,
    Graph,
    Linear,
    Node,
    Recurrent,
    Repeat,
    TimeReduce,
    interpret,
)

KEEPS_ZERO = ("relu", "tanh", "identity")
PROOF_STEPS, PROOF_BATCH = 12, 3
PROOF_BOUND = 1e-9
"""Largest difference, relative to the largest output, that float64 sums in another order may make."""


@dataclass(frozen=True)
class Shrunk:
    """A smaller network that computes the same.

    Attributes:
        graph: the network without its dead units.
        kept: units that stay, by layer, shape (units,) each; layers that lost none are not named.
        max_diff: see :func:`max_difference`, between both.
    """

    graph: Graph
    kept: Mapping[str, Flags]
    max_diff: float

    @property
    def removed(self) -> dict[str, int]:
        """Number of units removed by layer."""
        return {name: int((~flags).sum()) for name, flags in self.kept.items()}


def shrink(graph: Graph) -> Shrunk:
    """The same network without dead units, proved on a random input.

    Dead are units that nothing on the way to an output reads (their outgoing weights are zero or pruned), and units
    that never leave zero, since all that enters them is zero and the cell at rest stays at rest. The latter holds for
    runs that start at rest: do not give a shrunk program a state of the original one.

    Raises:
        MismatchError: the smaller network computes something else (a fault of ours).
    """
    whole = {name: np.ones(units, dtype=bool) for name, units in layers(graph).items()}
    small = graph
    while True:
        keep = live_units(small)
        if all(flags.all() for flags in keep.values()):
            break
        small = remove_units(small, keep)
        for name, flags in keep.items():
            whole[name][np.flatnonzero(whole[name])[~flags]] = False
    worst = max_difference(graph, small)
    if worst > PROOF_BOUND:
        raise MismatchError(f"the network without its dead units differs by {worst:.3g}: expected rounding only")
    return Shrunk(small, {n: f for n, f in whole.items() if not f.all()}, worst)


def live_units(graph: Graph) -> dict[str, Flags]:
    """Flags of the units that are not dead by layer; one unit is left of a layer that is dead altogether."""
    resting, zero = _resting(graph)
    read, bound = _read(graph, zero)
    found = {}
    for name, units in layers(graph).items():
        live = (read[name] & ~resting[name]) | bound[name]
        found[name] = live if live.any() else np.arange(units) == 0
    return found


def _used(node: Node, role: str) -> Flags:
    """Entries of a weight that are not zero, gates joined: (units, columns)."""
    weight = node.weight(role) != 0
    gates = max(len(node.gates(role)), 1)
    joined: Flags = weight.reshape(gates, -1, weight.shape[-1]).any(axis=0)
    return joined


def _any(flags: Flags, axis: int) -> Flags:
    return np.asarray(flags.any(axis=axis))


def _grow(flags: Flags, step: Callable[[Flags], Flags]) -> Flags:
    """``flags`` with all that ``step`` adds, until nothing is added."""
    while True:
        more = flags | step(flags)
        if np.array_equal(more, flags):
            return flags
        flags = more


@dataclass
class _Wanted:
    """What is read of each value, and which of that cannot go even if it is zero, as flags per feature."""

    read: dict[str, Flags]
    bound: dict[str, Flags]

    def ask(self, value: str, read: Flags | bool, bound: Flags | bool) -> None:
        self.read[value] |= read
        self.bound[value] |= bound


def _read(graph: Graph, zero: Mapping[str, Flags]) -> tuple[dict[str, Flags], dict[str, Flags]]:
    """Units that something on the way to an output reads, and those that cannot go even if they rest, by layer.

    The latter are read by a node that mixes its inputs, or by a pointwise function that makes something of zero.
    """
    blank = {value: np.zeros(width_of(graph, value), dtype=bool) for value in graph.specs}
    wanted = _Wanted(blank, {value: flags.copy() for value, flags in blank.items()})
    for value in graph.outputs.values():
        wanted.ask(value, True, True)
    read: dict[str, Flags] = {}
    bound: dict[str, Flags] = {}
    for node in reversed(graph.nodes):
        for port in node.ports()[:1]:  # the default port has two names
            if port:
                wanted.ask(node.name, wanted.read[f"{node.name}.{port}"], wanted.bound[f"{node.name}.{port}"])
        here, fixed = wanted.read[node.name], wanted.bound[node.name]
        if isinstance(node, Recurrent):
            _read_recurrent(graph, node, wanted, read, bound)
        elif isinstance(node, Linear):
            rows = _any(here.reshape(-1, node.params["weight"].shape[0]), 0)
            if driven_layer(graph, node) == node.name:
                read[node.name] = rows
                bound[node.name] = _any(fixed.reshape(-1, len(rows)), 0)
            columns = _any(_used(node, "weight")[rows], 0)
            several = len(graph.specs[node.inputs[0]].shape) != 1
            wanted.ask(node.inputs[0], several or columns, several)
        elif isinstance(node, Concat):
            ends = np.cumsum([width_of(graph, i) for i in node.inputs])[:-1]
            parts = zip(node.inputs, np.split(here, ends), np.split(fixed, ends), strict=True)
            for value, part, held in parts:
                wanted.ask(value, part, held)
        elif _pointwise(graph, node):
            wanted.ask(node.inputs[0], here, fixed | (here & ~zero[node.name]))
        else:
            for value in node.inputs:
                wanted.ask(value, True, True)
    return read, bound


def _pointwise(graph: Graph, node: Node) -> bool:
    """Whether feature k of the output depends on feature k of its one input only, and both can go."""
    if isinstance(node, Elementwise):
        return node.fn not in MIXING
    if isinstance(node, (Affine, Repeat, TimeReduce, Flatten)):
        return len(graph.specs[node.inputs[0]].shape) == 1
    return False


def _read_recurrent(
    graph: Graph, node: Recurrent, wanted: _Wanted, read: dict[str, Flags], bound: dict[str, Flags]
) -> None:
    feedback = node.cell.feedback
    states = {s: wanted.read[f"{node.name}.{s}"] for s in node.cell.states}
    held = {s: wanted.bound[f"{node.name}.{s}"] for s in node.cell.states}
    states[node.cell.states[0]] = states[node.cell.states[0]] | wanted.read[node.name]
    held[node.cell.states[0]] = held[node.cell.states[0]] | wanted.bound[node.name]
    hh = _used(node, "hh") if "hh" in node.params else np.zeros((node.units, node.width), dtype=bool)
    units, fixed = np.zeros(node.units, dtype=bool), np.zeros(node.units, dtype=bool)
    for s in node.cell.states:
        if s != feedback or "hr" not in node.params:
            units, fixed = units | states[s], fixed | held[s]
    if "hr" in node.params:
        hr = _used(node, "hr")  # [projected, units]

        def behind(projected: Flags) -> Flags:
            return _any(hh[hr[projected].any(axis=0) | units], 0)

        projected = _grow(states[feedback], behind)
        read[f"{node.name}.hr"], bound[f"{node.name}.hr"] = projected, held[feedback]
        units = units | hr[projected].any(axis=0)
    else:
        units = _grow(units, lambda u: _any(hh[u], 0))
    alone = "ih" not in node.params and not _tied(graph, node)
    if alone or len(node.feature_shape) > 1:
        units, fixed = np.ones_like(units), np.ones_like(fixed)
    if len(node.feature_shape) <= 1:
        read[node.name], bound[node.name] = units, fixed
    if "ih" in node.params:
        wanted.ask(node.inputs[0], _any(_used(node, "ih")[units], 0), False)
    else:
        wanted.ask(node.inputs[0], np.tile(units, node.cell.n_gates), np.tile(fixed, node.cell.n_gates))


def _tied(graph: Graph, node: Recurrent) -> bool:
    """Whether a layer without input weights is driven by a linear layer that loses its units together with it."""
    source = next((n for n in graph.nodes if n.name == node.inputs[0]), None)
    return isinstance(source, Linear) and driven_layer(graph, source) == node.name


def _resting(graph: Graph) -> tuple[dict[str, Flags], dict[str, Flags]]:
    """Units that never leave zero in a run that starts at rest, by layer; and features that do not, by value."""
    zero: dict[str, Flags] = {}
    found: dict[str, Flags] = {}
    for node in graph.nodes:
        inputs = [zero[i] for i in node.inputs]
        out = {p: np.zeros(width_of(graph, f"{node.name}.{p}" if p else node.name), dtype=bool) for p in node.ports()}
        first = node.ports()[0]
        if isinstance(node, Recurrent):
            if len(node.feature_shape) <= 1:
                out = _resting_recurrent(node, inputs[0], found)
        elif isinstance(node, Linear) and len(graph.specs[node.inputs[0]].shape) == 1:
            silent = ~_any(_used(node, "weight")[:, ~inputs[0]], 1)
            out[first] = silent & (node.params["bias"] == 0) if "bias" in node.params else silent
            if driven_layer(graph, node) == node.name:
                found[node.name] = out[first]
        elif isinstance(node, Affine):
            shift = np.broadcast_to(node.params.get("shift", 0.0), graph.specs[node.name].shape).ravel()
            out[first] = inputs[0] & (shift == 0)
        elif isinstance(node, Concat):
            out[first] = np.concatenate(inputs)
        elif isinstance(node, (Repeat, TimeReduce, Flatten)) or (
            isinstance(node, Elementwise) and node.fn in KEEPS_ZERO
        ):
            out[first] = inputs[0]
        for port, flags in out.items():
            zero[f"{node.name}.{port}" if port else node.name] = flags
        zero[node.name] = out[first]
    return {name: found.get(name, np.zeros(units, dtype=bool)) for name, units in layers(graph).items()}, zero


def _resting_recurrent(node: Recurrent, drive: Flags, found: dict[str, Flags]) -> dict[str, Flags]:
    units, gates = node.units, node.cell.n_gates
    calm = np.ones(units, dtype=bool)
    for bias in ("bias_ih", "bias_hh"):
        if bias in node.params:
            calm &= (node.params[bias].reshape(gates, units) == 0).all(axis=0)
    calm &= (
        ~_used(node, "ih")[:, ~drive].any(axis=1) if "ih" in node.params else drive.reshape(gates, units).all(axis=0)
    )
    calm &= _stays_at_rest(node)
    hh = _used(node, "hh") if "hh" in node.params else np.zeros((units, node.width), dtype=bool)
    hr = _used(node, "hr") if "hr" in node.params else None
    # Units are active, or are reached by one through the recurrence; diagonal feedback reaches nobody else.
    reach = hh if hr is None else (hh.astype(int) @ hr.astype(int)) > 0
    active = _grow(~calm, lambda a: _any(reach[:, a], 1))
    found[node.name] = ~active
    state = ~active
    if hr is not None:
        state = ~_any(hr[:, active], 1)
        found[f"{node.name}.hr"] = state
    return {s: state if s == node.cell.feedback else ~active for s in node.cell.states}


def _stays_at_rest(node: Recurrent) -> Flags:
    """Units whose states are all zero after a step from zero without any input."""
    cell, units = node.cell, node.units
    nothing = np.zeros((1, cell.n_gates * units))
    rest = {s: np.zeros((1, units)) for s in cell.states}
    vectors = {k: np.asarray(node.params[k], np.float64).ravel() for k in cell.vectors}
    recurrent = nothing if "hh" in node.params or "hh_diag" in node.params else None
    after = cell.step(nothing, recurrent, rest, vectors, node.options)
    rests: Flags = np.all([after[s][0] == 0 for s in cell.states], axis=0)
    return rests


def max_difference(graph: Graph, other: Graph) -> float:
    """Largest difference of the outputs of two networks on a random input in float64, relative to the largest one."""
    rng = np.random.default_rng(0)
    x = {}
    for node in graph.inputs:
        lead = (PROOF_STEPS, PROOF_BATCH) if node.time and not graph.batch_first else (PROOF_BATCH, PROOF_STEPS)
        shape = (*(lead if node.time else (PROOF_BATCH,)), *node.shape)
        x[node.name] = np.zeros(shape, np.int64) if node.shape == () else rng.standard_normal(shape)
    before, after = interpret(graph, x), interpret(other, x)
    worst = 0.0
    for name, y in before.outputs.items():
        scale = max(1.0, float(np.abs(y).max(initial=0.0)))
        worst = max(worst, float(np.abs(y - after.outputs[name]).max(initial=0.0)) / scale)
    return worst
