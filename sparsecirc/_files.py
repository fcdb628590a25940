"""Files: atomic writes and the versioned safetensors container that graphs, masks and programs share.

A container holds named arrays and a JSON header under the safetensors metadata key ``sparsecirc``; ``docs/files.md``
documents the headers. A pattern is stored as a bit mask (uint8, 8 connections a byte, row-major, little end first).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as encode

from sparsecirc._pattern import Pattern
from sparsecirc.errors import FileFormatError

FORMAT_VERSION = 1


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, then rename: nothing half-written is ever left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_container(path: Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """One versioned safetensors file with a JSON header."""
    from sparsecirc import __version__

    full = {"kind": kind, "format": FORMAT_VERSION, "version": __version__, **header}
    tensors = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    write_atomic(path, encode(tensors, metadata={"sparsecirc": json.dumps(full)}))


def read_container(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Header and arrays of a file written by :func:`write_container`.

    Raises:
        FileFormatError: missing, truncated, not ours, another kind, or newer than this version reads.
    """
    if not path.is_file():
        raise FileFormatError(f"{path} is not a file: expected a sparsecirc {kind} file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            meta = file.metadata() or {}
            arrays = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        header = json.loads(meta["sparsecirc"]) if "sparsecirc" in meta else None
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(
            f"{path} cannot be read as safetensors ({error}): it is truncated or of another kind"
        ) from error
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is a safetensors file, but sparsecirc did not write it: expected a {kind} file")
    if header.get("kind") != kind:
        raise FileFormatError(f"{path} is a sparsecirc {header.get('kind')} file: expected a {kind} file")
    if header.get("format", 0) > FORMAT_VERSION:
        raise FileFormatError(
            f"{path} has format {header['format']} (written by sparsecirc {header.get('version')}), this version reads "
            f"up to {FORMAT_VERSION}: upgrade sparsecirc"
        )
    return header, arrays


def pack_bits(pattern: Pattern) -> NDArray[np.uint8]:
    """Live connections as a bit mask."""
    return np.packbits(pattern.mask().ravel(), bitorder="little")


def unpack_bits(bits: NDArray[np.uint8], shape: tuple[int, int], origin: str) -> Pattern:
    """Inverse of :func:`pack_bits`.

    Raises:
        FileFormatError: too few bits for ``shape``.
    """
    size = shape[0] * shape[1]
    if bits.size != (size + 7) // 8:
        raise FileFormatError(f"a pattern of shape {shape} needs {(size + 7) // 8} bytes, the file holds {bits.size}")
    mask = np.unpackbits(bits, count=size, bitorder="little").reshape(shape)
    return Pattern.from_mask(mask, origin)
