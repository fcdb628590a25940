"""Sets of up to n elements as rows of 64-bit words: element j is bit j % 64 of word j // 64.

Relations of n elements take n^2 / 8 bytes, and a union or a test for inclusion is one pass over n / 64 words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]
CHUNK = 64
"""Rows that are unpacked at once, so that no dense matrix is ever held."""


def words_for(n: int) -> int:
    """Words of a set of ``n`` elements."""
    return -(-n // 64)


def pack(flags: NDArray[Any]) -> Words:
    """Rows of flags (..., n) as words (..., ceil(n / 64))."""
    flags = np.asarray(flags)
    n = flags.shape[-1]
    octets = np.zeros((*flags.shape[:-1], 8 * words_for(n)), dtype=np.uint8)
    octets[..., : -(-n // 8)] = np.packbits(flags, axis=-1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, n: int) -> Flags:
    """Inverse of :func:`pack` for sets of ``n`` elements."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=n, bitorder="little").astype(bool)


def members(words: Words, n: int) -> NDArray[np.intp]:
    """Elements of one set, ascending."""
    return np.flatnonzero(unpack(words, n))


def transpose(words: Words, n: int) -> Words:
    """Row j of the result holds the i whose row i of ``words`` (m, ceil(n / 64)) holds j; shape (n, ceil(m / 64))."""
    m = len(words)
    out = np.zeros((n, words_for(m)), dtype=np.uint64)
    for start in range(0, m, CHUNK):
        part = unpack(words[start : start + CHUNK], n)
        out[:, start // 64] = pack(part.T)[:, 0]
    return out


def full(n: int) -> Words:
    """The set of all ``n`` elements."""
    return pack(np.ones(n, dtype=bool))


def cut(values: NDArray[Any], level: float, *, at_least: bool = False) -> Words:
    """Relation of the entries of ``values`` (m, n) above ``level``, or at ``level`` and above."""
    out = np.zeros((values.shape[0], words_for(values.shape[1])), dtype=np.uint64)
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        out[start : start + CHUNK] = pack(part >= level if at_least else part > level)
    return out


def integers(words: Words) -> list[int]:
    """Each row as a Python integer, whose single-bit operations are cheap."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False)
    return [int.from_bytes(row.tobytes(), "little") for row in octets]


def positions(number: int) -> Iterable[int]:
    """Bits that are set in a Python integer, ascending."""
    while number:
        low = number & -number
        yield low.bit_length() - 1
        number ^= low
