"""Pictures of a continual run as SVG: curves with bands, heat maps of tasks, bars of capacity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = (
    "#0b8f6c", "#cf5f1e", "#4a78d6", "#a8479f", "#a98710", "#2f9bb8", "#8391a8", "#c2454a", "#6f9430", "#94643f",
)  # fmt: skip
"""Of methods; told apart on white and on black."""
Points = Sequence[tuple[float, float, float]]
"""(x, mean, half the width of its interval or NaN) from left to right."""
LETTER = 7.0
"""Width of a letter at 13 px, at most."""


def colour(k: int) -> str:
    """Of the k-th series."""
    return COLOURS[k % len(COLOURS)]


def standalone(svg: str) -> str:
    """A drawing of the page as a file of its own, dark on white."""
    head, _, rest = svg.partition(">")
    style = (
        "<style>text{font:13px system-ui,sans-serif;fill:#1c2430}.grid{stroke:#d5dae2}.track{fill:#e3e7ee}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    opened = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{opened}>{style}{rest}\n"


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from ``low`` to ``high``."""
    span = max(high - low, 1e-12)
    size = 10 ** math.floor(math.log10(span / 4))
    step = next(size * k for k in (1, 2, 5, 10) if span / (size * k) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _number(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


def curves(series: Mapping[str, Points], *, x_label: str, y_label: str, from_zero: bool = False) -> str:
    """A line per name over whole numbers x, with its interval as a band that is cut at the edge of the picture."""
    names = list(series)
    legend = 16 + 34 + LETTER * max(len(n) for n in names)
    width, height, left, top, bottom = 640.0 + max(0.0, legend - 150), max(300, 46 + 20 * len(names)), 62, 14, 44
    right = legend
    xs = sorted({p[0] for points in series.values() for p in points})
    means = [m for points in series.values() for _, m, _ in points if math.isfinite(m)] or [0.0, 1.0]
    low, high = 0.0 if from_zero else min(means), max(means)
    pad = max(0.15 * (high - low), 1e-3 * max(abs(high), 1e-9))
    low, high = low if from_zero else low - pad, high + pad
    room_x, room_y = width - left - right, height - top - bottom

    def at(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if len(xs) < 2 else (x - xs[0]) / (xs[-1] - xs[0])
        return left + across * room_x, top + (high - min(max(y, low), high)) / (high - low) * room_y

    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">'
    ]
    for tick in _ticks(low, high):
        y = at(xs[0], tick)[1]
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + room_x:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
        )
    for x in xs:
        parts.append(f'<text x="{at(x, low)[0]:.1f}" y="{height - bottom + 18}" text-anchor="middle">{x:g}</text>')
    for k, (name, points) in enumerate(series.items()):
        shade = colour(k)
        known = [p for p in points if math.isfinite(p[1])]
        banded = [p for p in known if math.isfinite(p[2])]
        if banded:
            edge = [at(x, m + h) for x, m, h in banded] + [at(x, m - h) for x, m, h in reversed(banded)]
            outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
            parts.append(f'<polygon points="{outline}" fill="{shade}" fill-opacity="0.16"/>')
        dash = "" if k < len(COLOURS) else ' stroke-dasharray="5 3"'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(x, m) for x, m, _ in known))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{shade}" stroke-width="2"{dash}/>')
        for x, mean, half in known:
            cx, cy = at(x, mean)
            band = "" if math.isnan(half) else f" +- {half:.4g}"
            parts.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3.2" fill="{shade}"><title>{escape(name)}, {x:g}: {mean:.4g}'
                f"{band}</title></circle>"
            )
        y = top + 10 + 20 * k
        edge_x = left + room_x + 16
        parts.append(
            f'<line x1="{edge_x:.1f}" x2="{edge_x + 24:.1f}" y1="{y}" y2="{y}" stroke="{shade}" '
            f'stroke-width="3"{dash}/><text x="{edge_x + 30:.1f}" y="{y + 4}">{escape(name)}</text>'
        )
    middle = (top + height - bottom) / 2
    parts.append(
        f'<text x="{left + room_x / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">{escape(y_label)}'
        "</text></svg>"
    )
    return "".join(parts)


