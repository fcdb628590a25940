"""Accuracy over time per step, with the size as area: which network is not beaten by another in all three."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 16, 44
LARGEST = 18.0
"""Radius of the largest network in pixels."""
LETTER = 7.2
"""Width of a letter at 13 px."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """One way to run one network.

    Attributes:
        label: for the reader.
        accuracy: share of the test part.
        us: microseconds per step.
        bytes: of its weights as they are stored.
        ours: whether it is a compiled program, not a dense engine.
    """

    label: str
    accuracy: float
    us: float
    bytes: int
    ours: bool

    def beats(self, other: Point) -> bool:
        """At least as good in accuracy, time and size, and better in one."""
        mine = (-self.accuracy, self.us, self.bytes)
        theirs = (-other.accuracy, other.us, other.bytes)
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


def front(points: Sequence[Point]) -> list[bool]:
    """Whether each point is beaten by none."""
    return [not any(other.beats(point) for other in points) for point in points]


def pareto(points: Sequence[Point]) -> str:
    """SVG: time per step to the right (logarithmic), accuracy upwards, bytes as area; unbeaten ones are filled."""
    low_x, high_x = (f(math.log10(p.us) for p in points) for f in (min, max))
    low_y, high_y = (f(100 * p.accuracy for p in points) for f in (min, max))
    low_x, high_x = low_x - 0.15, high_x + 0.15
    pad = max(0.25, 0.12 * (high_y - low_y))
    low_y, high_y = low_y - pad, min(high_y + pad, 100.5)
    biggest = max(p.bytes for p in points) or 1

    def x(us: float) -> float:
        return LEFT + (math.log10(us) - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)

    def y(accuracy: float) -> float:
        return TOP + (high_y - 100 * accuracy) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="accuracy, microseconds per step and bytes">'
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"/>'
    ]
    for k in range(5):
        value = low_y + (high_y - low_y) * k / 4
        parts.append(f'<text x="{LEFT - 6}" y="{y(value / 100) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for tick in _ticks(10**low_x, 10**high_x):
        parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    drawn = sorted(zip(points, front(points), strict=True), key=lambda pair: -pair[0].bytes)
    circles = [(x(p.us), y(p.accuracy), max(3.0, LARGEST * math.sqrt(p.bytes / biggest))) for p, _ in drawn]
    for (point, unbeaten), (cx, cy, radius) in zip(drawn, circles, strict=True):
        tip = f"{point.label}: {point.accuracy:.2%}, {point.us:.2f} us/step, {point.bytes / 1024:.0f} KiB"
        parts.append(
            f'<g><title>{escape(tip)}</title><circle class="{"ours" if point.ours else "peer"}" cx="{cx:.1f}" '
            f'cy="{cy:.1f}" r="{radius:.1f}" fill-opacity="{0.75 if unbeaten else 0.2}"/></g>'
        )
    for (point, _), at in zip(drawn, _places([p.label for p, _ in drawn], circles), strict=True):
        parts.append(f'<text x="{at[0]:.1f}" y="{at[1]:.1f}">{escape(point.label)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">microseconds per step</text>'
        f'<text x="12" y="{HEIGHT / 2 - 14:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {HEIGHT / 2 - 14:.0f})">accuracy, %</text></svg>'
    )
    return "".join(parts)


def _places(labels: Sequence[str], circles: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """Where each label starts: beside, over or under its circle, wherever it covers nothing; else to the right."""
    taken: list[Box] = [(x - r, y - r, x + r, y + r) for x, y, r in circles]
    found = []
    for label, (x, y, r) in zip(labels, circles, strict=True):
        wide = LETTER * len(label)
        starts = [(x + r + 4, y + 4), (x - r - 4 - wide, y + 4)]
        starts += [(x - wide / 2, y + side) for step in range(3) for side in (-r - 6 - 15 * step, r + 15 + 15 * step)]
        boxes = [(left, base - 11, left + wide, base + 3) for left, base in starts]
        free = [
            k for k, box in enumerate(boxes)
            if box[0] > LEFT and box[2] < WIDTH and box[1] > 0 and not any(_overlap(box, other) for other in taken)
        ]  # fmt: skip
        best = free[0] if free else 0
        taken.append(boxes[best])
        found.append(starts[best])
    return found


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]
