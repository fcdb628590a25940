"""Pictures of the sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from benchmarks._plot import Chart, Line, svg
from benchmarks._rows import Measured, Row
from sparsecirc._bench import Host

Point = tuple[str, float, Measured]
"""Sweep, x, and what was measured there."""
SPARSE = ("sparsecirc", "scipy_csr", "torch_csr", "torch_sparse")


def pictures(points: Sequence[Point], host: Host) -> dict[str, str]:
    """SVG by name, of every sweep that has at least two points."""
    where = f"one core of an {host.cpu} ({host.isa}), commit {host.commit or 'unknown'}"
    gru = f"GRU of 512 units, 90 % sparse, {where}"
    charts: dict[str, Chart | None] = {
        "size": _times(points, "size", "Cost of a GRU by its size", f"90 % sparse, batch 1, {where}", "units"),
        "batch": _times(points, "batch", "Cost by batch", gru, "sequences at once"),
        "length": _times(
            points, "length", "Cost by length of a call", gru, "time steps per call"
        ),
        "rate": _times(
            points, "rate", "Cost of spiking neurons by their rate", f"1024 recurrent LIF, 90 % sparse, {where}",
            "share that spikes per step", _percent,
        ),
        "growth": _times(
            points, "growth", "Time as a network grows", f"tanh layer, 32 live connections a unit, {where}", "units",
            proportional=True,
        ),
        "growth_memory": _times(
            points, "growth", "Memory as a network grows", f"tanh layer, 32 live connections a unit, {where}", "units",
            value=lambda row: row.bytes / 2**20, y_label="MiB of weights as stored", proportional=True,
        ),
        "sparsity": _speedups(points, f"GRU of 512 units, batch 1, {where}"),
        "break_even": _break_even(points, f"GRU, batch 1, {where}"),
    }  # fmt: skip
    return {name: svg(chart) for name, chart in charts.items() if chart is not None}


def _percent(value: float) -> str:
    return f"{100 * value:g} %"


def _by_engine(points: Sequence[Point], sweep: str) -> dict[str, list[tuple[float, Row]]]:
    found: dict[str, list[tuple[float, Row]]] = {}
    for name, x, measured in points:
        for row in measured.rows if name == sweep else ():
            found.setdefault(row.engine, []).append((x, row))
    return {engine: sorted(rows, key=lambda pair: pair[0]) for engine, rows in found.items()}


def _times(
    points: Sequence[Point],
    sweep: str,
    title: str,
    subtitle: str,
    x_label: str,
    x_text: Callable[[float], str] = lambda value: f"{value:g}",
    value: Callable[[Row], float] | None = None,
    y_label: str = "microseconds per time step",
    proportional: bool = False,
) -> Chart | None:
    lines = []
    for engine, rows in _by_engine(points, sweep).items():
        xs = tuple(x for x, _ in rows)
        if value is not None:
            lines.append(Line(engine, xs, tuple(value(row) for _, row in rows)))
        else:
            low, high = tuple(row.low for _, row in rows), tuple(row.high for _, row in rows)
            lines.append(Line(engine, xs, tuple(row.us_per_step for _, row in rows), low, high))
    ticks = tuple(sorted({x for line in lines for x in line.x}))
    if len(ticks) < 2:
        return None
    if proportional:
        ours = next(line for line in lines if line.name == "sparsecirc")
        lines.append(Line("proportional", ours.x, tuple(ours.y[-1] * x / ours.x[-1] for x in ours.x)))
    return Chart(title, subtitle, x_label, y_label, tuple(lines), ticks, x_text=x_text)


def _speedups(points: Sequence[Point], subtitle: str) -> Chart | None:
    found = _by_engine(points, "sparsity")
    lines = [
        # Dead over live connections grow evenly on this axis: 50 % is 2, 99 % is 100.
        Line(engine, tuple(1 / (1 - x) for x, _ in rows), tuple(row.speedup_vs_best_dense for _, row in rows))
        for engine, rows in found.items()
        if engine in SPARSE
    ]
    ticks = tuple(sorted({x for line in lines for x in line.x}))
    if len(ticks) < 2:
        return None
    return Chart(
        "What sparsity gives", subtitle, "sparsity", "speed-up over the best dense engine", tuple(lines), ticks,
        level=(1.0, "as fast as dense"), x_text=lambda value: _percent(round(1 - 1 / value, 4)),
    )  # fmt: skip


def _break_even(points: Sequence[Point], subtitle: str) -> Chart | None:
    by_size: dict[int, list[Point]] = {}
    for point in points:
        if point[0] in ("sparsity", "break_even") and point[2].rows:
            by_size.setdefault(point[2].rows[0].n, []).append(("both", *point[1:]))
    lines = []
    for engine in SPARSE:
        at = {n: crossing(_by_engine(own, "both").get(engine, [])) for n, own in sorted(by_size.items())}
        known = {n: x for n, x in at.items() if x is not None}
        if known:
            lines.append(Line(engine, tuple(known), tuple(1 / (1 - x) for x in known.values())))
    if len(by_size) < 2 or not lines:
        return None
    return Chart(
        "Sparsity from which a sparse engine is faster than the best dense one", subtitle, "units",
        "all over live connections at break-even (2 is 50 % sparse, 10 is 90 %)", tuple(lines), tuple(sorted(by_size)),
    )  # fmt: skip


def crossing(rows: Sequence[tuple[float, Row]]) -> float | None:
    """Sparsity at which a speed-up becomes 1, between two measured ones; the first if it is above 1 there already.

    ``None`` if the engine is never as fast as dense.
    """
    gains = [(x, row.speedup_vs_best_dense) for x, row in rows]
    if gains and gains[0][1] >= 1:
        return gains[0][0]
    for (x0, g0), (x1, g1) in pairwise(gains):
        if g0 < 1 <= g1:
            return x0 + (x1 - x0) * (1 - g0) / (g1 - g0)
    return None
