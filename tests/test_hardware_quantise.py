"""Networks in the integers of chips: the arithmetic against loops written out, limits, and what quantisation costs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparsecirc.cells import ALIF, LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.hardware import (
    BRAINSCALES2,
    LOIHI1,
    LOIHI2,
    XYLO_AUDIO2,
    export_lava,
    export_xylo,
    network,
    quantise,
)
from sparsecirc.hardware._loihi import LoihiNetwork, to_loihi
from sparsecirc.hardware._network import one_threshold, with_ones
from sparsecirc.hardware._xylo import XyloNetwork, to_xylo
from sparsecirc.ir import Graph, interpret
from sparsecirc.testing import recurrent_graph

sys.path.insert(0, str(Path(__file__).parent / "emulators"))
from nets import net, spikes, with_vectors

ZERO, AT_ONCE = Options(Reset.ZERO), Options(Reset.SUBTRACT, False)


def synaptic(seed: int = 0, theta: float = 3.0) -> Graph:
    return with_vectors(net(SYNAPTIC, AT_ONCE, seed), SYNAPTIC, seed, alpha=0.75, beta=0.875, threshold=theta)


@pytest.mark.parametrize("cell", [LIF, SYNAPTIC])
def test_loihi_runs_as_written(cell: Cell) -> None:
    graph = recurrent_graph(cell, 8, 17, 0.4, options=ZERO, seed=2)
    stored = to_loihi(network(graph))
    x = spikes(50, 1).astype(int)
    n = stored.neurons["rnn"]
    u = v = z = np.zeros(17, np.int64)
    ones = stored.weights.get("rnn.bias", np.zeros((17, 1), np.int64))[:, 0] << stored.exponents.get("rnn.bias", 0)
    want = []
    for row in x[:, 0]:
        a = (stored.weights["rnn.ih"] @ row << stored.exponents["rnn.ih"]) + ones
        a = a + (stored.weights["rnn.hh"] @ z << stored.exponents["rnn.hh"])
        u = np.array([int(p * (4095 - d) / 4096) for p, d in zip(u, n.du, strict=True)]) + 64 * a
        v = np.array([int(p * (4096 - d) / 4096) for p, d in zip(v, n.dv, strict=True)]) + u + n.bias
        z = (v > 64 * n.vth).astype(np.int64)
        v = np.where(z == 1, 0, v)
        want.append(z)
    assert np.sum(want) > 40
    np.testing.assert_array_equal(stored.run(x)["rnn.spk"][:, 0], want)


def test_loihi_numbers_fit_their_registers() -> None:
    for seed in range(5):
        stored = to_loihi(network(recurrent_graph(SYNAPTIC, 8, 17, 0.4, options=ZERO, seed=seed)))
        assert isinstance(stored, LoihiNetwork)
        for w in stored.weights.values():
            assert np.abs(w).max(initial=0) <= 254
            assert not np.any(w % 2)
        n = stored.neurons["rnn"]
        assert n.vth.max() < 2**17
        assert np.all((n.du >= 0) & (n.du < 4096) & (n.dv >= 0) & (n.dv < 4096))
        assert np.abs(n.bias_mant).max() < 2**12
        assert n.bias_exp.max() < 8


def test_xylo_runs_as_written() -> None:
    stored = to_xylo(network(synaptic(3, 2.0)))
    assert isinstance(stored, XyloNetwork)
    x = spikes(60, 1).astype(int) * 3
    n, w_in, w_rec = stored.neurons["rnn"], stored.weights["rnn.ih"], stored.weights["rnn.hh"]

    def leak(value: int, dash: int) -> int:
        return max(value >> dash, 1) if value > 0 else value >> dash

    def clip(value: int) -> int:
        return min(max(value, -32768), 32767)

    i, v, z = [0] * 17, [0] * 17, [0] * 17
    want = []
    for row in x[:, 0]:
        fired = []
        for k in range(17):
            for name, weight, source in (("rnn.ih", w_in, row), ("rnn.hh", w_rec, z)):
                for pre, count in enumerate(source):
                    i[k] = clip(i[k] + int(count) * (int(weight[k, pre]) << stored.shifts[name]))
            i[k] -= leak(i[k], int(n.dash_syn[k]))
            v[k] = clip(v[k] + clip(clip(i[k] - leak(v[k], int(n.dash_mem[k]))) + int(n.bias[k])))
            spiked = 0
            while v[k] >= n.threshold[k] and spiked < 31:
                v[k] -= int(n.threshold[k])
                spiked += 1
            fired.append(spiked)
        z = fired
        want.append(fired)
    assert np.max(want) > 1
    np.testing.assert_array_equal(stored.run(x)["rnn.spk"][:, 0], want)


def test_xylo_layers_lag_on_the_chip() -> None:
    stored = to_xylo(network(synaptic(1)))
    x = spikes(60, 1)
    late = stored.on_chip(x)
    np.testing.assert_array_equal(late["rnn.spk"], stored.run(x)["rnn.spk"])
    assert late["out.spk"].sum() > 10
    assert not late["out.spk"][0].any()


def test_what_quantisation_costs_is_measured() -> None:
    graph, x = synaptic(0, 6.0), spikes(200, 3, 0.2)
    made = quantise(graph, XYLO_AUDIO2)
    cost = made.cost(x, score=lambda run: float(run["out.spk"].sum()))
    want, got = interpret(graph, x, keep_values=True).values, made.run(x)
    by_name = {c.name: c for c in cost.layers}
    assert list(by_name) == ["rnn", "out"]
    for name, c in by_name.items():
        assert c.spikes == want[f"{name}.spk"].sum() > 20
        assert c.chip_spikes == got[f"{name}.spk"].sum()
        assert c.differ == (want[f"{name}.spk"] != got[f"{name}.spk"]).sum()
        assert 0 < c.weight_error < 0.02
    rnn = by_name["rnn"]
    assert abs(rnn.spikes - rnn.chip_spikes) < 0.05 * rnn.spikes, "a recurrent network moves its spikes, not their rate"
    assert (cost.score, cost.chip_score) == (want["out.spk"].sum(), got["out.spk"].sum())
    assert "score" in str(cost)


def test_feed_forward_spikes_stay_where_they_are() -> None:
    """Loihi's decays have 12 bits and its states 24: what is left are the weights."""
    base = recurrent_graph(LIF, 8, 17, 0.6, options=ZERO, recurrence=False, seed=4)
    graph = with_vectors(base, LIF, 4, beta=0.9, threshold=1.0)
    (cost,) = quantise(graph, LOIHI1).cost(spikes(300, 5)).layers
    assert cost.spikes > 500
    assert cost.differ < 0.02 * cost.decisions
    assert 0 < cost.weight_error < 0.01


