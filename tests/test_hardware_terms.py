"""NeuroBench's terms counted by hand."""

from __future__ import annotations

import numpy as np

from sparsecirc.cells import GRU, LIF, Options, Reset
from sparsecirc.hardware import terms
from sparsecirc.ir import interpret
from sparsecirc.testing import classifier_graph, recurrent_graph


def test_a_recurrent_network_counted_by_loops() -> None:
    graph = recurrent_graph(LIF, 6, 11, 0.4, options=Options(Reset.ZERO), seed=1)
    x = (np.random.default_rng(0).random((20, 3, 6)) < 0.5).astype(float)
    x[5:] *= 0.7  # from here on the input is no spikes
    z = interpret(graph, x, keep_values=True).values["rnn.spk"]
    ih, hh = (graph.node("rnn").weight(r) != 0 for r in ("ih", "hh"))
    macs = acs = 0
    for t in range(20):
        for b in range(3):
            first = sum(int(ih[:, k].sum()) for k in range(6) if x[t, b, k])
            macs, acs = (macs + first, acs) if t >= 5 else (macs, acs + first)
            acs += sum(int(hh[:, k].sum()) for k in range(11) if t and z[t - 1, b, k])
    found = terms(graph, x)
    assert (found.effective_macs, found.effective_acs) == (macs / 3, acs / 3)
    assert found.dense == 20 * (ih.size + hh.size)
    assert found.connection_sparsity == round(1 - (ih.sum() + hh.sum()) / (ih.size + hh.size), 4)
    assert found.activation_sparsity == 1 - z.mean()
    assert found.footprint == sum(v.nbytes for v in graph.node("rnn").params.values())
    assert "effective ACs" in str(found)


def test_gated_layers_multiply() -> None:
    graph = classifier_graph(GRU, 5, 8, 3, 0.5, seed=0)
    found = terms(graph, np.random.default_rng(0).standard_normal((7, 2, 5)))
    assert found.effective_macs > 0
    assert found.activation_sparsity == 0
    assert found.dense == 7 * (24 * 5 + 24 * 8) + 3 * 8


def test_nothing_in_nothing_out() -> None:
    graph = recurrent_graph(LIF, 6, 11, 0.4)
    found = terms(graph, np.zeros((0, 2, 6)))
    assert (found.effective_acs, found.dense, found.activation_sparsity) == (0, 0, 0)