def heat(values: Sequence[Sequence[float | None]], *, low: float, high: float, rows: str, cols: str, label: str) -> str:
    """A matrix of tasks, dark where large; numbers in percent, nothing where nothing was measured."""
    cell, left, top = 46, 62, 26
    count, across = len(values), max((len(v) for v in values), default=0)
    width, height = left + cell * across + 4, top + cell * count + 26
    parts = [
        f'<svg viewBox="0 0 {width} {height}" style="width:{width}px;min-width:0" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    for j in range(across):
        parts.append(f'<text x="{left + cell * (j + 0.5):.0f}" y="{top - 8}" text-anchor="middle">{j + 1}</text>')
    for i, line in enumerate(values):
        parts.append(f'<text x="{left - 8}" y="{top + cell * (i + 0.5) + 4:.0f}" text-anchor="end">{i + 1}</text>')
        for j, value in enumerate(line):
            if value is None or not math.isfinite(value):
                continue
            part = min(max((value - low) / max(high - low, 1e-12), 0.0), 1.0)
            text = "#ffffff" if part > 0.52 else "#1c2430"
            parts.append(
                f'<rect x="{left + cell * j + 1}" y="{top + cell * i + 1}" width="{cell - 2}" height="{cell - 2}" '
                f'rx="3" fill="{_shade(part)}"><title>{escape(rows)} {i + 1}, {escape(cols)} {j + 1}: '
                f'{100 * value:.2f}</title></rect><text x="{left + cell * (j + 0.5):.0f}" '
                f'y="{top + cell * (i + 0.5) + 4:.0f}" text-anchor="middle" style="fill:{text}">'
                f"{100 * value:.1f}</text>"
            )
    middle = top + cell * count / 2
    parts.append(
        f'<text x="{left + cell * across / 2:.0f}" y="{height - 8}" text-anchor="middle">{escape(cols)}</text>'
        f'<text x="16" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 16 {middle:.0f})">{escape(rows)}'
        "</text></svg>"
    )
    return "".join(parts)


def _shade(part: float) -> str:
    """From near white over green to dark green."""
    pale, dark = (0xEA, 0xF3, 0xEF), (0x06, 0x5C, 0x45)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(pale, dark, strict=True))


def capacity(layers: Mapping[str, Sequence[float]], widths: Mapping[str, int]) -> str:
    """A bar per layer, a piece per task: what each has taken of what there is."""
    names = [name for name in layers if widths[name]]
    left = 16 + LETTER * max((len(n) for n in names), default=0)
    width, row, room = left + 420 + 150, 30, 420.0
    height = row * len(names) + 4
    parts = [f'<svg viewBox="0 0 {width:.0f} {height}" role="img" aria-label="capacity used by layer and task">']
    for r, name in enumerate(names):
        y, of = r * row, widths[name]
        parts.append(
            f'<text x="{left - 8:.0f}" y="{y + 20}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="track" x="{left:.0f}" y="{y + 6}" width="{room:.0f}" height="{row - 12}" rx="3"/>'
        )
        before = 0.0
        for k, used in enumerate(layers[name]):
            size = room * max(used - before, 0.0) / of
            if size > 0:
                parts.append(
                    f'<rect x="{left + room * before / of:.1f}" y="{y + 6}" width="{size:.1f}" height="{row - 12}" '
                    f'fill="{colour(0)}" fill-opacity="{1.0 if k % 2 == 0 else 0.62}"><title>{escape(name)}, task '
                    f"{k + 1}: {used - before:.0f} more, {used:.0f} of {of}</title></rect>"
                )
            before = max(used, before)
        parts.append(f'<text x="{left + room + 8:.0f}" y="{y + 20}">{before:,.0f} of {of:,} ({before / of:.0%})</text>')
    return "".join([*parts, "</svg>"])
