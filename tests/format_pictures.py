"""Pictures of every layout for docs/formats.md, drawn from what the packers really write.

``python tests/format_pictures.py`` puts them between the markers of the page; the tests say whether
they are still true. Weights are letters, so that each can be found again; ``.`` is a stored zero.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsecirc import Pattern
from sparsecirc.formats import (
    BLOCK_DIAGONAL,
    BLOCKS,
    COLUMNS,
    COLUMNS16,
    CSR,
    DENSE,
    DENSE8,
    DENSE16,
    Format,
    Packed,
    Tile,
    lookup,
    lookup8,
    lookup16,
    lookup_bf16,
    mantissa,
)
from sparsecirc.formats._plain import tiled_csr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
LETTERS = string.ascii_lowercase + string.ascii_uppercase

SCATTERED = """
a . . b . . . . . . . .
. c . . . . . . . d . .
e . . f . . . . . . . .
. . . g . . h . . . . i
"""
GROUPS = """
a . b . . .
. c . d . .
. . . . i j
e . f . . .
. g . h . .
. . . . k l
"""


@dataclass(frozen=True)
class Picture:
    """One format: an example and how to read its arrays."""

    form: Format
    example: str
    rows: Callable[[Packed], Iterator[str]]


def parse(example: str) -> tuple[Pattern, np.ndarray]:
    """Pattern and weights of a drawing: a letter is its place in the alphabet."""
    cells = [line.split() for line in example.strip().splitlines()]
    weight = np.array([[0 if c == "." else LETTERS.index(c) + 1 for c in row] for row in cells], np.float32)
    return Pattern.from_mask(weight), weight


def blocks(height: int, width: int) -> str:
    """Two strips of blocks; the columns of a block have a letter each."""
    rows = []
    for strip, places in enumerate(((0, 2), (1,))):
        row = ["."] * (3 * width)
        for k, place in enumerate(places):
            first = (2 * strip + k) * width
            row[place * width : (place + 1) * width] = list(LETTERS[first : first + width])
        rows += [" ".join(row)] * height
    return "\n".join(rows)


def names(values: np.ndarray, scale: np.ndarray | float = 1.0) -> np.ndarray:
    """Letters of stored numbers; rounded weights are still nearest to theirs."""
    place = np.rint(values.astype(np.float64) * scale).astype(int)
    return np.array([LETTERS[p - 1] if p > 0 else "." for p in place.ravel()], dtype="<U1").reshape(place.shape)


def lanes(values: np.ndarray, used: int) -> str:
    """The first lanes of a vector; the rest belongs to rows that the example does not have."""
    shown = " ".join("".join(np.atleast_1d(v)) for v in values[:used])
    return shown + (" ..." if used < len(values) else "")


def dense(p: Packed) -> Iterator[str]:
    for column, vector in enumerate(names(p.values).reshape(-1, 16)):
        yield f"column {column:2}: {lanes(vector, p.shape[0])}"


def csr(p: Packed) -> Iterator[str]:
    values = names(p.values)
    for r, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
        yield f"row {r}: {' '.join(values[a:b]):6} columns {' '.join(map(str, p.index32[a:b]))}"


def in_blocks(height: int, width: int) -> Callable[[Packed], Iterator[str]]:
    def rows(p: Packed) -> Iterator[str]:
        values = names(p.values).reshape(-1, width, height)
        for strip, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
            for k in range(a, b):
                held = "  ".join("".join(column) for column in values[k])
                yield f"strip {strip}, block at column {p.index32[k]}: {held}"

    return rows


def block_diagonal(p: Packed) -> Iterator[str]:
    values = names(p.values).reshape(-1, 16)
    order = np.arange(p.shape[0]) if p.order is None else p.order
    for strip, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
        mine = order[p.base[strip] : p.base[strip + 1]]
        held = ", ".join(f"column {p.index32[k]}: {lanes(values[k], len(mine))}" for k in range(a, b))
        yield f"rows {' '.join(map(str, mine))}: {held}"


def by_column(p: Packed) -> Iterator[str]:
    values, index = names(p.values), p.index16 if p.index16 is not None else p.index32
    for c, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
        if a < b:
            yield f"column {c:2}: {' '.join(values[a:b]):6} rows {' '.join(map(str, index[a:b]))}"


def columns16(p: Packed) -> Iterator[str]:
    values = names(p.values).reshape(-1, 16)
    for c, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
        for k in range(a, b):
            yield f"column {c}: strip {p.index32[k]}: {''.join(values[k])}"


def tiles(p: Packed) -> Iterator[str]:
    height, width = p.tile
    across, values = -(-p.shape[1] // width), names(p.values)
    for k, (a, b) in enumerate(zip(p.ptr[:-1], p.ptr[1:], strict=True)):
        if a < b:
            row, tile = k // (across * height) * height + k % height, k // height % across
            held = f"{' '.join(values[a:b]):4} at {' '.join(map(str, p.index16[a:b]))}"
            yield f"columns {tile * width} to {tile * width + width - 1}, row {row}: {held}"


def windows(p: Packed) -> Iterator[str]:
    (height, width), depth = p.tile, p.depth
    strips = np.repeat(np.arange(len(p.ptr) - 1), np.diff(p.ptr))
    scale = np.ones(height)
    if p.scale is not None:
        scale[: p.shape[0]] = p.scale
    shape = (-1, depth, height)
    if p.format == "lookup_bf16":
        halves = (p.words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        values = halves.reshape(-1, depth // 2, height, 2).transpose(0, 1, 3, 2).reshape(*shape, 1)
    else:
        stored = p.words if p.words is not None else p.words8 if p.words8 is not None else p.values
        values = stored.reshape(*shape, stored.size // (len(p.base) * depth * height))
    letters = names(values, scale[:, None])
    if p.format == "lookup8":
        column = p.index8.reshape(*shape, 4)
    elif p.index8 is not None:
        column = p.index8.reshape(-1, height, depth).transpose(0, 2, 1)[..., None]
    else:
        bits = values.astype(np.int64) if p.words is not None else values.view(np.uint32).astype(np.int64)
        column = bits & (width - 1)
    for g, strip in enumerate(strips):
        for k in range(depth):
            chosen = [
                ["." if v == "." else str(c) for c, v in zip(cs, vs, strict=True)]
                for cs, vs in zip(column[g, k], letters[g, k], strict=True)
            ]
            held, picked = lanes(letters[g, k], p.shape[0]), " ".join("".join(row) for row in chosen[: p.shape[0]])
            where = f"strip {strip}, window at {int(p.base[g]) * p.step}" if k == 0 else ""
            yield f"{where:22} weights {held}   columns in it {picked}"


def grouped(per: int) -> Callable[[Packed], Iterator[str]]:
    def rows(p: Packed) -> Iterator[str]:
        stored = p.words if p.words is not None else p.words8
        scale = np.zeros(16)
        scale[: p.shape[0]] = p.scale
        for g, vector in enumerate(names(stored.reshape(-1, 16, per), scale[:, None])):
            yield f"columns {g * per} to {g * per + per - 1}: {lanes(vector, p.shape[0])}"

    return rows


SMALL = Tile(4, 8, 1, 1)
PICTURES = {
    "dense": Picture(DENSE, SCATTERED, dense),
    "csr": Picture(CSR, SCATTERED, csr),
    **{
        name: Picture(form, blocks(h, w), in_blocks(h, w))
        for (name, form), (h, w) in zip(BLOCKS.items(), ((16, 1), (8, 1), (8, 4), (4, 4)), strict=True)
    },
    "block_diagonal": Picture(BLOCK_DIAGONAL, GROUPS, block_diagonal),
    "lookup": Picture(lookup(SMALL), SCATTERED, windows),
    "mantissa": Picture(mantissa(SMALL), SCATTERED, windows),
    "lookup_bf16": Picture(lookup_bf16(SMALL._replace(depth=2)), SCATTERED, windows),
    "columns": Picture(COLUMNS, SCATTERED, by_column),
    "columns16": Picture(COLUMNS16, blocks(16, 1), columns16),
    "tiled_csr": Picture(tiled_csr(4, 8), SCATTERED, tiles),
    "lookup16": Picture(lookup16(Tile(16, 8, 1, 1)), SCATTERED, windows),
    "lookup8": Picture(lookup8(SMALL), SCATTERED, windows),
    "dense16": Picture(DENSE16, SCATTERED, grouped(2)),
    "dense8": Picture(DENSE8, SCATTERED, grouped(4)),
}


def draw(name: str) -> str:
    """What ``name`` stores of its example."""
    picture = PICTURES[name]
    return "\n".join(line.rstrip() for line in picture.rows(picture.form.pack(*parse(picture.example))))


def page(text: str) -> str:
    """docs/formats.md with every picture as it is now."""

    def fill(found: re.Match[str]) -> str:
        name = found["name"]
        lines = PICTURES[name].example.strip().splitlines() if found["kind"] == "matrix" else draw(name).splitlines()
        body = "\n".join(f"    {line}" for line in lines)
        return f"<!-- {found['kind']} {name} -->\n\n{body}\n\n<!-- end -->"

    return re.sub(r"<!-- (?P<kind>matrix|layout) (?P<name>\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
