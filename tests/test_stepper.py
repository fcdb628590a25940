"""A stepper gives what run gives, step by step, for every kind of node; and is quick."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from native_support import ISAS, packed_program

import sparsecirc as sc
from sparsecirc import Graph, Program, Target
from sparsecirc.cells import CELLS, GRU, LIF, LSTM, Cell
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Input,
    Linear,
    Multiply,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
)
from sparsecirc.testing import PROBLEMS, TOLERANCE, classifier_graph, recurrent_graph, relative_difference

RNG = np.random.default_rng(4)
EVERY_CELL = pytest.mark.parametrize("cell", CELLS.values(), ids=lambda c: c.name)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def agree(program: Program, x: dict[str, np.ndarray], batch: int) -> None:
    """The same as `Program.step` to the last bit, and as `Program.run` but for the order of dense sums."""
    graph, axis = program.graph, 1 if program.graph.batch_first else 0
    timed = [n.name for n in graph.inputs if n.time]
    step, state, rows = program.stepper(batch), None, []
    for t in range(x[timed[0]].shape[axis]):
        now = {k: np.take(v, t, axis) if k in timed else v for k, v in x.items()}
        slow, row = program.step(now, state), step(now)
        state = slow.state
        assert row.keys() == slow.outputs.keys()
        for name, value in slow.outputs.items():
            assert np.array_equal(row[name], value), (name, t)
        rows.append(row)
    for name, value in (state or {}).items():
        assert np.array_equal(step.state[name], value), name
    for name, value in program.run(x).outputs.items():
        if graph.specs[graph.outputs[name]].time:
            got = np.stack([r[name] for r in rows])
            assert relative_difference(got, np.moveaxis(value, axis, 0)) <= TOLERANCE.outputs, name
        else:
            assert relative_difference(rows[-1][name], value) <= TOLERANCE.outputs, name


@pytest.mark.parametrize("isa", ISAS, ids=lambda i: i.value)
@pytest.mark.parametrize("batch", [1, 3, 9])
@EVERY_CELL
def test_every_cell(cell: Cell, batch: int, isa) -> None:
    for graph in (recurrent_graph(cell, 7, 33, 0.4), classifier_graph(cell, 7, 33, 4, 0.4)):
        agree(packed_program(graph, isa, "csr"), {"x": normal(20, batch, 7)}, batch)


@pytest.mark.parametrize("name", [n for n, p in PROBLEMS.items() if "reverse" not in p.options and p.steps and p.batch])
def test_the_catalogue(name: str) -> None:
    problem = PROBLEMS[name]
    agree(packed_program(problem.graph(), ISAS[-1], "csr"), {"x": problem.x()}, problem.batch)


def test_state_in_and_out() -> None:
    program = packed_program(classifier_graph(LSTM, 6, 20, 3, 0.4), ISAS[-1], "csr")
    x = normal(30, 2, 6)
    whole, first = program.run(x), program.run(x[:11])
    step = program.stepper(2)
    assert step.batch == 2
    assert step.state.keys() == whole.state.keys()
    assert not any(np.any(v) for v in step.state.values())
    step.reset(first.state)
    rows = [step(x[t]) for t in range(11, 30)]
    assert np.allclose(rows[-1]["y"], whole.y, rtol=1e-6, atol=1e-6)
    for name, value in whole.state.items():
        assert np.array_equal(step.state[name], value), name
    assert np.allclose(program.run(x[:5], step.state).y, program.run(np.concatenate([x, x[:5]])).y, atol=1e-6)
    kept = step.state
    step(x[0])
    assert np.array_equal(kept["rnn.h"], whole.state["rnn.h"])  # a copy
    step.reset()
    assert np.array_equal(step(x[0])["y"], program.run(x[:1]).y)
    step.reset({"rnn.h": first.state["rnn.h"]})  # the others are zero
    assert not np.any(step.state["rnn.c"])


def test_results_are_the_callers_own() -> None:
    program = packed_program(recurrent_graph(GRU, 5, 9, 0.5), ISAS[-1], "csr")
    one, other = program.stepper(), program.stepper()
    x = normal(3, 1, 5)
    first = one(x[0])["h"]
    kept = first.copy()
    one(x[1])
    assert np.array_equal(first, kept)
    assert np.array_equal(other(x[0])["h"], kept)  # they do not share a state
    first[:] = np.nan
    given = x[2].copy()
    assert np.all(np.isfinite(one(given)["h"]))
    given[:] = np.nan
    assert np.all(np.isfinite(one(x[0])["h"]))


def test_layouts_types_and_empty_batches() -> None:
    program = packed_program(recurrent_graph(LIF, 5, 9, 0.5, batch_first=True), ISAS[-1], "csr")
    x = RNG.integers(-3, 4, (2, 12, 5))
    agree(program, {"x": x.astype(np.float32)}, 2)
    want = program.stepper(2)(x[:, 0].astype(np.float32))["mem"]
    for same in (x.astype(np.float64), x.astype(np.int8), x, np.asfortranarray(x).astype(np.float32)):
        assert np.array_equal(program.stepper(2)(same[:, 0])["mem"], want)
    assert np.array_equal(program.stepper(2)(x[:, 0].tolist())["spk"], program.stepper(2)(x[:, 0])["spk"])
    assert program.stepper(0)(np.zeros((0, 5)))["mem"].shape == (0, 9)


def test_threads_share_a_batch() -> None:
    graph = classifier_graph(GRU, 30, 64, 5, 0.4)
    agree(sc.compile(graph, Target.cpu(threads=2), kernel="csr"), {"x": normal(5, 40, 30)}, 40)


def test_integer_programs_and_their_states() -> None:
    program = sc.compile(recurrent_graph(GRU, 8, 32, 0.4), Target.cpu(dtype="int16"), kernel={"*.hh": "lookup16"})
    agree(program, {"x": normal(20, 1, 8)}, 1)
    step = program.stepper()
    with pytest.raises(UsageError, match="integer kernels hold states within -1 and 1"):
        step.reset({"rnn.h": np.full((1, 32), 2.0)})


# Other nodes ---------------------------------------------------------------------------------------------------------


def lif(name: str, source: str, shape: tuple[int, ...]) -> Recurrent:
    units = int(np.prod(shape))
    params = {"beta": np.full(units, 0.8, np.float32), "threshold": np.full(units, 0.5, np.float32)}
    return Recurrent(name, (source,), params, cell=LIF, units=units, feature_shape=shape if len(shape) > 1 else ())


def test_images_and_every_glue_node() -> None:
    square = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    flat = 4 * 3 * 3
    nodes = (
        Input("x", shape=(2, 6, 6)),
        Conv("conv", ("x",), {"weight": 0.5 * normal(4, 2, 3, 3)}, **square),
        lif("lif", "conv", (4, 6, 6)),
        Pool("pool", ("lif",), how="max"),
        Affine("affine", ("pool",), {"scale": normal(4, 1, 1)}),
        Elementwise("tanh", ("affine",), fn="tanh"),
        Add("add", ("tanh", "pool")),
        Multiply("multiply", ("add", "tanh")),
        Flatten("flat", ("multiply",), axes=3),
        Concat("both", ("flat", "flat")),
        Linear("fc", ("both",), {"weight": normal(9, 2 * flat) / 6, "bias": normal(9)}),
        lif("out", "fc", (9,)),
        *(TimeReduce(how, ("out",), how=how, feature_shape=(9,)) for how in ("last", "first", "mean", "sum", "max")),
        Linear("head", ("mean",), {"weight": normal(3, 9)}),
        Elementwise("soft", ("head",), fn="softmax"),
    )
    outputs = {"spk": "out", "mem": "lif.mem", "fc": "fc", "x again": "x", "soft": "soft"}
    outputs |= {how: how for how in ("last", "first", "mean", "sum", "max")}
    for batch in (1, 9):
        agree(sc.compile(Graph(nodes, outputs, dt=1e-3)), {"x": normal(9, batch, 2, 6, 6)}, batch)


def test_words() -> None:
    gru = replace(recurrent_graph(GRU, 6, 9, 0.5).recurrent[0], inputs=("emb",))
    nodes = (Input("x", shape=()), Embedding("emb", ("x",), {"weight": normal(50, 6)}), gru)
    program = sc.compile(Graph(nodes, {"y": "rnn"}))
    agree(program, {"x": RNG.integers(0, 50, (8, 3))}, 3)
    with pytest.raises(UsageError, match="has 50 entries, got index 50"):
        program.stepper()(np.array([50]))


def test_a_static_value_shown_at_every_step() -> None:
    fc = Linear("fc", ("image",), {"weight": normal(9, 5)})
    nodes = (Input("image", shape=(5,), time=False), fc, Repeat("shown", ("fc",), steps=7), lif("lif", "shown", (9,)),
             TimeReduce("count", ("lif",), how="sum", feature_shape=(9,)))  # fmt: skip
    program = sc.compile(Graph(nodes, {"spk": "lif", "count": "count"}, dt=1e-3))
    x = normal(2, 5)
    want, step, state = program.run(x).outputs, program.stepper(2), None
    for t in range(7):
        got = step(x)
        slow = program.step(x, state)
        state = slow.state
        for row in (got, slow.outputs):
            assert np.array_equal(row["spk"], want["spk"][t])
    assert np.array_equal(got["count"], want["count"])
    assert np.array_equal(slow.outputs["count"], want["count"])


def test_several_inputs() -> None:
    nodes = (
        Input("x", shape=(4,)), Input("static", shape=(3,), time=False), recurrent_graph(GRU, 4, 6, 1.0).recurrent[0],
        TimeReduce("mean", ("rnn",), how="mean", feature_shape=(6,)), Concat("both", ("mean", "static")),
    )  # fmt: skip
    program = sc.compile(Graph(nodes, {"y": "both", "h": "rnn"}))
    agree(program, {"x": normal(9, 2, 4), "static": normal(2, 3)}, 2)
    step = program.stepper(2)
    with pytest.raises(UsageError, match=r"the graph has 2 inputs: pass a dict with \['x', 'static'\]"):
        step(normal(2, 4))
    with pytest.raises(UsageError, match=r"inputs \['x'\] are not those of the graph"):
        step({"x": normal(2, 4)})


def test_what_is_refused() -> None:
    program = sc.compile(recurrent_graph(GRU, 4, 6, 1.0))
    step = program.stepper(2)
    with pytest.raises(UsageError, match=r"input 'x' of one step has shape \(3, 4\): expected \(2, 4\)"):
        step(normal(3, 4))
    with pytest.raises(UsageError, match=r"expected \(2, 4\)"):
        step({"x": normal(1, 2, 4)})
    with pytest.raises(UsageError, match=r"inputs \['y'\] are not"):
        step({"y": normal(2, 4)})
    with pytest.raises(UsageError, match=r"state 'rnn.h' has shape \(1, 6\): expected \(2, 6\)"):
        step.reset({"rnn.h": normal(1, 6)})
    with pytest.raises(UsageError, match="batch is -1"):
        program.stepper(-1)
    backwards = sc.compile(recurrent_graph(GRU, 4, 6, 1.0, reverse=True))
    with pytest.raises(UnsupportedError, match="layer 'rnn' needs the whole sequence"):
        backwards.stepper()


def test_a_step_costs_a_fraction_of_the_general_one() -> None:
    """Both in one run on one machine; it is a sixth where nothing else runs."""
    program = sc.compile(recurrent_graph(GRU, 16, 64, 0.1), kernel="csr")
    x, step = normal(1, 16), program.stepper()
    state = program.step(x).state

    def best(call) -> float:
        times = []
        for _ in range(40):
            start = time.perf_counter()
            for _ in range(50):
                call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(lambda: step(x)) < 0.6 * best(lambda: program.step(x, state))
