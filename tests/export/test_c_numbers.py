"""Layouts, literals and names of the C writer, without a compiler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.export.c._matrix import Layout, Packed, pack
from sparsecirc.export.c._options import Index, Weights
from sparsecirc.export.c._quantise import quantise
from sparsecirc.export.c._text import check_name, comment, float_literal, identifier, to_float32


def unpack(packed: Packed) -> np.ndarray:
    """The matrix again, read as the C loops read it."""
    rows, cols = packed.shape
    if packed.index is None:
        return packed.values.reshape(cols, rows).T if packed.by_column else packed.values.reshape(rows, cols)
    if packed.layout_kind is Layout.RUNS:
        return unpack_runs(packed)
    r, out, entry = packed.rows_per_tile, np.zeros((rows, cols), np.float32), 0
    tiles = packed.values.reshape(-1, r)
    for line, count in enumerate(packed.count):
        at = 0
        for _ in range(int(count)):
            at = at + int(packed.index[entry]) if packed.gaps else int(packed.index[entry])
            block, column = (at, line) if packed.by_column else (line, at)
            out[block * r : (block + 1) * r, column] += tiles[entry]
            entry += 1
    assert entry == len(packed.index)
    return out


def unpack_runs(packed: Packed) -> np.ndarray:
    rows, cols = packed.shape
    out = np.zeros((cols, rows) if packed.by_column else (rows, cols), packed.values.dtype)
    index, at, line = packed.index.astype(int).tolist(), 0, 0
    while index:
        height, runs, index = index[0], index[1], index[2:]
        for _ in range(height):
            for first, length in zip(index[: 2 * runs : 2], index[1 : 2 * runs : 2], strict=True):
                out[line, first : first + length] = packed.values[at : at + length]
                at += length
            line += 1
        index = index[2 * runs :]
    assert at == len(packed.values)
    assert line == len(out)
    return out.T if packed.by_column else out


@settings(max_examples=60, deadline=None)
@given(
    tiles=st.integers(1, 12),
    r=st.sampled_from([1, 4, 8, 16]),
    cols=st.sampled_from([1, 3, 17, 256, 257, 300, 700]),
    density=st.sampled_from([0.0, 0.002, 0.05, 0.3, 0.9, 1.0]),
    by_column=st.booleans(),
    index=st.sampled_from(Index),
    weights=st.sampled_from(Weights),
    seed=st.integers(0, 99),
)
def test_any_layout_holds_exactly_the_matrix(
    tiles: int, r: int, cols: int, density: float, by_column: bool, index: Index, weights: Weights, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pattern = Pattern.from_mask(np.repeat(rng.random((tiles, cols)) < density, r, axis=0))
    weight = pattern.apply(rng.standard_normal(pattern.shape).astype(np.float32))
    words = quantise(weight, weights).values
    packed = pack(words, pattern, by_column=by_column, index=index)
    assert np.array_equal(unpack(packed), words)
    if index is Index.AUTO:
        assert packed.bytes <= words.nbytes


def block_diagonal(blocks: int, side: int, gates: int = 1) -> np.ndarray:
    return np.tile(np.kron(np.eye(blocks), np.ones((side, side))), (gates, 1)) != 0


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize(
    ("mask", "groups"),
    [
        (block_diagonal(4, 8), 4),
        (block_diagonal(4, 8, gates=3), 12),
        (np.outer(np.arange(32) % 8 < 6, np.arange(40) % 10 < 8) != 0, 8),  # dead rows and columns left in
        (np.kron([[1, 1, 0], [0, 1, 1], [1, 0, 1]], np.ones((10, 12))) != 0, 3),  # modules that read some others
    ],
)
def test_structure_needs_next_to_no_index(mask: np.ndarray, groups: int, by_column: bool) -> None:
    rng = np.random.default_rng(1)
    weight = (rng.standard_normal(mask.shape) * mask).astype(np.float32)
    packed = pack(weight, Pattern.from_mask(mask), by_column=by_column)
    assert packed.layout_kind is Layout.RUNS
    assert np.array_equal(unpack(packed), weight)
    assert packed.bytes <= 4 * mask.sum() + 100
    if not by_column:
        assert packed.groups == groups


@pytest.mark.parametrize("weights", [Weights.INT8, Weights.INT16])
def test_words_are_within_half_a_step(weights: Weights) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((7, 30)).astype(np.float32) * np.float32(10.0) ** np.arange(-3, 4)[:, None]
    weight[3] = 0
    weight[4, 0], weight[5] = 1e-42, np.float32(1e-42)  # subnormal
    words = quantise(weight.astype(np.float32), weights)
    assert words.scale is not None
    assert np.abs(words.values.astype(int)).max(axis=1)[[0, 1, 2, 6]].tolist() == [weights.top] * 4
    assert np.all(np.abs(words.exact - weight) <= 0.5001 * words.scale[:, None])
    assert not words.values[3].any()


@pytest.mark.parametrize(
    ("rows", "cols", "density", "tile", "by_column", "layout"),
    [
        (32, 40, 0.95, 1, False, "dense, by rows"),
        (32, 40, 0.2, 1, False, "sparse rows, u8 columns, u8 counts"),
        (32, 40, 0.2, 1, True, "sparse columns, u8 rows, u8 counts"),
        (32, 300, 0.2, 1, False, "sparse rows, u8 column gaps, u8 counts"),
        (300, 32, 0.2, 1, True, "sparse columns, u8 row gaps, u8 counts"),
        (32, 40, 0.2, 4, False, "sparse rows, 4x1 tiles, u8 columns, u8 counts"),
        (32, 40, 0.2, 16, False, "sparse rows, 16x1 tiles, u8 columns, u8 counts"),
        (32, 40, 0.2, 4, True, "sparse columns, 4x1 tiles, u8 rows, u8 counts"),
        (4, 3000, 0.3, 1, False, "sparse rows, u8 column gaps, u16 counts"),
        (4, 60000, 0.0003, 1, False, "sparse rows, u16 columns, u8 counts"),
        (2, 70000, 0.01, 1, False, "sparse rows, u8 column gaps, u16 counts"),
        (2, 400000, 0.000008, 1, False, "sparse rows, u32 columns, u8 counts"),
    ],
)
def test_the_layout_is_the_smallest(
    rows: int, cols: int, density: float, tile: int, by_column: bool, layout: str
) -> None:
    rng = np.random.default_rng(5)
    pattern = Pattern.from_mask(np.repeat(rng.random((rows // tile, cols)) < density, tile, axis=0))
    weight = pattern.apply(rng.standard_normal(pattern.shape).astype(np.float32))
    packed = pack(weight, pattern, by_column=by_column)
    assert packed.layout == layout
    assert np.array_equal(unpack(packed), weight)


def test_a_gap_beyond_255_steps_over_zero_weights() -> None:
    weight = np.zeros((8, 1000), np.float32)
    weight[0, [0, 255, 511, 999]] = [1, 2, 3, 4]  # gaps 0, 255, 256, 488
    weight[1:, ::9] = 5
    packed = pack(weight, Pattern.from_mask(weight), by_column=False, index=Index.GAPS)
    assert packed.gaps
    assert packed.index is not None
    assert packed.count is not None
    first = slice(0, int(packed.count[0]))
    assert packed.index[first].tolist() == [0, 255, 255, 1, 255, 233]
    assert packed.values[first].tolist() == [1, 2, 0, 3, 0, 4]
    assert np.array_equal(unpack(packed), weight)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_literals_are_exact(value: float) -> None:
    text = float_literal(value)
    assert text.endswith("f")
    back = float.fromhex(text[:-1])
    assert back == value
    assert np.signbit(back) == np.signbit(value)


def test_numbers_beyond_single_precision_are_refused() -> None:
    with pytest.raises(UsageError, match=r"weight 'fc.weight' holds 1e\+39, beyond single precision: rescale it"):
        to_float32(np.array([1.0, 1e39]), "weight 'fc.weight'")


@pytest.mark.parametrize("name", ["", "9net", "my-net", "double", "class", "con", "LPT1", "_net", "nét"])
def test_names_that_c_or_windows_cannot_take_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name C functions and files"):
        check_name(name)


def test_identifiers_and_comments_are_harmless() -> None:
    assert identifier("rnn.l0.hh") == "rnn_l0_hh"
    assert identifier("0.weight") == "v0_weight"
    assert identifier("class") == "class_"
    assert identifier("é") == "value"
    assert comment("a */ b /* c\nd\\") == "a * / b / * c?d"
