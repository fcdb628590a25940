"""NIR files from anywhere: what HDF5 allows and NIR does not need is refused before anything of it is followed or read.

HDF5 can point at other files (external links, external storage, virtual datasets), at itself (soft links, object
references, two names for one group), and can claim more elements than the file holds. A NIR file has none of these.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparsecirc.errors import FileFormatError, missing_extra

DEPTH = 64
"""Levels of groups; a graph inside a graph takes three."""
FREE_BYTES = 2**28
"""Arrays that take no more than this in memory may be packed however well."""
RATIO = 200
"""Beyond, bytes in memory per byte of the file: 99 % zeros reach about 60."""
HEAP = b"GCOL\1\0\0\0"
"""Begin of a heap of text, which is where HDF5 keeps strings."""
LARGEST_INPUT = 2**31
ERRORS = (
    OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError, IndexError, OverflowError,
    MemoryError,
)  # fmt: skip
"""What h5py and the package ``nir`` raise at files that are no NIR files."""


def read_nir(path: str | os.PathLike[str]) -> Any:
    """The ``nir.NIRGraph`` of a file.

    Raises:
        FileFormatError: missing, truncated, not a NIR file, or one that points outside itself or claims more than it
            holds.
        MissingExtraError: the package ``nir`` is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise missing_extra("nir", "nir", "reading NIR files") from error
    if not Path(path).is_file():
        raise FileFormatError(f"{path} is not a file: expected a NIR file")
    try:
        _inspect(Path(path))
        graph = nir.read(os.fspath(path), type_check=False)  # raises TypeError for anything but a NIRGraph
        if not isinstance(graph, nir.NIRGraph):
            raise TypeError(f"it holds a {type(graph).__name__}, not a graph")
    except FileFormatError:
        raise
    except ERRORS as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileFormatError(f"{path} cannot be read as NIR ({said}): it is truncated or of another kind") from error
    return graph


def check_size(where: str, shape: tuple[int, ...]) -> None:
    """Refuse what no machine holds.

    Raises:
        FileFormatError: too many values in one step.
    """
    if math.prod(shape) > LARGEST_INPUT:
        raise FileFormatError(f"NIR node '{where}' has the shape {list(shape)}: more values than any network takes")


def _inspect(path: Path) -> None:
    """Walk over every object of the file without reading an array."""
    import h5py

    allowed, total, seen = max(FREE_BYTES, RATIO * path.stat().st_size), 0, set()
    with h5py.File(path, "r") as file:
        _check_heaps(path)  # after HDF5 has seen that the file is whole
        stack: list[tuple[Any, int]] = [(file["/"], 0)]
        while stack:
            item, depth = stack.pop()
            if isinstance(item, h5py.Dataset):
                total += _bytes(path, item)
                if total > allowed:
                    raise FileFormatError(
                        f"{path}: '{item.name}' has the shape {item.shape}: with it the arrays claim {total:,} bytes "
                        f"in a file of {path.stat().st_size:,}, which no network does"
                    )
                continue
            if not isinstance(item, h5py.Group):
                raise FileFormatError(f"{path}: '{item.name}' is neither a group nor an array: not a NIR file")
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise FileFormatError(f"{path}: the group '{item.name}' has two names: a NIR file is a tree")
            seen.add(address)
            if depth > DEPTH:
                raise FileFormatError(f"{path} nests more than {DEPTH} groups: flatten the graph first")
            for name in item:
                link = item.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    where = f" at '{link.filename}'" if isinstance(link, h5py.ExternalLink) else ""
                    raise FileFormatError(
                        f"{path}: '{item.name.rstrip('/')}/{name}' is a link{where}: a NIR file holds its arrays itself"
                    )
                stack.append((item[name], depth + 1))


def _check_heaps(path: Path) -> None:
    """Refuse heaps of text whose sizes do not add up, at which the HDF5 library never ends."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(HEAP)
        while start >= 0:
            end = start + int.from_bytes(data[start + 8 : start + 16], "little")
            place = start + 16
            while place + 16 <= end <= len(data):
                free = data[place : place + 2] == b"\0\0"  # what is left of the heap, its head counted
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                step = size if free else 16 + -(-size // 8) * 8
                if step < 16:
                    break
                place += step
            if not end - 16 < place <= end <= len(data):
                raise FileFormatError(f"{path} has a heap of text at byte {start} whose sizes do not add up: damaged")
            start = data.find(HEAP, start + 8)


def _bytes(path: Path, item: Any) -> int:
    """Bytes in memory of an array that the file holds itself, of numbers or text."""
    import h5py

    if item.is_virtual or item.external:
        raise FileFormatError(f"{path}: the values of '{item.name}' are in another file: a NIR file holds its own")
    text = h5py.check_string_dtype(item.dtype) is not None
    if not text and item.dtype.kind not in "biufS":
        raise FileFormatError(f"{path}: '{item.name}' holds values of type {item.dtype}: expected numbers or text")
    if item.shape is None:
        raise FileFormatError(f"{path}: '{item.name}' has no values")
    chunks = [-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True)] if item.chunks else []
    size: int = math.prod(item.shape) * item.dtype.itemsize
    held = path.stat().st_size
    if size > held if not chunks else math.prod(chunks) > max(1000, held // 8):
        raise FileFormatError(
            f"{path}: '{item.name}' has the shape {item.shape}, more than a file of {held:,} bytes holds"
        )
    return size


def check_values(graph: Any, path: str = "") -> None:
    """Refuse nodes whose numbers are none: text, NaN, infinity, time constants that are not positive, absurd shapes.

    Raises:
        FileFormatError: such a value; names the node.
    """
    nodes, edges = getattr(graph, "nodes", None), getattr(graph, "edges", None)
    if not isinstance(nodes, Mapping) or not isinstance(edges, list | tuple | set):
        raise FileFormatError(f"the NIR graph '{path or '.'}' has no nodes or no list of edges: it is not a NIR graph")
    for edge in edges:
        if len(edge) != 2 or not all(isinstance(name, str) for name in edge):
            raise FileFormatError(f"the NIR graph has the edge {edge!r}: expected the names of two nodes")
    for name, node in nodes.items():
        where = f"{path}{name}"
        kind = type(node).__name__
        if kind == "NIRGraph":
            check_values(node, f"{where}/")
            continue
        for key, value in vars(node).items():
            if key not in ("input_type", "output_type", "metadata", "padding", "name"):
                _check_number(where, kind, key, value)
        if kind in ("Input", "Output"):
            _check_shape(where, (node.input_type or {}).get("input", (node.output_type or {}).get("output")))


def _check_number(where: str, kind: str, key: str, value: Any) -> None:
    if value is None or callable(value):
        return
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise FileFormatError(f"NIR node '{where}' ({kind}) has {key} of type {array.dtype}: expected numbers")
    if not np.isfinite(array).all():
        raise FileFormatError(f"NIR node '{where}' ({kind}) has a {key} that is NaN or infinite: expected numbers")
    positive = key.startswith("tau") or key in ("stride", "dilation", "groups", "kernel_size")
    if positive and not (array > 0).all():
        raise FileFormatError(f"NIR node '{where}' ({kind}) has a {key} of {array.min():g}: expected more than 0")


def _check_shape(where: str, shape: Any) -> None:
    sizes = np.ravel(np.asarray(shape if shape is not None else []))
    if sizes.dtype.kind not in "iuf" or not np.isfinite(sizes).all() or (sizes < 0).any():
        raise FileFormatError(f"NIR node '{where}' has the shape {shape}: expected whole numbers")
    check_size(where, tuple(int(n) for n in sizes))
