"""One step of a layer whose weights are not in the cache: what a network of many layers, or a waking device, pays.

A recurrent loop finds its weights where the last step left them. Here every engine gets so many copies of the layer
that they take twice the last cache, and each call runs one step of the next copy. The same call on one copy again and
again is measured in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks import _networks as networks
from benchmarks._forward import CLOCK, Budget
from benchmarks._rows import Measured, Row, Setting, bytes_of, rows_of_seconds
from sparsecirc import Graph, Pattern, Program, compile, interpret
from sparsecirc._bench import ENGINES, CannotRun, Job
from sparsecirc._bench._measure import interleaved
from sparsecirc._bench._threads import pinned_threads
from sparsecirc._machine import cache_sizes
from sparsecirc.cells import GRU
from sparsecirc.errors import MismatchError

PEERS = ("torch_dense", "onnxruntime", "openvino", "torch_csr", "torch_sparse", "scipy_csr")
DENSE = ("torch_dense", "onnxruntime", "openvino", "sparsecirc_dense")
HOT = "_hot"
TOLERANCE = 1e-4
Call = Callable[[], Any]


def streamed(budget: Budget) -> Iterator[Measured]:
    """A GRU of 512 and 1024 units, 90 % sparse, batch 1, one step a call."""
    for n in (512, 1024):
        graph = networks.gated(GRU, n, 0.1)
        yield _measure(Setting.of("gru_streamed", graph, 1, 1), graph, budget)


def _measure(setting: Setting, graph: Graph, budget: Budget) -> Measured:
    x = networks.gated_input(1, 1)
    program = compile(graph, budget.target, cache=None)
    graph = program.graph  # with its weights as they are packed: the same for everybody
    calls: dict[str, list[Call]] = {}
    sizes: dict[str, int] = {}
    notes: list[str] = []
    chosen = {name: choice.format for name, choice in program.choices.items()}
    for name, kernel in (("sparsecirc", chosen), ("sparsecirc_dense", {"*.hh": "dense"})):
        first = compile(graph, budget.target, kernel=kernel)
        sizes[name] = first.packed_bytes
        more = (compile(graph, budget.target, kernel=kernel) for _ in range(_more(sizes[name])))
        calls[name] = [_call(copy, x) for copy in (first, *more)]
    for name in PEERS:
        sizes[name] = bytes_of(graph, name)
        try:
            calls[name] = [
                ENGINES[name].prepare(Job(copied(graph), program, {"x": x}, {"x": x}, None, 1, 1, 1))
                for _ in range(1 + _more(sizes[name]))
            ]
        except (CannotRun, ImportError) as error:
            notes.append(f"{name} skipped: {error}")
    diffs = _prove(graph, x, calls)
    runs: dict[str, Call] = {}
    for name, copies in calls.items():
        runs[name], runs[name + HOT] = _next_of(copies), copies[0]
    budget.say(f"{setting.case} N={setting.n}: {', '.join(calls)}, each hot and streamed")
    with pinned_threads(1):
        seconds = interleaved(runs, min_seconds=budget.seconds, rounds=budget.rounds, clock=CLOCK)
    rows: list[Row] = []
    for suffix in ("", HOT):
        dense = [name + suffix for name in DENSE if name in calls]
        of = {name + suffix: seconds[name + suffix] for name in calls}
        rows += rows_of_seconds(
            setting, of, dense, {n + suffix: d for n, d in diffs.items()}, {n + suffix: s for n, s in sizes.items()}
        )
    slower = {n: float(np.median(seconds[n] / seconds[n + HOT])) for n in calls}
    notes.insert(0, "streamed over hot: " + ", ".join(f"{n} {q:.2f}x" for n, q in slower.items()))
    notes.append("a call of one step, with its overhead; speed-ups of hot rows are over the best hot dense engine")
    return Measured(tuple(rows), tuple(notes))


def _more(nbytes: int) -> int:
    """Copies beside the first, so that all of them are twice the last cache and more."""
    last = cache_sizes()[-1]
    return 1 + 2 * last // max(nbytes, 1)


def copied(graph: Graph) -> Graph:
    """The same network in memory of its own."""
    nodes = []
    for node in graph.recurrent:
        patterns = {role: Pattern.from_mask(p.mask()) for role, p in node.patterns.items()}
        nodes.append(node.with_params(**{k: v.copy() for k, v in node.params.items()}).with_patterns(**patterns))
    return graph.replace_nodes(*nodes)


def _call(program: Program, x: Any) -> Call:
    return lambda: list(program.run(x).outputs.values())


def _next_of(copies: list[Call]) -> Call:
    turn = cycle(copies)
    return lambda: next(turn)()


def _prove(graph: Graph, x: Any, calls: dict[str, list[Call]]) -> dict[str, float]:
    truth = interpret(graph, x).y
    diffs = {n: max(float(np.abs(np.asarray(c()[0]) - truth).max()) for c in copies) for n, copies in calls.items()}
    for name, diff in diffs.items():
        if not diff <= TOLERANCE:
            raise MismatchError(f"{name} differs from the interpreter by {diff:.3g} in gru_streamed: not timed")
    return diffs
