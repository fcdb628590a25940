"""Packing is undone by unpacking, for every format, instruction set and pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from native_support import FORMATS, ISAS

from sparsecirc import Pattern
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats import (
    BLOCK_DIAGONAL,
    BLOCK_SHAPES,
    BLOCKS,
    DENSE,
    Format,
    Packed,
    Tile,
    block_diagonal_padding,
    every_format,
    formats_for,
    lookup,
    lookup_bf16,
    lookup_bf16_for,
    mantissa,
)
from sparsecirc.formats._diagonal import row_groups
from sparsecirc.testing import TOLERANCE, random_pattern

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**120), max_value=2.0**120)
NORMAL = FINITE.filter(lambda v: v == 0 or abs(v) >= 2.0**-100)


@st.composite
def weights(draw: st.DrawFn, elements: st.SearchStrategy[float] = FINITE) -> tuple[Pattern, np.ndarray]:
    rows, cols = draw(st.integers(0, 40)), draw(st.integers(0, 140))
    pattern = random_pattern(rows, cols, draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0])), draw(st.integers(0, 99)))
    return pattern, draw(hnp.arrays(np.float32, (rows, cols), elements=elements, fill=st.just(np.float32(0.75))))


def packs(form: Format, pattern: Pattern, weight: np.ndarray) -> Packed | None:
    try:
        return form.pack(pattern, weight)
    except UnsupportedError:
        rows, cols = weight.shape
        assert rows % 16 if form.name == "columns16" else cols % BLOCK_SHAPES[form.name][1]
        return None


def same(a: Packed, b: Packed) -> bool:
    names = ("values", "words", "ptr", "index32", "index16", "index8", "base")
    pairs = [(getattr(a, n), getattr(b, n)) for n in names]
    equal = all((x is None) == (y is None) and (x is None or np.array_equal(x, y)) for x, y in pairs)
    return equal and (a.format, a.shape, a.nnz, a.tile, a.depth) == (b.format, b.shape, b.nnz, b.tile, b.depth)


@pytest.mark.parametrize("isa", Isa, ids=lambda i: i.value)
@pytest.mark.parametrize("form", [*(f for f in FORMATS if f != "mantissa"), "tiled_csr"])
@settings(max_examples=40)
@given(data=weights())
def test_unpack_undoes_pack(isa: Isa, form: str, data: tuple[Pattern, np.ndarray]) -> None:
    pattern, weight = data
    chosen = every_format(isa)[form]
    packed = packs(chosen, pattern, weight)
    if packed is None:
        return
    assert chosen.exact
    got = chosen.unpack(packed)
    assert got.dtype == np.float32
    assert got.shape == weight.shape
    assert np.array_equal(got, pattern.apply(weight))
    assert packed.nnz == pattern.nnz
    assert packed.matrix.format == form  # the native check accepts it


@pytest.mark.parametrize("isa", Isa, ids=lambda i: i.value)
@settings(max_examples=40)
@given(data=weights(NORMAL))
def test_mantissa_rounds_within_its_bound_and_only_once(isa: Isa, data: tuple[Pattern, np.ndarray]) -> None:
    pattern, weight = data
    form = formats_for(isa)["mantissa"]
    packed = form.pack(pattern, weight)
    assert not form.exact
    got = form.unpack(packed).astype(np.float64)
    exact = pattern.apply(weight).astype(np.float64)
    live = exact != 0
    assert np.all(np.abs(got - exact)[live] <= TOLERANCE.mantissa * np.abs(exact)[live])
    assert np.all(np.abs(got[~live]) < 1e-40)  # a live zero turns into a denormal number that holds its column
    again = form.pack(pattern, form.unpack(packed))
    assert same(packed, again)


TILES = [(8, 16, 8, 1), (16, 32, 16, 1), (3, 2, 1, 1), (1, 64, 64, 3), (16, 64, 16, 2), (16, 64, 16, 4), (5, 8, 2, 6)]


@settings(max_examples=40)
@given(data=weights(), tile=st.sampled_from(TILES))
def test_windows_begin_where_a_row_still_waits(
    data: tuple[Pattern, np.ndarray], tile: tuple[int, int, int, int]
) -> None:
    pattern, weight = data
    form = lookup(Tile(*tile))
    packed = form.pack(pattern, weight)
    assert np.array_equal(form.unpack(packed), pattern.apply(weight))
    assert packed.matrix.format == "lookup"
    height, width, step, depth = tile
    bases = []
    for r in range(0, weight.shape[0], height):
        waiting = [np.flatnonzero(row).tolist() for row in pattern.mask()[r : r + height]]
        while any(waiting):
            first = min(row[0] for row in waiting if row) // step * step
            first = min(first, -(-weight.shape[1] // 64) * 64 - width)
            bases.append(first // step)
            waiting = [row[sum(c < first + width for c in row[:depth]) :] for row in waiting]
    assert packed.base.tolist() == bases


def test_the_packer_takes_the_cheapest_windows() -> None:
    weight = np.ones((64, 512), np.float32)
    form = lookup(Tile(16, 64, 16, 2), Tile(16, 64, 16, 4))
    assert form.pack(random_pattern(64, 512, 0.02, 0), weight).depth == 2
    assert form.pack(random_pattern(64, 512, 0.3, 0), weight).depth == 4


@settings(max_examples=40)
@given(data=weights(), tile=st.sampled_from([t for t in TILES if t[3] % 2 == 0]))
def test_bfloat16_rounds_to_nearest_and_only_once(
    data: tuple[Pattern, np.ndarray], tile: tuple[int, int, int, int]
) -> None:
    torch = pytest.importorskip("torch")
    # Zeros are padding, whose sign is lost: so is that of what rounds to zero, below half of the smallest bfloat16.
    pattern, weight = data[0], np.where(np.abs(data[1]) < 2.0**-133, np.float32(0), data[1])
    form = lookup_bf16(Tile(*tile))
    packed = form.pack(pattern, weight)
    got = form.unpack(packed)
    want = torch.from_numpy(pattern.apply(weight)).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(got, want)
    assert packed.matrix.format == "lookup_bf16"
    assert same(packed, form.pack(pattern, got))


def test_bfloat16_keeps_what_is_not_finite() -> None:
    weight = np.array([[np.nan, np.inf, -np.inf, 3e38]], np.float32)
    form = lookup_bf16_for(Isa.SCALAR)
    got = form.unpack(form.pack(Pattern.full(1, 4), weight))[0]
    assert np.isnan(got[0])
    assert got[1] == np.inf
    assert got[2] == -np.inf
    assert abs(got[3] / 3e38 - 1) < 2.0**-8


def test_windows_are_refused_beyond_their_reach() -> None:
    wide = 65536 + 64
    with pytest.raises(UnsupportedError, match=f"windows of step 1 reach up to column 65537, got {wide} columns"):
        lookup(Tile(1, 2, 1)).pack(Pattern.empty(1, wide), np.zeros((1, wide), np.float32))


def test_mantissa_hides_each_column_in_its_weight() -> None:
    pattern = random_pattern(16, 64, 0.5, 3)
    weight = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)
    packed = mantissa(Tile(16, 64, 16, 2)).pack(pattern, weight)
    live = packed.values[packed.values != 0].view(np.uint32) & 63
    assert sorted(live.tolist()) == sorted(pattern.indices.tolist())


def test_blocks_store_whole_blocks() -> None:
    mask = np.zeros((32, 8), bool)
    mask[0:16, 3] = True
    mask[20, 5] = True
    packed = BLOCKS["block16x1"].pack(Pattern.from_mask(mask), np.ones((32, 8), np.float32))
    assert packed.ptr.tolist() == [0, 1, 2]
    assert packed.index32.tolist() == [3, 5]
    assert packed.padding == pytest.approx(32 / 17)
    four = BLOCKS["block4x4"].pack(Pattern.from_mask(mask), np.ones((32, 8), np.float32))
    assert four.index32.tolist() == [0, 0, 0, 0, 4]
    tall = BLOCKS["block8x4"].pack(Pattern.from_mask(mask), np.ones((32, 8), np.float32))
    assert tall.ptr.tolist() == [0, 1, 2, 3, 3]
    assert tall.index32.tolist() == [0, 0, 4]
    thin = BLOCKS["block8x1"].pack(Pattern.from_mask(mask), np.ones((32, 8), np.float32))
    assert thin.index32.tolist() == [3, 3, 5]


def test_blocks_refuse_columns_they_do_not_divide() -> None:
    with pytest.raises(UnsupportedError, match="needs a multiple of 4 columns, got 6"):
        BLOCKS["block4x4"].pack(Pattern.full(4, 6), np.ones((4, 6), np.float32))


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Pattern, np.ndarray]:
    """Gates one above the other, each with groups of rows of its own that read groups of columns, all shuffled."""
    gates, cols = draw(st.integers(1, 3)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    masks = []
    for _ in range(gates):
        rows, n = draw(st.integers(1, 50)), draw(st.integers(1, 6))
        masks.append(rng.integers(0, n, rows)[:, None] == rng.integers(0, n, cols)[None])
    mask = np.concatenate(masks)
    return Pattern.from_mask(mask), rng.standard_normal(mask.shape).astype(np.float32)


@settings(max_examples=60)
@given(data=grouped())
def test_groups_of_rows_share_their_columns(data: tuple[Pattern, np.ndarray]) -> None:
    pattern, weight = data
    packed = BLOCK_DIAGONAL.pack(pattern, weight)
    assert np.array_equal(BLOCK_DIAGONAL.unpack(packed), pattern.apply(weight))
    assert packed.matrix.format == "block_diagonal"
    mask = pattern.mask()
    order = np.arange(pattern.shape[0]) if packed.order is None else packed.order
    assert sorted(order.tolist()) == list(range(pattern.shape[0]))
    for k, (a, b) in enumerate(zip(packed.ptr[:-1], packed.ptr[1:], strict=True)):
        mine = order[packed.base[k] : packed.base[k + 1]]
        read = mask[mine].any(axis=0)
        assert set(np.flatnonzero(read)) <= set(packed.index32[a:b].tolist())
    kinds, count = np.unique(mask, axis=0, return_counts=True)
    alike = sum(-(-n // 16) * 16 * kind.sum() for kind, n in zip(kinds, count, strict=True))
    assert packed.values.size <= alike


def test_connected_parts_are_found_where_rows_differ() -> None:
    rng = np.random.default_rng(0)
    mask = np.kron(np.eye(4, dtype=bool), np.ones((20, 16), bool)) & (rng.random((80, 64)) < 0.9)
    mask = mask[rng.permutation(80)][:, rng.permutation(64)]
    pattern = Pattern.from_mask(mask)
    assert len(set(row_groups(pattern).tolist())) == 4
    assert block_diagonal_padding(pattern) == pytest.approx(4 * 2 * 16 * 16 / pattern.nnz)
    weight = rng.standard_normal((80, 64)).astype(np.float32)
    assert np.array_equal(BLOCK_DIAGONAL.unpack(BLOCK_DIAGONAL.pack(pattern, weight)), pattern.apply(weight))


def test_scattered_weights_are_no_groups() -> None:
    assert block_diagonal_padding(random_pattern(128, 128, 0.1, 0)) > 5
    assert block_diagonal_padding(Pattern.empty(4, 4)) == 1
    with pytest.raises(UnsupportedError, match="counts up to 65535 rows"):
        BLOCK_DIAGONAL.pack(Pattern.empty(65536, 1), np.zeros((65536, 1), np.float32))


def test_bytes_and_padding() -> None:
    pattern = random_pattern(64, 64, 0.1, 0)
    weight = np.ones((64, 64), np.float32)
    csr = formats_for(Isa.SCALAR)["csr"].pack(pattern, weight)
    assert csr.nbytes == 8 * pattern.nnz + 4 * 65
    assert csr.padding == 1.0
    assert DENSE.pack(pattern, weight).nbytes == 4 * 64 * 64
    assert DENSE.pack(Pattern.empty(64, 64), weight).padding == 1.0


def test_dead_weights_are_not_packed() -> None:
    """NaN where a connection is dead must not reach any loop."""
    pattern = random_pattern(32, 64, 0.3, 1)
    weight = np.where(pattern.mask(), np.float32(2), np.float32(np.nan))
    for isa in ISAS:
        for form in formats_for(isa).values():
            assert np.all(np.isfinite(form.pack(pattern, weight).values)), form.name
