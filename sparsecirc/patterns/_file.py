"""Patterns by weight name: their common digest, and the mask file, readable without torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from sparsecirc._files import pack_bits, read_container, unpack_bits, write_container
from sparsecirc._pattern import Pattern
from sparsecirc.errors import FileFormatError


def combined_digest(patterns: Mapping[str, Pattern]) -> str:
    """16 hex digits over every name and pattern, in any order: equal for the same masks on every rank and rerun."""
    text = "".join(f"{name} {patterns[name].digest}\n" for name in sorted(patterns))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_patterns(path: str | os.PathLike[str], patterns: Mapping[str, Pattern]) -> None:
    """Write patterns by weight name to one file, atomically."""
    header = {n: {"shape": list(p.shape), "origin": p.origin, "digest": p.digest} for n, p in patterns.items()}
    write_container(Path(path), "masks", {"masks": header}, {n: pack_bits(p) for n, p in patterns.items()})


def load_patterns(path: str | os.PathLike[str]) -> dict[str, Pattern]:
    """Read what :func:`save_patterns` wrote.

    Raises:
        FileFormatError: missing, truncated, of another kind, newer, or a pattern does not match its digest.
    """
    header, arrays = read_container(Path(path), "masks")
    patterns: dict[str, Pattern] = {}
    try:
        for name, info in header["masks"].items():
            rows, cols = info["shape"]
            patterns[name] = unpack_bits(arrays[name], (int(rows), int(cols)), info["origin"])
            if patterns[name].digest != info["digest"]:
                raise FileFormatError(f"{path}: the mask of '{name}' does not match its digest: the file is damaged")
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path} is not a valid masks file: {error!r}") from error
    return patterns
