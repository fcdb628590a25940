"""`Graph`: a framework-free network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.ir._layers import Input
from sparsecirc.ir._node import Node, Spec
from sparsecirc.ir._recurrent import Recurrent


@dataclass(frozen=True)
class WeightView:
    """One weight matrix of a graph, or one gate block of it.

    Attributes:
        name: e.g. ``"rnn.l0.hh"`` or, for a gate, ``"rnn.l0.hh.f"``.
        node: the node that owns it.
        role: the parameter's role there.
        rows: rows of the stacked matrix that it covers.
        value: (rows, cols), dead connections at exact zero.
        pattern: live connections; full where nothing was pruned.
    """

    name: str
    node: Node
    role: str
    rows: slice
    value: NDArray[Any]
    pattern: Pattern


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, with the names of the outputs.

    Attributes:
        nodes: each reads only values of nodes before it.
        outputs: user-facing name -> value name (``"node"`` or ``"node.port"``).
        batch_first: whether sequence inputs and outputs are (B, T, ...) for the user; inside all is (T, B, ...).
        dt: seconds per time step where there are neurons, else ``None``.
        meta: JSON-able notes: where it came from, framework versions, accuracy.

    Raises:
        UsageError: duplicate names, unknown inputs, shapes that do not fit, non-finite weights.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    batch_first: bool = False
    dt: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.outputs:
            raise UsageError("a graph needs at least one output")
        object.__setattr__(self, "_specs", MappingProxyType(self._infer()))
        for node in self.nodes:
            for role, value in node.params.items():
                if not np.all(np.isfinite(node.weight(role))):
                    raise UsageError(
                        f"weight '{node.name}.{role}' of shape {value.shape} holds NaN or infinite entries: "
                        "train again or restore an earlier checkpoint"
                    )

    def _infer(self) -> dict[str, Spec]:
        specs: dict[str, Spec] = {}
        names: set[str] = set()
        for node in self.nodes:
            if not node.name or node.name in names:
                raise UsageError(f"node name '{node.name}' is empty or used twice")
            names.add(node.name)
            missing = [i for i in node.inputs if i not in specs]
            if missing:
                raise UsageError(f"node '{node.name}' reads '{missing[0]}', which no earlier node computes")
            out = node.infer([specs[i] for i in node.inputs])
            for port, spec in out.items():
                specs[f"{node.name}.{port}" if port else node.name] = spec
            specs.setdefault(node.name, out[node.ports()[0]])
        for name, value in self.outputs.items():
            if value not in specs:
                raise UsageError(f"output '{name}' reads '{value}', which no node computes")
        return specs

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Feature shape of every value."""
        specs: Mapping[str, Spec] = self._specs  # type: ignore[attr-defined]
        return specs

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The input nodes, in order."""
        return tuple(n for n in self.nodes if isinstance(n, Input))

    @cached_property
    def recurrent(self) -> tuple[Recurrent, ...]:
        """The recurrent and spiking layers, in order."""
        return tuple(n for n in self.nodes if isinstance(n, Recurrent))

    @property
    def spiking(self) -> bool:
        """Whether any layer spikes."""
        return any(n.cell.spiking for n in self.recurrent)

    def node(self, name: str) -> Node:
        """The node called ``name``.

        Raises:
            UsageError: there is none; the message lists what there is.
        """
        for n in self.nodes:
            if n.name == name:
                return n
        raise UsageError(f"the graph has no node '{name}': it has {', '.join(n.name for n in self.nodes)}")

    def weights(self, *, per_gate: bool = False) -> Iterator[WeightView]:
        """Every weight matrix, or every gate block of it, in node order."""
        for node in self.nodes:
            for role in node.matrix_roles:
                if role not in node.params:
                    continue
                value = node.weight(role)
                shape = value.shape if value.ndim > 1 else (1, *value.shape)
                flat = value.reshape(shape[0], int(np.prod(shape[1:])))
                pattern = node.patterns.get(role) or Pattern.full(*flat.shape)
                gates = node.gates(role) if per_gate else ()
                height = flat.shape[0] // max(len(gates), 1)
                for k, gate in enumerate(gates or ("",)):
                    rows = slice(k * height, (k + 1) * height)
                    name = f"{node.name}.{role}" + (f".{gate}" if gate else "")
                    part = pattern if not gate else pattern.row_block(rows.start, rows.stop)
                    yield WeightView(name, node, role, rows, flat[rows], part)

    def replace_nodes(self, *nodes: Node) -> Graph:
        """The same graph with some nodes replaced by name."""
        new = {n.name: n for n in nodes}
        unknown = set(new) - {n.name for n in self.nodes}
        if unknown:
            raise UsageError(f"the graph has no node '{sorted(unknown)[0]}'")
        return replace(self, nodes=tuple(new.get(n.name, n) for n in self.nodes))

    def with_patterns(self, patterns: Mapping[str, Pattern]) -> Graph:
        """The same graph with patterns set by weight name (``"node.role"``)."""
        by_node: dict[str, dict[str, Pattern]] = {}
        known = {v.name: v for v in self.weights()}
        for name, pattern in patterns.items():
            if name not in known:
                raise UsageError(f"the graph has no weight '{name}': it has {', '.join(known)}")
            view = known[name]
            by_node.setdefault(view.node.name, {})[view.role] = pattern
        return self.replace_nodes(*(self.node(n).with_patterns(**p) for n, p in by_node.items()))

    def with_spiking_input(self, *names: str, spiking: bool = True) -> Graph:
        """The same graph with inputs declared to be spikes, or not; all of them where none is named.

        Raises:
            UsageError: a name is not one of the inputs.
        """
        known = [n.name for n in self.inputs]
        unknown = [n for n in names if n not in known]
        if unknown:
            raise UsageError(f"input '{unknown[0]}' is not one of the graph's: {known}")
        return self.replace_nodes(*(replace(n, spiking=spiking) for n in self.inputs if n.name in (names or known)))

    @property
    def density(self) -> float:
        """Live connections over all connections, over every weight matrix."""
        views = list(self.weights())
        size = sum(v.value.size for v in views)
        return sum(v.pattern.nnz for v in views) / size if size else 0.0
