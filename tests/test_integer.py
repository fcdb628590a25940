"""Integer programs: the same integers on every instruction set, weights that can be repacked, states kept in range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import Pattern, Program, Target, compile, interpret, verify
from sparsecirc._native import available_isas, kernels
from sparsecirc._target import Isa
from sparsecirc.cells import GRU, LSTM, RNN_RELU, RNN_TANH, Cell
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.formats import DENSE8, DENSE16, Format, formats_for, lookup8_for, lookup16_for
from sparsecirc.ir import Graph, Input, Recurrent

ISAS = available_isas()
FORMATS = {
    "lookup16": lookup16_for(Isa.SCALAR),
    "lookup16-neon": lookup16_for(Isa.NEON),
    "lookup8": lookup8_for(Isa.SCALAR),
    "lookup8-avx2": lookup8_for(Isa.AVX2),
    "dense16": DENSE16,
    "dense8": DENSE8,
}
TOP = {"lookup16": 2047, "dense16": 2047, "lookup8": 127, "dense8": 127}


def matrix(rows: int, cols: int, density: float, seed: int) -> tuple[Pattern, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, cols)).astype(np.float32)
    return Pattern.from_mask(rng.random((rows, cols)) < density), weight


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 70), cols=st.integers(1, 150), density=st.floats(0, 1), seed=st.integers(0, 999))
def test_products_are_exact_on_the_quantised_numbers(
    form: Format, rows: int, cols: int, density: float, seed: int
) -> None:
    pattern, weight = matrix(rows, cols, density, seed)
    packed = form.pack(pattern, weight)
    means = form.unpack(packed)
    assert np.all((means != 0) <= pattern.mask()), "a dead connection came alive"
    again = form.repack(pattern, means, packed.scale)
    assert np.array_equal(form.unpack(again), means), "packing what was packed moves weights"
    x = np.tanh(np.random.default_rng(seed).standard_normal((3, cols))).astype(np.float32)
    bias = np.arange(rows, dtype=np.float32)
    results = []
    for isa in (i for i in ISAS if packed.matrix.unsupported(i.value) is None):
        y = np.full((3, rows), np.nan, np.float32)
        kernels.product(packed.matrix, isa.value, x, bias, y)
        results.append(y)
    state = np.rint(x * np.float32(TOP[form.name])) / TOP[form.name]
    expected = state @ means.T.astype(np.float64) + bias
    assert np.allclose(results[0], expected, rtol=1e-5, atol=1e-4)
    assert all(np.array_equal(results[0], y) for y in results), "instruction sets disagree"


def test_large_weights_cannot_overflow_a_sum() -> None:
    pattern = Pattern.full(16, 640)
    weight = np.ones((16, 640), np.float32)
    x = np.ones((1, 640), np.float32)
    for isa in ISAS:
        for form in [*formats_for(isa, "int16").values(), *formats_for(isa, "int8").values()]:
            y = np.empty((1, 16), np.float32)
            kernels.product(form.pack(pattern, weight).matrix, isa.value, x, None, y)
            assert np.allclose(y, 640, rtol=5e-3), form.name


def test_words_that_would_overflow_are_refused() -> None:
    words = np.full(16 * 640, 32767, np.int16)
    with pytest.raises(ValueError, match="overflow its sum"):
        kernels.Matrix("dense16", 16, 640, np.zeros(0, np.float32), words=words, scale=np.ones(16, np.float32))


def layer(cell: Cell, units: int = 96, density: float = 0.1) -> Graph:
    rng = np.random.default_rng(units)
    rows = cell.n_gates * units
    params = {
        "ih": rng.uniform(-0.3, 0.3, (rows, 12)).astype(np.float32),
        "hh": rng.uniform(-0.3, 0.3, (rows, units)).astype(np.float32),
        "bias_ih": rng.uniform(-0.1, 0.1, rows).astype(np.float32),
        "bias_hh": rng.uniform(-0.1, 0.1, rows).astype(np.float32),
    }
    pattern = Pattern.from_mask(rng.random((rows, units)) < density)
    node = Recurrent("rnn.l0", ("x",), params, {"hh": pattern}, cell=cell, units=units)
    return Graph((Input("x", shape=(12,)), node), {"y": "rnn.l0"})


@pytest.mark.parametrize("cell", [RNN_TANH, GRU, LSTM], ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_integer_programs_stay_near_the_network(cell: Cell, dtype: str, tmp_path: Path) -> None:
    graph = layer(cell)
    x = np.random.default_rng(0).standard_normal((80, 2, 12)).astype(np.float32)
    program = compile(graph, Target.cpu(dtype=dtype))
    assert program.choices["rnn.l0.hh"].kernel.startswith(f"sc_{dtype}_")
    assert program.choices["rnn.l0.ih"].kernel.startswith("sc_f32_"), "inputs are not bounded"
    assert verify(program, x, reference=graph).ok
    off = np.abs(program.run(x).y - interpret(graph, x).y).max()
    assert off < {"int16": 2e-3, "int8": 5e-2}[dtype]
    program.save(tmp_path / "p.sc")
    assert np.array_equal(Program.load(tmp_path / "p.sc").run(x).y, program.run(x).y)


def test_unbounded_cells_keep_float_weights() -> None:
    program = compile(layer(RNN_RELU), Target.cpu(dtype="int16"))
    assert program.choices["rnn.l0.hh"].kernel.startswith("sc_f32_")


def test_a_state_outside_the_range_is_refused() -> None:
    program = compile(layer(GRU), Target.cpu(dtype="int16"))
    state = {"rnn.l0.h": np.full((1, 96), 1.5, np.float32)}
    with pytest.raises(UsageError, match=r"reaches 1\.5"):
        program.run(np.zeros((2, 1, 12), np.float32), state)


@pytest.mark.parametrize("dtype", ["int16", "int8"])
@pytest.mark.parametrize("cell", [RNN_TANH, GRU, LSTM], ids=lambda c: c.name)
def test_nan_stays_nan(cell: Cell, dtype: str) -> None:
    x = np.zeros((6, 3, 12), np.float32)
    clean = x.copy()
    x[2, 1, 5] = np.nan
    for isa in available_isas():
        program = compile(layer(cell), Target.cpu(isa, dtype=dtype))
        y = program.run(x).y
        assert np.isnan(y[3:, 1]).all()
        assert np.array_equal(y[:, ::2], program.run(clean).y[:, ::2]), "another sample saw it"


def test_corrections_that_do_not_match_their_bytes_are_refused() -> None:
    packed = DENSE8.pack(Pattern.full(16, 16), np.ones((16, 16), np.float32))
    for wrong in (-(2**31), 2**31 - 1, int(packed.correction[4]) + 1):
        bad = packed.correction.copy()
        bad[4] = wrong
        with pytest.raises(ValueError, match="correction is not 128 times"):
            _ = replace(packed, correction=bad).matrix


def test_float_kernels_are_refused_for_integer_weights() -> None:
    with pytest.raises(UnsupportedError, match="has no int16 version"):
        compile(layer(GRU), Target.cpu(dtype="int16"), kernel={"rnn.l0.hh": "mantissa"})
