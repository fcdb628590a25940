"""How a matrix of connections is wired: modules, clustering, path lengths, wiring cost, and a drawing of it."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError

CELLS = 128
"""Cells of a drawn matrix along its longer side."""


@dataclass(frozen=True)
class Connectivity:
    """Measures of one pattern; those that it has no answer for are ``None``.

    Attributes:
        pattern: what was measured.
        modularity: see `modularity`.
        clustering: see `clustering`; square patterns only.
        path_length: see `path_length`; square patterns only.
        reached: share of ordered pairs of different units that a path joins; square patterns only.
        wiring_cost: see `wiring_cost`.
    """

    pattern: Pattern
    modularity: float | None
    clustering: float | None
    path_length: float | None
    reached: float | None
    wiring_cost: float | None

    def table(self) -> str:
        """Plain text, a line per measure."""
        facts = {"density": self.pattern.density, "modularity": self.modularity, "clustering": self.clustering,
                 "path length": self.path_length, "reached": self.reached, "wiring cost": self.wiring_cost}  # fmt: skip
        return "\n".join(f"{name:<12} {'-' if v is None else format(v, '.4f')}" for name, v in facts.items())

    def svg(self) -> str:
        """The connectivity matrix."""
        return draw(self.pattern)


def measure(
    pattern: Pattern,
    *,
    groups: tuple[ArrayLike, ArrayLike] | None = None,
    places: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Connectivity:
    """Every measure that applies.

    Args:
        pattern: connections (targets, sources).
        groups: group of each target and of each source; for a square pattern found by `communities` where not given.
        places: of each target (rows, axes) and of each source (cols, axes).
    """
    square = pattern.shape[0] == pattern.shape[1] and pattern.shape[0] > 0
    if groups is None and square and pattern.nnz:
        found = communities(pattern)
        groups = found, found
    length, reached = _paths(pattern) if square else (None, None)
    return Connectivity(
        pattern,
        None if groups is None else modularity(pattern, *groups),
        clustering(pattern) if square else None,
        length,
        reached,
        None if places is None else wiring_cost(pattern, *places),
    )


def modularity(pattern: Pattern, targets: ArrayLike, sources: ArrayLike) -> float:
    """Q = sum over groups of L_g / m - in_g out_g / m^2 (Leicht & Newman 2008; Barber 2007 for two sets of units).

    m connections in all, L_g inside group g, in_g into its targets, out_g out of its sources. 0 for what chance would
    give, below 1; 0 without connections.

    Args:
        pattern: connections.
        targets: group of each row.
        sources: group of each column.

    Raises:
        UsageError: not one group per row and per column.
    """
    to, of = (np.asarray(g, np.int64) for g in (targets, sources))
    if to.shape != (pattern.shape[0],) or of.shape != (pattern.shape[1],):
        raise UsageError(f"groups of shapes {to.shape} and {of.shape}: expected one per row and column {pattern.shape}")
    m = pattern.nnz
    if not m:
        return 0.0
    n = 1 + max(int(to.max()), int(of.max()))
    a, b = to[pattern.rows], of[pattern.indices]
    into, out = np.bincount(a, minlength=n), np.bincount(b, minlength=n)
    return float((a == b).mean() - float(into @ out) / m**2)


def communities(pattern: Pattern, seed: int = 0) -> NDArray[np.int64]:
    """Group of each unit, found by the Louvain method on the directed graph (Blondel et al. 2008; networkx).

    Raises:
        UsageError: the pattern is not square.
    """
    _square(pattern)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(pattern.shape[0]))
    graph.add_edges_from(zip(pattern.indices.tolist(), pattern.rows.tolist(), strict=True))
    out = np.zeros(pattern.shape[0], np.int64)
    for k, members in enumerate(nx.community.louvain_communities(graph, seed=seed)):
        out[list(members)] = k
    return out


def clustering(pattern: Pattern) -> float:
    """Mean over units of the share of pairs of neighbours that are neighbours (Watts & Strogatz 1998).

    Directions and connections of a unit to itself do not count.

    Raises:
        UsageError: the pattern is not square.
    """
    near = _undirected(pattern)
    degree = near.sum(1)
    pairs = degree * (degree - 1)
    closed = ((near @ near) * near).sum(1)
    return float(np.mean(np.divide(closed, pairs, out=np.zeros_like(closed), where=pairs > 0))) if len(near) else 0.0


def path_length(pattern: Pattern) -> float:
    """Mean number of connections on the shortest paths between units that a path joins; 0 where there is none.

    Raises:
        UsageError: the pattern is not square.
    """
    return _paths(pattern)[0]


def wiring_cost(pattern: Pattern, targets: NDArray[np.float64], sources: NDArray[np.float64]) -> float:
    """Mean length of a connection over the mean distance of all pairs: 1 for what chance would give.

    Args:
        pattern: connections.
        targets: places of the rows (rows, axes).
        sources: places of the columns (cols, axes).

    Raises:
        UsageError: not one place per row and column, or places of different axes.
    """
    to, of = (np.asarray(p, np.float64) for p in (targets, sources))
    if (len(to), len(of)) != pattern.shape or to.ndim != 2 or of.ndim != 2 or to.shape[1] != of.shape[1]:
        raise UsageError(
            f"places of shapes {to.shape} and {of.shape}: expected (rows, axes), (cols, axes) of {pattern.shape}"
        )
    if not pattern.nnz:
        return 0.0
    lengths = np.linalg.norm(to[pattern.rows] - of[pattern.indices], axis=1)
    every = sum(float(np.linalg.norm(of - place, axis=1).sum()) for place in to)
    return float(lengths.mean() / (every / (len(to) * len(of)))) if every else 0.0


def draw(pattern: Pattern, order: tuple[Sequence[int], Sequence[int]] | None = None) -> str:
    """The connectivity matrix as a self-contained SVG: a cell is darker the more of its connections are alive.

    Args:
        pattern: connections.
        order: of rows and of columns, e.g. group by group.
    """
    shown = pattern if order is None else pattern.permute(*order)
    rows, cols = (max(n, 1) for n in shown.shape)
    size = max(rows, cols)
    high, wide = (max(1, round(n * min(1.0, CELLS / size))) for n in (rows, cols))
    r, c = shown.rows.astype(np.int64) * high // rows, shown.indices.astype(np.int64) * wide // cols
    count = np.bincount(r * wide + c, minlength=high * wide).reshape(high, wide)
    of = np.outer(
        *(np.bincount(np.arange(n) * cells // n, minlength=cells) for n, cells in ((rows, high), (cols, wide)))
    )
    grey = (255 - np.round(count / of * 227)).astype(np.uint8)
    picture = base64.b64encode(_png(grey)).decode()
    width, height = 24 + 4 * wide, 44 + 4 * high
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{shown.nnz} connections of {rows} targets and {cols} sources">'
        '<style>text{font:12px system-ui,sans-serif;fill:#1c2430}</style><rect width="100%" height="100%" fill="#fff"/>'
        f'<image x="12" y="12" width="{4 * wide}" height="{4 * high}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{picture}"/>'
        f'<rect x="12" y="12" width="{4 * wide}" height="{4 * high}" fill="none" stroke="#8a8f98"/>'
        f'<text x="12" y="{height - 10}">{shown.origin}: {rows} x {cols}, {100 * shown.density:.3g} %'
        "</text></svg>\n"
    )


def _png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit greyscale picture."""
    high, wide = grey.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + row.tobytes() for row in grey)
    head = struct.pack(">IIBBBBB", wide, high, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def _square(pattern: Pattern) -> None:
    if pattern.shape[0] != pattern.shape[1]:
        raise UsageError(f"a pattern of shape {pattern.shape} joins two sets of units: this measure needs a square one")


def _undirected(pattern: Pattern) -> NDArray[np.float32]:
    """Neighbours (units, units), 0 or 1, without the diagonal."""
    _square(pattern)
    near = pattern.mask()
    near |= near.T
    np.fill_diagonal(near, False)
    return near.astype(np.float32)


def _paths(pattern: Pattern) -> tuple[float, float]:
    """Mean shortest path of the joined ordered pairs, and the share of these; all sources go a step at a time."""
    _square(pattern)
    n = pattern.shape[0]
    if n < 2:
        return 0.0, 0.0
    step = pattern.mask(np.float32)
    seen = np.eye(n, dtype=bool)
    front, total, pairs, length = seen.astype(np.float32), 0, 0, 0
    while front.any():
        length += 1
        new = (step @ front > 0) & ~seen
        seen |= new
        count = int(new.sum())
        total, pairs = total + length * count, pairs + count
        front = new.astype(np.float32)
    return (total / pairs if pairs else 0.0), pairs / (n * (n - 1))
