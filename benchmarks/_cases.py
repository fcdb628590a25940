"""The cases: the same network and weights for every engine, equality proved before anything is timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from sparsecirc import Graph, Pattern, Program, Target, compile, interpret
from sparsecirc._bench import ENGINES, bench
from sparsecirc._bench._measure import interleaved
from sparsecirc.cells import GRU, LIF, LSTM, RNN_TANH, Cell, Options, Reset
from sparsecirc.ir import Input, Recurrent
from sparsecirc.patterns import block
from sparsecirc.testing import recurrent_graph

INPUTS = 64
DENSITY = 0.1


@dataclass(frozen=True)
class Row:
    """One engine on one case; ``bytes`` are those of the weights it reads."""

    case: str
    engine: str
    n: int
    density: float
    batch: int
    seq_len: int
    us_per_step: float
    speedup_vs_best_dense: float | None
    max_abs_diff: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """How long to measure, and how much."""

    seconds: float
    rounds: int
    sizes: tuple[int, ...]
    batches: tuple[int, ...]


QUICK = Effort(0.3, 9, (256, 512), (1, 64))
FULL = Effort(1.0, 25, (256, 512, 1024), (1, 64))


def _weights_bytes(engine: str, graph: Graph, program: Program) -> int:
    if engine == "sparsecirc":
        return program.packed_bytes
    live = sum(v.pattern.nnz for v in graph.weights())
    size = sum(v.value.size for v in graph.weights())
    return 8 * live if engine.endswith("_csr") else 4 * size


def _inference(case: str, graph: Graph, n: int, batch: int, steps: int, effort: Effort) -> Iterator[Row]:
    program = compile(graph)
    x = np.random.default_rng(1).standard_normal((steps, batch, *graph.inputs[0].shape)).astype(np.float32)
    engines = [e for e in ENGINES.values() if not (e.name == "snntorch" and not graph.spiking)]
    report = bench(program, x, engines=engines, min_seconds=effort.seconds, rounds=effort.rounds)
    best = report.us_per_step.get(report.best_dense)
    for e in report.engines:
        yield Row(
            case, e.name, n, round(graph.density, 4), batch, steps, round(e.us_per_step, 3),
            None if best is None else round(best / e.us_per_step, 2), e.max_abs_diff,
            _weights_bytes(e.name, graph, program),
        )  # fmt: skip


def _unstructured(case: str, cell: Cell) -> Callable[[Effort], Iterator[Row]]:
    def rows(effort: Effort) -> Iterator[Row]:
        for n in effort.sizes:
            for batch in effort.batches:
                yield from _inference(case, recurrent_graph(cell, INPUTS, n, DENSITY), n, batch, 100, effort)

    return rows


def gru_block16(effort: Effort) -> Iterator[Row]:
    """16x1 blocks of the recurrent weight, chosen by magnitude."""
    for n in effort.sizes:
        graph = recurrent_graph(GRU, INPUTS, n, 1.0)
        weight = graph.recurrent[0].params["hh"]
        pattern = block(16, 1)(np.abs(weight), 1 - DENSITY)
        graph = graph.with_patterns({f"{graph.recurrent[0].name}.hh": pattern})
        yield from _inference("gru_block16", graph, n, 1, 100, effort)


def rlif_event(effort: Effort) -> Iterator[Row]:
    """Recurrent LIF neurons; the input is scaled so that about 5 % fire."""
    for n in (*effort.sizes, 1024) if 1024 not in effort.sizes else effort.sizes:
        rng = np.random.default_rng(n)
        params = {
            "hh": (rng.standard_normal((n, n)) / np.sqrt(n * DENSITY)).astype(np.float32),
            "beta": np.full(n, 0.9, np.float32),
            "threshold": np.full(n, 1.9, np.float32),
        }
        pattern = Pattern.from_mask(rng.random((n, n)) < DENSITY)
        node = Recurrent(
            "lif", ("x",), params, {"hh": pattern}, cell=LIF, units=n, options=Options(Reset.SUBTRACT, True)
        )
        graph = Graph((Input("x", shape=(n,)), node), {"spk": "lif"}, dt=1e-3)
        for batch in effort.batches:
            yield from _inference("rlif_event", graph, n, batch, 100, effort)


def gru_unstructured_int16(effort: Effort) -> Iterator[Row]:
    """Sparse integers beside sparse floats and beside dense floats, words and bytes, at batch 1.

    sparsecirc_int16 / dense_int16 is what sparsity brings, dense_int16 / dense_f32 what quantisation brings.
    """
    for n in effort.sizes:
        graph = recurrent_graph(GRU, INPUTS, n, DENSITY)
        hh = f"{graph.recurrent[0].name}.hh"
        programs = {
            "sparsecirc_f32": compile(graph),
            "sparsecirc_int16": compile(graph, Target.cpu(dtype="int16"), kernel={hh: "lookup16"}),
            "dense_f32": compile(graph, kernel={hh: "dense"}),
            "dense_int16": compile(graph, Target.cpu(dtype="int16"), kernel={hh: "dense16"}),
            "dense_int8": compile(graph, Target.cpu(dtype="int8")),
        }
        x = np.random.default_rng(1).standard_normal((100, 1, INPUTS)).astype(np.float32)
        truth = interpret(graph, x).y
        runs: dict[str, Callable[[], object]] = {k: partial(p.run, x) for k, p in programs.items()}
        seconds = interleaved(runs, min_seconds=effort.seconds, rounds=effort.rounds)
        us = {k: float(np.median(s)) * 1e6 / 100 for k, s in seconds.items()}
        peers = list(_inference("gru_unstructured_int16", graph, n, 1, 100, effort))
        yield from (r for r in peers if r.engine != "sparsecirc")
        best = min([us["dense_f32"], *(r.us_per_step for r in peers if r.engine in ("onnxruntime", "torch_dense"))])
        for name, program in programs.items():
            off = float(np.abs(program.run(x).y - truth).max())
            yield Row(
                "gru_unstructured_int16", name, n, round(graph.density, 4), 1, 100, round(us[name], 3),
                round(best / us[name], 2), off, program.packed_bytes,
            )  # fmt: skip


def wavernn(effort: Effort) -> Iterator[Row]:
    """The recurrent weight of a published 95 % sparse WaveRNN, in 4x4 blocks; needs SPARSECIRC_DATA or a download."""
    from sparsecirc.data import wavernn_768

    arrays = wavernn_768()
    weight, bias = arrays["wavernn_gru_weights"], arrays["wavernn_gru_bias"]
    units = weight.shape[1]
    params = {"hh": weight, "bias_hh": bias}
    node = Recurrent("gru", ("x",), params, {"hh": Pattern.from_mask(weight != 0)}, cell=GRU, units=units)
    graph = Graph((Input("x", shape=(3 * units,)), node), {"y": "gru"})
    # Weights reach 29: rounding grows from step to step, and float32 in numpy is off by 2e-3 after 100 of them.
    yield from _inference("wavernn", graph, units, 1, 20, effort)


CASES: Mapping[str, Callable[[Effort], Iterator[Row]]] = {
    "gru_unstructured": _unstructured("gru_unstructured", GRU),
    "lstm_unstructured": _unstructured("lstm_unstructured", LSTM),
    "rnn_unstructured": _unstructured("rnn_unstructured", RNN_TANH),
    "gru_unstructured_int16": gru_unstructured_int16,
    "gru_block16": gru_block16,
    "rlif_event": rlif_event,
    "wavernn": wavernn,
}
"""Inference cases by name; the training cases are in ``benchmarks/_training.py``."""


def table(rows: Sequence[Row]) -> str:
    """Aligned text, one block per case."""
    lines = [
        f"{'case':<24}{'n':>6}{'batch':>6}  {'engine':<18}{'us/step':>11}{'x best dense':>14}{'max diff':>10}{'KiB':>9}"
    ]
    for r in rows:
        gain = "-" if r.speedup_vs_best_dense is None else f"{r.speedup_vs_best_dense:.2f}"
        lines.append(
            f"{r.case:<24}{r.n:>6}{r.batch:>6}  {r.engine:<18}{r.us_per_step:>11.2f}{gain:>14}"
            f"{r.max_abs_diff:>10.1e}{r.bytes / 1024:>9.0f}"
        )
    return "\n".join(lines)
