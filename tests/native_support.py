"""Programs built without measuring: every weight in one format, whatever compile would choose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from sparsecirc import Graph, Program, Target, interpret
from sparsecirc._compile import problems, with_packed_weights
from sparsecirc._native import available_isas
from sparsecirc._target import Isa
from sparsecirc.errors import UnsupportedError
from sparsecirc.formats import DENSE, every_format, formats_for
from sparsecirc.ir import Result
from sparsecirc.testing import PROBLEMS

ISAS = available_isas()
FORMATS = tuple(formats_for(Isa.SCALAR))
FLOATS = tuple(formats_for(Isa.SCALAR, "bf16"))
"""With rounded weights, beside float32 states."""


def packed_program(graph: Graph, isa: Isa, form: str) -> Program:
    """``graph`` with every matrix in ``form``; dense where the format cannot hold it."""
    chosen = every_format(isa)[form]
    packed = {}
    for problem, weight in problems(graph, isa, exact=False):
        try:
            packed[problem.weight] = chosen.pack(problem.pattern, weight)
        except UnsupportedError:
            packed[problem.weight] = DENSE.pack(problem.pattern, weight)
    return Program(with_packed_weights(graph, packed, isa), Target.cpu(isa), isa, packed, {}, chosen.exact)


@lru_cache(maxsize=2)
def reference(name: str) -> tuple[Graph, np.ndarray, dict[str, np.ndarray], Result]:
    """Graph, input, first state and float64 result of a catalogued problem."""
    problem = PROBLEMS[name]
    graph, x, state = problem.graph(), problem.x(), problem.state()
    return graph, x, state, interpret(graph, x, state, lengths=problem.valid())
