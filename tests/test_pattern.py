"""`Pattern`: the noun everything else rests on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparsecirc._files import pack_bits, unpack_bits
from sparsecirc._pattern import Pattern
from sparsecirc.errors import FileFormatError, UsageError

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))


@given(masks)
def test_mask_round_trip(mask):
    pattern = Pattern.from_mask(mask)
    assert np.array_equal(pattern.mask(), mask)
    assert pattern.nnz == mask.sum()
    assert np.array_equal(pattern.fan_in(), mask.sum(axis=1))
    assert np.array_equal(pattern.fan_out(), mask.sum(axis=0))
    assert pattern.density == (mask.mean() if mask.size else 0.0)
    assert pattern.transpose().transpose() == pattern
    assert np.array_equal(pattern.transpose().mask(), mask.T)


@given(masks)
def test_bits_round_trip(mask):
    pattern = Pattern.from_mask(mask, "made here")
    again = unpack_bits(pack_bits(pattern), pattern.shape, "made here")
    assert again == pattern
    assert again.digest == pattern.digest
    assert hash(again) == hash(pattern)


@given(masks, st.data())
def test_digest_tells_any_single_connection(mask, data):
    if not mask.size:
        return
    k = data.draw(st.integers(0, mask.size - 1))
    other = mask.copy()
    other.flat[k] = not other.flat[k]
    assert Pattern.from_mask(other).digest != Pattern.from_mask(mask).digest
    assert Pattern.from_mask(other) != Pattern.from_mask(mask)


def test_digest_tells_shapes_apart():
    assert Pattern.empty(2, 3).digest != Pattern.empty(2, 4).digest
    assert Pattern.empty(2, 3).digest != Pattern.empty(3, 2).digest


@given(arrays(np.bool_, (6, 5)))
def test_stack_of_row_blocks_is_the_whole(mask):
    pattern = Pattern.from_mask(mask)
    parts = [pattern.row_block(0, 2), pattern.row_block(2, 2), pattern.row_block(2, 6)]
    assert Pattern.stack(parts) == pattern


@given(arrays(np.bool_, (4, 5)), arrays(np.bool_, (4, 5)))
def test_set_operations(a, b):
    left, right = Pattern.from_mask(a), Pattern.from_mask(b)
    assert np.array_equal(left.intersect(right).mask(), a & b)
    assert np.array_equal(left.union(right).mask(), a | b)


@given(arrays(np.bool_, (4, 5)), st.permutations(range(4)), st.permutations(range(5)))
def test_permute(mask, rows, cols):
    assert np.array_equal(Pattern.from_mask(mask).permute(rows, cols).mask(), mask[rows][:, cols])


def test_apply_drops_nan_and_keeps_axes():
    weight = np.arange(12.0).reshape(2, 3, 2)
    weight[1, 2, 1] = np.nan
    mask = np.ones((2, 6), dtype=bool)
    mask[1, 5] = False
    out = Pattern.from_mask(mask).apply(weight)
    assert out.shape == weight.shape
    assert out[1, 2, 1] == 0
    assert not np.signbit(out[1, 2, 1])
    assert np.array_equal(out.ravel()[:11], weight.ravel()[:11])


def test_block_shape_is_found():
    keep = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    assert Pattern.from_mask(np.kron(keep, np.ones((16, 1)))).block_shape() == (16, 1)
    assert Pattern.from_mask(np.kron(keep, np.ones((4, 4)))).block_shape() == (4, 4)
    broken = np.kron(keep, np.ones((4, 4)))
    broken[0, 0] = 0
    assert Pattern.from_mask(broken).block_shape() == (1, 1)


def test_is_immutable():
    pattern = Pattern.full(2, 2)
    with pytest.raises(ValueError, match="read-only"):
        pattern.indices[0] = 1
    with pytest.raises(AttributeError):
        pattern.shape = (1, 4)


@pytest.mark.parametrize(
    ("indptr", "indices", "words"),
    [
        ([0, 1], [0], "row pointers"),
        ([0, 1, 3], [0, 1], "row pointers"),
        ([0, 2, 1], [0], "row pointers"),
        ([0, 1, 2], [0, 3], "outside a matrix of 3 columns"),
        ([0, 1, 2], [0, -1], "outside"),
        ([0, 2, 2], [1, 0], "ascending"),
        ([0, 2, 2], [1, 1], "ascending"),
    ],
)
def test_invalid_structures_are_refused(indptr, indices, words):
    with pytest.raises(UsageError, match=words):
        Pattern((2, 3), np.array(indptr), np.array(indices))


def test_wrong_shapes_are_refused():
    with pytest.raises(UsageError, match="different widths"):
        Pattern.stack([Pattern.full(1, 2), Pattern.full(1, 3)])
    with pytest.raises(UsageError, match="nothing to stack"):
        Pattern.stack([])
    with pytest.raises(UsageError, match=r"\(2, 3\) and \(3, 2\)"):
        Pattern.full(2, 3).union(Pattern.full(3, 2))
    with pytest.raises(UsageError, match="outside a pattern of 2 rows"):
        Pattern.full(2, 3).row_block(1, 3)
    with pytest.raises(UsageError, match="weight has shape"):
        Pattern.full(2, 3).apply(np.zeros((2, 4)))
    with pytest.raises(FileFormatError, match="needs 1 bytes"):
        unpack_bits(np.zeros(2, np.uint8), (2, 3), "")
