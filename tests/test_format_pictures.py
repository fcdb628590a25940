"""docs/formats.md shows what the packers write, and its formulas count every byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from format_pictures import PAGE, PICTURES, draw, page

from sparsecirc import Pattern
from sparsecirc._target import Isa
from sparsecirc.formats import BLOCK_SHAPES, Packed, every_format
from sparsecirc.testing import random_pattern


def test_the_page_shows_every_layout_as_it_is() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run python tests/format_pictures.py"
    for name in every_format(Isa.SCALAR):
        assert f"<!-- layout {name} -->" in text, name
        assert f"`{name}`" in text, name


def test_a_picture_changes_with_what_is_packed() -> None:
    picture = PICTURES["csr"]
    assert draw("csr").splitlines()[0] == "row 0: a b    columns 0 3"
    pattern = Pattern.from_mask(np.eye(3, dtype=bool))
    packed = picture.form.pack(pattern, np.diag(np.arange(1, 4)).astype(np.float32))
    assert [line.split() for line in picture.rows(packed)][2] == ["row", "2:", "c", "columns", "2"]


def windows(a_slot: float) -> Callable[[Packed], float]:
    """Bytes of windows: ``a_slot`` for each stored weight, two for where a window begins, four for a strip."""

    def count(p: Packed) -> float:
        return p.padding * p.nnz * a_slot + 2 * len(p.base) + 4 * len(p.ptr)

    return count


def blocks(p: Packed) -> float:
    height, width = BLOCK_SHAPES[p.format]
    return p.values.size * (4 + 4 / (height * width)) + 4 * len(p.ptr)


BYTES: dict[str, Callable[[Packed], float]] = {
    "dense": lambda p: 4 * 96 * 80,
    "csr": lambda p: 8 * p.nnz + 4 * 97,
    "columns": lambda p: 6 * p.nnz + 4 * 81,
    "columns16": lambda p: p.values.size * (4 + 4 / 16) + 4 * 81,
    "tiled_csr": lambda p: 6 * p.nnz + 4 * (128 + 1),
    "lookup": windows(5),
    "mantissa": windows(4),
    "lookup_bf16": windows(3),
    "lookup16": lambda p: windows(2)(p) + 4 * 96,
    "lookup8": lambda p: p.index8.size * 2 + 2 * len(p.base) + 4 * len(p.ptr) + 8 * 96,
    "dense16": lambda p: 2 * 96 * 80 + 4 * 96,
    "dense8": lambda p: 96 * 80 + 8 * 96,
    "block_diagonal": lambda p: p.values.size * (4 + 4 / 16) + 6 * len(p.ptr) + (0 if p.order is None else 4 * 96),
    **dict.fromkeys(BLOCK_SHAPES, blocks),
}


@pytest.mark.parametrize("form", every_format(Isa.SCALAR))
def test_the_formulas_count_every_byte(form: str) -> None:
    pattern = random_pattern(96, 80, 0.2, 4)
    packed = every_format(Isa.SCALAR)[form].pack(pattern, np.ones((96, 80), np.float32))
    assert packed.nbytes == pytest.approx(BYTES[form](packed))
