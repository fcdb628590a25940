"""Verify must pass what is right, and above all fail what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from native_support import FORMATS, ISAS, packed_program

import sparsecirc
from sparsecirc import Graph, Program, Target, interpret, verify
from sparsecirc._target import Isa
from sparsecirc._ties import TIE
from sparsecirc._verify import RTOL, VerifyReport, compare
from sparsecirc.cells import ALIF, CELLS, GRU, LIF, Cell, Options, Reset
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.ir import Input, Linear, Recurrent, Result
from sparsecirc.testing import (
    PROBLEMS,
    TOLERANCE,
    classifier_graph,
    late_state,
    recurrent_graph,
    wrong_weight,
)

EVERY_CELL = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)
SPIKING = [n for n, p in PROBLEMS.items() if p.cell.spiking and p.steps and p.batch]


def random_x(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_one_tolerance() -> None:
    assert TOLERANCE.outputs == RTOL


# What is right -------------------------------------------------------------------------------------------------------


@EVERY_CELL
def test_a_good_program_passes(cell: Cell) -> None:
    graph = classifier_graph(cell, 8, 40, 3, 0.2)
    program = sparsecirc.compile(graph)
    report = verify(program, random_x(40, 3, 8), reference=graph)
    assert report.ok
    assert report.check() is report
    assert (report.steps, report.batch, report.spike_mismatches) == (40, 3, 0)
    assert (report.spikes > 0) == cell.spiking
    assert [o.name for o in report.outputs] == (["y", "rnn.mem"] if cell.spiking else ["y"])
    assert all(o.max_abs_diff <= RTOL * o.scale for o in report.outputs)


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("name", SPIKING)
def test_every_spike_of_the_catalogue_is_exact(name: str, isa: Isa) -> None:
    problem = PROBLEMS[name]
    graph, x = problem.graph(), problem.x()
    for form in ("dense", "csr", "lookup", "columns"):
        report = verify(packed_program(graph, isa, form), x, lengths=problem.valid())
        assert report.ok, f"{form}: {report}"
        assert report.spike_mismatches == 0
        assert len(report.ties) <= 1, form  # a tie is rare: many of them would hide a fault
        assert report.spikes > 0 or problem.density == 0


@EVERY_CELL
def test_drift_over_a_thousand_steps_is_reported(cell: Cell) -> None:
    program = sparsecirc.compile(recurrent_graph(cell, 8, 40, 0.2, seed=1), kernel="csr")
    report = verify(program, random_x(1000, 1, 8))
    assert report.ok, str(report)
    assert report.ties == ()
    for output in report.outputs:
        assert output.max_abs_diff >= max(output.first_quarter, output.last_quarter)
        assert output.worst_step is not None
        assert output.last_quarter <= RTOL * output.scale


def test_ragged_and_empty_runs() -> None:
    program = sparsecirc.compile(recurrent_graph(GRU, 8, 20, 0.5), kernel="csr")
    assert verify(program, random_x(9, 3, 8), lengths=[9, 2, 0]).ok
    assert verify(program, np.ones((0, 2, 8), np.float32)).ok
    assert verify(program, np.ones((4, 0, 8), np.float32)).ok
    spiking = sparsecirc.compile(recurrent_graph(LIF, 8, 20, 0.5), kernel="csr")
    for shape in ((0, 2, 8), (4, 0, 8)):
        report = verify(spiking, np.ones(shape, np.float32))
        assert report.ok
        assert report.spikes == 0


def test_batch_first_and_static_outputs() -> None:
    program = sparsecirc.compile(recurrent_graph(LIF, 8, 20, 0.5, batch_first=True), kernel="csr")
    report = verify(program, random_x(3, 9, 8))
    assert report.ok
    assert (report.steps, report.batch) == (9, 3)
    nodes = (Input("x", shape=(4,), time=False), Linear("y", ("x",), {"weight": random_x(3, 4)}))
    static = verify(sparsecirc.compile(Graph(nodes, {"y": "y"})), random_x(5, 4))
    assert static.ok
    assert (static.steps, static.batch, static.outputs[0].worst_step) == (1, 5, None)


# What is wrong -------------------------------------------------------------------------------------------------------


@EVERY_CELL
@pytest.mark.parametrize("form", FORMATS)
def test_a_wrong_weight_fails(cell: Cell, form: str) -> None:
    graph = classifier_graph(cell, 8, 40, 3, 0.2)
    x = random_x(40, 3, 8)
    good = packed_program(graph, ISAS[-1], form)
    assert verify(good, x).ok
    for name in ("rnn.ih", "rnn.hh", "fc.weight"):
        report = verify(wrong_weight(good, name, factor=1.05), x)
        assert not report.ok, name
        assert str(report).endswith("FAIL")
        with pytest.raises(MismatchError, match=r"output '(y|rnn\.mem)' differs by"):
            report.check()


@EVERY_CELL
def test_a_state_that_comes_one_step_late_fails(cell: Cell) -> None:
    program = packed_program(recurrent_graph(cell, 8, 40, 0.2), ISAS[-1], "csr")
    report = verify(late_state(program), random_x(20, 2, 8))
    assert not report.ok
    assert report.spike_mismatches > 0 or not report.outputs[0].ok


def test_unexplained_spikes_are_counted_and_never_called_ties() -> None:
    program = packed_program(recurrent_graph(LIF, 8, 40, 0.5), ISAS[-1], "csr")
    report = verify(wrong_weight(program, "rnn.ih", factor=1.5), random_x(60, 2, 8))
    assert not report.ok
    assert report.spike_mismatches > 0
    assert all(not t.explained for t in report.ties)
    assert f"spikes: {report.spike_mismatches} of {report.spikes} differ" in str(report)


def faked(truth: Result, **changed: np.ndarray) -> Result:
    values = {**truth.values, **changed}
    outputs = {k: changed.get(f"rnn.{k}", v) for k, v in truth.outputs.items()}
    return Result(outputs, truth.state, values)


def test_one_flipped_spike_is_a_mismatch() -> None:
    graph = recurrent_graph(LIF, 8, 40, 0.5)
    truth = interpret(graph, random_x(60, 2, 8), keep_values=True)
    assert compare(graph, truth, truth).ok
    spikes = truth.values["rnn.spk"].copy()
    spikes[30, 1, 7] = 1 - spikes[30, 1, 7]
    report = compare(graph, truth, faked(truth, **{"rnn.spk": spikes}))
    assert not report.ok
    assert report.spike_mismatches == 1
    (tie,) = report.ties
    assert (tie.layer, tie.step, tie.sample, tie.unit, tie.explained) == ("rnn", 30, 1, 7, False)
    assert tie.margin > TIE


def test_not_a_number_never_agrees() -> None:
    graph = recurrent_graph(GRU, 4, 6, 1.0)
    truth = interpret(graph, random_x(5, 2, 4), keep_values=True)
    for bad in (np.nan, np.inf):
        h = truth.outputs["h"].copy()
        h[2, 1, 3] = bad
        report = compare(graph, truth, Result({"h": h}, {}, {}))
        assert not report.ok
        assert report.outputs[0].worst_step == 2
        assert report.max_abs_diff == np.inf


def test_difference_at_one_step_only() -> None:
    graph = recurrent_graph(GRU, 4, 6, 1.0)
    truth = interpret(graph, random_x(8, 2, 4), keep_values=True)
    h = truth.outputs["h"].copy()
    h[7, 1, 3] += 1e-3
    report = compare(graph, truth, Result({"h": h}, {}, {}))
    assert not report.ok
    output = report.outputs[0]
    assert output.worst_step == 7
    assert output.last_quarter == pytest.approx(1e-3)
    assert output.first_quarter == 0
    assert output.mean_abs_diff == pytest.approx(1e-3 / h.size)
    assert "differs most at step 7" in str(report)
    assert compare(graph, truth, Result({"h": h}, {}, {}), tolerance=0.1).ok


def test_outputs_of_another_shape_are_refused() -> None:
    graph = recurrent_graph(GRU, 4, 6, 1.0)
    truth = interpret(graph, random_x(5, 2, 4), keep_values=True)
    with pytest.raises(UsageError, match=r"output 'h' has shape \(4, 2, 6\): expected \(5, 2, 6\)"):
        compare(graph, truth, Result({"h": truth.outputs["h"][:4]}, {}, {}))


# Ties ----------------------------------------------------------------------------------------------------------------


def tied(
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    reverse: bool = False,
    cell: Cell = LIF,
) -> tuple[Program, np.ndarray]:
    """A neuron whose float32 sum equals its threshold while the exact sum lies above it."""
    rng = np.random.default_rng(0)
    while True:
        weight = rng.uniform(0.1, 1, (1, 5)).astype(np.float32)
        x = np.ones((1, 1, 5), np.float32)
        vectors = {"beta": np.full(1, 0.5, np.float32), "threshold": np.full(1, 99, np.float32)}
        if cell is ALIF:
            vectors |= {"rho": np.full(1, 0.75, np.float32), "strength": np.full(1, 0.5, np.float32)}
        layer = Recurrent(
            "rnn", ("x",), {"ih": weight, **vectors}, cell=cell, units=1, options=options, reverse=reverse
        )
        graph = Graph((Input("x", shape=(5,)), layer), {"spk": "rnn.spk", "mem": "rnn.mem"}, dt=1e-3)
        rounded = packed_program(graph, Isa.SCALAR, "dense").run(x).outputs["mem"].ravel()
        if rounded[0] < weight.astype(np.float64).sum():
            graph = graph.replace_nodes(layer.with_params(threshold=rounded))
            return packed_program(graph, Isa.SCALAR, "dense"), x


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("cell", [LIF, ALIF], ids=lambda c: c.name)
def test_ties_of_every_reset(cell: Cell, reset: Reset, delay: bool, reverse: bool) -> None:
    program, one = tied(Options(reset, delay), reverse=reverse, cell=cell)
    x = np.zeros((7, 1, 5), np.float32)
    x[2] = one
    report = verify(program, x)
    assert report.ok, str(report)
    assert [(t.step, t.explained) for t in report.ties] == [(2, True)]
    report = verify(wrong_weight(program, factor=0.99), x)  # a fault that falls on the tie is none
    assert not report.ok
    assert [t.explained for t in report.ties] == [False]


@pytest.mark.parametrize("delay", [False, True])
@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("cell", [LIF, ALIF], ids=lambda c: c.name)
def test_ties_the_other_way_round(cell: Cell, reset: Reset, delay: bool) -> None:
    """The run fires and the reference does not: what the spike did to the membrane is undone before judging."""
    program, one = tied(Options(reset, delay), cell=cell)
    x = np.zeros((4, 1, 5), np.float32)
    x[2] = one
    truth = interpret(program.graph, x, keep_values=True)
    run = interpret(program.graph, x * np.float32(1 - 1e-7), keep_values=True)
    assert truth.values["rnn.spk"][2, 0, 0] > run.values["rnn.spk"][2, 0, 0]
    assert compare(program.graph, run, truth).ok
    early = interpret(program.graph, x * 3, keep_values=True)
    report = compare(program.graph, run, early)  # fires for another reason
    assert report.ok == (reset in (Reset.ZERO, Reset.ZERO_UPDATE) and not delay)  # cleared membranes tell nothing


@pytest.mark.parametrize("options", [Options(r, d, a) for r in Reset for d in (True, False) for a in (True, False)])
def test_a_tie_at_a_raised_threshold(options: Options) -> None:
    """Strong input first, so that the neuron has fired and its threshold is high when the tie comes."""
    vectors = {"beta": 0.5, "threshold": 1.0, "rho": 0.75, "strength": 0.5}
    params = {k: np.full(1, v, np.float32) for k, v in vectors.items()} | {"ih": np.ones((1, 1), np.float32)}
    layer = Recurrent("rnn", ("x",), params, cell=ALIF, units=1, options=options)
    graph = Graph((Input("x", shape=(1,)), layer), {"spk": "rnn.spk", "mem": "rnn.mem"}, dt=1e-3)
    x = np.zeros((6, 1, 1))
    x[:2] = 2.0
    before = interpret(graph, x, keep_values=True).values
    level = 1 + 0.5 * before["rnn.adapt"][4, 0, 0]
    assert level > 1.2
    x[4] = level - before["rnn.mem"][4, 0, 0]  # the membrane would be at the level but for what is added below
    above = interpret(graph, x + np.eye(6)[4].reshape(6, 1, 1) * 1e-7, keep_values=True)
    below = interpret(graph, x - np.eye(6)[4].reshape(6, 1, 1) * 1e-7, keep_values=True)
    assert above.values["rnn.spk"].sum() == below.values["rnn.spk"].sum() + 1
    for truth, run in ((above, below), (below, above)):
        report = compare(graph, truth, run)
        assert report.ok, str(report)
        assert [(t.step, t.explained) for t in report.ties] == [(4, True)]
    far = interpret(graph, x + np.eye(6)[4].reshape(6, 1, 1) * 0.1, keep_values=True)
    report = compare(graph, below, far)
    assert report.ok == (options.reset in (Reset.ZERO, Reset.ZERO_UPDATE) and not options.delay)


def test_a_tie_is_told_and_not_counted() -> None:
    program, x = tied()
    assert interpret(program.graph, x).outputs["spk"].item() == 1
    assert program.run(x).outputs["spk"].item() == 0
    report = verify(program, x)
    assert report.ok
    assert report.spike_mismatches == 0
    (tie,) = report.ties
    assert tie.explained
    assert 0 < tie.margin < 1e-6
    assert "1 decided by rounding" in str(report)
    assert "rnn unit 0, step 0, sample 0: margin" in str(report)


def test_a_sample_is_compared_up_to_its_tie_only_and_others_to_their_end() -> None:
    program, x = tied()
    silent = np.zeros((12, 2, 5), np.float32)
    silent[4, 0] = x[0, 0]
    report = verify(program, silent)
    assert report.ok
    assert [(t.step, t.sample) for t in report.ties] == [(4, 0)]
    silent[6:, 1] = 3 * x[0, 0]  # the other sample spikes clearly, and a fault there is still seen
    assert verify(program, silent).ok
    report = verify(wrong_weight(program, factor=-9), silent)
    assert not report.ok
    assert report.spike_mismatches > 0


def test_a_wrong_weight_does_not_hide_behind_a_tie() -> None:
    program, x = tied()
    report = verify(wrong_weight(program, factor=0.99), np.tile(x, (3, 1, 1)))
    assert not report.ok
    assert report.spike_mismatches > 0


# Packing -------------------------------------------------------------------------------------------------------------


def test_rounding_of_packed_weights_is_bounded() -> None:
    graph = recurrent_graph(GRU, 16, 64, 0.2)
    x = random_x(10, 2, 16)
    exact = sparsecirc.compile(graph, kernel="lookup", exact=True)
    assert verify(exact, x).rounding is None
    assert verify(exact, x, reference=graph).rounding == 0
    rounded = sparsecirc.compile(graph, kernel="mantissa", exact=False)
    report = verify(rounded, x, reference=graph)
    assert report.ok
    assert report.rounding is not None
    assert 0 < report.rounding <= TOLERANCE.mantissa
    assert "weights moved by packing" in str(report)
    layer = graph.recurrent[0]
    other = graph.replace_nodes(layer.with_params(hh=layer.params["hh"] * np.float32(1 + 1e-4)))
    for program in (exact, rounded):
        report = verify(program, x, reference=other)
        assert not report.ok
        assert report.rounding == pytest.approx(1e-4, rel=0.2)
    slightly = graph.replace_nodes(layer.with_params(hh=np.nextafter(layer.params["hh"], np.float32(9))))
    assert not verify(exact, x, reference=slightly).ok  # exact programs must not move a weight at all


def test_a_weight_that_came_alive_is_no_rounding() -> None:
    graph = recurrent_graph(GRU, 16, 64, 0.2)
    program = sparsecirc.compile(graph, Target.cpu("scalar"), kernel="lookup")
    layer = graph.recurrent[0]
    thinner = layer.patterns["hh"].mask()
    thinner[tuple(np.argwhere(thinner)[0])] = False
    fewer = graph.with_patterns({"rnn.hh": sparsecirc.Pattern.from_mask(thinner)})
    report = verify(program, random_x(10, 2, 16), reference=fewer)
    assert not report.ok
    assert report.rounding == np.inf


# Reports -------------------------------------------------------------------------------------------------------------


def test_reports_are_json() -> None:
    program = sparsecirc.compile(recurrent_graph(LIF, 8, 20, 0.5), kernel="csr")
    report = verify(program, random_x(9, 2, 8))
    data = json.loads(json.dumps(report.to_json()))
    assert data["ok"] is True
    assert data["max_abs_diff"] == report.max_abs_diff
    assert [o["name"] for o in data["outputs"]] == ["spk", "mem"]
    assert str(report).splitlines()[-1] == "PASS"
    assert isinstance(replace(report, ok=False), VerifyReport)


def test_inputs_that_do_not_fit_are_refused() -> None:
    program = sparsecirc.compile(recurrent_graph(GRU, 8, 20, 0.5), kernel="csr")
    with pytest.raises(UsageError, match=r"expected \(T, B, 8\)"):
        verify(program, np.ones((3, 2, 7)))
