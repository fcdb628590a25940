"""What fits on which chip: counts against counts by hand, cures that cure, cores that hold what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import load_graph
from sparsecirc._pattern import Pattern
from sparsecirc.cells import ALIF, GRU, LIF, SYNAPTIC, Cell, Options, Reset
from sparsecirc.cli import main
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.hardware import (
    BRAINSCALES2,
    CHIPS,
    LIMITS,
    LOIHI1,
    LOIHI2,
    SPECK2,
    SPINNAKER2,
    XYLO_AUDIO2,
    XYLO_AUDIO3,
    Chip,
    Fit,
    Limit,
    chip_named,
    fits,
    in_order,
    network,
    partition,
)
from sparsecirc.hardware._chips import loihi1_axon_bits
from sparsecirc.ir import Graph, Input, Linear, Recurrent, save_graph
from sparsecirc.testing import classifier_graph

ZERO, SUBTRACT = Options(Reset.ZERO), Options(Reset.SUBTRACT)


def net(
    units: int,
    out: int = 4,
    inputs: int = 8,
    density: float = 0.3,
    options: Options = ZERO,
    seed: int = 0,
    cell: Cell = LIF,
) -> Graph:
    rng = np.random.default_rng(seed)

    def linear(name: str, source: str, rows: int, cols: int) -> Linear:
        weight = rng.standard_normal((rows, cols)).astype(np.float32)
        return Linear(
            name, (source,), {"weight": weight}, {"weight": Pattern.from_mask(rng.random(weight.shape) < density)}
        )

    def lif(name: str, source: str, n: int, **more: Any) -> Recurrent:
        params = {
            v: np.full(n, {"alpha": 0.75, "beta": 0.9, "threshold": 1}[v], np.float32) for v in cell.vectors
        } | more
        patterns = {k: Pattern.from_mask(rng.random(v.shape) < density) for k, v in more.items()}
        return Recurrent(name, (source,), params, patterns, cell=cell, units=n, options=options)

    hh = (rng.standard_normal((units, units)) / np.sqrt(units)).astype(np.float32)
    nodes = (
        Input("x", shape=(inputs,)), linear("fc1", "x", units, inputs), lif("one", "fc1", units, hh=hh),
        linear("fc2", "one", out, units), lif("two", "fc2", out),
    )  # fmt: skip
    return Graph(nodes, {"y": "two"}, dt=1e-3)


def check(fit: Fit, limit: str) -> Any:
    return next(c for c in fit.checks if c.limit == limit)


def test_every_limit_names_its_source() -> None:
    for name, chip in CHIPS.items():
        assert chip.name == name
        assert set(chip.limits) <= set(LIMITS)
        for limit in chip.limits.values():
            assert limit.source
            assert (limit.value is None) == (limit.source == "not public")
    assert chip_named("loihi1") is LOIHI1
    with pytest.raises(UsageError, match="chip 'truenorth' is unknown: expected one of loihi1"):
        chip_named("truenorth")


def test_a_network_that_fits() -> None:
    fit = fits(net(100), LOIHI1)
    assert fit.ok
    assert fit.patterns == {}
    assert (check(fit, "cores").needed, check(fit, "cores").allowed) == (2, 128)
    assert str(fit).startswith("Intel Loihi: fits\n")
    assert fit.to_json()["ok"] is True
    assert check(fits(net(100, options=SUBTRACT, cell=SYNAPTIC), XYLO_AUDIO3), "hidden").needed == 100


def test_needs_are_those_counted_by_hand() -> None:
    graph = net(60, out=5, inputs=12)
    fc1, hh, fc2 = (graph.node(n).weight(r) != 0 for n, r in (("fc1", "weight"), ("one", "hh"), ("fc2", "weight")))
    fan_in = max((fc1.sum(axis=1) + hh.sum(axis=1)).max(), fc2.sum(axis=1).max())
    names = ("inputs", "hidden", "outputs", "neurons", "synapses", "fan_in", "fan_out")
    chip = Chip("own", "own", {n: Limit(10**6, "test") for n in names})
    fit = fits(graph, chip)
    needed = {c.limit: c.needed for c in fit.checks}
    assert needed == {
        "inputs": 12, "hidden": 60, "outputs": 5, "neurons": 65, "synapses": fc1.sum() + hh.sum() + fc2.sum(),
        "fan_in": fan_in, "fan_out": hh.sum(axis=0).max(),
    }  # fmt: skip
    for name, most in needed.items():  # one less than needed no longer fits, and is the only thing that does not
        tight = fits(graph, chip.with_limits(**{name: int(most) - 1}))
        assert [c.limit for c in tight.checks if not c.ok] == [name]
        assert check(tight, name).cure
        assert fits(graph, chip.with_limits(**{name: int(most)})).ok


@pytest.mark.parametrize("limit", ["fan_in", "fan_out", "synapses", "fan_out_average"])
def test_the_pruning_that_is_advised_makes_it_fit(limit: str) -> None:
    graph = net(60, density=0.8, options=SUBTRACT)
    value = {"fan_in": 17, "fan_out": 9, "synapses": 700, "fan_out_average": 8}[limit]
    chip = Chip("own", "own", {limit: Limit(value, "test")}, resets=(Reset.SUBTRACT,))
    fit = fits(graph, chip)
    bad = check(fit, limit)
    assert not bad.ok
    assert "sparsity" in bad.cure
    small = fit.pruned(graph)
    assert fits(small, chip).ok
    assert check(fits(small, chip), limit).needed == value, "no more is taken than has to be"
    weights = {v.name: v.value for v in graph.weights()}
    for name, pattern in fit.patterns.items():
        assert f"'{name}' to {pattern.sparsity:.1%} sparsity" in bad.cure
        gone = np.abs(weights[name][(weights[name] != 0) & ~pattern.mask()])
        if limit == "synapses" and gone.size:
            assert gone.max() <= min(np.abs(weights[n][p.mask()]).min() for n, p in fit.patterns.items() if p.nnz)
    assert fit.pruned(small).density == small.density


def test_both_weights_of_a_neuron_share_its_fan_in() -> None:
    graph = net(40, density=1.0)
    fit = fits(graph, Chip("own", "own", {"fan_in": Limit(20, "test")}))
    small = fit.pruned(graph)
    assert set(fit.patterns) == {"fc1.weight", "one.hh", "fc2.weight"}
    live = {v.name: v.pattern.fan_in() for v in small.weights()}
    np.testing.assert_array_equal(live["fc1.weight"] + live["one.hh"], 20)
    np.testing.assert_array_equal(live["fc2.weight"], 20)


def test_what_a_chip_cannot_do_is_named_with_the_reason() -> None:
    fit = fits(net(20), SPECK2)
    assert {c.limit for c in fit.checks if not c.ok} == {"reset", "recurrence", "structure"}
    assert "deadlock" in check(fit, "recurrence").cure
    assert check(fit, "recurrence").layer == "one.hh"
    assert check(fits(net(20, options=SUBTRACT), LOIHI1), "reset").layer == "one"
    assert check(fits(net(20, options=Options(Reset.ZERO_UPDATE, True)), LOIHI1), "reset").cure
    assert fits(net(20, options=Options(Reset.ZERO_UPDATE, False)), LOIHI1).ok
    assert check(fits(classifier_graph(ALIF, 5, 9, 3, 0.5), LOIHI1), "cell").layer == "rnn"
    assert fits(classifier_graph(ALIF, 5, 9, 3, 0.5), SPINNAKER2).ok
    with pytest.raises(UnsupportedError, match="no spiking layer"):
        fits(classifier_graph(GRU, 3, 4, 2, 0.5), LOIHI1)


def test_an_unknown_limit_is_said_and_can_be_set() -> None:
    fit = fits(net(300), LOIHI2)
    assert fit.ok
    assert fit.unknown == ("neurons_per_core", "synapse_bits_per_core")
    assert fit.partition is None
    assert "neurons_per_core is not public" in fit.notes[0]
    assert "unknown: neurons in a core" in str(fit)
    own = fits(net(300), LOIHI2.with_limits(neurons_per_core=128))
    assert own.unknown == ("synapse_bits_per_core",)
    assert len(own.partition.cores) == 4  # type: ignore[union-attr]
    for bad, words in (({"speed": 1}, "limit 'speed' is unknown"), ({"cores": 0}, "is 0: expected at least 1")):
        with pytest.raises(UsageError, match=words):
            LOIHI2.with_limits(**bad)


@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_cores_hold_every_unit_once_within_the_limits(density: float) -> None:
    graph = net(300, out=20, density=density)
    chip = LOIHI1.with_limits(neurons_per_core=130, in_axons_per_core=310, synapse_bits_per_core=150_000)
    whole = network(graph)
    spread = partition(whole, chip)
    for p in whole.neurons:
        units = [u for c in spread.cores if c.population == p.name for u in c.units]
        assert sorted(units) == list(range(p.units))
    hh, fc1 = graph.node("one").weight("hh"), graph.node("fc1").weight("weight")
    crossing = np.count_nonzero(graph.node("fc2").weight("weight"))
    for c in spread.cores:
        assert len(c.units) <= 130
        assert c.in_axons <= 310
        assert c.synapse_bits is not None
        assert c.synapse_bits <= 150_000
        if c.population == "one":
            rows = list(c.units)
            fan = [np.count_nonzero(w[rows], axis=0) for w in (fc1, hh)]
            assert c.in_axons == sum(np.count_nonzero(f) for f in fan)
            assert c.connections == sum(f.sum() for f in fan)
            assert c.synapse_bits == sum(loihi1_axon_bits(n, len(rows)) for f in fan for n in f if n)
            outside = np.setdiff1d(np.arange(300), rows)
            crossing += np.count_nonzero(hh[np.ix_(rows, outside)])
    assert spread.crossing == crossing
    assert spread.core_of("one", 7) == next(k for k, c in enumerate(spread.cores) if 7 in c.units)
    assert f"{crossing:,} connections between cores" in str(spread)


def test_neighbours_in_one_core_save_connections_between_cores() -> None:
    graph = net(120)
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(4), 30))  # four groups, shuffled, that do not know each other
    one = graph.node("one").with_patterns(hh=Pattern.from_mask(group[:, None] == group[None]))
    graph = replace(graph, nodes=tuple(one if n.name == "one" else n for n in graph.nodes))
    whole, chip = network(graph), LOIHI1.with_limits(neurons_per_core=30)
    plain = partition(whole, chip, orders=(in_order,))
    best = partition(whole, chip)
    out = np.count_nonzero(graph.node("fc2").weight("weight"))
    assert best.crossing == out, "each group in a core of its own"
    assert plain.crossing > best.crossing + 1000


def test_too_few_cores_are_cured_by_sparsity_or_by_fewer_units() -> None:
    graph = net(300, density=1.0)
    chip = LOIHI1.with_limits(cores=2, synapse_bits_per_core=200_000)
    fit = fits(graph, chip)
    assert not check(fit, "cores").ok
    assert check(fit, "cores").layer == "one"
    assert fits(fit.pruned(graph), chip).ok
    assert fit.pruned(graph).density > 0.05
    narrow = fits(graph, LOIHI1.with_limits(cores=2, neurons_per_core=100))
    assert "take units out" in check(narrow, "cores").cure
    assert narrow.patterns == {}
    with pytest.raises(UnsupportedError, match="unit 0 of layer 'one' alone needs"):
        partition(network(graph), LOIHI1.with_limits(in_axons_per_core=10))
    assert "alone needs" in fits(graph, LOIHI1.with_limits(in_axons_per_core=10)).notes[0]


def test_bits_of_an_axon() -> None:
    assert [loihi1_axon_bits(n, 64) for n in (1, 3, 4, 64)] == [64, 64, 128, 960]
    assert loihi1_axon_bits(65, 64) == 960 + 64
    assert loihi1_axon_bits(10, 1024) == 192


def test_brainscales_counts_neurons_and_synapses() -> None:
    fit = fits(net(600, density=1.0), BRAINSCALES2)
    assert {c.limit for c in fit.checks if not c.ok} == {"neurons", "synapses", "fan_in"}
    assert "take 92 units out of 'one'" in check(fit, "neurons").cure


# ---- the command ---------------------------------------------------------------------------------------------------
def test_the_command_lists_chips_and_writes_what_fits(tmp_path: Path, capsys: Any) -> None:
    graph = net(100, options=SUBTRACT, density=1.0, cell=SYNAPTIC)
    save_graph(graph, tmp_path / "net.safetensors")
    model = str(tmp_path / "net.safetensors")
    assert main(["fits", model]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CHIPS)
    assert main(["fits", model, "--chip", "xylo-audio2", "-o", str(tmp_path / "small.safetensors")]) == 3
    said = capsys.readouterr()
    assert "'one.hh' does not fit on SynSense Xylo Audio 2: fan_out needs 100 of 64" in said.err
    assert "prune 'one.hh' to" in said.err
    assert fits(load_graph(tmp_path / "small.safetensors"), XYLO_AUDIO2).ok
    assert main(["fits", str(tmp_path / "small.safetensors"), "--chip", "xylo-audio2", "--json"]) == 0
    assert '"ok": true' in capsys.readouterr().out
    for words, arguments in (
        ("expected NAME=VALUE", ["--limit", "cores"]), ("limit 'x' is unknown", ["--limit", "x=3"]),
        ("chip 'nope' is unknown", ["--chip", "nope"]), ("add --chip", ["-o", "x.safetensors"]),
    ):  # fmt: skip
        assert main(["fits", model, *arguments]) == 2
        assert words in capsys.readouterr().err
    save_graph(net(100), tmp_path / "zero.safetensors")
    assert main(["fits", str(tmp_path / "zero.safetensors"), "--chip", "loihi1", "--cores"]) == 0
    said = capsys.readouterr()
    assert "connections between cores" in said.out
    advice = next(line for line in said.err.splitlines() if line.startswith("next: sparsecirc "))
    assert "--format nengo-loihi" in advice
    *command, folder = advice.split()[2:]
    assert main([*command, str(tmp_path / folder)]) == 0
    assert (tmp_path / folder / "run_nengo_loihi.py").exists()


# ---- any network ---------------------------------------------------------------------------------------------------
sizes = st.integers(1, 90)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 12), st.integers(1, 20), st.floats(0, 1), st.integers(0, 99), st.data())
def test_whatever_is_advised_makes_it_fit(
    units: int, out: int, inputs: int, density: float, seed: int, data: st.DataObject
) -> None:
    graph = net(units, out, inputs, density, SUBTRACT, seed, SYNAPTIC)
    limit = data.draw(st.sampled_from(["fan_in", "fan_out", "fan_out_average", "synapses"]))
    value = data.draw(st.integers(1, 200))
    chip = Chip("tight", "tight", {limit: Limit(value, "test")}, resets=(Reset.SUBTRACT,))
    fit = fits(graph, chip)
    found = check(fit, limit)
    if found.ok:
        assert found.needed <= found.allowed
        return
    assert found.needed > found.allowed
    assert found.cure
    smaller = fit.pruned(graph)
    again = check(fits(smaller, chip), limit)
    assert again.ok, (limit, again)
    kept = sum(p.nnz for n in smaller.nodes for p in n.patterns.values())
    assert kept < sum(p.nnz for n in graph.nodes for p in n.patterns.values())
    for before, after in zip(graph.nodes, smaller.nodes, strict=True):
        for role, pattern in after.patterns.items():  # nothing grows, and what stays keeps its weight
            assert not np.any(pattern.mask() & ~before.patterns[role].mask())
            live = pattern.mask()
            np.testing.assert_array_equal(after.weight(role)[live], before.weight(role)[live])


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 12), st.floats(0, 1), st.integers(0, 99), st.integers(1, 40), st.integers(1, 120))
def test_cores_hold_each_unit_and_connection_once(
    units: int, out: int, density: float, seed: int, neurons: int, axons: int
) -> None:
    graph = net(units, out, 8, density, seed=seed)
    chip = LOIHI1.with_limits(neurons_per_core=neurons, in_axons_per_core=axons, synapse_bits_per_core=4000)
    wired = network(graph)
    reason = ""
    try:
        spread = partition(wired, chip)
    except UnsupportedError as error:
        reason = str(error)
    if reason:  # a unit that hears more than a core does
        assert "alone" in reason
        heard = [sum((c.weight != 0).sum(axis=1) for c in wired.into(p.name)) for p in wired.neurons]
        most = max(int(np.max(h)) for h in heard)
        assert most > axons or most * loihi1_axon_bits(1, 1) > 4000
        return
    for population in wired.neurons:
        held = sorted(u for c in spread.cores if c.population == population.name for u in c.units)
        assert held == list(range(population.units))
    assert all(len(c.units) <= neurons for c in spread.cores)
    assert all(c.in_axons <= axons for c in spread.cores)
    assert all((c.synapse_bits or 0) <= 4000 for c in spread.cores)
    assert sum(c.connections for c in spread.cores) == sum(len(p.connections[0]) for p in wired.projections)
    assert 0 <= spread.crossing <= sum(len(p.connections[0]) for p in wired.projections)
