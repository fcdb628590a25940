"""Rows of the table, and how they are made from measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._bench import BenchReport
from sparsecirc._bench._job import SPARSE_BELOW
from sparsecirc.ir import Graph


@dataclass(frozen=True)
class Row:
    """One engine in one case.

    Attributes:
        case: name of the case.
        engine: name of the engine; ``int8`` or ``int16`` is part of it where weights are integers.
        n: units of the recurrent layer.
        density: live over all connections of the recurrent matrix.
        batch: sequences at once.
        seq_len: time steps per call.
        us_per_step: median microseconds per time step of the whole batch; of forward and backward in ``train_*``.
        speedup_vs_best_dense: time of the fastest dense float32 engine, ours included, over this one's.
        max_abs_diff: largest difference of the outputs from the float64 reference with the unrounded weights; in
            ``train_*`` of outputs and gradients, each relative to its largest value (in ``train_rlif`` from snntorch).
        bytes: of the weights as this engine stores them, indices included; in ``train_*`` with gradients and Adam's
            two moments.
    """

    case: str
    engine: str
    n: int
    density: float
    batch: int
    seq_len: int
    us_per_step: float
    speedup_vs_best_dense: float
    max_abs_diff: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The fields, numbers rounded to what was measured."""
        data = asdict(self)
        for key in ("density", "us_per_step", "speedup_vs_best_dense"):
            data[key] = float(f"{data[key]:.5g}")
        return data


@dataclass(frozen=True)
class Measured:
    """Rows of one configuration of a case, and what a reader has to know about them."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Size of one configuration."""

    case: str
    n: int
    density: float
    batch: int
    seq_len: int


def bytes_of(graph: Graph, engine: str) -> int:
    """Bytes of the weight matrices in a peer: float32, a byte each, or CSR with 32-bit indices."""
    total = 0
    for view in graph.weights():
        if engine.endswith("_csr") and view.pattern.density < SPARSE_BELOW:
            total += 8 * view.pattern.nnz + 4 * (view.value.shape[0] + 1)
        else:
            total += (1 if "int8" in engine else 4) * view.value.size
    return total


def rows_of_report(setting: Setting, report: BenchReport, sizes: Mapping[str, int]) -> tuple[Row, ...]:
    """Rows of a `BenchReport`; quotients of engines are formed over the program, which ran in the same rounds."""
    by_name = {e.name: e for e in report.engines}
    best = by_name[report.best_dense].speedup if report.best_dense else float("nan")
    return tuple(
        Row(
            setting.case,
            e.name,
            setting.n,
            setting.density,
            report.batch,
            report.steps,
            e.us_per_step,
            best / e.speedup,
            e.max_abs_diff,
            sizes[e.name],
        )
        for e in report.engines
    )


def rows_of_seconds(
    setting: Setting,
    seconds: Mapping[str, NDArray[np.float64]],
    dense: Sequence[str],
    diffs: Mapping[str, float],
    sizes: Mapping[str, int],
) -> tuple[Row, ...]:
    """Rows of seconds per call by engine and round; ``dense`` are the float32 engines that multiply zeros."""
    median = {name: float(np.median(s)) for name, s in seconds.items()}
    best = min(dense, key=lambda name: median[name])
    return tuple(
        Row(
            setting.case,
            name,
            setting.n,
            setting.density,
            setting.batch,
            setting.seq_len,
            median[name] * 1e6 / setting.seq_len,
            float(np.median(seconds[best] / seconds[name])),
            diffs[name],
            sizes[name],
        )
        for name in sorted(seconds, key=lambda n: median[n])
    )


HEAD = f"{'case':<24}{'engine':<24}{'n':>6}{'density':>9}{'batch':>7}{'T':>6}{'us/step':>11}{'speed-up':>10}"


def table(measured: Sequence[Measured]) -> str:
    """Everything as aligned text: speed-ups are over the best dense float32 engine."""
    lines = [f"{HEAD}{'max diff':>11}{'bytes':>12}"]
    for group in measured:
        lines += [
            f"{r.case:<24}{r.engine:<24}{r.n:>6}{r.density:>9.3f}{r.batch:>7}{r.seq_len:>6}{r.us_per_step:>11.2f}"
            f"{r.speedup_vs_best_dense:>9.2f}x{r.max_abs_diff:>11.1e}{r.bytes:>12}"
            for r in group.rows
        ]
        lines += [f"    {note}" for note in group.notes]
    return "\n".join(lines)
