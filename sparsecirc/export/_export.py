"""`Export`: what an exporter wrote, with its sizes and everything the user should know about it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsecirc._files import write_atomic
from sparsecirc.ir import Graph


@dataclass(frozen=True)
class Export:
    """Files written by one export.

    Attributes:
        format: ``"onnx"``, ``"nir"`` or ``"c"``.
        paths: the files, the main one first.
        bytes: size of the main content (for ONNX and NIR the first file, for C the code and the constants).
        bytes_dense: size of the same export with every connection stored; equal to ``bytes`` where zeros are stored.
        bytes_gzip: ``bytes`` after gzip, which is where stored zeros vanish.
        form: the variant that was chosen, e.g. ``"op"`` or ``"scan"`` for ONNX.
        notes: what the user should know: approximations, what was left out, what runs slower than it looks.
    """

    format: str
    paths: tuple[Path, ...]
    bytes: int
    bytes_dense: int
    bytes_gzip: int
    form: str
    notes: tuple[str, ...] = ()

    def table(self) -> str:
        """Files, sizes and notes as text, one a line."""
        lines = [f"{self.format} ({self.form})", *(f"  {path}" for path in self.paths)]
        sizes = {"bytes": self.bytes, "dense": self.bytes_dense, "gzip": self.bytes_gzip}
        lines += [f"  {name:<6} {value:>12,}" for name, value in sizes.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values; paths with forward slashes."""
        return {**asdict(self), "paths": [path.as_posix() for path in self.paths], "notes": list(self.notes)}

    def __str__(self) -> str:
        return self.table()


def gzip_bytes(*contents: bytes) -> int:
    """Size of ``contents`` one after the other, after gzip at level 9; the same at any hour (no time stamp inside)."""
    return len(gzip.compress(b"".join(contents), compresslevel=9, mtime=0))


def gzip_size(*paths: Path) -> int:
    """:func:`gzip_bytes` of files."""
    return gzip_bytes(*(path.read_bytes() for path in paths))


def write_files(files: Mapping[Path, bytes]) -> tuple[Path, ...]:
    """Write every file atomically, after all contents are known, so that a failed export leaves nothing behind."""
    for path, data in files.items():
        write_atomic(path, data)
    return tuple(files)


def as_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """``path`` with ``suffix`` appended where it has none, e.g. ``net`` to ``net.onnx``."""
    result = Path(path)
    return result if result.suffix else result.with_name(result.name + suffix)


def density_note(graph: Graph) -> str:
    """Live over all connections in words, for the notes of an export."""
    views = list(graph.weights())
    live, size = sum(v.pattern.nnz for v in views), sum(v.value.size for v in views)
    return f"{live:,} of {size:,} connections are alive ({graph.density:.1%})"
