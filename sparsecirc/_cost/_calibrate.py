"""`calibrate`: measure a few shapes of every format and every cell, and fit the `CostModel` of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsecirc._compile import SEQUENCE_VECTORS, SPIKE_RATE, compile
from sparsecirc._cost._bandwidth import Bandwidth, read_bandwidth
from sparsecirc._cost._features import Size, features
from sparsecirc._cost._model import CostModel, HeldOut, key_of
from sparsecirc._cost._nnls import fit_relative
from sparsecirc._cost._problems import DTYPES, kernels_of, patterns_of, supported
from sparsecirc._machine import cache_sizes, processor
from sparsecirc._program import Program
from sparsecirc._target import Isa, Target
from sparsecirc._tuning import kernels_version, measure
from sparsecirc.cells import CELLS, GRU, LIF, LSTM, RNN_TANH, Cell
from sparsecirc.ir import Graph
from sparsecirc.testing import recurrent_graph

Progress = Callable[[int, str], None]
"""``progress(steps, note)`` after every few measurements; `steps_of` says how many there will be."""

FITTED = ((64, 64), (192, 64), (96, 512), (384, 128), (256, 256), (768, 256), (500, 300), (512, 512), (1024, 256),
          (1536, 512), (1024, 1024), (640, 1600), (3072, 1024))  # fmt: skip
DENSE_ONLY = ((128, 128), (300, 100), (300, 500), (2048, 512), (2048, 2048), (3072, 2304))
HELD_OUT = ((128, 192), (320, 320), (960, 320), (700, 700), (1200, 400), (2048, 768))
DENSITIES = (0.3, 0.1, 0.03)
HELD_OUT_DENSITIES = (0.15, 0.05)
ROUNDS = 2
"""How often a held-out product is measured, the smallest counting: nothing else evens out a disturbed measurement."""

RATES = (SPIKE_RATE, 0.2)
"""Shares of active inputs that event formats are fitted on."""

GATE_UNITS = (32, 128, 384, 1024)
GATE_STEPS = 200
LAYERS: tuple[tuple[Cell, int, int, float], ...] = (
    (LIF, 500, 100, 0.1),
    (RNN_TANH, 200, 40, 0.2), (RNN_TANH, 640, 64, 0.1), (GRU, 176, 32, 0.1), (GRU, 400, 64, 0.05), (GRU, 768, 80, 0.1),
    (LSTM, 144, 48, 0.2), (LSTM, 320, 64, 0.1), (LSTM, 640, 64, 0.05),
)  # fmt: skip
"""Layers that predictions are compared with: cell, units, inputs, density of both matrices."""

LAYER_STEPS = 100
LAYER_SECONDS = 0.03
"""Steps of a run, and time spent on each."""


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    size: Size
    many: bool
    rate: float
    us: float


def steps_of() -> int:
    """How many steps `calibrate` reports."""
    return len(FITTED) + len(DENSE_ONLY) + len(HELD_OUT) + len(CELLS) + len(LAYERS) + 1


def calibrate(isa: Isa, progress: Progress | None = None) -> CostModel:
    """Measure and fit; takes less than a minute on a quiet machine. Nothing is written: see `save_model`."""
    tell = progress or _quiet
    bandwidth = read_bandwidth()
    tell(1, "memory")
    caches = cache_sizes()
    seen: list[Sample] = []
    for shape in FITTED:
        seen += _samples(isa, shape, DENSITIES)
        tell(1, f"{shape[0]} x {shape[1]}")
    for shape in DENSE_ONLY:
        seen += _samples(isa, shape, (1.0,))
        tell(1, f"{shape[0]} x {shape[1]}")
    products = fit_products(seen, caches, bandwidth)
    gates, calls = {}, []
    for cell in CELLS.values():
        gates[cell.name], call_us = _gates(cell, isa)
        calls.append(call_us)
        tell(1, cell.name)
    model = CostModel(
        isa, processor().name, kernels_version(), caches, bandwidth, products, gates, float(np.median(calls)),
        HeldOut(0, 0.0, 0.0), HeldOut(0, 0.0, 0.0),
    )  # fmt: skip
    ratios = []
    for shape in HELD_OUT:
        for s in _samples(isa, shape, HELD_OUT_DENSITIES, ROUNDS):
            ratios.append((model.product(s.size, many=s.many, rate=s.rate) or np.nan) / s.us)
        tell(1, f"held out: {shape[0]} x {shape[1]}")
    layers = []
    for cell, units, inputs, density in LAYERS:
        layers.append(layer_ratio(model, cell, units, inputs, density))
        tell(1, f"held out: {cell.name} of {units}")
    return replace(model, products_held_out=_held_out(ratios), layers_held_out=_held_out(layers))


def _quiet(steps: int, note: str) -> None:
    pass


def _held_out(ratios: Sequence[float]) -> HeldOut:
    errors = np.abs(np.array(ratios) - 1)
    return HeldOut(len(ratios), float(np.median(errors)), float(errors.max()))


def fit_products(
    samples: Sequence[Sample], caches: tuple[int, int, int], bandwidth: Sequence[Bandwidth]
) -> dict[str, tuple[float, ...]]:
    """Coefficients per format. Levels of memory that no sample of a format reached get the machine's read speed."""
    groups: dict[str, list[Sample]] = {}
    for s in samples:
        groups.setdefault(key_of(s.size.format, many=s.many), []).append(s)
    us_per_byte = {b.level: 1e-3 / b.gb_per_s for b in bandwidth}
    levels = [us_per_byte.get(level, us_per_byte["RAM"]) for level in ("L2", "L3", "RAM")]
    found = {}
    for name, group in groups.items():
        a = np.array([features(s.size, s.rate, caches) for s in group])
        c = fit_relative(a, np.array([s.us for s in group]))
        for k in (1, 2):  # what a byte takes longer from this level than from the one before
            if not a[:, k - 3].any():
                c[k - 3] = max(levels[k] - levels[k - 1], 0.0)
        found[name] = tuple(float(f"{v:.4g}") for v in c)
    return found


