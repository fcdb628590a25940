"""Modular, hierarchical, spatial and small-world patterns, and the measures of connectivity."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import connectivity_picture
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import Pattern, structures
from sparsecirc.errors import UsageError
from sparsecirc.patterns import (
    at_random,
    by_index,
    contiguous,
    dale_signs,
    distance_dependent,
    distances,
    g2g,
    hierarchical,
    interleaved,
    mixer,
    modular,
    sheet,
    shuffled,
    small_world,
)


def scores(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, cols))


@settings(max_examples=30, deadline=None)
@given(groups=st.integers(1, 6), a=st.integers(1, 5), b=st.integers(1, 5), intra=st.floats(0, 1), inter=st.floats(0, 1))
def test_modular_keeps_the_asked_share_of_each_kind(groups, a, b, intra, inter):
    maker = modular(groups, intra, inter, targets=interleaved, sources=shuffled(3))
    rows, cols = groups * a, groups * b
    targets, sources = maker.labels(rows, cols)
    inside = targets[:, None] == sources[None, :]
    assert inside.sum() == rows * cols // groups
    mask = maker(scores(rows, cols)).mask()
    assert mask[inside].sum() == round(intra * inside.sum())
    assert mask[~inside].sum() == round(inter * (~inside).sum())
    assert maker.density(rows, cols) == pytest.approx(intra / groups + (1 - 1 / groups) * inter)


def test_a_drawn_pattern_has_the_density_of_the_paper():
    maker = modular()
    pattern = maker.draw(800, 1600, seed=1)
    assert maker.density(800, 1600) == pytest.approx(0.25625)
    assert pattern.density == pytest.approx(0.25625, abs=0.002)
    targets, sources = maker.labels(800, 1600)
    assert pattern.mask()[targets[:, None] == sources[None, :]].all()
    assert pattern == maker.draw(800, 1600, seed=1)
    assert pattern != maker.draw(800, 1600, seed=2)
    assert maker.draw(0, 8).shape == (0, 8)


def test_the_best_scores_of_each_kind_stay():
    s = scores(16, 16)
    pattern = modular(2, 0.5, 0.25)(s)
    inside = np.kron(np.eye(2), np.ones((8, 8))).astype(bool)
    for part, share in ((inside, 0.5), (~inside, 0.25)):
        kept = s[part & pattern.mask()]
        assert len(kept) == round(share * part.sum())
        assert kept.min() > s[part & ~pattern.mask()].max()


@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.9, 0.99])
def test_a_sparsity_scales_both_probabilities(sparsity):
    pattern = modular(8)(scores(64, 128), sparsity)
    assert pattern.sparsity == pytest.approx(sparsity, abs=2 / (64 * 128))
    groups = contiguous(64, 8), contiguous(128, 8)
    assert structures.modularity(pattern, *groups) > 0.1


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"8 groups does not fit 100 units.*use 5 or 10 instead of 8, or 96 or 104"):
        modular(8)(scores(100, 64))
    with pytest.raises(UsageError, match=r"can hold 512 of 4096 connections, a sparsity of 0.5 asks for 2048"):
        modular(8, 1.0, 0.0)(scores(64, 64), 0.5)
    for bad in ({"p_intra": 1.5}, {"p_inter": -0.1}, {"groups": 0}):
        with pytest.raises(UsageError, match="expected"):
            modular(**bad)
    with pytest.raises(UsageError, match="3 probabilities for 1 levels"):
        hierarchical((4,), (1.0, 0.5, 0.1))
    with pytest.raises(UsageError, match="needs a sparsity"):
        distance_dependent()(scores(4, 4), None)
    with pytest.raises(UsageError, match="above 0"):
        distance_dependent(0.0)


def test_hierarchical_tiers_are_how_far_up_units_meet():
    maker = hierarchical((2, 3), (1.0, 0.5, 0.0))
    mask = maker(scores(12, 12)).mask()
    for i in range(12):
        for j in range(12):
            tier = maker.regions((12, 12), i, j)
            assert tier == (0 if i // 2 == j // 2 else 1 if i // 6 == j // 6 else 2)
            assert mask[i, j] or tier
            assert not (mask[i, j] and tier == 2)
    one = hierarchical((8,), (1.0, 0.15))
    assert one(scores(64, 64)) == modular(8)(scores(64, 64))


@pytest.mark.parametrize("grouping", [by_index, at_random(5), mixer], ids=["index", "random", "mixer"])
def test_weights_of_a_stack_agree_on_the_groups_of_the_units_between(grouping):
    stack = g2g(3, 4, grouping=grouping)
    widths = (16, 32, 24, 8)
    for k in range(2):
        here = stack[k].labels(widths[k + 1], widths[k])[0]
        assert np.array_equal(here, stack[k + 1].labels(widths[k + 2], widths[k + 1])[1])
        assert np.bincount(here).tolist() == [widths[k + 1] // 4] * 4
    if grouping is mixer:
        assert stack[0].labels(16, 16)[0].tolist() == [i % 4 for i in range(16)]
        assert stack[0].labels(16, 16)[1].tolist() == [i // 4 for i in range(16)]


def test_distance_dependent_connections_are_short():
    s = scores(100, 100)
    short, long = distance_dependent(0.05)(s, 0.9), distance_dependent(100.0)(s, 0.9)
    assert short.nnz == long.nnz == 1000
    place = sheet(100)
    assert structures.wiring_cost(short, place, place) < 0.4
    assert structures.wiring_cost(long, place, place) == pytest.approx(1, abs=0.05)
    d = distances(place, place)
    assert structures.wiring_cost(short, place, place) == pytest.approx(d[short.mask()].mean() / d.mean())


def test_small_world_is_clustered_and_short():
    s = scores(120, 120)
    ring, small, random = (small_world(b)(s, 0.9) for b in (0.0, 0.1, 1.0))
    assert all(p.fan_in().tolist() == [12] * 120 for p in (ring, small, random))
    assert structures.clustering(small) > 2 * structures.clustering(random)
    assert structures.path_length(small) < 0.7 * structures.path_length(ring)
    assert structures.path_length(ring) == pytest.approx(nx.average_shortest_path_length(nx.DiGraph(ring.mask().T)))


def test_signs_of_dale():
    signs = dale_signs(50, 0.8, seed=1)
    assert sorted(set(signs.tolist())) == [-1, 1]
    assert (signs == 1).sum() == 40
    assert np.array_equal(signs, dale_signs(50, 0.8, seed=1))
    with pytest.raises(UsageError, match="excitatory"):
        dale_signs(5, 1.2)


# Measures ------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 14), density=st.floats(0, 1), seed=st.integers(0, 9))
def test_measures_agree_with_networkx(n, density, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n)) < density
    pattern = Pattern.from_mask(mask)
    directed = nx.from_numpy_array(mask.T.astype(int), create_using=nx.DiGraph)
    near = nx.from_numpy_array((mask | mask.T) & ~np.eye(n, dtype=bool))
    assert structures.clustering(pattern) == pytest.approx(nx.average_clustering(near), abs=1e-6)
    groups = rng.integers(0, 3, n)
    if mask.any():
        sets = [set(np.flatnonzero(groups == g).tolist()) for g in range(3)]
        assert structures.modularity(pattern, groups, groups) == pytest.approx(nx.community.modularity(directed, sets))
    lengths = [d for u, to in nx.all_pairs_shortest_path_length(directed) for v, d in to.items() if u != v]
    assert structures.path_length(pattern) == pytest.approx(np.mean(lengths) if lengths else 0.0)
    found = structures.measure(pattern)
    assert found.reached == pytest.approx(len(lengths) / (n * (n - 1)))


def test_planted_modules_are_found_and_drawn():
    pattern = modular(4, 1.0, 0.02)(scores(64, 64))
    groups = contiguous(64, 4)
    found = structures.communities(pattern)
    assert len(set(zip(groups.tolist(), found.tolist(), strict=True))) == 4
    made = structures.measure(pattern, places=(sheet(64), sheet(64)))
    assert made.modularity == pytest.approx(structures.modularity(pattern, groups, groups))
    assert "modularity" in made.table()
    svg = ET.fromstring(made.svg())
    assert svg.attrib["aria-label"] == f"{pattern.nnz} connections of 64 targets and 64 sources"
    wide = structures.measure(Pattern.from_mask(scores(6, 9) > 0.5), groups=(np.arange(6) % 3, np.arange(9) % 3))
    assert wide.clustering is None
    assert wide.modularity is not None
    assert structures.modularity(Pattern.empty(3, 3), [0, 1, 2], [0, 1, 2]) == 0.0


def test_the_drawing_shows_the_density_of_every_cell():
    import base64
    import io

    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    mask = np.zeros((256, 128), bool)
    mask[:128, :64] = True
    svg = structures.draw(Pattern.from_mask(mask))
    data = base64.b64decode(svg.split("base64,")[1].split('"')[0])
    grey = np.asarray(image.open(io.BytesIO(data)))
    assert grey.shape == (128, 64)
    assert (grey[:64, :32] == 28).all()
    assert (grey[64:] == 255).all()
    order = (np.arange(256)[::-1], np.arange(128))
    assert structures.draw(Pattern.from_mask(mask), order) != svg


def test_measures_say_what_they_need():
    pattern = Pattern.full(3, 4)
    for measure in (structures.clustering, structures.path_length, structures.communities):
        with pytest.raises(UsageError, match="needs a square one"):
            measure(pattern)
    with pytest.raises(UsageError, match="expected one per row and column"):
        structures.modularity(pattern, [0, 1], [0, 0, 0, 0])
    with pytest.raises(UsageError, match="expected \\(rows, axes\\)"):
        structures.wiring_cost(pattern, np.zeros((3, 2)), np.zeros((4, 3)))


# In layers -----------------------------------------------------------------------------------------------------------


def test_layers_take_modular_patterns_and_scale_their_start():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from sparsecirc.nn import SparseGRU, SparseLinear, SparseRLIF

    torch.manual_seed(0)
    layer = SparseLinear(64, 32, density=None, pattern=modular(4, 1.0, 0.1))
    fan_in = torch.from_numpy(layer.weight.pattern.fan_in()).float()
    largest = layer.weight.dense().detach().abs().amax(1)
    assert bool((largest <= 1 / fan_in.sqrt()).all())
    assert float((largest * fan_in.sqrt()).min()) > 0.7
    gru = SparseGRU(6, 32, density={"hh": None}, pattern=modular(4, 1.0, 0.0))
    blocks = [gru.weight_hh_l0.pattern.row_block(32 * k, 32 * k + 32) for k in range(3)]
    assert all(b.block_shape(((8, 8),)) == (8, 8) for b in blocks)
    assert gru.weight_ih_l0.pattern.density == 1.0
    lif = SparseRLIF(0.9, 32, density=None, pattern=modular(4, 1.0, 0.0))
    lif.reset_parameters(rescale=True)
    assert float(lif.recurrent.values.detach().abs().max()) <= 8**-0.5
    with pytest.raises(UsageError, match="density is None"):
        SparseLinear(8, 8, density=None)


def test_the_drawing_of_the_docs_is_what_is_drawn():
    pixels = re.compile(r"base64,[^\"]*")  # compressed in another way elsewhere
    drawn = pixels.sub("", connectivity_picture.sheet(connectivity_picture.wirings()))
    assert pixels.sub("", connectivity_picture.PICTURE.read_text("utf-8")) == drawn
