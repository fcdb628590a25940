"""`interpret`: the slow, plain numpy run of a graph that everything else is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UsageError
from sparsecirc.ir._graph import Graph
from sparsecirc.ir._layers import Input
from sparsecirc.ir._node import Context, Node, State, Values

Array = NDArray[Any]


@dataclass(frozen=True)
class Result:
    """What a run gives back.

    Attributes:
        outputs: by output name, in the user's layout.
        state: to pass to the next call, by ``"node.state"``, each (B, ...).
        values: every intermediate value by name in (T, B, ...) layout, where asked for; else empty.
    """

    outputs: dict[str, Array]
    state: dict[str, Array]
    values: dict[str, Array]

    @property
    def y(self) -> Array:
        """The first output."""
        return next(iter(self.outputs.values()))


def bind_inputs(
    graph: Graph, x: ArrayLike | Mapping[str, ArrayLike], dtype: Any
) -> tuple[dict[str, Array], int, int | None]:
    """Inputs as arrays in (T, B, ...) layout, with batch and T (``None`` without a sequence input).

    Raises:
        UsageError: a name, rank, feature shape, batch or length does not fit.
    """
    if isinstance(x, Mapping):
        given: dict[str, Any] = dict(x)
    elif len(graph.inputs) == 1:
        given = {graph.inputs[0].name: x}
    else:
        raise UsageError(f"the graph has {len(graph.inputs)} inputs: pass a dict with {[i.name for i in graph.inputs]}")
    bound: dict[str, Array] = {}
    batches: dict[int, str] = {}
    lengths: dict[int, str] = {}
    for node in graph.inputs:
        if node.name not in given:
            raise UsageError(f"input '{node.name}' is missing: got {sorted(given)}")
        array = np.asarray(given.pop(node.name))
        lead = "(B, T" if graph.batch_first else "(T, B"
        expected = f"{lead if node.time else '(B'}{''.join(f', {n}' for n in node.shape)})"
        if array.ndim != len(node.shape) + 1 + node.time or tuple(array.shape[1 + node.time :]) != tuple(node.shape):
            raise UsageError(f"input '{node.name}' has shape {array.shape}: expected {expected}")
        if node.time:
            array = np.swapaxes(array, 0, 1) if graph.batch_first else array
            lengths[array.shape[0]] = node.name
            batches[array.shape[1]] = node.name
        else:
            batches[array.shape[0]] = node.name
        bound[node.name] = array if array.dtype.kind in "iub" else array.astype(dtype, copy=False)
    if given:
        raise UsageError(f"input '{sorted(given)[0]}' is not one of the graph's: {[i.name for i in graph.inputs]}")
    if len(batches) > 1 or len(lengths) > 1:
        raise UsageError(f"inputs differ in batch {sorted(batches)} or length {sorted(lengths)}: expected one of each")
    return bound, next(iter(batches)), next(iter(lengths), None)


def check_lengths(lengths: ArrayLike | None, batch: int, steps: int | None) -> NDArray[np.int64] | None:
    """Valid steps per sample as int64 (B,), or ``None``.

    Raises:
        UsageError: not one whole number per sample within 0..T.
    """
    if lengths is None:
        return None
    array = np.asarray(lengths)
    if array.shape != (batch,) or array.dtype.kind not in "iu":
        raise UsageError(f"lengths has shape {array.shape} and type {array.dtype}: expected {batch} whole numbers")
    if batch and (array.min() < 0 or (steps is not None and array.max() > steps)):
        raise UsageError(f"lengths run from {array.min()} to {array.max()}: expected 0 to {steps}")
    return array.astype(np.int64)


def split_state(graph: Graph, state: Mapping[str, ArrayLike] | None, batch: int, dtype: Any) -> dict[str, State]:
    """State by node; shapes checked.

    Raises:
        UsageError: an unknown state name or a wrong shape.
    """
    by_node: dict[str, State] = {n.name: {} for n in graph.nodes}
    if not state:
        return by_node
    known = {f"{n.name}.{s}": (n.name, s, shape) for n in graph.nodes for s, shape in n.states().items()}
    for key, value in state.items():
        if key not in known:
            raise UsageError(f"state '{key}' is not one of the graph's: {', '.join(known) or 'it has none'}")
        node, name, shape = known[key]
        array = np.asarray(value, dtype=dtype)
        if array.shape != (batch, *shape):
            raise UsageError(f"state '{key}' has shape {array.shape}: expected {(batch, *shape)}")
        by_node[node][name] = array
    return by_node


def user_layout(graph: Graph, value_name: str, array: Array) -> Array:
    """(T, B, ...) to what the user's framework gives."""
    return np.swapaxes(array, 0, 1) if graph.batch_first and graph.specs[value_name].time else array


def interpret(
    graph: Graph,
    x: ArrayLike | Mapping[str, ArrayLike],
    state: Mapping[str, ArrayLike] | None = None,
    *,
    lengths: ArrayLike | None = None,
    dtype: Any = np.float64,
    keep_values: bool = False,
) -> Result:
    """Run ``graph`` in plain numpy, step by step.

    Args:
        graph: the network.
        x: the input, or one array per input name; sequences (T, B, ...) or, with ``graph.batch_first``, (B, T, ...).
        state: what an earlier call returned; zeros where absent.
        lengths: valid steps per sample (B,); past its end a sample keeps its state and emits zeros.
        dtype: working precision; float64 is the reference.
        keep_values: also return every intermediate value.

    Raises:
        UsageError: inputs, lengths or state do not fit the graph.
    """
    return walk(graph, x, state, lengths, dtype, lambda node, *args: node.compute(*args), keep_values=keep_values)


Compute = Callable[[Node, Values, State, Context], tuple[dict[str, Array], State]]
"""How a walk computes one node: the node's own ``compute`` in `interpret`, native kernels in a program."""


def walk(
    graph: Graph,
    x: ArrayLike | Mapping[str, ArrayLike],
    state: Mapping[str, ArrayLike] | None,
    lengths: ArrayLike | None,
    dtype: Any,
    compute: Compute,
    *,
    keep_values: bool = False,
) -> Result:
    """Run the nodes of ``graph`` in order, each by ``compute``; arguments and errors as in `interpret`."""
    bound, batch, steps = bind_inputs(graph, x, dtype)
    ctx = Context(dtype, check_lengths(lengths, batch, steps))
    states = split_state(graph, state, batch, dtype)
    values: dict[str, Array] = {}
    new_state: dict[str, Array] = {}
    for node in graph.nodes:
        if isinstance(node, Input):
            values[node.name] = bound[node.name]
            continue
        out, after = compute(node, [values[i] for i in node.inputs], states[node.name], ctx)
        for port, array in out.items():
            values[f"{node.name}.{port}" if port else node.name] = array
        default = node.ports()[0]
        if default in out:
            values.setdefault(node.name, out[default])
        new_state.update({f"{node.name}.{s}": a for s, a in after.items()})
    outputs = {name: user_layout(graph, value, values[value]) for name, value in graph.outputs.items()}
    return Result(outputs, new_state, values if keep_values else {})
