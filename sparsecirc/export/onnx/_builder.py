"""`Builder`: collects ONNX nodes and constants under unique names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import missing_extra

Dim = int | str | None


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
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.onnx = import_onnx()
        self.names: set[str] = names if isinstance(names, set) else set(names)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.integers: set[str] = set()  # values of type int64; all others are float32

    def body(self) -> Builder:
        """A builder for a subgraph, sharing the names."""
        return Builder(self.names)

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

    def ints(self, value: Sequence[int], hint: str) -> str:
        """An int64 vector stored in the file: axes, shapes, indices."""
        return self.const(value, hint, np.int64)

    def op(self, kind: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """One operator with one output; returns the output's name."""
        return self.ops(kind, inputs, [hint], **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], hints: Sequence[str], **attributes: Any) -> list[str]:
        """One operator; an empty hint leaves that output out."""
        outputs = [self.name(hint) if hint else "" for hint in hints]
        label = next(o for o in outputs if o)
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
            terms = [x, self.const(weight, f"{hint}.weight")]
            if bias is not None:
                terms.append(self.const(bias, f"{hint}.bias"))
            return self.op("Gemm", terms, hint, transB=1)
        y = self.op("MatMul", [x, self.const(weight.T, f"{hint}.weight_t")], hint)
        return y if bias is None else self.op("Add", [y, self.const(bias, f"{hint}.bias")], hint)
