"""Compiled float32 programs beside every peer, by `sparsecirc.bench`: it proves equality before it times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import _deepsparse as deepsparse
from benchmarks import _machine as machine
from benchmarks import _networks as networks
from benchmarks._rows import Measured, Setting, bytes_of, rows_of_report
from sparsecirc import Graph, Program, Target, bench, compile
from sparsecirc._bench import ENGINES, BenchReport, Engine, Job
from sparsecirc._tuning import measure as measure_products
from sparsecirc.cells import GRU, Cell
from sparsecirc.errors import SparsecircError
from sparsecirc.ops import batched_formats
from sparsecirc.ops._run import BATCHED_FROM, batched_from
from sparsecirc.patterns import PatternMaker, block, unstructured

Say = Callable[[str], None]
Array = NDArray[Any]


CLOCK = time.process_time
"""Processor time: on a machine that others use as well, a long call is interrupted more often than a short one, and by
the clock on the wall the faster engine would gain from that. Everything here runs on one thread."""
DEEPSPARSE = Engine("deepsparse", False, "", deepsparse.prepare, "the layer written out step by step in ONNX")


@dataclass(frozen=True)
class Budget:
    """How much is measured.

    Attributes:
        quick: fewer configurations.
        seconds: spent on each engine of a configuration, at least.
        rounds: samples of each engine.
        say: told what goes on.
        target: what our programs are compiled for; forces an instruction set.
        batches: measured in place of a case's own; cases of one batch only ignore it.
    """

    quick: bool
    seconds: float
    rounds: int
    say: Say
    target: Target = field(default_factory=Target.cpu)
    batches: tuple[int, ...] = ()


def forced(graph: Graph, target: Target, kernel: str, *, dense: bool) -> tuple[Engine, int]:
    """Our own program with a forced recurrent kernel as a peer, and its bytes."""
    program = compile(graph, target, kernel={"*.hh": kernel}, exact=True, cache=None)

    def prepare(job: Job) -> Callable[[], list[Array]]:
        return lambda: list(program.run(job.inputs).outputs.values())

    return Engine(f"sparsecirc_{kernel}", dense, "", prepare, f"our {kernel} kernel"), program.packed_bytes


def measure(setting: Setting, graph: Graph, x: Array, budget: Budget, *, exact: bool | None = None) -> Measured:
    """One configuration: the chosen kernel, our dense and CSR kernels, and every peer."""
    program = compile(graph, budget.target, exact=exact, cache=None)
    own = [forced(program.graph, budget.target, k, dense=k == "dense") for k in ("dense", "csr")]
    engines = [*ENGINES.values(), *(engine for engine, _ in own)]
    if setting.batch >= BATCHED_FROM and graph.recurrent[0].cell is GRU:
        engines.append(DEEPSPARSE)
    title = f"{setting.case} N={setting.n} B={setting.batch}"
    report = bench(
        program,
        x,
        engines=engines,
        min_seconds=budget.seconds,
        rounds=budget.rounds,
        progress=lambda name: budget.say(f"{title}: {name}"),
        clock=CLOCK,
    )
    sizes = {name: bytes_of(graph, name) for name in (*ENGINES, DEEPSPARSE.name)}
    sizes |= {"sparsecirc": program.packed_bytes, **{engine.name: size for engine, size in own}}
    notes = [shares(report), f"recurrent kernel {kernel_of(program, setting.batch)}"]
    if setting.batch < BATCHED_FROM:
        notes.append(bandwidth_note(program))
    notes += [f"{e.name}: {e.note}" for e in report.engines if e.note]
    notes += [f"{s.name} skipped: {s.reason}" for s in report.skipped if "no spiking layer" not in s.reason]
    return Measured(rows_of_report(setting, report, sizes), tuple(notes))


def shares(report: BenchReport) -> str:
    """How much of the gain is sparsity; here all of it, since nothing is an integer."""
    best = next((e for e in report.engines if e.name == report.best_dense), None)
    if best is None:
        return "no dense engine ran: there is no gain to speak of"
    return (
        f"sparsity gives {best.speedup:.2f}x over the best dense f32 ({best.name}), quantisation 1.00x: all are float32"
    )


def kernel_of(program: Program, batch: int) -> str:
    """What multiplies in the recurrence, and why."""
    choice = next(c for c in program.choices.values() if c.weight.endswith(".hh"))
    (layer,) = program.graph.recurrent
    formats = {"hh": choice.format}
    batched = batched_formats(layer, formats, program.isa) if batch >= batched_from(layer, program.isa) else None
    if batched is not None:
        return f"units x batch over {batched['hh'].name}"
    return f"{choice.kernel}, {choice.reason}, {choice.padding:.2f} stored values a live weight"


def bandwidth_note(program: Program) -> str:
    """Bytes a second of the recurrent product, beside what one core reads from as many bytes at best."""
    choice = next(c for c in program.choices.values() if c.weight.endswith(".hh"))
    if choice.us is None or choice.format == "columns":
        took = ", ".join(f"{c.weight} {c.us or 0:.1f}" for c in program.choices.values())
        return f"microseconds a step of each product, as compile measured it: {took}"
    packed = program.packed[choice.weight]
    us = measure_products({"hh": packed}, program.isa, np.ones((1, packed.shape[1]), np.float32), step=True)["hh"]
    rate, limit = choice.nbytes / us / 1e3, machine.read_limit(choice.nbytes)
    return (
        f"recurrent product alone {us:.2f} us, {rate:.0f} GB/s of weights, {rate / limit:.0%} of the {limit:.0f} GB/s "
        f"at which one core reads {choice.nbytes >> 10} KiB again and again"
    )


def steps_for(batch: int) -> int:
    """Time steps of a call: long enough that the call itself does not count."""
    return 100 if batch < BATCHED_FROM else 20


def gated_case(
    case: str, cell: Cell, maker: PatternMaker = unstructured, *, batches: bool = False
) -> Callable[[Budget], Iterator[Measured]]:
    """A gated layer at 90 % sparsity, N = 512 and 1024 at batch 1; with ``batches`` also at batch 64."""

    def run(budget: Budget) -> Iterator[Measured]:
        for n in (512, 1024):
            graph = networks.gated(cell, n, 0.1, maker)
            usual = (1, 64) if batches and (n == 512 or not budget.quick) else (1,)
            for batch in budget.batches or usual:
                steps = steps_for(batch)
                yield measure(Setting.of(case, graph, batch, steps), graph, networks.gated_input(steps, batch), budget)

    return run


def blocks_case(case: str, cell: Cell, height: int) -> Callable[[Budget], Iterator[Measured]]:
    """As `gated_case`, in blocks of ``height`` x 1."""
    return gated_case(case, cell, block(height, 1))


def spiking_case(case: str) -> Callable[[Budget], Iterator[Measured]]:
    """1024 recurrent LIF neurons, 90 % sparse, about 5 % of them and of the inputs spiking per step."""

    def run(budget: Budget) -> Iterator[Measured]:
        for batch in budget.batches or (1, 64):
            graph, x = networks.spiking(1024, 0.1, steps_for(batch), batch)
            yield measure(Setting.of(case, graph, batch, len(x)), graph, x, budget)

    return run


def wavernn_case(case: str) -> Callable[[Budget], Iterator[Measured]]:
    """The trained GRU of a WaveRNN at batch 1, on 50 steps: it amplifies rounding, and more steps leave float32."""

    def run(budget: Budget) -> Iterator[Measured]:
        try:
            graph, x = networks.wavernn(50)
        except SparsecircError as error:
            yield Measured((), (f"{case} SKIPPED, SPARSECIRC_DATA has no models/wavernn_768: {error}",))
            return
        yield measure(Setting.of(case, graph, 1, len(x)), graph, x, budget, exact=True)

    return run
