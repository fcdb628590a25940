"""What a NIR file of ours carries beside the numbers that NIR defines: one JSON string under one key, per node.

It names the layer, its reset, its exact decay and threshold, and the live connections; a reader may use it to restore
what float32 rounded, and must check it against the arrays first. Integer arrays are stored as base64 of zlib of the
int32 differences of neighbours (little end first), because HDF5 does not compress strings.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError

KEY = "sparsecirc"


def pack(info: Mapping[str, Any]) -> dict[str, str]:
    """The ``metadata`` of a NIR node."""
    return {KEY: json.dumps(info, sort_keys=True)}


def unpack(node: Any) -> dict[str, Any]:
    """What :func:`pack` put there; empty where there is nothing readable."""
    raw = getattr(node, "metadata", None)
    text = raw.get(KEY) if isinstance(raw, Mapping) else None
    if isinstance(text, bytes):
        text = text.decode("utf8", errors="replace")
    if not isinstance(text, str):
        return {}
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return info if isinstance(info, dict) else {}


def encode_ints(values: NDArray[Any]) -> str:
    """Integers as text; see the module."""
    steps = np.diff(values.astype(np.int64), prepend=0).astype("<i4")
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")


def decode_ints(text: str) -> NDArray[np.int64]:
    """Inverse of :func:`encode_ints`.

    Raises:
        ValueError: the text is damaged.
    """
    try:
        return np.cumsum(np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), "<i4"), dtype=np.int64)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"not a packed integer array: {error}") from error


def pattern_info(pattern: Pattern) -> dict[str, Any]:
    """A pattern as JSON-able values."""
    return {
        "shape": list(pattern.shape),
        "indptr": encode_ints(pattern.indptr),
        "indices": encode_ints(pattern.indices),
        "origin": pattern.origin,
    }


def read_pattern(info: Any, weight: NDArray[Any]) -> Pattern | None:
    """Live connections of a weight read from a file: what the metadata says if the weight agrees, else its non-zeros.

    ``None`` where every entry is alive.
    """
    found = Pattern.from_mask(weight != 0, "zeros of the file")
    try:
        rows, cols = (int(n) for n in info["shape"])
        said = Pattern(
            (rows, cols),
            decode_ints(info["indptr"]).astype(np.int32),
            decode_ints(info["indices"]).astype(np.int32),
            str(info["origin"]),
        )
        if said.shape == found.shape and said.intersect(found) == found:
            return said
    except (KeyError, TypeError, ValueError, UsageError):
        pass  # metadata of another hand or another version: the zeros speak for themselves
    return found if found.nnz < weight.size else None


def vector_info(values: NDArray[Any]) -> dict[str, Any]:
    """A per-unit parameter, exactly; a single number where it is uniform."""
    flat = values.reshape(-1)
    uniform = flat.size > 0 and bool(np.all(flat == flat[0]))
    return {
        "dtype": str(values.dtype),
        "values": float(flat[0]) if uniform else [float(v) for v in flat],
    }


def read_vector(info: Any, found: NDArray[np.float64]) -> NDArray[Any]:
    """The exact per-unit parameter if it agrees with what the file's arrays give (``found``), else ``found``."""
    try:
        said = np.broadcast_to(np.asarray(info["values"], dtype=info["dtype"]).reshape(-1), (found.size,))
        said = said.reshape(found.shape).copy()
        if said.dtype.kind == "f" and np.allclose(said, found, rtol=1e-6, atol=1e-7):
            return said
    except (KeyError, TypeError, ValueError):
        pass  # as above
    return found
