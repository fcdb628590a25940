"""Pattern makers: counts are exact, structure holds, ties and order do not matter."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecirc._files import write_container
from sparsecirc._pattern import Pattern
from sparsecirc.errors import FileFormatError, UsageError
from sparsecirc.patterns import (
    block,
    combined_digest,
    fan_in,
    live_count,
    load_patterns,
    n_m,
    rank_together,
    save_patterns,
    unstructured,
)
from sparsecirc.scores import generator, magnitude, random

shapes = st.tuples(st.integers(0, 12), st.integers(0, 12))
sparsities = st.floats(0, 0.999)
seeds = st.integers(0, 1000)


def distinct(shape, seed):
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size) + 1.0).reshape(shape)


@given(shapes, sparsities, seeds)
def test_unstructured_keeps_exactly_the_best(shape, sparsity, seed):
    scores = distinct(shape, seed)
    pattern = unstructured(scores, sparsity)
    count = round((1 - sparsity) * scores.size)
    assert pattern.nnz == count
    assert pattern.shape == shape
    assert np.array_equal(pattern.mask(), scores > scores.size - count)


@given(shapes, sparsities, seeds, st.data())
def test_permuting_rows_permutes_the_pattern(shape, sparsity, seed, data):
    scores = distinct(shape, seed)
    order = data.draw(st.permutations(range(shape[0])))
    assert unstructured(scores[order], sparsity) == unstructured(scores, sparsity).permute(np.array(order, dtype=int))


@given(shapes, sparsities)
def test_ties_go_to_the_first(shape, sparsity):
    pattern = unstructured(np.ones(shape), sparsity)
    count = live_count(shape[0] * shape[1], sparsity)
    assert np.array_equal(pattern.mask().ravel(), np.arange(shape[0] * shape[1]) < count)


@given(shapes, sparsities, sparsities, seeds)
def test_higher_sparsity_is_nested(shape, a, b, seed):
    scores = np.random.default_rng(seed).integers(0, 4, shape).astype(float)
    low, high = unstructured(scores, min(a, b)), unstructured(scores, max(a, b))
    assert high.intersect(low) == high


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), sparsities, seeds)
def test_block_tiles_are_whole_and_counted(height, width, rows, cols, sparsity, seed):
    scores = np.random.default_rng(seed).random((rows * height, cols * width))
    pattern = block(height, width)(scores, sparsity)
    tiles = pattern.mask().reshape(rows, height, cols, width).sum(axis=(1, 3))
    assert set(np.unique(tiles)) <= {0, height * width}
    assert (tiles > 0).sum() == round((1 - sparsity) * rows * cols)
    sums = scores.reshape(rows, height, cols, width).sum(axis=(1, 3))
    assert sums[tiles > 0].min(initial=np.inf) >= sums[tiles == 0].max(initial=-np.inf) - 1e-9


def test_block_of_dead_connections():
    scores = np.array([[-np.inf, 9.0, -np.inf, -np.inf], [-np.inf, 1.0, 3.0, -np.inf]])
    assert np.array_equal(block(2, 2)(scores, 0.5).mask(), [[1, 1, 0, 0], [1, 1, 0, 0]])
    assert np.isneginf(block(1, 2).units(scores)[0, 1])
    assert block(1, 2).units(scores)[1, 1] == 1.5


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 5), seeds, st.data())
def test_n_m_is_valid_in_every_group(m, rows, groups, seed, data):
    n = data.draw(st.integers(1, m))
    scores = distinct((rows, groups * m), seed)
    pattern = n_m(n, m)(scores)
    counts = pattern.mask().reshape(rows, groups, m)
    assert np.all(counts.sum(axis=-1) == n)
    grouped = scores.reshape(rows, groups, m)
    kept = np.where(counts, grouped, np.inf).min(axis=-1)
    lost = np.where(counts, -np.inf, grouped).max(axis=-1)
    assert np.all(kept > lost)
    assert n_m(n, m)(scores, 1 - n / m) == pattern


@given(st.integers(0, 6), st.integers(0, 9), seeds, st.data())
def test_fan_in_is_constant(rows, cols, seed, data):
    k = data.draw(st.integers(0, cols))
    scores = distinct((rows, cols), seed)
    pattern = fan_in(k)(scores)
    assert np.all(pattern.fan_in() == k)
    assert pattern.origin == f"fan-in {k}"
    for row, kept in zip(scores, pattern.mask(), strict=True):
        assert set(row[kept]) == set(np.sort(row)[len(row) - k :])


def test_fan_in_from_the_sparsity():
    assert np.all(fan_in()(np.random.default_rng(0).random((5, 20)), 0.9).fan_in() == 2)
    assert fan_in(2)(np.ones((5, 20)), 0.9).nnz == 10


def test_origins():
    scores = np.ones((16, 4))
    made = [unstructured(scores, 0.5), block(16, 1)(scores, 0.5), n_m(2, 4)(scores), fan_in(3)(scores)]
    assert [p.origin for p in made] == ["unstructured", "block 16x1", "2:4", "fan-in 3"]


@given(st.lists(shapes, max_size=4), sparsities, seeds)
def test_ranking_together_counts_over_all(many, sparsity, seed):
    rng = np.random.default_rng(seed)
    matrices = [rng.random(s) for s in many]
    made = rank_together(unstructured, matrices, sparsity)
    flat = np.concatenate([m.ravel() for m in matrices]) if matrices else np.zeros(0)
    assert [p.shape for p in made] == many
    assert sum(p.nnz for p in made) == round((1 - sparsity) * flat.size)
    kept = np.concatenate([p.mask().ravel() for p in made]) if made else np.zeros(0, bool)
    assert flat[kept].min(initial=np.inf) >= flat[~kept].max(initial=-np.inf)


def test_blocks_are_ranked_together_by_mean():
    weak, strong = np.full((4, 4), 1.0), np.full((4, 8), 2.0)
    first, second = rank_together(block(4, 4), [weak, strong], 1 / 3)
    assert (first.nnz, second.nnz) == (0, 32)


@pytest.mark.parametrize("maker", [n_m(2, 4), fan_in(2), lambda scores, sparsity: Pattern.full(*scores.shape)])
def test_fixed_counts_cannot_be_ranked_together(maker):
    with pytest.raises(UsageError, match="cannot be ranked across matrices"):
        rank_together(maker, [np.ones((4, 4))], 0.5)


@pytest.mark.parametrize("bad", [1.5, 1.0, -0.1, float("nan"), float("inf"), "0.5", None, True])
@pytest.mark.parametrize("maker", [unstructured, block(2, 2)])
def test_impossible_sparsity(maker, bad):
    with pytest.raises(UsageError, match="sparsity"):
        maker(np.ones((4, 4)), bad)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda s: block(16, 1)(s, 0.5), r"block 16x1 does not fit 100 rows: .* use 10 or 20 .* or 96 or 112 rows"),
        (lambda s: block(1, 8)(s, 0.5), r"does not fit 30 columns: .* use 6 or 10 instead of 8, or 24 or 32 columns"),
        (lambda s: block(200, 1)(s, 0.5), r"use 100 instead of 200, or 200 rows"),
        (lambda s: n_m(2, 4)(s), r"pattern 2:4 does not fit 30 columns"),
        (lambda s: n_m(3, 5)(s, 0.9), r"has sparsity 0.4, got 0.9"),
        (lambda s: fan_in(31)(s), r"exceeds the 30 columns"),
        (lambda s: fan_in(3)(s, 0.5), r"fan-in 3 of 30 columns has sparsity 0.9, got 0.5 \(fan-in 15\)"),
        (lambda s: fan_in()(s), r"needs k or a sparsity"),
        (lambda s: unstructured(s.ravel(), 0.5), r"expected a matrix"),
        (lambda s: unstructured(np.where(s == s[0, 0], np.nan, s), 0.5), r"hold NaN"),
        (lambda s: block(0, 1), r"block 0x1 is empty"),
        (lambda s: n_m(5, 4), r"5:4 is impossible"),
        (lambda s: fan_in(-1), r"negative"),
    ],
)
def test_errors_say_what_to_do(make, words):
    with pytest.raises(UsageError, match=words) as caught:
        make(np.random.default_rng(0).random((100, 30)))
    assert "\n" not in str(caught.value)


def test_random_scores_depend_on_seed_and_name_only():
    weight = np.zeros((5, 6))
    a = random(3)(weight, "rnn.l0.hh")
    random(3)(weight, "rnn.l0.ih")
    np.random.default_rng().random()
    assert np.array_equal(a, random(3)(weight + 1, "rnn.l0.hh"))
    assert not np.array_equal(a, random(4)(weight, "rnn.l0.hh"))
    assert not np.array_equal(a, random(3)(weight, "rnn.l0.ih"))
    assert random(np.random.default_rng(5)) == random(np.random.default_rng(5))
    assert generator(0, "a").random() != generator(0, "b").random()
    assert np.array_equal(magnitude(np.array([-2.0, 1.0])), [2.0, 1.0])


def test_same_digest_in_another_process():
    code = (
        "import numpy as np, sparsecirc.patterns as p, sparsecirc.scores as s;"
        "print(p.unstructured(s.random(7)(np.zeros((40, 30)), 'rnn.l0.hh'), .9).digest)"
    )
    here = unstructured(random(7)(np.zeros((40, 30)), "rnn.l0.hh"), 0.9).digest
    there = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()]
    assert there == [here]


def test_combined_digest_tells_names_and_patterns_but_not_order():
    a, b = Pattern.full(2, 3), Pattern.empty(2, 3)
    assert combined_digest({"x": a, "y": b}) == combined_digest({"y": b, "x": a})
    assert (
        len({combined_digest(d) for d in ({}, {"x": a}, {"y": a}, {"x": b}, {"x": a, "y": b}, {"x": b, "y": a})}) == 6
    )


def test_file_round_trip(tmp_path):
    patterns = {
        "rnn.l0.hh": block(2, 2)(np.random.default_rng(0).random((6, 4)), 0.5),
        "empty": Pattern.empty(3, 5),
        "none": Pattern.empty(0, 5),
    }
    save_patterns(tmp_path / "masks.safetensors", patterns)
    again = load_patterns(tmp_path / "masks.safetensors")
    assert again == patterns
    assert again["rnn.l0.hh"].origin == "block 2x2"
    assert [p.name for p in tmp_path.iterdir()] == ["masks.safetensors"]


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileFormatError, match="not a file"):
        load_patterns(path)
    save_patterns(path, {"a": Pattern.full(4, 4)})
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(FileFormatError, match="truncated"):
        load_patterns(path)
    path.write_bytes(data[:-1] + b"\x00")
    with pytest.raises(FileFormatError, match="digest"):
        load_patterns(path)
    write_container(path, "masks", {"masks": {"a": {"shape": [4, 4], "origin": "x", "digest": "y"}}}, {})
    with pytest.raises(FileFormatError, match="not a valid masks file"):
        load_patterns(path)
    write_container(path, "graph", json.loads("{}"), {})
    with pytest.raises(FileFormatError, match="graph file: expected a masks file"):
        load_patterns(path)
