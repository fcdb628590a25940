"""Sparklines for text and one SVG for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

BARS = "▁▂▃▄▅▆▇█"
ROW, CELL, LINE, PAD = 20, 56, 120, 8
LETTER = 7.0
"""Width of a letter at 12 px."""


def sparkline(values: Sequence[float]) -> str:
    """One bar per value, from 0 to the largest finite one; what is not finite is as tall as that."""
    top = max((v for v in values if math.isfinite(v)), default=0.0)
    return "".join(BARS[-1] if not math.isfinite(v) else BARS[int(v / top * 7) if top > 0 else 0] for v in values)


def draw(
    rows: Sequence[tuple[str, Sequence[float], float, Sequence[float]]], levels: Sequence[float], tolerance: float
) -> str:
    """SVG of (name, loss by level, safe level, drift by step): a coloured grid, then a line over time."""
    left = PAD + LETTER * max((len(name) for name, *_ in rows), default=0) + PAD
    line_at = left + CELL * len(levels) + PAD
    width, height = line_at + LINE + PAD, ROW * (len(rows) + 1) + 2 * PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" font-family="monospace" font-size="12" role="img" '
        'aria-label="loss of each weight by sparsity, and drift of the state over time">'
        f'<rect width="{width:.0f}" height="{height}" fill="#ffffff"/>'
    ]
    for k, level in enumerate(levels):
        parts.append(_text(left + CELL * (k + 0.5), PAD + 14, f"{level:.0%}", "middle"))
    parts.append(_text(line_at, PAD + 14, "drift over time", "start"))
    top = max((v for *_, drift in rows for v in drift if math.isfinite(v)), default=0.0)
    for r, (name, losses, safe, drift) in enumerate(rows):
        y = PAD + ROW * (r + 1)
        indent = len(name) - len(name.lstrip())
        parts.append(_text(PAD + LETTER * indent, y + 14, name.strip(), "start"))
        for k, (level, loss) in enumerate(zip(levels, losses, strict=True)):
            edge = ' stroke="#111111"' if level == safe else ""
            parts.append(
                f'<rect x="{left + CELL * k + 1:.1f}" y="{y + 1}" width="{CELL - 2}" height="{ROW - 2}" '
                f'fill="{_colour(loss, tolerance)}"{edge}><title>{escape(name.strip())} at {level:.0%}: {loss:.4g}'
                f"</title></rect>"
            )
            parts.append(_text(left + CELL * (k + 0.5), y + 14, f"{loss:.3f}", "middle"))
        if len(drift) > 1 and top > 0:
            points = " ".join(
                f"{line_at + LINE * t / (len(drift) - 1):.1f},{y + ROW - 3 - (ROW - 6) * min(v / top, 1.0):.1f}"
                for t, v in enumerate(drift)
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="#2b5d9b" stroke-width="1.5"/>')
    return "".join([*parts, "</svg>"])


def _colour(loss: float, tolerance: float) -> str:
    """White at 0, yellow at the tolerance, red at ten times of it."""
    if not math.isfinite(loss):
        return "#d7483c"
    if loss <= tolerance:
        part = loss / tolerance if tolerance > 0 else 0.0
        return f"#{255:02x}{round(255 - 15 * part):02x}{round(255 - 95 * part):02x}"
    part = min(1.0, math.log10(loss / tolerance)) if tolerance > 0 else 1.0
    return f"#{round(255 - 40 * part):02x}{round(210 - 138 * part):02x}{round(140 - 80 * part):02x}"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#111111">{escape(text)}</text>'
