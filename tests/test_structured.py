"""Whole rows and columns, diagonals that stay, and units that leave a network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import Graph, interpret, prune, rank_units, remove_units
from sparsecirc._prune import Scope, named
from sparsecirc.cells import GRU, LIF, LSTM, Cell
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.ir import Input, Linear, Recurrent
from sparsecirc.patterns import block, columns, fan_in, keep_diagonal, rows, unstructured
from sparsecirc.testing import classifier_graph, recurrent_graph


def test_whole_lines_by_their_mean() -> None:
    scores = np.array([[1.0, 9.0, 0.0], [4.0, 4.0, 4.0], [0.0, 0.0, 1.0]])
    assert rows(scores, 1 / 3).mask().tolist() == [[True] * 3, [True] * 3, [False] * 3]
    assert columns(scores, 2 / 3).mask().tolist() == [[False, True, False]] * 3
    assert rows(scores, 0.0).nnz == 9
    assert (rows(scores, 0.5).origin, columns(scores, 0.5).origin) == ("rows", "columns")
    for shape in ((0, 3), (3, 0), (0, 0)):
        assert rows(np.zeros(shape), 0.5).shape == columns(np.zeros(shape), 0.5).shape == shape
    with pytest.raises(UsageError, match="pattern rows needs a sparsity"):
        rows(scores, None)
    with pytest.raises(UsageError, match="NaN"):
        columns(np.full((2, 2), np.nan), 0.5)


@settings(max_examples=60)
@given(n=st.integers(1, 12), gates=st.integers(1, 4), sparsity=st.floats(0, 0.99), seed=st.integers(0, 99))
def test_the_diagonal_of_every_gate_stays_as_long_as_it_fits(n: int, gates: int, sparsity: float, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((gates * n, n))
    plain, kept = unstructured(scores, sparsity), keep_diagonal()(scores, sparsity)
    assert kept.nnz == plain.nnz
    on = kept.mask()[np.arange(gates * n), np.arange(gates * n) % n]
    assert on.sum() == min(plain.nnz, gates * n)


def test_diagonals_in_tiles_and_of_dead_connections() -> None:
    scores = np.random.default_rng(0).random((16, 16))
    tiles = keep_diagonal(block(4, 4))(scores, 0.75)
    assert np.diag(tiles.mask()).all()
    assert tiles.nnz == 64
    scores[3, 3] = -np.inf
    assert not keep_diagonal()(scores, 0.5).mask()[3, 3]
    tiles = keep_diagonal(block(4, 4))(scores, 0.75)
    assert tiles.nnz == 64
    wide = np.random.default_rng(0).random((5, 3))
    assert np.array_equal(keep_diagonal()(wide, 0.5).mask(), unstructured(wide, 0.5).mask())


def test_diagonals_in_a_whole_network() -> None:
    graph = recurrent_graph(GRU, 5, 8, 1.0)
    for scope in (Scope.PER_GATE, Scope.TENSOR, Scope.GLOBAL):
        made = prune(graph, 0.8, pattern=keep_diagonal(), scope=scope, select=named("*.hh"))
        mask = made.node("rnn").patterns["hh"].mask()
        assert mask.reshape(3, 8, 8)[:, np.arange(8), np.arange(8)].all()
        assert made.node("rnn").patterns["hh"].nnz == pytest.approx(0.2 * mask.size, abs=2)
    with pytest.raises(UsageError, match="cannot be ranked across matrices"):
        prune(graph, 0.5, pattern=keep_diagonal(fan_in(2)), scope=Scope.GLOBAL)


@pytest.mark.parametrize("cell", [GRU, LSTM, LIF], ids=lambda c: c.name)
def test_the_weakest_units_leave(cell: Cell) -> None:
    graph = classifier_graph(cell, 6, 20, 3, 1.0)
    layer = next(n for n in graph.nodes if isinstance(n, Recurrent))
    weak = np.array([3, 7, 11, 12, 19])
    params = {}
    for role in ("ih", "hh"):
        value = np.array(layer.weight(role))
        value.reshape(cell.n_gates, 20, -1)[:, weak] *= 1e-3
        if role == "hh":
            value[:, weak] *= 1e-3
        params[role] = value
    graph = graph.replace_nodes(layer.with_params(**params))
    keep = rank_units(graph, 0.25)
    assert list(keep) == [layer.name]
    assert np.flatnonzero(~keep[layer.name]).tolist() == weak.tolist()
    small = remove_units(graph, keep)
    assert small.node(layer.name).params["hh"].shape == (15 * cell.n_gates, 15)
    assert np.isfinite(interpret(small, np.ones((4, 2, 6))).y).all()


def test_layers_to_rank_and_what_stays() -> None:
    graph = classifier_graph(GRU, 6, 10, 3, 1.0)
    layer = next(n.name for n in graph.nodes if isinstance(n, Recurrent))
    assert rank_units(graph, 0.99)[layer].sum() == 1  # never none
    assert rank_units(graph, 0.0)[layer].all()
    assert list(rank_units(graph, 0.5, only=[layer])) == [layer]
    with pytest.raises(UsageError, match="no layer 'x' to rank"):
        rank_units(graph, 0.5, only=["x"])
    with pytest.raises(UsageError, match="sparsity"):
        rank_units(graph, 1.0)
    alone = Graph((Input("x", shape=(3,)), Linear("fc", ("x",), {"weight": np.ones((2, 3))})), {"y": "fc"})
    with pytest.raises(NothingMatchedError, match="no layer has units that another one reads"):
        rank_units(alone, 0.5)
