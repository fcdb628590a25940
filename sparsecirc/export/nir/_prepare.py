"""A graph rewritten, still in our own nodes, until each node is one NIR primitive.

Every step keeps the function of the network; what NIR has no primitive for is either left to the reader with a note
(a reduction over time at the end, a repetition at the start) or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.ir import Affine, Conv, Elementwise, Graph, Input, Linear, Node, Recurrent, Repeat, TimeReduce

Array = NDArray[Any]


@dataclass(frozen=True)
class Cut:
    """The part of a graph that happens at every step, and what was left to the reader."""

    graph: Graph
    notes: tuple[str, ...] = ()


def owners(graph: Graph) -> dict[str, Node]:
    """The node behind every value name."""
    found: dict[str, Node] = {}
    for node in graph.nodes:
        found[node.name] = node
        for port in node.ports():
            if port:
                found[f"{node.name}.{port}"] = node
    return found


def cut(graph: Graph) -> Cut:
    """Drop a repetition at the start, reductions over time at the end, outputs that NIR lacks, and what nobody reads.

    Raises:
        UnsupportedError: the graph has several inputs, or a static part that is more than that.
    """
    notes: list[str] = []
    graph = _at_each_step(graph)
    owner = owners(graph)
    outputs: dict[str, str] = {}
    for name, value in graph.outputs.items():
        tail: list[str] = []
        while not graph.specs[value].time:
            node = owner[value]
            if isinstance(node, TimeReduce):
                tail.append(f"{node.how} over time")
            elif isinstance(node, Elementwise):
                tail.append(node.fn)
            else:
                raise UnsupportedError(
                    f"node '{node.name}' ({node.kind}) works once per sequence, not per step, which NIR cannot say: "
                    "move it before the reduction over time, or export to ONNX or C"
                )
            value = node.inputs[0]
        if tail:
            notes.append(f"output '{name}' is written before '{', then '.join(reversed(tail))}': NIR has no such node")
        outputs[name] = value
    lost = [n for n, v in outputs.items() if _lost_membrane(owner[v], v)]
    if len(lost) < len(outputs):  # where nothing else is left, the layer is refused by name later
        for name in lost:
            notes.append(f"output '{name}' is left out: a NIR neuron that resets to zero puts out spikes only")
            del outputs[name]
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Repeat):
            source = owner[node.inputs[0]]
            if not isinstance(source, Input):
                raise UnsupportedError(
                    f"node '{source.name}' ({source.kind}) comes before the repetition '{node.name}': NIR works on "
                    "sequences only, repeat the input first"
                )
            notes.append(f"input '{source.name}' is to be given at each of {node.steps} steps: NIR has no repetition")
            nodes.append(replace(source, name=node.name, time=True))
        else:
            nodes.append(node)
    pruned = _prune_dead(tuple(nodes), outputs)
    inputs = [n for n in pruned if isinstance(n, Input)]
    if len(inputs) != 1:
        raise UnsupportedError(
            f"the graph has {len(inputs)} inputs ({', '.join(n.name for n in inputs)}): NIR files are written with "
            "one, concatenate them or export to ONNX"
        )
    return Cut(replace(graph, nodes=pruned, outputs=outputs, batch_first=False), tuple(notes))


def _at_each_step(graph: Graph) -> Graph:
    """The same function with weighted sums behind a reduction over time put before it, where the two commute.

    ``A last(x) + b = last(A x + b)``, and so for the first step and for the mean.
    """
    used = [*graph.outputs.values(), *(i for n in graph.nodes for i in n.inputs)]
    nodes: list[Node] = []
    for node in graph.nodes:
        before = next((n for n in nodes if isinstance(node, Affine | Linear) and n.name == node.inputs[0]), None)
        commutes = isinstance(before, TimeReduce) and before.how in ("last", "first", "mean")
        if not isinstance(before, TimeReduce) or not commutes or used.count(before.name) > 1:
            nodes.append(node)
            continue
        early = replace(node, name=f"{node.name}_each_step", inputs=before.inputs)
        shape = graph.specs[node.name].shape
        late = replace(before, name=node.name, inputs=(early.name,), feature_shape=shape)
        nodes = [*(n for n in nodes if n is not before), early, late]
    return replace(graph, nodes=tuple(nodes))


def _lost_membrane(node: Node, value: str) -> bool:
    if not isinstance(node, Recurrent) or value != f"{node.name}.mem":
        return False
    return node.options.reset in (Reset.ZERO, Reset.ZERO_UPDATE)


def _prune_dead(nodes: tuple[Node, ...], outputs: Mapping[str, str]) -> tuple[Node, ...]:
    wanted = set(outputs.values())
    kept: list[Node] = []
    for node in reversed(nodes):
        if wanted & {node.name, *(f"{node.name}.{p}" for p in node.ports())}:
            kept.append(node)
            wanted |= set(node.inputs)
    return tuple(kept[::-1])


def ports_read(graph: Graph) -> dict[str, frozenset[str]]:
    """Which states of each recurrent layer are read by another node or are outputs."""
    used = [i for n in graph.nodes for i in n.inputs] + list(graph.outputs.values())
    found: dict[str, frozenset[str]] = {}
    for layer in graph.recurrent:
        default = layer.ports()[0]
        names = {layer.name: default} | {f"{layer.name}.{p}": p for p in layer.ports()}
        found[layer.name] = frozenset(names[u] for u in used if u in names)
    return found


@dataclass
class _Rewriter:
    graph: Graph
    uniform: frozenset[str]  # layers whose thresholds are to become uniform
    nodes: dict[str, Node] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def run(self) -> Graph:
        for node in self.graph.nodes:
            node = replace(node, inputs=tuple(self.renamed.get(i, i) for i in node.inputs))
            if isinstance(node, Recurrent):
                self._layer(node)
            elif isinstance(node, Affine):
                self._affine(node)
            elif isinstance(node, Elementwise) and node.fn == "identity":
                self.renamed[node.name] = node.inputs[0]
            else:
                self.nodes[node.name] = node
        outputs = {k: self.renamed.get(v, v) for k, v in self.graph.outputs.items()}
        return replace(self.graph, nodes=tuple(self.nodes.values()), outputs=outputs)

    def _exclusive(self, value: str, reader: str) -> Node | None:
        """The node behind ``value`` if only ``reader`` reads it."""
        names = {value} | {old for old, new in self.renamed.items() if new == value}
        readers = [n.name for n in self.graph.nodes for i in n.inputs if i in names and n.name not in names]
        if readers != [reader] or names & set(self.graph.outputs.values()):
            return None
        return self.nodes.get(value)

    def _layer(self, layer: Recurrent) -> None:
        bias = _sum(layer.params.get("bias_ih"), layer.params.get("bias_hh"))
        scale = self._row_scale(layer)
        source = layer.inputs[0]
        if "ih" in layer.params:
            params = {"weight": layer.params["ih"]} | ({} if bias is None else {"bias": bias})
            patterns = {"weight": layer.patterns["ih"]} if "ih" in layer.patterns else {}
            source = f"{layer.name}.ih"
            self.nodes[source] = _scaled(Linear(source, layer.inputs, params, patterns), scale, None)
        elif scale is not None or (bias is not None and np.any(bias)):
            before = self._exclusive(source, layer.name)
            if isinstance(before, Linear):
                self.nodes[source] = _scaled(before, scale, _times(bias, scale))
            else:
                source = f"{layer.name}.drive"
                one = np.eye(layer.units, dtype=np.float32)
                diagonal = Linear(source, layer.inputs, {"weight": one}, {"weight": Pattern.from_mask(one, "diagonal")})
                self.nodes[source] = _scaled(diagonal, scale, _times(bias, scale))
        params = {k: v for k, v in layer.params.items() if k not in ("ih", "bias_ih", "bias_hh")}
        if scale is not None:
            params["threshold"] = np.full_like(layer.params["threshold"], layer.params["threshold"].max())
            for role in ("hh", "hh_diag"):
                if role in params:
                    params[role] = _rows(params[role], scale)
        patterns = {k: v for k, v in layer.patterns.items() if k in params}
        self.nodes[layer.name] = replace(layer, inputs=(source,), params=params, patterns=patterns)

    def _row_scale(self, layer: Recurrent) -> Array | None:
        """Factor per unit that makes its threshold the layer's largest; ``None`` where there is nothing to do."""
        if layer.name not in self.uniform:
            return None
        theta = np.asarray(layer.params["threshold"], dtype=np.float64).reshape(-1)
        if np.all(theta == theta[0]):
            return None
        return np.asarray(theta.max() / np.broadcast_to(theta, (layer.units,)))

    def _affine(self, node: Affine) -> None:
        source = node.inputs[0]
        before = self._exclusive(source, node.name)
        shape = self.graph.specs[node.name].shape
        if isinstance(before, Linear | Conv) and (folded := _per_channel(node, shape)) is not None:
            self.nodes[source] = _scaled(before, *folded)
            self.renamed[node.name] = source
        else:
            self.nodes[node.name] = node


