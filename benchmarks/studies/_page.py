"""The page of a study: Markdown tables, line drawings as SVG, and the facts that make it repeatable."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TypeVar

from benchmarks.studies._study import SEEDS, AnyRow, Setting, Study
from sparsecirc._bench import Host
from sparsecirc._files import write_atomic

R = TypeVar("R")
K = TypeVar("K")
COLOURS = ("#0b7a5c", "#c4571b", "#3b5ba5", "#8a8f98", "#a0307c", "#b59410", "#4f9fb5", "#1c2430", "#7a5230", "#6aa84f")


def commit() -> str:
    """Commit of the checkout, with ``+`` where files were changed since; ``unknown`` outside of one."""
    name = Host.here(1).commit
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"{name}{'+' if changed.stdout.strip() else ''}" if name else "unknown"


def write_page(study: Study, setting: Setting, rows: Sequence[AnyRow], folder: Path) -> None:
    """``<name>.md``, ``<name>.json`` and the drawings of a study."""
    page = study.page(rows, setting)
    made = commit()
    seeds = ",".join(map(str, setting.seeds))
    asked = f"{' --quick' if setting.quick else ''}{'' if setting.seeds == SEEDS else f' --seeds {seeds}'}"
    command = f"python -m benchmarks.studies {study.name}{asked} --out docs/studies"
    head = [
        f"# {study.title}",
        "",
        f"Source: {study.source}.",
        "",
        f"Made by `{command}` at commit {made}, {'seed' if len(setting.seeds) == 1 else 'seeds'} {seeds}; "
        f"{replace(Host.here(1), commit='').line()}. All rows: [{study.name}.json]({study.name}.json).",
        "",
        "",
    ]
    write_atomic(folder / f"{study.name}.md", ("\n".join(head) + page.text.rstrip() + "\n").encode())
    for name, svg in page.figures.items():
        write_atomic(folder / name, svg.encode())
    document = {
        "study": study.name,
        "commit": made,
        "seeds": list(setting.seeds),
        "quick": setting.quick,
        "rows": [r.to_json() for r in rows],
    }
    write_atomic(folder / f"{study.name}.json", (json.dumps(document, indent=1) + "\n").encode())


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column to the left, numbers to the right."""
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in rows)])


def spread(values: Sequence[float]) -> str:
    """Mean of fractions in percent, with the standard deviation where there are several."""
    mean = 100 * statistics.fmean(values)
    return f"{mean:.2f}" if len(values) < 2 else f"{mean:.2f} ± {100 * statistics.stdev(values):.2f}"


def grouped(rows: Sequence[R], key: Callable[[R], K]) -> dict[K, list[R]]:
    """Rows by a key, in the order in which the keys come."""
    out: dict[K, list[R]] = defaultdict(list)
    for row in rows:
        out[key(row)].append(row)
    return dict(out)


Points = Sequence[tuple[float, float, float]]
"""(x, y, spread of y) from left to right."""


def lines(
    series: Mapping[str, Points], *, x_label: str, y_label: str, ticks: Sequence[float], y_range: tuple[float, float]
) -> str:
    """Lines with error bars as a self-contained SVG; the positions on the x axis are evenly spaced.

    Args:
        series: points by name, x among ``ticks``.
        x_label: below the axis.
        y_label: beside the axis.
        ticks: values of x, each of them marked.
        y_range: lowest and highest y; what lies outside is drawn at the edge.
    """
    width, height, left, right, top, bottom = 760, 400, 62, 200, 14, 46
    low, high = y_range
    step = (width - left - right) / max(len(ticks) - 1, 1)

    def at(x: float, y: float) -> tuple[float, float]:
        clipped = min(max(y, low), high)
        return left + ticks.index(x) * step, top + (high - clipped) / (high - low) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
        "<style>text{font:12px system-ui,sans-serif;fill:#1c2430}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for k in range(6):
        value = low + (high - low) * k / 5
        y = at(ticks[0], value)[1]
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e7ee"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for tick in ticks:
        x = at(tick, low)[0]
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick:g}</text>')
    for k, (name, points) in enumerate(series.items()):
        colour = COLOURS[k % len(COLOURS)]
        dash = "" if k < len(COLOURS) else ' stroke-dasharray="5 3"'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p[0], p[1]) for p in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for value, mean, deviation in points:
            x, y = at(value, mean)
            up, down = at(value, mean + deviation)[1], at(value, mean - deviation)[1]
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{up:.1f}" y2="{down:.1f}" stroke="{colour}"/>'
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
            )
        y = top + 10 + 20 * k
        parts.append(
            f'<line x1="{width - right + 18}" x2="{width - right + 44}" y1="{y}" y2="{y}" stroke="{colour}" '
            f'stroke-width="2"{dash}/><text x="{width - right + 50}" y="{y + 4}">{escape(name)}</text>'
        )
    parts.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="14" y="{(top + height - bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + height - bottom) / 2:.0f})">{escape(y_label)}</text></svg>\n'
    )
    return "".join(parts)


def scatter(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_label: str, y_range: tuple[float, float]
) -> str:
    """Points (x, y) by name as a self-contained SVG: discs for the first half of the names, rings for the second."""
    width, height, left, right, top, bottom = 760, 400, 62, 220, 14, 46
    low, high = y_range
    xs = [x for points in series.values() for x, _ in points]
    first, span = min(xs), max(max(xs) - min(xs), 1e-9)
    half = -(-len(series) // 2)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / span * (width - left - right - 24)
        return left + 12 + across, top + (high - min(max(y, low), high)) / (high - low) * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
        "<style>text{font:12px system-ui,sans-serif;fill:#1c2430}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for k in range(6):
        value, tick = low + (high - low) * k / 5, first + span * k / 5
        y, x = at(first, value)[1], at(tick, low)[0]
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e3e7ee"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
            f'<text x="{x:.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick:.3g}</text>'
        )
    for k, (name, points) in enumerate(series.items()):
        colour = COLOURS[k % half]
        style = (
            f'fill="{colour}" fill-opacity="0.75"' if k < half else f'fill="#fff" stroke="{colour}" stroke-width="2"'
        )
        marks = [at(x, y) for x, y in points] + [(width - right + 30, top + 6 + 20 * k)]
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}/>' for x, y in marks]
        parts.append(f'<text x="{width - right + 42}" y="{top + 10 + 20 * k}">{escape(name)}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="14" y="{(top + height - bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(top + height - bottom) / 2:.0f})">{escape(y_label)}</text></svg>\n'
    )
    return "".join(parts)
