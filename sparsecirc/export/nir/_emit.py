"""Our nodes as NIR primitives: names, edges, and everything but neurons."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.nir._metadata import pack, pattern_info
from sparsecirc.ir import Add, Affine, Conv, Flatten, Graph, Input, Linear, Node, Pool

Array = NDArray[Any]
Sources = tuple[str, ...]


@dataclass
class Builder:
    """NIR nodes and edges under construction.

    Names are ``n<number>_<label>``, so that they sort in the order in which the nodes are computed: HDF5 sorts them,
    and readers follow that order.

    Attributes:
        nir: the ``nir`` module.
        width: digits of the number in a name.
        single: write float32 instead of float64.
        values: the NIR nodes whose sum each value of our graph is.
        spikes: the path of the NIR node that fires for each of our layers.
    """

    nir: Any
    width: int
    single: bool
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Sources] = field(default_factory=dict)
    spikes: dict[str, str] = field(default_factory=dict)

    def add(self, label: str, node: Any, sources: Sequence[str] = ()) -> str:
        """Add a node fed by the sum of ``sources``; returns its name.

        Raises:
            UnsupportedError: one source twice (a NIR edge has no weight).
        """
        name = f"n{len(self.nodes):0{self.width}d}_{re.sub(r'[^0-9A-Za-z]', '_', label)}"
        self.nodes[name] = node
        for source in sources:
            self.connect(source, name)
        return name

    def connect(self, source: str, target: str) -> None:
        """Add one edge."""
        if (source, target) in self.edges:
            raise UnsupportedError(
                f"'{target}' adds '{source}' to itself, but NIR has at most one edge between two nodes: scale it by 2"
            )
        self.edges.append((source, target))

    def real(self, value: Any) -> Array:
        """Time constants, gains and thresholds in the precision of the file."""
        return np.array(value, dtype=np.float32 if self.single else np.float64)

    def weight(self, value: Array) -> Array:
        """Weights in the precision of the file; float64 files keep float32 weights as they are."""
        return np.array(value, dtype=np.float32 if self.single or value.dtype == np.float32 else np.float64)

    def linear(self, node: Linear) -> Any:
        """``nir.Linear``, or ``nir.Affine`` with a bias."""
        weight = self.weight(node.weight("weight"))
        metadata = pack({"name": node.name, **_sparse(node.patterns, "weight")})
        if "bias" not in node.params:
            return self.nir.Linear(weight=weight, metadata=metadata)
        return self.nir.Affine(weight=weight, bias=self.weight(node.params["bias"]), metadata=metadata)

    def diagonal(self, values: Array, info: Mapping[str, Any]) -> Any:
        """A product per unit: a ``nir.Linear``, which more readers know, or for images a ``nir.Scale``."""
        if values.ndim > 1:
            return self.nir.Scale(scale=self.real(values), metadata=pack(info))
        return self.nir.Linear(weight=np.diag(self.real(values)), metadata=pack(info))


def _sparse(patterns: Mapping[str, Pattern], role: str) -> dict[str, Any]:
    pattern = patterns.get(role)
    return {} if pattern is None or pattern.density == 1 else {"pattern": pattern_info(pattern)}


def emit_stateless(builder: Builder, node: Node, graph: Graph) -> None:
    """Add one node that has no state.

    Raises:
        UnsupportedError: NIR has no primitive for it.
    """
    nir = builder.nir
    shape = graph.specs[node.name].shape
    if isinstance(node, Input):
        # Shapes as arrays: HDF5 gives them back so.
        info = {"name": node.name} | ({"spiking": True} if node.spiking else {})
        made = nir.Input(input_type=np.array(node.shape), metadata=pack(info))
        builder.values[node.name] = (builder.add("input", made),)
        return
    if isinstance(node, Add) and node.kind == "add":
        builder.values[node.name] = tuple(s for i in node.inputs for s in builder.values[i])
        return
    sources = builder.values[node.inputs[0]]
    before = graph.specs[node.inputs[0]].shape
    if isinstance(node, Linear):
        if len(before) != 1:
            raise UnsupportedError(
                f"linear '{node.name}' works along the last of {len(before)} axes, NIR's on vectors: flatten before it"
            )
        made = builder.linear(node)
    elif isinstance(node, Conv):
        made = _conv(builder, node, before)
    elif isinstance(node, Pool):
        made = _pool(builder, node)
    elif isinstance(node, Flatten):
        made = nir.Flatten(
            input_type={"input": np.array(before)}, start_dim=0, end_dim=-1, metadata=pack({"name": node.name})
        )
    elif isinstance(node, Affine):
        builder.values[node.name] = (_scale(builder, node, shape, sources),)
        return
    else:
        raise UnsupportedError(
            f"node '{node.name}' ({getattr(node, 'fn', node.kind)}) has no primitive in NIR: take it out of the "
            "network or export to ONNX or C"
        )
    builder.values[node.name] = (builder.add(node.name, made, sources),)


def _scale(builder: Builder, node: Affine, shape: tuple[int, ...], sources: Sources) -> str:
    scale = np.broadcast_to(np.asarray(node.params.get("scale", np.float32(1))), shape)
    name = builder.add(
        node.name, builder.nir.Scale(scale=builder.weight(scale), metadata=pack({"name": node.name})), sources
    )
    if "shift" not in node.params or not np.any(node.params["shift"]):
        return name
    if len(shape) != 1:
        raise UnsupportedError(
            f"node '{node.name}' shifts features of shape {shape}, NIR shifts vectors only: place it right after a "
            "convolution, into which it is then folded"
        )
    shift = np.broadcast_to(np.asarray(node.params["shift"]), shape)
    made = builder.nir.Affine(
        weight=np.eye(shape[0], dtype=np.float32),
        bias=builder.weight(shift),
        metadata=pack({"name": f"{node.name}.shift"}),
    )
    return builder.add(f"{node.name}.shift", made, (name,))


def _conv(builder: Builder, node: Conv, before: tuple[int, ...]) -> Any:
    if node.over_time:
        raise UnsupportedError(f"conv '{node.name}' runs over time, which NIR cannot say: export to ONNX or C")
    weight = node.weight("weight")
    rank = weight.ndim - 2
    if rank not in (1, 2):
        raise UnsupportedError(f"conv '{node.name}' has {rank} spatial axes, NIR has Conv1d and Conv2d: export to ONNX")
    if len(set(weight.shape[2:])) > 1:
        raise UnsupportedError(
            f"conv '{node.name}' has the kernel {weight.shape[2:]}: nir computes wrong shapes for kernels that are not "
            "square, so that readers refuse the file; pad the kernel with zeros"
        )
    bias = node.params.get("bias", np.zeros(weight.shape[0], np.float32))
    info = {"name": node.name, **_sparse(node.patterns, "weight"), "groups": node.groups}
    common = {"bias": builder.weight(bias), "groups": 1, "metadata": pack(info)}
    dense = builder.weight(_ungrouped(weight, node.groups))
    if rank == 1:
        return builder.nir.Conv1d(
            input_shape=before[1],
            weight=dense,
            stride=node.stride[0],
            padding=node.padding[0],
            dilation=node.dilation[0],
            **common,
        )
    return builder.nir.Conv2d(
        input_shape=before[1:], weight=dense, stride=node.stride, padding=node.padding, dilation=node.dilation, **common
    )


def _ungrouped(weight: Array, groups: int) -> Array:
    """The same convolution with one group, and zeros between the groups.

    The nir package expects ``weight.shape[1]`` input channels whatever the groups, so readers refuse a grouped one.
    """
    if groups == 1:
        return weight
    out, per_group = weight.shape[:2]
    full = np.zeros((out, per_group * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows = slice(g * (out // groups), (g + 1) * (out // groups))
        full[rows, g * per_group : (g + 1) * per_group] = weight[rows]
    return full


def _pool(builder: Builder, node: Pool) -> Any:
    if node.how == "max" or len(node.kernel) != 2:
        raise UnsupportedError(
            f"pool '{node.name}' is a {node.how} over {len(node.kernel)} axes, NIR has average pooling over 2: use "
            "that or export to ONNX or C"
        )
    return builder.nir.AvgPool2d(
        kernel_size=np.array(node.kernel),
        stride=np.array(node.stride),
        padding=np.zeros(2, dtype=int),
        metadata=pack({"name": node.name}),
    )
