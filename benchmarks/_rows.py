"""Rows of the table, and how they are made from measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._bench import BenchReport
from sparsecirc._bench._job import SPARSE_UP_TO
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
        low: tenth percentile of ``us_per_step`` over rounds.
        high: ninetieth percentile.
        nnz: live connections of the recurrent matrix.
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
    low: float
    high: float
    nnz: int

    @property
    def spread(self) -> float:
        """Width of the middle 80 % of the rounds over their median."""
        return (self.high - self.low) / self.us_per_step

    @property
    def rate(self) -> float:
        """GB/s of stored weights, each read once a step."""
        return self.bytes / self.us_per_step / 1e3

    def to_json(self) -> dict[str, Any]:
        """The fields that everybody compares, numbers rounded to what was measured."""
        return {key: value for key, value in self.to_record().items() if key not in ("low", "high", "nnz")}

    def to_record(self) -> dict[str, Any]:
        """All fields."""
        data = asdict(self)
        for key in ("density", "us_per_step", "speedup_vs_best_dense", "low", "high"):
            data[key] = float(f"{data[key]:.5g}")
        return data


@dataclass(frozen=True)
class Measured:
    """Rows of one configuration of a case, and what a reader has to know about them."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Size of one configuration; ``nnz`` live connections in its recurrent matrix."""

    case: str
    n: int
    density: float
    batch: int
    seq_len: int
    nnz: int

    @staticmethod
    def of(case: str, graph: Graph, batch: int, seq_len: int) -> Setting:
        """The setting of a graph with one recurrent layer."""
        (layer,) = graph.recurrent
        pattern = next(v for v in graph.weights() if v.role == "hh").pattern
        return Setting(case, layer.units, pattern.density, batch, seq_len, pattern.nnz)


def bytes_of(graph: Graph, engine: str) -> int:
    """Bytes of the weight matrices in a peer: float32, a byte each, or CSR with 32-bit indices (torch-sparse: 64)."""
    total = 0
    index = {"torch_csr": 4, "scipy_csr": 4, "torch_sparse": 8}.get(engine, 0)
    for view in graph.weights():
        if index and view.pattern.density <= SPARSE_UP_TO:
            total += (4 + index) * view.pattern.nnz + index * (view.value.shape[0] + 1)
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
            e.p10,
            e.p90,
            setting.nnz,
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
            float(np.percentile(seconds[name], 10)) * 1e6 / setting.seq_len,
            float(np.percentile(seconds[name], 90)) * 1e6 / setting.seq_len,
            setting.nnz,
        )
        for name in sorted(seconds, key=lambda n: median[n])
    )


NOISY = 0.25
"""Spread of rounds above which a figure is called noisy."""
MIXED = 5
"""Above this many noisy rows the table says how many there are instead of naming each."""


def noise(measured: Sequence[Measured]) -> str:
    """A warning if rounds of the same thing differed much, else ""."""
    rows = [row for group in measured for row in group.rows]
    noisy = [row for row in rows if row.spread > NOISY]
    if not noisy:
        return ""
    worst = max(noisy, key=lambda row: row.spread)
    named = "" if len(noisy) > MIXED else ": " + ", ".join(f"{r.case} {r.engine} B={r.batch}" for r in noisy)
    return (
        f"NOISE: {len(noisy)} of {len(rows)} rows spread by more than {NOISY:.0%} between rounds{named}; the widest is "
        f"{worst.case} {worst.engine} N={worst.n} B={worst.batch} with {worst.spread:.0%}. Processor time and "
        "quotients within rounds suffer less than times of the wall, but run again on a quiet machine"
    )


HEAD = (
    f"{'case':<24}{'engine':<24}{'n':>6}{'density':>9}{'nnz':>9}{'batch':>7}{'T':>6}{'us/step':>11}{'spread':>8}"
    f"{'speed-up':>10}{'max diff':>11}{'bytes':>12}{'GB/s':>7}"
)


def table(measured: Sequence[Measured]) -> str:
    """Everything as aligned text: speed-ups are over the best dense float32 engine, GB/s of weights at batch 1."""
    lines = [HEAD]
    for group in measured:
        for r in group.rows:
            rate = f"{r.rate:>7.0f}" if r.batch == 1 else f"{'-':>7}"
            lines.append(
                f"{r.case:<24}{r.engine:<24}{r.n:>6}{r.density:>9.3f}{r.nnz:>9}{r.batch:>7}{r.seq_len:>6}"
                f"{r.us_per_step:>11.2f}{r.spread:>8.0%}{r.speedup_vs_best_dense:>9.2f}x{r.max_abs_diff:>11.1e}"
                f"{r.bytes:>12}{rate}"
            )
        lines += [f"    {note}" for note in group.notes]
    return "\n".join(lines)
