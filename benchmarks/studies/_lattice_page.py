"""The page of the lattice study: tables of every part, the curves, and who is ahead of whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.studies._page import grouped, lines, markdown, spread
from benchmarks.studies._study import Page, Row, Setting

NEAR = 1e-3
"""Counts are whole numbers per gate, so that a sparsity is met up to this."""


@dataclass(frozen=True)
class Sizes:
    """What a setting trains."""

    units: int
    feedback_units: int
    epochs: int
    levels: tuple[float, ...]
    variant_levels: tuple[float, ...]
    variants: tuple[str, ...]
    curve: tuple[str, ...]


def page(rows: Sequence[Row], setting: Setting, size: Sizes) -> Page:
    """Tables of every part, the curves, and who is ahead of magnitude."""
    lstm = [r for r in rows if r.cell == "lstm"]
    h2h = [r for r in lstm if r.scope == "h2h"]
    own = {
        name: {(r.seed, r.sparsity) for r in h2h if r.method == name and not _on(r, levels)}
        for name, levels in (("lattice_binary", ()), ("lattice_continuous", size.levels))
    }
    parts = [
        _dense_line(rows),
        "## At the sparsity that each lattice has by itself",
        "Recurrent weights only (h2h); the others keep the same number of connections. In percent of the test images, "
        "mean and standard deviation over the seeds.",
    ]
    for name, points in own.items():
        parts += [f"Beside `{name}`:", _table([r for r in h2h if (r.seed, r.sparsity) in points])]
    parts += [
        "Pruned in input and recurrent weights together:",
        _table([r for r in lstm if r.scope == "both"]),
        "## Whole neurons",
        "Reducible neurons leave the network: connections into and out of them, the read-out's included. Beside as "
        "many of the largest recurrent weight out, and at random.",
        _table([r for r in lstm if r.scope == "neurons"]),
        "## Curve",
        "Right after pruning, and after one epoch of fine-tuning:",
        "![before fine-tuning](lattice-before.svg)",
        "![after fine-tuning](lattice-after.svg)",
        _curve_table(h2h, size),
        "After fine-tuning, seed by seed:",
        _verdicts(h2h, size),
        "## Variants",
        f"Of the first seed only ({setting.seeds[0]}); the methods of the curve beside them, for the same seed.",
        *(_variants([r for r in h2h if r.seed == setting.seeds[0]], level, size) for level in size.variant_levels),
        "## Two layers with top-down feedback",
        f"Tanh layers of {size.feedback_units} units, the lower one also fed by the upper one's last state; all "
        "weights of both in one order.",
        _table([r for r in rows if r.cell == "rnn_feedback" and r.method != "dense"]),
    ]
    figures = {f"lattice-{when}.svg": _figure(h2h, size, when) for when in ("before", "after")}
    return Page("\n\n".join(p for p in parts if p) + "\n", figures)


def _on(row: Row, levels: Sequence[float]) -> bool:
    return any(abs(row.sparsity - level) < NEAR for level in levels)


def _dense_line(rows: Sequence[Row]) -> str:
    dense = grouped([r for r in rows if r.method == "dense"], lambda r: r.cell)
    return "Dense: " + "; ".join(f"{c} {spread([r.accuracy_before for r in rs])} %" for c, rs in dense.items()) + "."


def _cells(rows: Sequence[Row]) -> tuple[str, str, str]:
    after = [r.accuracy_after for r in rows if r.accuracy_after is not None]
    sparsity = 100 * float(np.mean([r.sparsity for r in rows]))
    return f"{sparsity:.1f}", spread([r.accuracy_before for r in rows]), spread(after) if after else "-"


def _table(rows: Sequence[Row]) -> str:
    """A line per method, apart below and above 70 %: a lattice's own sparsity differs from seed to seed."""
    found = grouped(rows, lambda r: (r.method, r.sparsity > 0.7))
    lines_ = [
        (str(key[0]), *_cells(rs), *(f"> {100 * rs[0].published:.0f}" if rs[0].published else "",))
        for key, rs in found.items()
        if isinstance(key, tuple)
    ]
    return markdown(("method", "sparsity", "before", "after", "published"), lines_)


def _at(rows: Sequence[Row], method: str, level: float) -> list[Row]:
    return [r for r in rows if r.method == method and abs(r.sparsity - level) < NEAR]


def _curve_table(rows: Sequence[Row], size: Sizes) -> str:
    lines_ = []
    for level in size.levels:
        for method in size.curve:
            if found := _at(rows, method, level):
                lines_.append((method, *_cells(found)))
    return markdown(("method", "sparsity", "before", "after"), lines_)


def _verdicts(rows: Sequence[Row], size: Sizes) -> str:
    """Each lattice of the curve against magnitude, and against random units, after fine-tuning and seed by seed."""
    pairs = [(method, "magnitude") for method in size.curve if method.startswith("lattice")]
    pairs.append(("lattice_ranked", "random_units_ranked"))
    return "\n".join(f"- {a} minus {b}, in points: {_gaps(rows, size, a, b)}" for a, b in pairs if a in size.curve)


def _gaps(rows: Sequence[Row], size: Sizes, method: str, other: str) -> str:
    words = []
    for level in size.levels:
        ours = {r.seed: r.accuracy_after for r in _at(rows, method, level)}
        theirs = {r.seed: r.accuracy_after for r in _at(rows, other, level)}
        gaps = [100 * (a - b) for s in ours if (a := ours[s]) is not None and (b := theirs.get(s)) is not None]
        if gaps:
            ahead = sum(g > 0 for g in gaps)
            words.append(f"{100 * level:g} %: {np.mean(gaps):+.2f} ({ahead} of {len(gaps)} seeds ahead)")
    return ", ".join(words)


def _variants(rows: Sequence[Row], level: float, size: Sizes) -> str:
    names = (*size.curve, *size.variants)
    found = [(name, _at(rows, name, level)) for name in names]
    ranked = sorted(
        ((name, rs) for name, rs in found if rs),
        key=lambda pair: -float(np.mean([r.accuracy_after or 0.0 for r in pair[1]])),
    )
    head = ("method, best first", "sparsity", "before", "after")
    return markdown(head, [(name, *_cells(rs)) for name, rs in ranked])


def _figure(rows: Sequence[Row], size: Sizes, when: str) -> str:
    series = {}
    lowest = 100.0
    for method in size.curve:
        points = []
        for level in size.levels:
            values = [
                100 * (r.accuracy_before if when == "before" else r.accuracy_after or 0.0)
                for r in _at(rows, method, level)
            ]
            if values:
                points.append((100 * level, float(np.mean(values)), float(np.std(values))))
                lowest = min(lowest, points[-1][1])
        if points:
            series[method] = points
    low = max(0.0, np.floor(lowest / 5) * 5)
    return lines(
        series,
        x_label="sparsity of the recurrent weights, %",
        y_label=f"test accuracy {'right after pruning' if when == 'before' else 'after one epoch of fine-tuning'}, %",
        ticks=[100 * level for level in size.levels],
        y_range=(float(low), 100.0),
    )
