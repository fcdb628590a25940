"""Ten thousand steps: rounding must not add up, whatever the layout of the weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from native_support import FLOATS, ISAS, packed_program

from sparsecirc import Graph, Target, compile, interpret
from sparsecirc._target import Isa
from sparsecirc.cells import CELLS
from sparsecirc.testing import TOLERANCE, recurrent_graph, relative_difference

STEPS = 10_000
LONG = ["gru", "rnn_tanh", "lstm", "rnn_relu"]


@lru_cache(maxsize=1)
def network(cell: str) -> tuple[Graph, np.ndarray]:
    """A layer whose state forgets, and an input that never repeats."""
    graph = recurrent_graph(CELLS[cell], 8, 64, 0.2, seed=5)
    x = np.random.default_rng(6).standard_normal((STEPS, 1, 8)).astype(np.float32)
    return graph, x


@lru_cache(maxsize=2)
def truth(cell: str, form: str, isa: Isa) -> np.ndarray:
    """Float64 result of the weights as ``form`` rounds them; exact formats share one."""
    graph, x = network(cell)
    return interpret(packed_program(graph, isa, form).graph, x).outputs["h"]


@pytest.mark.slow
@pytest.mark.parametrize("cell", LONG)
def test_ten_thousand_steps_stay_within_tolerance(cell: str) -> None:
    graph, x = network(cell)
    for isa in ISAS:
        for form in FLOATS:
            program = packed_program(graph, isa, form)
            exact = "csr" if program.exact else form
            want = truth(cell, exact, isa if exact == form else Isa.SCALAR)
            got = program.run(x).outputs["h"]
            assert relative_difference(got, want) <= TOLERANCE.outputs, (isa.value, form)
            last = slice(-STEPS // 10, None)
            assert relative_difference(got[last], want[last]) <= TOLERANCE.outputs, (isa.value, form)


def test_ten_thousand_steps_of_the_chosen_kernels() -> None:
    for cell in ("gru", "rnn_tanh"):
        graph, x = network(cell)
        program = compile(graph, cache=None)
        want = interpret(program.graph, x).outputs["h"]
        assert relative_difference(program.run(x).outputs["h"], want) <= TOLERANCE.outputs


@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_ten_thousand_steps_of_integers(dtype: str) -> None:
    graph, x = network("gru")
    program = compile(graph, Target.cpu(dtype=dtype), cache=None)
    want = interpret(program.graph, x).outputs["h"]
    got = program.run(x).outputs["h"]
    assert relative_difference(got, want) <= program.tolerance
    first, last = (np.abs(got[part] - want[part]).max() for part in (slice(STEPS // 10), slice(-STEPS // 10, None)))
    assert last <= 3 * first, "rounding of the state adds up"
