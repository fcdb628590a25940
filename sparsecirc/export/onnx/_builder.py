"""`Builder`: collects ONNX nodes and constants under unique names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import missing_extra
from sparsecirc.export.onnx._packed import encode
from sparsecirc.ir import Recurrent

Dim = int | str | None
_FEW = 0.125
"""Share of the neurons that fire up to which it is faster to gather their weights than to multiply by all."""


def import_onnx() -> Any:
    """The ``onnx`` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", "writing or reading an ONNX file") from error
    return onnx


class Builder:
    """Nodes and constants of one ONNX graph or of the body of a Scan in it.

    Every name is used once, in the graph and in all its bodies, as ONNX asks.

    Args:
        names: names that are taken already; shared with the bodies.
        packed: weights are stored as their live entries where that is smaller.
        events: recurrent products of neurons read the weights of those alone that fired.
    """

    def __init__(self, names: Iterable[str] = (), *, packed: bool = False, events: bool = False) -> None:
        self.onnx = import_onnx()
        self.packed = packed
        self.events = events
        self.saved: list[int] = []  # bytes that packing saved, a weight each; shared with the bodies
        self.names: set[str] = names if isinstance(names, set) else set(names)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.integers: set[str] = set()  # values of type int64; all others are float32

    def body(self) -> Builder:
        """A builder for a subgraph, sharing the names."""
        inner = Builder(self.names, packed=self.packed, events=self.events)
        inner.saved = self.saved
        return inner

    def name(self, hint: str) -> str:
        """A free name, ``hint`` if nobody has it."""
        free, k = hint, 0
        while free in self.names:
            k += 1
            free = f"{hint}_{k}"
        self.names.add(free)
        return free

    def const(self, value: ArrayLike, hint: str, dtype: Any = np.float32) -> str:
        """A constant stored in the file."""
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(value, dtype=dtype))
        array = array.reshape(np.shape(value))  # ascontiguousarray makes a scalar a vector
        name = self.name(hint)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def matrix(self, weight: NDArray[Any], hint: str, *, turned: bool = False, first: bool = False) -> str:
        """A weight (rows, columns); with ``turned`` its transpose, with ``first`` behind an axis of length one.

        Packed, its entries are decoded by operators that runtimes fold when they load the file.
        """
        code = encode(weight) if self.packed else None
        if code is None:
            plain = weight.T if turned else weight
            return self.const(plain[None] if first else plain, hint)
        self.saved.append(4 * weight.size - code.nbytes)
        proto = self.onnx.TensorProto
        gaps = self.op("Cast", [self.const(code.gaps, f"{hint}.gaps", np.uint8)], f"{hint}.steps", to=proto.INT32)
        at = self.op("CumSum", [gaps, self.const(0, f"{hint}.along", np.int32)], f"{hint}.at")
        values = self.const(code.values, f"{hint}.values", code.values.dtype)
        if code.scale is not None:
            values = self.op("Cast", [values], f"{hint}.whole", to=proto.FLOAT)
        zero = self.onnx.numpy_helper.from_array(np.zeros(1, np.float32))
        blank = self.op("ConstantOfShape", [self.ints([weight.size], f"{hint}.size")], f"{hint}.blank", value=zero)
        flat = self.op("ScatterElements", [blank, at, values], f"{hint}.flat", axis=0)
        made = self.op("Reshape", [flat, self.ints(code.shape, f"{hint}.shape")], f"{hint}.rows")
        if code.scale is not None:
            made = self.op("Mul", [made, self.const(code.scale, f"{hint}.scale")], f"{hint}.scaled")
        if turned:
            made = self.op("Transpose", [made], f"{hint}.turned", perm=[1, 0])
        return self.op("Unsqueeze", [made, self.ints([0], f"{hint}.axis")], f"{hint}.first") if first else made

    def ints(self, value: Sequence[int], hint: str) -> str:
        """An int64 vector stored in the file: axes, shapes, indices."""
        return self.const(value, hint, np.int64)

    def op(self, kind: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """One operator with one output; returns the output's name."""
        return self.ops(kind, inputs, [hint], **attributes)[0]

    def ops(
        self, kind: str, inputs: Sequence[str], hints: Sequence[str], *, label: str = "", **attributes: Any
    ) -> list[str]:
        """One operator, named ``label`` or after its first output; an empty hint leaves that output out."""
        outputs = [self.name(hint) if hint else "" for hint in hints]
        label = label or next(o for o in outputs if o)
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), outputs, name=f"{label}:{kind}", **attributes))
        return outputs

    def value_info(self, name: str, shape: Sequence[Dim]) -> Any:
        """Type and shape of an input or output."""
        proto = self.onnx.TensorProto
        kind = proto.INT64 if name in self.integers else proto.FLOAT
        return self.onnx.helper.make_tensor_value_info(name, kind, list(shape))

    def graph(self, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> Any:
        """What was collected, as a GraphProto."""
        return self.onnx.helper.make_graph(self.nodes, name, list(inputs), list(outputs), self.constants)

    def linear(self, x: str, weight: NDArray[Any], bias: NDArray[Any] | None, rank: int, hint: str) -> str:
        """Y = W x + b along the last axis of a value with ``rank`` axes; Gemm where it has two."""
        if rank == 2:
            terms = [x, self.matrix(weight, f"{hint}.weight")]
            if bias is not None:
                terms.append(self.const(bias, f"{hint}.bias"))
            return self.op("Gemm", terms, hint, transB=1)
        y = self.op("MatMul", [x, self.matrix(weight, f"{hint}.weight_t", turned=True)], hint)
        return y if bias is None else self.op("Add", [y, self.const(bias, f"{hint}.bias")], hint)

    def product(self, x: str, node: Recurrent, role: str, bias_role: str, hint: str) -> str:
        """A matrix of a layer times a state (B, width), plus a bias if the layer has it."""
        bias = node.weight(bias_role) if bias_role in node.params else None
        if not self.events or not node.cell.spiking:
            return self.linear(x, node.weight(role), bias, 2, hint)
        y = self._of_events(x, node.weight(role), hint)
        return y if bias is None else self.op("Add", [y, self.const(bias, f"{hint}.bias")], f"{hint}.biased")

    def _of_events(self, x: str, weight: NDArray[Any], hint: str) -> str:
        """W x for spikes x (B, width): of the columns of inputs that fire in any sample, where these are few."""
        turned = self.matrix(weight, f"{hint}.weight_t", turned=True)  # [width, rows]
        fired = self.op(
            "Cast",
            [self.op("ReduceSum", [x, self.ints([0], f"{hint}.batch")], f"{hint}.sum", keepdims=0)],
            f"{hint}.fired",
            to=self.onnx.TensorProto.BOOL,
        )
        at = self.op(
            "Squeeze", [self.op("NonZero", [fired], f"{hint}.places"), self.ints([0], f"{hint}.row")], f"{hint}.at"
        )
        most = self.const(max(1, int(_FEW * weight.shape[1])), f"{hint}.most", np.int64)
        few = self.op("Less", [self.op("Size", [at], f"{hint}.count"), most], f"{hint}.few")
        some, all_of = self.body(), self.body()
        parts = [
            some.op("Gather", [x, at], f"{hint}.spikes", axis=1),
            some.op("Gather", [turned, at], f"{hint}.columns", axis=0),
        ]
        branches = []
        for branch, terms in ((some, parts), (all_of, [x, turned])):
            y = branch.op("MatMul", terms, f"{hint}.product")
            branches.append(branch.graph(f"{hint}.branch", [], [branch.value_info(y, [None, len(weight)])]))
        return self.op("If", [few], hint, then_branch=branches[0], else_branch=branches[1])

    def vector(self, node: Recurrent, key: str) -> str:
        """What each unit of a layer holds."""
        return self.const(node.vectors()[key], f"{node.name}.{key}")

    def gates(self, node: Recurrent, value: str, label: str) -> list[str]:
        """The blocks of a value (B, gates * units)."""
        sizes = self.ints([node.units] * node.cell.n_gates, f"{node.name}.{label}.sizes")
        return self.ops("Split", [value, sizes], [f"{node.name}.{label}.{g}" for g in node.cell.gates], axis=-1)