def expand(graph: Graph, uniform: frozenset[str] = frozenset()) -> Graph:
    """Input weights and biases of layers, and scale and shift, moved into Linear and Conv nodes of their own.

    ``uniform`` names layers whose thresholds, where they differ, are made equal by scaling the rows that feed them.
    """
    return _Rewriter(graph, uniform).run()


def _sum(a: Array | None, b: Array | None) -> Array | None:
    if a is None or b is None:
        return b if a is None else a
    return np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64)


def _times(value: Array | None, scale: Array | None) -> Array | None:
    return value if value is None or scale is None else np.asarray(value, dtype=np.float64) * scale


def _rows(weight: Array, scale: Array) -> Array:
    return np.asarray(weight, dtype=np.float64) * scale.reshape(-1, *(1,) * (weight.ndim - 1))


def _scaled(node: Linear | Conv, scale: Array | None, shift: Array | None) -> Linear | Conv:
    """The same layer followed by scale and shift per output channel."""
    params = dict(node.params)
    if scale is not None:
        params["weight"] = _rows(params["weight"], scale)
        if "bias" in params:
            params["bias"] = _rows(params["bias"], scale)
    if shift is not None:
        total = _sum(params.get("bias"), shift)
        assert total is not None
        params["bias"] = total
    return replace(node, params=params)


def _per_channel(node: Affine, shape: tuple[int, ...]) -> tuple[Array | None, Array | None] | None:
    """Scale and shift per leading feature, or ``None`` where they differ within a channel."""
    found: list[Array | None] = []
    for role in ("scale", "shift"):
        if role not in node.params:
            found.append(None)
            continue
        full = np.broadcast_to(np.asarray(node.params[role], dtype=np.float64), shape).reshape(shape[0], -1)
        if np.any(full != full[:, :1]):
            return None
        found.append(full[:, 0].copy())
    return found[0], found[1]
