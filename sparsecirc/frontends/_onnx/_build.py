"""`Build`: the graph that grows while ONNX nodes are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._onnx._read import Tensors
from sparsecirc.frontends._onnx._values import Array, Axis, Length, Size, Value
from sparsecirc.ir import Concat, Flatten, Input, Linear, Node, Spec


@dataclass
class Build:
    """Nodes of ours so far.

    Attributes:
        tensors: reads constants.
        sizes: of the axes "T" and "B": a number where the file fixes it.
        nodes: in order.
        specs: of their values.
        notes: what the user should know.
        prefix: name of the node that called the function whose nodes are read.
        repeated: how often a name was asked for, where it was more than once.
    """

    tensors: Tensors
    sizes: dict[str, Length] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    specs: dict[str, Spec] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    prefix: str = ""
    repeated: dict[str, int] = field(default_factory=dict)

    def label(self, hint: str) -> str:
        """A free name; of the calling node inside of a function."""
        base = re.sub(r":\w+$", "", self.prefix or hint).strip("/").replace("/", ".") or "node"
        name = base
        while name in self.specs:
            self.repeated[base] = self.repeated.get(base, 1) + 1
            name = f"{base}_{self.repeated[base]}"
        return name

    def add(self, node: Node) -> str:
        """Append a node, checked against what it reads."""
        for port, spec in node.infer([self.specs[i] for i in node.inputs]).items():
            self.specs[f"{node.name}.{port}" if port else node.name] = spec
        self.specs.setdefault(node.name, self.specs.get(f"{node.name}.{node.ports()[0]}", Spec((), False)))
        self.nodes.append(node)
        return node.name

    def needed(self, outputs: Iterable[str]) -> tuple[Node, ...]:
        """The inputs, and all nodes on the way to an output."""
        wanted, kept = set(outputs), []
        for node in reversed(self.nodes):
            if isinstance(node, Input) or wanted & {node.name, *(f"{node.name}.{p}" for p in node.ports())}:
                kept.append(node)
                wanted |= set(node.inputs)
        return tuple(reversed(kept))

    def length(self, value: Value, axis: Axis) -> Length:
        """How long an axis of a value is."""
        if axis is None:
            return 1
        if axis == "D":
            return len(value.names)
        if isinstance(axis, tuple):
            total: Length = 1
            for a in axis:
                total = self.sizes[a] * total
            return total
        if isinstance(axis, str):
            return self.sizes[axis]
        return self.specs[value.names[0]].shape[axis]

    def shape(self, value: Value) -> list[Length]:
        """Lengths of all axes of ONNX's value."""
        return [self.length(value, a) for a in value.axes]

    def array(self, lengths: list[Length]) -> Array:
        """Lengths as a constant."""
        kind = object if any(isinstance(n, Size) for n in lengths) else np.int64
        out = np.empty(len(lengths), kind)
        out[:] = lengths
        return out

    def joined(self, value: Value, hint: str) -> Value:
        """Values that are stacked, side by side along the last feature axis; the axis "D" goes."""
        if len(value.names) == 1:
            return value
        name = self.add(Concat(self.label(f"{hint}.both"), value.names))
        return replace(value, names=(name,), axes=tuple(a for a in value.axes if a != "D"))

    def vector(self, value: Value, what: str) -> Value:
        """The value with one feature axis, which is ONNX's last.

        Raises:
            UnsupportedError: it is laid out in another way.
        """
        if len(value.names) != 1 or not value.axes or value.axes[-1] != 0 or len(self.specs[value.name].shape) != 1:
            raise UnsupportedError(
                f"'{what}' multiplies along an axis that is not the last feature axis: {self.layout(value)}"
            )
        return value

    def layout(self, value: Value) -> str:
        """Axes in words, for messages."""
        return f"the axes are {tuple('1' if a is None else a for a in value.axes)}"

    def flat(self, value: Value, hint: str) -> Value:
        """All feature axes, which must be ONNX's last in order, as one."""
        rank = len(self.specs[value.name].shape)
        if rank < 2:
            return value
        if tuple(a for a in value.axes if isinstance(a, int)) != tuple(range(rank)):
            raise UnsupportedError(f"'{hint}' joins feature axes in another order: {self.layout(value)}")
        name = self.add(Flatten(self.label(hint), (value.name,), axes=rank))
        kept: list[Axis] = [a for a in value.axes if not isinstance(a, int)]
        first = next(k for k, a in enumerate(value.axes) if isinstance(a, int))
        kept.insert(sum(1 for a in value.axes[:first] if not isinstance(a, int)), 0)
        return Value((name,), tuple(kept), value.dtype)

    def merge_bias(self, name: str, bias: Array) -> bool:
        """Add a bias to a linear layer that has none and that nothing else reads yet."""
        last = self.nodes[-1] if self.nodes else None
        if not isinstance(last, Linear) or last.name != name or "bias" in last.params:
            return False
        out = last.params["weight"].shape[0]
        if bias.size != out or bias.shape[-1:] != (out,):
            return False
        self.nodes[-1] = last.with_params(bias=bias.reshape(out))
        return True


Attributes = Mapping[str, Any]
