"""`bench`: the compiled program beside everything else that can run the same network on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._bench._host import Host
from sparsecirc._bench._job import Array, CannotRun, Engine, Job, Run, resize
from sparsecirc._bench._measure import interleaved
from sparsecirc._bench._onnx import prepare_onnxruntime, prepare_openvino
from sparsecirc._bench._others import prepare_program, prepare_scipy
from sparsecirc._bench._spiking import prepare_norse, prepare_snntorch, prepare_spikingjelly
from sparsecirc._bench._threads import pinned_threads
from sparsecirc._bench._torch import prepare_csr, prepare_dense, prepare_torch_sparse
from sparsecirc._verify import VerifyReport, compare, run_of
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.ir import Result, interpret
from sparsecirc.ir._interpret import bind_inputs

if TYPE_CHECKING:
    from torch import nn

    from sparsecirc._program import Program

PROGRAM = "sparsecirc"
TOLERANCE = 1e-4
"""Largest |difference| from the float64 interpreter, relative to max(1, |largest value|), that an engine may show.

An integer program rounds its state too; it is held to `Program.tolerance`."""

ENGINES: dict[str, Engine] = {
    e.name: e
    for e in (
        Engine(PROGRAM, False, "", prepare_program, "the compiled program"),
        Engine("torch_dense", True, "torch", prepare_dense, "torch.nn layers, zeros multiplied like any weight"),
        Engine("onnxruntime", True, "onnxruntime", prepare_onnxruntime, "the exported ONNX file"),
        Engine("openvino", True, "openvino", prepare_openvino, "the exported ONNX file"),
        Engine("snntorch", True, "snntorch", prepare_snntorch, "snntorch neurons in a loop over time"),
        Engine("norse", True, "norse", prepare_norse, "norse neurons in a loop over time"),
        Engine("spikingjelly", True, "spikingjelly", prepare_spikingjelly, "SpikingJelly neurons in a loop over time"),
        Engine("torch_csr", False, "torch", prepare_csr, "a loop over time with torch CSR products"),
        Engine(
            "torch_sparse", False, "torch_sparse", prepare_torch_sparse, "a loop over time with SparseTensor products"
        ),
        Engine("scipy_csr", False, "scipy", prepare_scipy, "a loop over time with scipy CSR products"),
    )
}
"""Every engine by name."""


@dataclass(frozen=True)
class EngineResult:
    """What one engine needed.

    Attributes:
        name: of the engine.
        dense: whether it multiplies zeros too.
        us_per_step: median microseconds per time step; a step serves the whole batch.
        p10: tenth percentile of the same over rounds.
        p90: ninetieth percentile.
        speedup: median over rounds of its time over the program's time; above 1 the program is faster.
        max_abs_diff: largest difference of its outputs from the float64 interpreter.
        note: what the reader has to know, e.g. that it was proven only up to a tie of a spiking network.
    """

    name: str
    dense: bool
    us_per_step: float
    p10: float
    p90: float
    speedup: float
    max_abs_diff: float
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """An engine that was not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class BenchReport:
    """Result of :func:`bench`.

    Attributes:
        engines: those that computed the right answer, fastest first.
        skipped: the others.
        best_dense: the fastest engine that multiplies zeros too, or "" if none ran.
        speedup: median over rounds of best dense time / program time; NaN if no dense engine ran.
        speedup_low: tenth percentile of that quotient.
        speedup_high: ninetieth percentile.
        batch: samples per call.
        steps: time steps per call.
        rounds: samples taken of each engine.
        density: live connections over all connections of the network.
        host: the machine.
        unpinned: what could not be held to ``host.threads`` threads, or "".
    """

    engines: tuple[EngineResult, ...]
    skipped: tuple[Skipped, ...]
    best_dense: str
    speedup: float
    speedup_low: float
    speedup_high: float
    batch: int
    steps: int
    rounds: int
    density: float
    host: Host
    unpinned: str = ""

    @property
    def us_per_step(self) -> dict[str, float]:
        """Median microseconds per step by engine."""
        return {e.name: e.us_per_step for e in self.engines}

    def table(self) -> str:
        """Engines, skipped engines, speed-up and host as text."""
        lines = [
            f"batch {self.batch}, {self.steps} steps, density {self.density:.1%}, {self.host.threads_text}, "
            f"median of {self.rounds} rounds",
            f"{'engine':<14}{'us/step':>10}{'p10':>10}{'p90':>10}{'x program':>11}{'max diff':>11}",
        ]
        lines += [
            f"{e.name:<14}{e.us_per_step:>10.2f}{e.p10:>10.2f}{e.p90:>10.2f}{e.speedup:>11.2f}{e.max_abs_diff:>11.1e}"
            for e in self.engines
        ]
        lines += [f"{e.name:<14}note: {e.note}" for e in self.engines if e.note]
        lines += [f"{s.name:<14}skipped: {s.reason}" for s in self.skipped]
        if self.best_dense:
            lines.append(
                f"speed-up over the best dense engine ({self.best_dense}): {self.speedup:.2f}x "
                f"({self.speedup_low:.2f} to {self.speedup_high:.2f})"
            )
        if self.unpinned:
            lines.append(f"not held to {self.host.threads_text}: {self.unpinned}")
        return "\n".join([*lines, self.host.line()])

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values; a speed-up that could not be measured is ``null``."""
        data = asdict(self)
        for key in ("speedup", "speedup_low", "speedup_high"):
            data[key] = None if np.isnan(data[key]) else data[key]
        return {**data, "engines": [asdict(e) for e in self.engines], "skipped": [asdict(s) for s in self.skipped]}

    def __str__(self) -> str:
        return self.table()


def engines_named(names: str) -> tuple[Engine, ...]:
    """Engines of a comma-separated list, for the command line.

    Raises:
        UsageError: a name is unknown; lists what there is.
    """
    wanted = [n.strip().replace("-", "_") for n in names.split(",") if n.strip()]
    unknown = [n for n in wanted if n not in ENGINES]
    if unknown or not wanted:
        raise UsageError(f"engine '{(unknown or [names])[0]}' is unknown: expected some of {', '.join(ENGINES)}")
    return tuple(ENGINES[n] for n in dict.fromkeys(wanted))


def bench(
    program: Program,
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    model: nn.Module | None = None,
    engines: Sequence[Engine] | None = None,
    min_seconds: float = 0.3,
    rounds: int = 15,
    batch: int | None = None,
    seq_len: int | None = None,
    progress: Callable[[str], None] | None = None,
    clock: Callable[[], float] | None = None,
) -> BenchReport:
    """Time ``program`` and its peers on the same network, the same weights and the same input.

    Every engine first has to give what the float64 interpreter gives on the weights that the program packed; one that
    does not is listed with its difference and not timed. A spiking engine is compared as `verify` does it: each sample
    up to the first spike that rounding decided; its line says so. Conversion, preallocation and warm-up are outside the
    timed region. Engines are timed in turns, and speed-ups are medians of quotients within a round, so that noise of
    the machine falls on both sides. Every engine is held to the threads of the program's target, numpy's and scipy's
    BLAS by threadpoolctl; where that is not installed the table says so.

    Args:
        program: what :func:`sparsecirc.compile` made.
        x: an input, as for ``program.run``.
        model: the torch or snntorch model with the same (pruned) weights; run as it is in place of a rebuilt one.
        engines: which; all of :data:`ENGINES` by default. The program itself is always among them.
        min_seconds: time spent on each engine, at least.
        rounds: samples of each engine.
        batch: repeat or cut the input to this many samples.
        seq_len: repeat or cut the input to this many steps.
        progress: told the name of each engine before it is prepared.
        clock: gives seconds; those of the wall by default. ``time.process_time`` gives processor time of all threads,
            on which other jobs of a busy machine have less influence.

    Raises:
        MismatchError: the program itself does not compute its graph.
        UsageError: the input does not fit, has no step or no sample, or ``min_seconds`` or ``rounds`` is not positive.
    """
    if min_seconds <= 0 or rounds < 1:
        raise UsageError(f"min_seconds is {min_seconds} and rounds {rounds}: expected positive numbers")
    job = _job(program, x, model, batch, seq_len)
    truth = interpret(job.graph, job.inputs)
    wanted = tuple(ENGINES.values()) if engines is None else tuple(engines)
    if PROGRAM not in {e.name for e in wanted}:
        wanted = (ENGINES[PROGRAM], *wanted)
    ready: dict[str, _Ready] = {}
    skipped: list[Skipped] = []
    with pinned_threads(job.threads) as unpinned, _evaluation(model):
        for engine in wanted:
            if progress is not None:
                progress(engine.name)
            try:
                proven = _proven(engine, job, truth)
            except CannotRun as error:
                if engine.name == PROGRAM:
                    raise MismatchError(f"the program does not compute its own graph: {error}") from error
                skipped.append(Skipped(engine.name, str(error)))
            else:
                ready[engine.name] = proven
        runs = {name: made.run for name, made in ready.items()}
        seconds = interleaved(runs, min_seconds=min_seconds, rounds=rounds, clock=clock)
    return _report(job, ready, skipped, seconds, rounds, unpinned)


def _job(
    program: Program, x: ArrayLike | Mapping[str, ArrayLike], model: nn.Module | None, batch: int | None, steps: Any
) -> Job:
    graph = program.graph
    given = x if isinstance(x, Mapping) else {graph.inputs[0].name: x}
    arrays = {k: np.asarray(v) for k, v in given.items()}
    bind_inputs(graph, arrays, np.float32)  # names, ranks and features are checked here, before anything is repeated
    inputs = resize(graph, arrays, batch, steps)
    inputs = {
        k: np.ascontiguousarray(v) if v.dtype.kind in "iu" else np.ascontiguousarray(v, dtype=np.float32)
        for k, v in inputs.items()
    }
    bound, size, length = bind_inputs(graph, inputs, np.float32)
    if size < 1 or length == 0:
        raise UsageError(f"the input has {size} samples of {length} steps: expected at least one of each to be timed")
    length = length or max((int(n.attrs().get("steps", 1)) for n in graph.nodes if n.kind == "repeat"), default=1)
    bound = {k: np.ascontiguousarray(v) for k, v in bound.items()}
    return Job(graph, program, inputs, bound, model, program.target.threads, size, length)


@dataclass(frozen=True)
class _Ready:
    """An engine that gave the right answer: its call, its difference from the truth, and how far that was shown."""

    engine: Engine
    run: Run
    diff: float
    note: str = ""


def _proven(engine: Engine, job: Job, truth: Result) -> _Ready:
    if engine.package and util.find_spec(engine.package) is None:
        raise CannotRun(f"the package '{engine.package}' is not installed")
    run = engine.prepare(job)
    limit = max(TOLERANCE, job.program.tolerance) if engine.name == PROGRAM else TOLERANCE
    got = [np.asarray(value) for value in run()]
    try:
        return _Ready(engine, run, _difference(got, list(truth.outputs.values()), limit))
    except CannotRun:
        report = _up_to_ties(job, got, limit)
        step = min((tie.step for tie in report.ties), default=0) if report is not None else 0
        if report is None or not report.ok or step == 0:  # nothing before it would be compared
            raise
        note = f"equal up to step {step}, where a membrane ties with its threshold"
        return _Ready(engine, run, report.max_abs_diff, note)


def _up_to_ties(job: Job, got: Sequence[Array], limit: float) -> VerifyReport | None:
    """The comparison of a spiking network sample by sample up to its first tie; ``None`` for other networks."""
    names = list(job.graph.outputs)[: len(got)]
    truth = interpret(job.graph, job.inputs, keep_values=True) if job.graph.spiking else None
    if truth is None or any(truth.outputs[n].size != g.size for n, g in zip(names, got, strict=False)):
        return None
    graph = replace(job.graph, outputs={name: job.graph.outputs[name] for name in names})
    shaped = {n: g.reshape(truth.outputs[n].shape) for n, g in zip(names, got, strict=False)}
    return compare(graph, truth, run_of(graph, shaped), tolerance=limit)


def _difference(got: Sequence[Array], expected: Sequence[NDArray[np.float64]], tolerance: float) -> float:
    """Largest difference over the outputs that both have; the first one must be there."""
    worst = 0.0
    for k, want in enumerate(expected):
        have = np.asarray(got[k]) if k < len(got) else None
        if have is None or have.size != want.size:
            shape = None if have is None else have.shape
            if k == 0:
                raise CannotRun(f"gives shape {shape} where the interpreter gives {want.shape}")
            continue
        diff = np.abs(have.reshape(want.shape).astype(np.float64) - want)
        limit = tolerance * max(1.0, float(np.abs(want).max(initial=0.0)))
        top = float(diff.max(initial=0.0))
        if not top <= limit:  # NaN is refused too
            wrong = int(np.count_nonzero(~(diff <= limit)))
            raise CannotRun(f"differs from the interpreter by {top:.3g} in {wrong} of {want.size} values: not timed")
        worst = max(worst, top)
    return worst


def _report(
    job: Job,
    ready: Mapping[str, _Ready],
    skipped: Sequence[Skipped],
    seconds: Mapping[str, NDArray[np.float64]],
    rounds: int,
    unpinned: str,
) -> BenchReport:
    own = seconds[PROGRAM]
    results = []
    for name, item in ready.items():
        us = seconds[name] * 1e6 / job.steps
        quotient = float(np.median(seconds[name] / own))
        low, mid, high = (float(v) for v in np.percentile(us, (10, 50, 90)))
        results.append(EngineResult(name, item.engine.dense, mid, low, high, quotient, item.diff, item.note))
    results.sort(key=lambda r: r.us_per_step)
    best = next((r.name for r in results if r.dense), "")
    quotients = seconds[best] / own if best else np.array([np.nan])
    low, mid, high = (float(v) for v in np.percentile(quotients, (10, 50, 90)))
    return BenchReport(
        tuple(results), tuple(skipped), best, mid, low, high, job.batch, job.steps, rounds, job.graph.density,
        Host.here(job.threads), unpinned,
    )  # fmt: skip


@contextmanager
def _evaluation(model: nn.Module | None) -> Iterator[None]:
    """The model in evaluation mode; what was in training mode is put back."""
    training = [] if model is None else [m for m in model.modules() if m.training]
    try:
        yield
    finally:
        for module in training:
            module.training = True
