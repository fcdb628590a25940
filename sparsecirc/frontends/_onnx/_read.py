"""ONNX files and their tensors, read with suspicion: nothing outside the folder, nothing larger than it says."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import FileFormatError, UnsupportedError, missing_extra

Array = NDArray[Any]

FILE_LIMIT = 2**31 - 1
"""Bytes of a protobuf message; weights beyond lie in files beside it."""
ENTRY_LIMIT = 2**28
"""Entries of all constants together, those that the graph computes included: 1 GiB in float32."""
NODE_LIMIT = 20_000
"""Nodes, counted each time that a function or a branch is entered."""
DEPTH_LIMIT = 32
"""Functions and branches inside each other."""


def import_onnx() -> Any:
    """The ``onnx`` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx", "reading an ONNX file") from error
    return onnx


def read_model(path: str | os.PathLike[str]) -> Any:
    """The ModelProto of a file; tensors that lie in other files are not read yet.

    Raises:
        FileFormatError: missing, too large, truncated, or not an ONNX file.
        MissingExtraError: the package ``onnx`` is not installed.
    """
    onnx, file = import_onnx(), Path(path)
    if not file.is_file():
        raise FileFormatError(f"{path} is not a file: expected an ONNX file")
    if file.stat().st_size > FILE_LIMIT:
        raise FileFormatError(f"{path} has {file.stat().st_size:,} bytes: an ONNX file holds up to {FILE_LIMIT:,}")
    damaged = import_module("google.protobuf.message").DecodeError  # comes with onnx
    try:
        model = onnx.load_model_from_string(file.read_bytes())
    except (damaged, ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} cannot be read as ONNX: it is truncated or of another kind") from error
    if not model.graph.node:
        raise FileFormatError(f"{path} holds no ONNX graph: it is empty or of another kind")
    return model


class TooLargeError(UnsupportedError):
    """More than any network has: the file is not read in another way either."""


@dataclass
class Tensors:
    """Turns TensorProtos into arrays, within a budget.

    Attributes:
        folder: that external data must lie in.
        left: entries that may still be made.
    """

    folder: Path | None
    left: int = ENTRY_LIMIT
    onnx: Any = field(default_factory=import_onnx)

    def spend(self, entries: int, what: str) -> None:
        """Count entries of a constant.

        Raises:
            TooLargeError: the budget is exceeded.
        """
        if entries > self.left:
            raise TooLargeError(
                f"constants of the ONNX file hold more than {ENTRY_LIMIT:,} entries ('{what}' would add {entries:,}): "
                "such a file is not read"
            )
        self.left -= entries

    def array(self, tensor: Any, what: str = "") -> Array:
        """The array of a TensorProto.

        Raises:
            FileFormatError: its sizes contradict each other, or its data lies elsewhere.
            UnsupportedError: the budget is exceeded, or a type that is no number.
        """
        name = what or tensor.name or "a constant"
        dims = list(tensor.dims)
        if any(d < 0 for d in dims):
            raise FileFormatError(f"tensor '{name}' of the ONNX file has the shape {dims}")
        size = math.prod(dims)
        self.spend(size, name)
        kind = tensor.data_type
        try:
            dtype = self.onnx.helper.tensor_dtype_to_np_dtype(kind)
        except (KeyError, TypeError, ValueError) as error:
            raise UnsupportedError(f"tensor '{name}' of the ONNX file has the unknown type {kind}") from error
        if dtype.kind not in "biuf" and dtype.name not in ("bfloat16",):
            raise UnsupportedError(f"tensor '{name}' of the ONNX file holds {dtype.name}: expected numbers")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            return np.frombuffer(self._external(tensor, name, size * dtype.itemsize), dtype).reshape(dims).copy()
        if tensor.HasField("raw_data") and len(tensor.raw_data) != size * dtype.itemsize:
            raise FileFormatError(
                f"tensor '{name}' of the ONNX file has {len(tensor.raw_data):,} bytes for the shape {dims} of {dtype}"
            )
        try:
            array: Array = np.array(self.onnx.numpy_helper.to_array(tensor))
        except (ValueError, TypeError) as error:
            raise FileFormatError(f"tensor '{name}' of the ONNX file does not fill its shape {dims}") from error
        if array.shape != tuple(dims):
            raise FileFormatError(f"tensor '{name}' of the ONNX file does not fill its shape {dims}")
        return array.astype(np.float32) if dtype.name == "bfloat16" else array

    def _external(self, tensor: Any, name: str, wanted: int) -> bytes:
        """Data of a tensor in another file, which must lie in the folder of the model."""
        told = {e.key: e.value for e in tensor.external_data}
        location = told.get("location", "")
        if self.folder is None:
            raise FileFormatError(f"tensor '{name}' lies in the file '{location}', and the model came without a folder")
        home = self.folder.resolve()
        path = (home / location).resolve()
        inside = location and not Path(location).is_absolute() and home in path.parents
        if not inside:
            raise FileFormatError(f"tensor '{name}' lies in '{location}', outside the folder of the model: not read")
        if not path.is_file():
            raise FileFormatError(f"tensor '{name}' lies in '{location}', which is no file in the folder of the model")
        try:
            offset, length = int(told.get("offset") or 0), int(told.get("length") or wanted)
        except ValueError as error:
            raise FileFormatError(
                f"tensor '{name}' says where its data lies with something else than numbers"
            ) from error
        if offset < 0 or length != wanted or offset + length > path.stat().st_size:
            raise FileFormatError(
                f"tensor '{name}' needs {wanted:,} bytes: '{location}' has {path.stat().st_size:,}, it names "
                f"{length:,} from {offset:,}"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data: bytes = file.read(length)
        return data

    def sparse(self, sparse: Any) -> Array:
        """The dense array of a SparseTensorProto."""
        name, dims = sparse.values.name or "a sparse constant", list(sparse.dims)
        if any(d < 0 for d in dims):
            raise FileFormatError(f"tensor '{name}' of the ONNX file has the shape {dims}")
        size = math.prod(dims)
        self.spend(size, name)
        values, at = self.array(sparse.values, name), self.array(sparse.indices, name)
        if at.ndim == 2 and at.shape[1] == len(dims):
            inside = np.all((at >= 0) & (at < np.array(dims)), axis=1)
            at = np.ravel_multi_index(tuple(at.T), dims) if np.all(inside) else np.array([size])
        if at.shape != values.shape or np.any((at < 0) | (at >= size)):
            raise FileFormatError(f"tensor '{name}' of the ONNX file has indices outside its shape {dims}")
        out = np.zeros(size, values.dtype)
        out[at.astype(np.int64)] = values
        return out.reshape(dims)


def attributes(node: Any, tensors: Tensors, outer: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Attributes of a node as Python values and arrays; those of a function's caller come from ``outer``."""
    onnx = tensors.onnx
    found: dict[str, Any] = {}
    for a in node.attribute:
        if a.ref_attr_name:
            if outer is not None and a.ref_attr_name in outer:
                found[a.name] = outer[a.ref_attr_name]
            continue
        if a.type == onnx.AttributeProto.TENSOR:
            found[a.name] = tensors.array(a.t, node.name or node.op_type)
        elif a.type == onnx.AttributeProto.SPARSE_TENSOR:
            found[a.name] = tensors.sparse(a.sparse_tensor)
        else:
            value = onnx.helper.get_attribute_value(a)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            elif a.type == onnx.AttributeProto.STRINGS:
                value = [v.decode("utf-8", "replace") for v in value]
            elif a.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
                value = list(value)
            found[a.name] = value
    return found
