"""Networks in the integers of chips: the arithmetic against loops written out, limits, and what quantisation costs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsecirc.cells import ALIF, LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.cli import main
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.hardware import (
    BRAINSCALES2,
    LOIHI1,
    LOIHI2,
    SPINNAKER2,
    XYLO_AUDIO2,
    answers,
    classes,
    export_lava,
    export_xylo,
    network,
    quantise,
    round_weights,
    weight_cost,
)
from sparsecirc.hardware._loihi import LoihiNetwork, to_loihi
from sparsecirc.hardware._network import one_threshold, with_ones
from sparsecirc.hardware._xylo import XyloNetwork, to_xylo
from sparsecirc.ir import Graph, Linear, interpret, save_graph
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


# ---- answers and their cost ----------------------------------------------------------------------------------------
def with_readout(seed: int = 0) -> Graph:
    """Two layers of neurons and a linear read-out that the host runs."""
    rng = np.random.default_rng(seed)
    graph = recurrent_graph(LIF, 8, 17, 0.4, options=ZERO, seed=2)
    tail = Linear("out", ("rnn",), {"weight": rng.standard_normal((3, 17)).astype(np.float32),
                                    "bias": np.array([0.1, -0.2, 0.3], np.float32)})  # fmt: skip
    return Graph((*graph.nodes, tail), {"y": "out"}, dt=1e-3)


def several(samples: int) -> np.ndarray:
    return (np.random.default_rng(5).random((40, samples, 8)) < 0.3).astype(np.float32)


def test_the_host_does_what_the_graph_does() -> None:
    graph, x = with_readout(), several(6)
    run = interpret(graph, x, keep_values=True)
    found = answers(graph, {k: v for k, v in run.values.items() if k.startswith("rnn.")})
    np.testing.assert_allclose(found["y"], run.outputs["y"], atol=1e-12)
    np.testing.assert_array_equal(classes(found), run.outputs["y"].sum(axis=0).argmax(axis=1))
    both = Graph(graph.nodes, {"spikes": "rnn", "y": "out"}, dt=1e-3)
    assert set(answers(both, run.values)) == {"spikes", "y"}
    with pytest.raises(UsageError, match=r"holds no 'rnn\.spk'"):
        answers(graph, {"other.spk": x})


def test_accuracy_is_measured_before_and_after() -> None:
    graph, x = with_readout(), several(60)
    labels = classes(interpret(graph, x).outputs)
    labels[:15] = (labels[:15] + 1) % 3  # so that a quarter of the answers is wrong
    cost = quantise(graph, LOIHI2).cost(x, labels=labels)
    assert cost.accuracy == 0.75
    assert cost.chip_accuracy is not None
    assert cost.changed is not None
    assert abs(cost.chip_accuracy - 0.75) <= cost.changed <= 0.2
    assert "accuracy 75.00%" in cost.table()
    with pytest.raises(UsageError, match="59 labels for 60 samples"):
        quantise(graph, LOIHI2).cost(x, labels=labels[:-1])


def test_weights_alone_where_the_arithmetic_is_not_known() -> None:
    graph, x = with_readout(), several(60)
    labels = classes(interpret(graph, x).outputs)
    coarse = round_weights(graph, 4)
    before, after = ({n.name: n for n in g.nodes} for g in (graph, coarse))
    for role in ("ih", "hh"):
        weight = after["rnn"].weight(role)
        assert len(np.unique(weight)) <= 15
        step = np.abs(before["rnn"].weight(role)).max() / 7
        assert np.abs(weight - before["rnn"].weight(role)).max() <= step / 2 + 1e-6
        assert np.array_equal(weight == 0, (np.abs(before["rnn"].weight(role)) < step / 2))
    assert np.array_equal(after["out"].weight("weight"), before["out"].weight("weight"))  # the host's
    cost = weight_cost(graph, BRAINSCALES2, x, labels=labels)
    assert cost.accuracy == 1.0
    assert cost.layers[0].weight_error > 0
    wide = weight_cost(graph, BRAINSCALES2.with_limits(weight_bits=24), x, labels=labels)
    assert wide.layers[0].differ == 0
    assert wide.chip_accuracy == 1.0
    with pytest.raises(UnsupportedError, match="neither the arithmetic nor the weights"):
        weight_cost(graph, SPINNAKER2, x)
    with pytest.raises(UsageError, match="1 bits"):
        round_weights(graph, 1)


def test_the_command_measures_on_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph, x = with_readout(), several(10)
    save_graph(graph, tmp_path / "net.safetensors")
    np.savez(tmp_path / "test.npz", x=x, y=classes(interpret(graph, x).outputs))
    model = [str(tmp_path / "net.safetensors"), "--data"]
    assert main(["fits", *model, str(tmp_path / "test.npz")]) == 0
    said = capsys.readouterr().out
    assert said.count("accuracy 100.00%") >= 3
    assert "7-bit weights (all else exact) of brainscales2" in said
    assert "in the numbers of xylo-audio2: layer 'rnn' is a lif" in said
    assert main(["fits", *model, str(tmp_path / "test.npz"), "--chip", "loihi2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["costs"]["loihi2"]["accuracy"] == 1.0
    np.savez(tmp_path / "narrow.npz", x=x[..., :3])
    np.savez(tmp_path / "few.npz", x=x, y=np.arange(3))
    np.savez(tmp_path / "other.npz", z=x)
    (tmp_path / "text.npz").write_text("x")
    np.save(tmp_path / "bare.npy", x)
    for name, words in (
        ("narrow.npz", "expected numbers (time, batch, 8)"), ("few.npz", "expected 10 whole numbers"),
        ("other.npz", "holds z: expected x"), ("text.npz", "holds no arrays by name"), ("none.npz", "is not a file"),
        ("bare.npy", "holds no arrays by name"),
    ):  # fmt: skip
        assert main(["fits", *model, str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err
