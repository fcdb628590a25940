"""Batches: what serves them is said and is what runs, and threads change nothing but the time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sparsecirc as sc
from sparsecirc import Graph, Target, interpret, patterns
from sparsecirc._native import kernels
from sparsecirc.cells import ALIF, GRU, LIF, LSTM, RNN_TANH, SYNAPTIC, Cell, Options, Reset
from sparsecirc.ir import Input, Linear
from sparsecirc.testing import TOLERANCE, random_pattern, recurrent_graph


def batch_of(graph: Graph, steps: int, batch: int, seed: int = 0) -> np.ndarray:
    """Normal input (T, B, features)."""
    shape = (steps, batch, *graph.inputs[0].shape)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("cell", [GRU, LSTM, RNN_TANH], ids=lambda c: c.name)
@pytest.mark.parametrize("units", [20, 70, 300])
@pytest.mark.parametrize("batch", [8, 16, 17, 64])
def test_blocks_of_a_batch_meet_at_every_size(cell: Cell, units: int, batch: int) -> None:
    graph = recurrent_graph(cell, 9, units, 0.2)
    program = sc.compile(graph, exact=True)
    x = batch_of(graph, 5, batch)
    lengths = np.arange(batch) % 6
    got, want = program.run(x, lengths=lengths), interpret(program.graph, x, lengths=lengths)
    assert np.allclose(got.y, want.y, rtol=0, atol=TOLERANCE.outputs)
    for name, state in want.state.items():
        assert np.allclose(got.state[name], state, rtol=0, atol=TOLERANCE.outputs)


@pytest.mark.parametrize(("shape", "name"), [((16, 1), "block16x1"), ((8, 1), "block8x1"), ((4, 4), "block4x4")])
@pytest.mark.parametrize("units", [48, 112])
@pytest.mark.parametrize("cell", [GRU, LSTM], ids=lambda c: c.name)
def test_blocks_serve_batches(shape: tuple[int, int], name: str, units: int, cell: Cell) -> None:
    graph = recurrent_graph(cell, 16, units, 0.3, pattern=patterns.block(*shape))
    blocks = sc.compile(graph)
    assert {c.batched for c in blocks.explain().rows} == {name}
    x = batch_of(graph, 7, 19)
    lengths = np.arange(19) % 8
    got, want = blocks.run(x, lengths=lengths), interpret(graph, x, lengths=lengths)
    assert np.allclose(got.y, want.y, rtol=0, atol=TOLERANCE.outputs)
    for name, state in want.state.items():
        assert np.allclose(got.state[name], state, rtol=0, atol=TOLERANCE.outputs)


def test_explain_says_what_serves_batches() -> None:
    rows = {c.weight: c for c in sc.compile(recurrent_graph(GRU, 9, 300, 0.2)).explain().rows}
    assert (rows["rnn.ih"].batched, rows["rnn.hh"].batched) == ("csr", "tiled_csr")
    dense = {c.weight: c for c in sc.compile(recurrent_graph(GRU, 9, 300, 0.8)).explain().rows}
    assert dense["rnn.hh"].batched == "dense"
    isa = sc.compile(recurrent_graph(LIF, 9, 30, 0.2)).isa.value
    spiking = sc.compile(recurrent_graph(LIF, 9, 30, 0.2)).explain()
    assert {c.batched for c in spiking.rows} == ({"csr"} if kernels.has_spikes(isa) else {""})
    blocks = sc.compile(recurrent_graph(LIF, 16, 48, 0.3, pattern=patterns.block(16, 1))).explain()
    assert {c.batched for c in blocks.rows} == {""}
    assert "in batches" in spiking.table().splitlines()[0]


SPIKING = [
    (LIF, {}),
    (LIF, {"options": Options(Reset.ZERO, delay=False), "reverse": True}),
    (LIF, {"recurrence": False}),
    (LIF, {"one_to_one": True}),
    (LIF, {"input_product": False}),
    (SYNAPTIC, {"options": Options(Reset.SUBTRACT), "bias": False}),
    (ALIF, {"options": Options(Reset.SUBTRACT, adapted=True)}),
]


@pytest.mark.parametrize(("cell", "case"), SPIKING, ids=lambda v: v.name if isinstance(v, Cell) else "-".join(v))
@pytest.mark.parametrize("batch", [16, 37, 70])
@pytest.mark.parametrize("rate", [0.01, 0.3, None])
def test_samples_of_spikes_together_are_those_alone(
    cell: Cell, case: dict[str, Any], batch: int, rate: float | None
) -> None:
    units = 41
    graph = recurrent_graph(cell, units, units, 0.2, spiking_input=True, **case)
    program, single = sc.compile(graph), sc.compile(graph, kernel="columns")  # columns serve samples one by one
    rng = np.random.default_rng(0)
    x = (rng.random((9, batch, units)) < (rate or 0.2)).astype(np.float32)
    together, alone = program.run(x), single.run(x)
    again, after = program.run(x, state=together.state), single.run(x, state=alone.state)
    for many, one in ((together, alone), (again, after)):
        for name, y in many.outputs.items():
            assert np.array_equal(y, one.outputs[name]), name
        for name, state in many.state.items():
            assert np.array_equal(state, one.state[name]), name
    if rate is None:  # steps of other numbers come between those of spikes
        x[3:5] = rng.standard_normal(x[3:5].shape)
    assert sc.verify(program, x).ok


def test_spikes_of_other_heights_and_lengths_run_alone() -> None:
    program = sc.compile(recurrent_graph(LIF, 20, 33, 0.2))
    rng = np.random.default_rng(0)
    x = (rng.random((7, 20, 20)) < 0.3).astype(np.float32)
    state = {name: np.full_like(value, 0.5) for name, value in program.run(x).state.items()}
    lengths = np.arange(20) % 8
    for given, ends in ((state, None), (None, lengths), (state, lengths)):
        got = program.run(x, state=given, lengths=ends)
        want = interpret(program.graph, x, state=given, lengths=ends, dtype=np.float32)
        for name, y in want.outputs.items():
            assert np.allclose(got.outputs[name], y, rtol=0, atol=TOLERANCE.outputs), name


@pytest.mark.parametrize("kernel", ["lookup", "csr", "dense", "mantissa"])
def test_a_forced_kernel_serves_batches_too(kernel: str, tmp_path: Path) -> None:
    graph = recurrent_graph(GRU, 9, 40, 0.2)
    program = sc.compile(graph, kernel=kernel, exact=False)
    program.save(tmp_path / "p.scp")
    x = batch_of(graph, 6, 16)
    for made in (program, sc.Program.load(tmp_path / "p.scp")):
        choice = made.choices["rnn.hh"]
        assert choice.forced
        assert choice.batched == (kernel if kernel in ("csr", "dense") else "")
        together = made.run(x).y
        assert np.allclose(together, interpret(made.graph, x).y, rtol=0, atol=TOLERANCE.outputs)
        if not choice.batched:  # the same kernel, sample by sample: the same bits
            alone = np.concatenate([made.run(x[:, b : b + 1]).y for b in range(16)], axis=1)
            assert np.array_equal(together, alone)


@pytest.mark.parametrize("threads", [2, 3, 64])
@pytest.mark.parametrize("cell", [GRU, LSTM, LIF], ids=lambda c: c.name)
@pytest.mark.parametrize("batch", [1, 5, 37])
def test_threads_change_no_bit(cell: Cell, threads: int, batch: int) -> None:
    graph = recurrent_graph(cell, 64, 128, 0.3)
    one = sc.compile(graph, exact=True, kernel={"*": "csr"})
    many = sc.compile(graph, Target.cpu(threads=threads), exact=True, kernel={"*": "csr"})
    x = batch_of(graph, 60, batch)
    lengths = np.full(batch, 60) - np.arange(batch) % 7
    a, b = one.run(x, lengths=lengths), many.run(x, lengths=lengths)
    for name in a.outputs:
        assert np.array_equal(a.outputs[name], b.outputs[name])
    for name in a.state:
        assert np.array_equal(a.state[name], b.state[name])


@pytest.mark.parametrize("kernel", ["dense", "csr", "lookup"])
@pytest.mark.parametrize("vectors", [0, 1, 100, 1000])
def test_threads_share_the_vectors_of_a_product(kernel: str, vectors: int) -> None:
    rng = np.random.default_rng(0)
    pattern = random_pattern(90, 200, 0.4, 0)
    weight = pattern.apply(rng.standard_normal((90, 200)).astype(np.float32))
    layer = Linear("fc", ("x",), {"weight": weight}, {"weight": pattern})
    graph = Graph((Input("x", shape=(200,), time=False), layer), {"y": "fc"})
    x = rng.standard_normal((vectors, 200)).astype(np.float32)
    one, many = (sc.compile(graph, Target.cpu(threads=n), kernel=kernel, exact=True).run(x).y for n in (1, 4))
    assert np.array_equal(one, many)


KERNELS = [
    *((kernel, "f32") for kernel in ("dense", "csr", "lookup", "mantissa", "block16x1", "block4x4", "block_diagonal")),
    *(("lookup_bf16", "bf16"), ("lookup16", "int16"), ("dense16", "int16"), ("lookup8", "int8"), ("dense8", "int8")),
]


@pytest.mark.parametrize(("kernel", "dtype"), KERNELS, ids=lambda v: str(v))
def test_threads_that_share_a_sample_change_no_bit(kernel: str, dtype: str) -> None:
    height, width = {"block16x1": (16, 1), "block4x4": (4, 4), "block_diagonal": (32, 8)}.get(kernel, (1, 1))
    graph = recurrent_graph(
        RNN_TANH, 16, 512, 0.5, pattern=None if height * width == 1 else patterns.block(height, width), reverse=True
    )
    x = batch_of(graph, 150, 1)
    one, two, three = (
        sc.compile(graph, Target.cpu(threads=n, dtype=dtype), kernel={"rnn.hh": kernel}, orders=()).run(x)
        for n in (1, 2, 3)
    )
    for many in (two, three):
        assert np.array_equal(one.y, many.y)
        assert all(np.array_equal(one.state[name], many.state[name]) for name in one.state)


@pytest.mark.parametrize("cell", [GRU, LSTM, LIF], ids=lambda c: c.name)
@pytest.mark.parametrize("steps", [97, 161, 700])
def test_cells_on_a_shared_sample(cell: Cell, steps: int) -> None:
    graph = recurrent_graph(cell, 9, 300, 0.8, projection=200 if cell is LSTM else None)
    x = batch_of(graph, steps, 1)
    one, many = (sc.compile(graph, Target.cpu(threads=n), kernel={"rnn.hh": "csr"}).run(x) for n in (1, 3))
    for name in one.outputs:
        assert np.array_equal(one.outputs[name], many.outputs[name])
    for name in one.state:
        assert np.array_equal(one.state[name], many.state[name])


def threads_now() -> set[str]:
    """Of this process, by number: those of earlier tests end when they like."""
    return {entry.name for entry in Path("/proc/self/task").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc/self/task to count threads")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("steps", "batch"), [(300, 96), (20000, 1)])
def test_never_more_threads_than_asked(threads: int, steps: int, batch: int) -> None:
    graph = recurrent_graph(GRU, 64, 256, 0.4) if batch > 1 else recurrent_graph(RNN_TANH, 64, 512, 0.8)
    program = sc.compile(graph, Target.cpu(threads=threads), kernel="csr")
    x = batch_of(graph, steps, batch)
    program.run(x[:2])
    before, seen, done = threads_now(), [0], threading.Event()

    def work() -> None:
        program.run(x)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        seen.append(len(threads_now() - before))
        time.sleep(0.0005)
    worker.join()
    assert max(seen) == threads  # the caller and what it started
