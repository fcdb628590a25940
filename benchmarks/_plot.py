"""Line charts as SVG: a line for every engine with its name at the end, logarithmic axes, spread as whiskers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 820, 480
LEFT, RIGHT, TOP, BOTTOM = 70, 168, 66, 56
LABEL_STEP = 15
"""Least distance between the names at the ends of lines."""
COLOURS = {
    "sparsecirc": "#c8102e",
    "torch_dense": "#e07b00",
    "onnxruntime": "#0b6fb8",
    "openvino": "#00868b",
    "snntorch": "#7a3fa0",
    "norse": "#4b56c0",
    "spikingjelly": "#8a7a00",
    "torch_csr": "#e07b00",
    "torch_sparse": "#8c5a2b",
    "scipy_csr": "#2e7d32",
    "sparsecirc_dense": "#c8102e",
    "sparsecirc_csr": "#c8102e",
}
OTHER = "#5f6b76"
DASHED = ("_csr", "_sparse")


@dataclass(frozen=True)
class Line:
    """One engine: points in order of x; ``low`` and ``high`` are the ends of the whiskers."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """What is drawn.

    Attributes:
        title: what is seen.
        subtitle: what was held fixed.
        x_label: with unit.
        y_label: with unit.
        lines: engines.
        x_ticks: values that get a tick.
        x_log: logarithmic x.
        level: a horizontal line to compare with, and what it means.
        x_text: how a tick of x is written.
    """

    title: str
    subtitle: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[float, ...]
    x_log: bool = True
    level: tuple[float, str] | None = None
    x_text: Callable[[float], str] = lambda value: f"{value:g}"


def svg(chart: Chart) -> str:
    """The chart as one SVG file; nothing in it is loaded from elsewhere."""
    values = [v for line in chart.lines for v in (*line.y, *line.low, *line.high)]
    if chart.level is not None:
        values.append(chart.level[0])
    ticks = _decades(min(values), max(values))
    across = _scale(min(chart.x_ticks), max(chart.x_ticks), LEFT, WIDTH - RIGHT, chart.x_log)
    up = _scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP, True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="12.5">',
        f"<title>{escape(chart.title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="17" font-weight="600" fill="#1b2126">{escape(chart.title)}</text>',
        f'<text x="{LEFT}" y="46" fill="#5f6b76">{escape(chart.subtitle)}</text>',
    ]
    for tick in ticks:
        y = up(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e8ec"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#5f6b76">{tick:g}</text>')
    for tick in chart.x_ticks:
        x = across(tick)
        parts.append(f'<path d="M{x:.1f} {HEIGHT - BOTTOM}v5" stroke="#9aa5ae"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#5f6b76">'
            f"{escape(chart.x_text(tick))}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts += [
        f'<path d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}" stroke="#9aa5ae"/>',
        f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle" fill="#1b2126">{escape(chart.x_label)}</text>',
        f'<text transform="translate(20 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="#1b2126">{escape(chart.y_label)}</text>',
    ]
    if chart.level is not None:
        y = up(chart.level[0])
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#1b2126" stroke-dasharray="2 3"/>')
        parts.append(f'<text x="{LEFT + 6}" y="{y - 6:.1f}" fill="#1b2126">{escape(chart.level[1])}</text>')
    for line in sorted(chart.lines, key=lambda one: one.name == "sparsecirc"):
        parts += _drawn(line, across, up)
    parts += _names(chart.lines, across, up)
    return "\n".join([*parts, "</svg>\n"])


def _drawn(line: Line, across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    colour = COLOURS.get(line.name, OTHER)
    points = [(across(x), up(y)) for x, y in zip(line.x, line.y, strict=True)]
    wide = 3.2 if line.name == "sparsecirc" else 1.6
    dash = ' stroke-dasharray="6 4"' if line.name.endswith(DASHED) else ""
    if line.name == "sparsecirc_dense" or line.name not in COLOURS:
        dash = ' stroke-dasharray="1.5 3"'
    path = " ".join(f"{'M' if k == 0 else 'L'}{x:.1f} {y:.1f}" for k, (x, y) in enumerate(points))
    parts = [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide}" stroke-linejoin="round"{dash}/>']
    for (x, _), low, high in zip(points, line.low, line.high, strict=False):
        parts.append(f'<path d="M{x:.1f} {up(low):.1f}V{up(high):.1f}" stroke="{colour}" opacity="0.45"/>')
    radius = 3.4 if line.name == "sparsecirc" else 2.2
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>' for x, y in points]
    return parts


def _names(lines: Sequence[Line], across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    """The name of every line at its end, pushed apart where lines end close together."""
    parts = []
    for right in sorted({line.x[-1] for line in lines}):
        ends = sorted(((up(line.y[-1]), line) for line in lines if line.x[-1] == right), key=lambda end: end[0])
        places = _apart([y for y, _ in ends])
        x = across(right)
        at = x + 20
        for (y, line), place in zip(ends, places, strict=True):
            colour = COLOURS.get(line.name, OTHER)
            weight = ' font-weight="700"' if line.name == "sparsecirc" else ""
            parts.append(f'<path d="M{x + 5:.1f} {y:.1f}L{at - 4:.1f} {place:.1f}" stroke="{colour}" opacity="0.4"/>')
            parts.append(
                f'<text x="{at:.1f}" y="{place + 4:.1f}" fill="{colour}"{weight} stroke="#ffffff" stroke-width="3" '
                f'paint-order="stroke">{escape(line.name)}</text>'
            )
    return parts


def _apart(places: list[float]) -> list[float]:
    """Heights in order, moved until neighbours are `LABEL_STEP` apart, and none leaves the picture."""
    moved = list(places)
    for _ in range(200):
        for k in range(len(moved) - 1):
            push = max(0.0, LABEL_STEP - (moved[k + 1] - moved[k])) / 2
            moved[k], moved[k + 1] = max(moved[k] - push, TOP), min(moved[k + 1] + push, HEIGHT - BOTTOM)
    return moved


def _scale(low: float, high: float, start: float, end: float, log: bool) -> Callable[[float], float]:
    def warp(value: float) -> float:
        return math.log(value) if log else value

    span = (warp(high) - warp(low)) or 1.0
    return lambda value: start + (end - start) * (warp(value) - warp(low)) / span


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... around the values."""
    steps = [m * 10.0**e for e in range(-4, 9) for m in (1, 2, 5)]
    first = max((s for s in steps if s <= low), default=steps[0])
    last = min((s for s in steps if s >= high), default=steps[-1])
    ticks = [s for s in steps if first <= s <= last]
    return ticks if len(ticks) <= 13 else [s for s in ticks if f"{s:e}"[0] == "1" or s in (first, last)]
