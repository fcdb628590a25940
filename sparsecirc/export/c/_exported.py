"""What exported C computes with its options, as a graph: the truth of its golden vectors and of its checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.export.c._cells import bounded_state
from sparsecirc.export.c._fixed import fixed_node, is_fixed, merge_linear
from sparsecirc.export.c._options import Arithmetic, COptions
from sparsecirc.export.c._quantise import as_stored
from sparsecirc.ir import Context, Graph, Linear, Node, Recurrent, State, Values

Array = NDArray[Any]


def as_exported(graph: Graph, options: COptions) -> Graph:
    """The network that C code with ``options`` computes, within single precision and `FAST_TANH_ERROR`.

    Its weights are those that are stored, and with integer arithmetic its layers round their inputs to 8 bits as the C
    code does. It is there to be interpreted; what writes files writes the exact layers.
    """
    graph = merge_linear(graph) if options.fixed else graph
    fixed = {n.name: fixed_node(n, options) for n in graph.recurrent if is_fixed(n, options)}
    stored = as_stored(graph, options)
    if options.arithmetic is Arithmetic.INT8:
        stored = replace(stored, nodes=tuple(_rounding(n) for n in stored.nodes))
    return stored.replace_nodes(*fixed.values())


def _rounding(node: Node) -> Node:
    made: dict[type[Node], type[Node]] = {Linear: _RoundingLinear, Recurrent: _RoundingRecurrent}
    if type(node) not in made:
        return node
    return made[type(node)](**{f.name: getattr(node, f.name) for f in fields(node)})


def rounded(x: Array, top: float | None = None) -> Array:
    """``x`` (..., n) in multiples of 1 / 127 of ``top``, or of the largest entry of each vector; halves go up."""
    largest = np.abs(x).max(axis=-1, keepdims=True, initial=0.0) if top is None else np.full(1, top, x.dtype)
    heard = largest > 2.0**-100
    unit = np.where(heard, largest, 1) / 127
    return np.asarray(np.where(heard, (np.floor(np.clip(x / unit, -127, 127) + 127.5) - 127) * unit, 0), x.dtype)


class _RoundingLinear(Linear):
    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        return super().compute([rounded(inputs[0].astype(ctx.dtype))], state, ctx)


@dataclass(frozen=True)
class _RoundingRecurrent(Recurrent):
    def compute(self, inputs: Values, state: State, ctx: Context) -> tuple[dict[str, Array], State]:
        x = inputs[0].astype(ctx.dtype)
        return super().compute([rounded(x) if "ih" in self.params else x], state, ctx)

    def _recurrence(self, ctx: Context) -> Any:
        exact: Callable[[Array], Array] | None = super()._recurrence(ctx)
        if exact is None or "hh" not in self.params:
            return exact
        top = 1.0 if bounded_state(self) else None
        return lambda h: exact(rounded(h, top))
