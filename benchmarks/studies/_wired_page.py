"""Drawings of the studies of wiring."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape


def bars(values: Mapping[str, Sequence[float]]) -> str:
    """One line per name: every seed a dot, their mean a stroke; accuracies in percent, as a self-contained SVG."""
    every = [100 * v for found in values.values() for v in found]
    low, high = min(every), max(every)
    margin = max(0.2, 0.1 * (high - low))
    low, high = low - margin, high + margin
    left, right, step = 250, 20, 24
    width, height = 760, 50 + step * len(values)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="accuracy in percent by wiring and rule">'
        "<style>text{font:12px system-ui,sans-serif;fill:#1c2430}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    ]
    for k in range(5):
        value = low + (high - low) * k / 4
        parts.append(
            f'<line x1="{at(value):.1f}" x2="{at(value):.1f}" y1="10" y2="{height - 34}" stroke="#e3e7ee"/>'
            f'<text x="{at(value):.1f}" y="{height - 16}" text-anchor="middle">{value:.2f}</text>'
        )
    for k, (name, found) in enumerate(values.items()):
        y = 24 + step * k
        mean = 100 * statistics.fmean(found)
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts += [f'<circle cx="{at(100 * v):.1f}" cy="{y}" r="4" fill="#3b5ba5" fill-opacity="0.6"/>' for v in found]
        x = at(mean)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 8}" y2="{y + 8}" stroke="#c4571b" stroke-width="3"/>')
    return "".join(parts) + "</svg>\n"
