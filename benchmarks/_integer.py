"""Integer weights and states beside dense float32 and dense integer engines: what is sparsity, what is quantisation.

Engines here compute different (rounded) networks. Each is first proved against the float64 interpreter of its own
weights; the difference in its row is from the unrounded network. Quantising the state is inside every timed region.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _networks as networks
from benchmarks._forward import CLOCK, Budget
from benchmarks._quantised import INT8_ENGINES
from benchmarks._rows import Measured, Setting, bytes_of, rows_of_seconds
from sparsecirc import Graph, Program, Target, compile, interpret, verify
from sparsecirc._bench import ENGINES, CannotRun, Job
from sparsecirc._bench._measure import interleaved
from sparsecirc.cells import Cell
from sparsecirc.errors import MismatchError

Array = NDArray[Any]
PEERS = ("torch_dense", "onnxruntime", "openvino", "scipy_csr")
DENSE = ("torch_dense", "onnxruntime", "openvino", "sparsecirc_dense")
DENSE_INT8 = (*(engine.name for engine in INT8_ENGINES), "sparsecirc_int8_dense")
DENSE_INT16 = ("sparsecirc_int16_dense",)
SPARSE_INTEGER = ("sparsecirc_int16", "sparsecirc_int8")
INT8_TOLERANCE = 0.1


@dataclass(frozen=True)
class Contender:
    """One engine: its call, how far it may be from the unrounded network, and the bytes of its weights."""

    run: Callable[[], Sequence[Array]]
    tolerance: float
    nbytes: int


def integer_case(case: str, cell: Cell) -> Callable[[Budget], Iterator[Measured]]:
    """A gated layer at 90 % sparsity and batch 1 with integer weights and states."""

    def run(budget: Budget) -> Iterator[Measured]:
        for n in (512, 1024):
            graph = networks.gated(cell, n, 0.1)
            yield _measure(Setting.of(case, graph, 1, 100), graph, networks.gated_input(100, 1), budget)

    return run


def _measure(setting: Setting, graph: Graph, x: Array, budget: Budget) -> Measured:
    budget.say(f"{setting.case} N={setting.n}: compile and prove")
    contenders, notes = _ours(graph, x, budget.target)
    program = compile(graph, budget.target, cache=None)
    peers, missing = _peers(Job(graph, program, {"x": x}, {"x": x}, None, 1, setting.batch, setting.seq_len))
    contenders |= peers
    truth = interpret(graph, x).y
    diffs = {name: float(np.abs(np.asarray(c.run()[0]) - truth).max()) for name, c in contenders.items()}
    for name, diff in diffs.items():
        if not diff <= contenders[name].tolerance:
            raise MismatchError(f"{name} differs from the interpreter by {diff:.3g} in {setting.case}: not timed")
    budget.say(f"{setting.case} N={setting.n}: {', '.join(contenders)}")
    runs = {name: c.run for name, c in contenders.items()}
    seconds = interleaved(runs, min_seconds=budget.seconds, rounds=budget.rounds, clock=CLOCK)
    dense = [name for name in DENSE if name in seconds]
    rows = rows_of_seconds(setting, seconds, dense, diffs, {name: c.nbytes for name, c in contenders.items()})
    return Measured(rows, (*shares(seconds), *notes, *missing))


def _ours(graph: Graph, x: Array, target: Target) -> tuple[dict[str, Contender], list[str]]:
    """Our programs, each verified against its own rounded weights; and what runs in the sparse integer ones."""
    integer = {dtype: Target.cpu(target.isa, dtype=dtype) for dtype in ("int16", "int8")}
    programs = {
        "sparsecirc": compile(graph, target, cache=None),
        "sparsecirc_dense": compile(graph, target, kernel={"*.hh": "dense"}),
        "sparsecirc_int16": compile(graph, integer["int16"], cache=None),
        "sparsecirc_int16_dense": compile(graph, integer["int16"], kernel={"*.hh": "dense16"}),
        "sparsecirc_int8": compile(graph, integer["int8"], cache=None),
        "sparsecirc_int8_dense": compile(graph, integer["int8"], kernel={"*.hh": "dense8"}),
    }
    notes = []
    for name in SPARSE_INTEGER:
        choice = next(c for c in programs[name].choices.values() if c.weight.endswith(".hh"))
        notes.append(f"{name} runs '{choice.format}', {choice.reason}")
        if choice.format.startswith("dense"):
            del programs[name]
    for program in programs.values():
        verify(program, x).check()
    made = {n: Contender(_call(p, x), max(1e-4, p.tolerance), p.packed_bytes) for n, p in programs.items()}
    return made, notes


def _peers(job: Job) -> tuple[dict[str, Contender], list[str]]:
    """Engines in float32 and dense int8 that can run the job, and why others cannot."""
    found: dict[str, Contender] = {}
    missing = []
    for engine in (*(ENGINES[name] for name in PEERS), *INT8_ENGINES):
        tolerance = INT8_TOLERANCE if engine in INT8_ENGINES else 1e-4
        try:
            if util.find_spec(engine.package) is None:
                raise CannotRun(f"the package '{engine.package}' is not installed")
            found[engine.name] = Contender(engine.prepare(job), tolerance, bytes_of(job.graph, engine.name))
        except (CannotRun, ImportError) as error:
            missing.append(f"{engine.name} skipped: {error}")
    return found, missing


def _call(program: Program, x: Array) -> Callable[[], Sequence[Array]]:
    return lambda: list(program.run(x).outputs.values())


def shares(seconds: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """The gain of integer sparsity, taken apart on both ways from dense float32: first sparse, or first integers."""

    def best(names: Sequence[str]) -> str:
        return min((n for n in names if n in seconds), key=lambda n: float(np.median(seconds[n])))

    def over(slow: str, fast: str) -> float:
        return float(np.median(seconds[slow] / seconds[fast]))

    wide, narrow, middle = best(DENSE), best(DENSE_INT8), best(DENSE_INT16)
    lines = []
    for ours in SPARSE_INTEGER:
        if ours not in seconds:
            continue
        lines.append(
            f"{ours} is {over(wide, ours):.1f}x the best dense f32 ({wide}), {over(narrow, ours):.1f}x the best dense "
            f"int8 ({narrow}) and {over(middle, ours):.1f}x dense int16 ({middle}): sparsity in f32 gives "
            f"{over(wide, 'sparsecirc'):.2f}x and quantisation another {over('sparsecirc', ours):.2f}x; or dense int8 "
            f"gives {over(wide, narrow):.2f}x and sparsity another {over(narrow, ours):.2f}x"
        )
    return lines