@pytest.mark.parametrize(
    ("graph", "chip", "words"),
    [
        (recurrent_graph(LIF, 4, 5, 0.5), LOIHI2, "resets by subtract, delayed"),
        (recurrent_graph(LIF, 4, 5, 0.5, options=Options(Reset.ZERO_UPDATE)), LOIHI2, "resets by zero_update, delayed"),
        (recurrent_graph(ALIF, 4, 5, 0.5, options=ZERO), LOIHI2, "thresholds that adapt"),
        (recurrent_graph(LIF, 4, 5, 0.5), XYLO_AUDIO2, "every neuron of Xylo has a synapse"),
        (recurrent_graph(SYNAPTIC, 4, 5, 0.5, options=ZERO), XYLO_AUDIO2, "Xylo subtracts the threshold"),
        (recurrent_graph(SYNAPTIC, 4, 5, 0.5), BRAINSCALES2, "known are loihi1, loihi2, xylo-audio2"),
    ],
)
def test_what_a_chip_cannot_store_is_refused(graph: Graph, chip: object, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        quantise(graph, chip)  # type: ignore[arg-type]


def test_chips_are_driven_by_spikes(tmp_path: Path) -> None:
    made = quantise(synaptic(), XYLO_AUDIO2)
    with pytest.raises(UsageError, match="not made of whole numbers"):
        made.run(np.full((3, 1, 8), 0.5))
    with pytest.raises(UnsupportedError, match="SynSense Xylo Audio 2 is no Loihi"):
        export_lava(synaptic(), tmp_path, chip=XYLO_AUDIO2)
    zero = with_vectors(net(LIF, ZERO, 0), LIF, 0, beta=0.9, threshold=1.0)
    with pytest.raises(UnsupportedError, match="xylosim runs Xylo, not Intel Loihi"):
        export_xylo(zero, tmp_path, chip=LOIHI1)
    varied = with_vectors(net(LIF, ZERO, 0), LIF, 0, beta=lambda rng, n: rng.uniform(0.8, 0.9, n), threshold=1.0)
    with pytest.raises(UnsupportedError, match="has a beta per unit"):
        export_lava(varied, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_biases_of_synapses_become_a_unit_that_always_fires() -> None:
    graph = recurrent_graph(SYNAPTIC, 5, 9, 0.5, options=ZERO, seed=1)
    plain, more = network(graph), with_ones(network(graph))
    assert [p.name for p in more.populations] == ["ones", "x", "rnn"]
    np.testing.assert_array_equal(more.projections[0].weight[:, 0], plain.population("rnn").bias)
    assert not more.population("rnn").bias.any()
    lif = network(recurrent_graph(LIF, 5, 9, 0.5))
    assert with_ones(lif) is lif
    assert with_ones(more) is more


def test_one_threshold_keeps_every_spike() -> None:
    graph = recurrent_graph(LIF, 8, 17, 0.4, options=ZERO, seed=3)
    assert np.ptp(network(graph).population("rnn").vectors["threshold"]) > 0
    even = one_threshold(network(graph))
    theta = even.population("rnn").vectors["threshold"]
    np.testing.assert_allclose(theta, theta[0])
    x = spikes(60, 2)
    want = interpret(graph, x, keep_values=True).values["rnn.spk"][:, 0]
    v = z = np.zeros(17)
    weights = {c.name: c.weight for c in even.projections}
    for t in range(60):
        v = even.population("rnn").vectors["beta"] * v + weights["rnn.ih"] @ x[t, 0] + weights["rnn.hh"] @ z
        v = v + even.population("rnn").bias
        z = (v > theta).astype(float)
        v = v * (1 - z)
        np.testing.assert_array_equal(z, want[t])