def _samples(isa: Isa, shape: tuple[int, int], densities: Sequence[float], rounds: int = 1) -> Iterator[Sample]:
    """Every kernel that can run one of the `MAKERS`' patterns: one vector at a time, and many at once."""
    scores = np.random.default_rng(shape).random(shape)
    weight = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    for density in densities:
        patterns = list(patterns_of(scores, density))
        for dtype in DTYPES:
            for kernel in kernels_of(isa, dtype).values():
                problem = supported(kernel, patterns, dtype)
                if problem is None:
                    continue
                packed = kernel.format.pack(problem.pattern, weight)
                for many in (False,) if dtype.startswith("int") else (False, True):
                    for x in _inputs(shape[1], many, problem.spikes):
                        us = min(measure({"": packed}, isa, x, step=not many)[""] for _ in range(rounds))
                        yield Sample(Size.of(packed), many, float(np.mean(x != 0)), us)


def _inputs(cols: int, many: bool, spikes: bool) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(cols)
    shape = (SEQUENCE_VECTORS if many else 1, cols)
    if not spikes:
        yield rng.standard_normal(shape, dtype=np.float32)
        return
    for rate in RATES:
        yield (rng.random(shape) < rate).astype(np.float32)


def _gates(cell: Cell, isa: Isa) -> tuple[tuple[float, float], float]:
    """(a, b) of ``a + b * units`` microseconds a step without any product, and the time of a call."""
    times, calls = [], []
    for units in GATE_UNITS:
        graph = recurrent_graph(
            cell, cell.n_gates * units, units, 1.0, bias=False, recurrence=False, input_product=False
        )
        program = compile(graph, Target.cpu(isa), cache=None)
        short, long = (_seconds(program, steps, graph)[0] for steps in (GATE_STEPS // 10, GATE_STEPS))
        step = max(long - short, 1e-9) / (0.9 * GATE_STEPS)
        times.append(step * 1e6)
        calls.append(max(short - step * (GATE_STEPS // 10), 0.0) * 1e6)
    a = np.stack([np.ones(len(GATE_UNITS)), np.array(GATE_UNITS, float)], axis=1)
    first, second = fit_relative(a, np.array(times))
    return (float(f"{first:.4g}"), float(f"{second:.4g}")), min(calls)


def _seconds(program: Program, steps: int, graph: Graph) -> tuple[float, NDArray[np.float32]]:
    """Of one run of ``steps`` steps at batch 1, the smallest of several; and its input."""
    shape = (steps, 1, *graph.inputs[0].shape)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    program.run(x)
    best, spent = np.inf, 0.0
    while spent < LAYER_SECONDS or not np.isfinite(best):
        started = time.perf_counter()
        program.run(x)
        took = time.perf_counter() - started
        best, spent = min(best, took), spent + took
    return best, x


def layer_ratio(model: CostModel, cell: Cell, units: int, inputs: int, density: float) -> float:
    """Predicted over measured microseconds a step of one layer, as `compile` packs it."""
    graph = recurrent_graph(cell, inputs, units, density)
    program = compile(graph, Target.cpu(model.isa), cache=None)
    seconds, x = _seconds(program, LAYER_STEPS, graph)
    rates = {"rnn": float(np.mean(program.run(x).outputs["spk"]))} if cell.spiking else {}
    predicted = model.program_us(program, LAYER_STEPS, rates)
    return (np.nan if predicted is None else predicted) / (seconds * 1e6 / LAYER_STEPS)
