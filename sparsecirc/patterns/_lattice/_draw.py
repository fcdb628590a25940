"""A Hasse diagram as SVG: what is above is drawn above, a line for each cover."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

LARGEST = 60
"""Elements up to which each is drawn by itself."""
BANDS = 12
"""Heights that are left when elements are drawn in groups."""
PER_ROW = 12
"""Boxes side by side; more of one height are staggered over several rows."""
SWEEPS = 12
ROW, STAGGER, MARGIN, LEGEND, GAP = 70, 34, 18, 52, 14
LEAST_WIDE = 280.0
CHAR = 6.6
"""Width of a letter at 11 px."""
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#1c2430;text-anchor:middle}"
    "line{stroke:#9aa5b5}rect{stroke:#33415c;stroke-width:1}"
)
KEPT, REDUCIBLE, OUTSIDE = (11, 122, 92), (233, 236, 241), (255, 247, 214)


@dataclass(frozen=True)
class Element:
    """One element of an order.

    Attributes:
        label: its name.
        level: height at which it is drawn.
        size: neurons in it.
        worth: how irreducible, 0 to 1; ``None`` where it is not judged.
    """

    label: str
    level: int
    size: int
    worth: float | None


@dataclass(frozen=True)
class Diagram:
    """Elements and the covers between them, as (lower, upper)."""

    elements: tuple[Element, ...]
    edges: tuple[tuple[int, int], ...]
    title: str = ""


def draw(diagram: Diagram) -> str:
    """SVG of a diagram; above 60 elements those of similar height and one kind are drawn as one box."""
    collapsed = len(diagram.elements) > LARGEST
    shown, weights = _collapse(diagram) if collapsed else (diagram, dict.fromkeys(diagram.edges, 1))
    note = f"{diagram.title} ({len(diagram.elements)} elements, in groups)" if collapsed else diagram.title
    place, size = _layout(shown, max(LEAST_WIDE, CHAR * len(note)))
    wide, tall = size[0], size[1] + LEGEND
    width = _width(shown.elements)
    heaviest = max(weights.values(), default=1)
    lines = "".join(
        f'<line x1="{place[a][0]:.1f}" y1="{place[a][1] - 11:.1f}" x2="{place[b][0]:.1f}" y2="{place[b][1] + 11:.1f}"'
        f' stroke-width="{1 + 4 * (w - 1) / heaviest:.2f}"/>'
        for (a, b), w in weights.items()
    )
    boxes = "".join(_box(e, *place[k], width) for k, e in enumerate(shown.elements))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {tall:.0f}" width="{wide:.0f}" '
        f'height="{tall:.0f}" role="img" aria-label="Hasse diagram of {len(diagram.elements)} elements">'
        f'<style>{STYLE}</style><rect width="100%" height="100%" style="fill:#fff;stroke:none"/>'
        f"{lines}{boxes}{_legend(tall, note)}</svg>\n"
    )


def _width(elements: Sequence[Element]) -> float:
    return max([30.0, *(CHAR * len(e.label) + 14 for e in elements)])


def _layout(diagram: Diagram, least: float) -> tuple[dict[int, tuple[float, float]], tuple[float, float]]:
    """Middle of each box, and width and height of all; the lowest elements are at the bottom."""
    rows = _rows(diagram)
    slot = _width(diagram.elements) + GAP
    split = [max(1, -(-len(row) // PER_ROW)) for row in rows]
    spans = [slot * len(row) / parts for row, parts in zip(rows, split, strict=True)]
    wide = max([*spans, least]) + 2 * MARGIN
    place: dict[int, tuple[float, float]] = {}
    up = MARGIN + 14.0
    for row, parts, span in zip(rows, split, spans, strict=True):
        step = min(slot * 2, (wide - 2 * MARGIN) / max(len(row), 1)) if parts == 1 else span / len(row)
        left = (wide - step * len(row)) / 2
        for i, k in enumerate(row):
            place[k] = (left + (i + 0.5) * step, up + STAGGER * (i % parts))
        up += ROW + STAGGER * (parts - 1)
    tall = up - ROW + MARGIN + 14.0 if rows else 2 * MARGIN
    return {k: (x, tall - y) for k, (x, y) in place.items()}, (wide, tall)


def _box(element: Element, x: float, y: float, width: float) -> str:
    fill, ink = _colours(element.worth)
    return (
        f'<g><title>{escape(_tip(element))}</title><rect x="{x - width / 2:.1f}" y="{y - 11:.1f}" width="{width:.1f}" '
        f'height="22" rx="4" fill="{fill}"/><text x="{x:.1f}" y="{y + 4:.1f}" style="fill:{ink}">'
        f"{escape(element.label)}</text></g>"
    )


def _tip(element: Element) -> str:
    what = "not judged" if element.worth is None else f"irreducible {element.worth:.3g}"
    return f"{element.label}: {what}, height {element.level}, {element.size} neurons"


def _colours(worth: float | None) -> tuple[str, str]:
    """Fill and ink: from grey (reducible) to green (irreducible)."""
    if worth is None:
        return _rgb(OUTSIDE), "#1c2430"
    mixed = tuple(round(r + (k - r) * worth) for r, k in zip(REDUCIBLE, KEPT, strict=True))
    return _rgb(mixed), "#fff" if worth > 0.55 else "#1c2430"


def _rgb(colour: Sequence[int]) -> str:
    return f"rgb({','.join(map(str, colour))})"


def _legend(tall: float, note: str) -> str:
    parts, x = [], float(MARGIN)
    for word, worth in (("irreducible", 1.0), ("reducible", 0.0), ("not judged", None)):
        parts.append(
            f'<rect x="{x:.0f}" y="{tall - 44:.0f}" width="14" height="14" rx="3" fill="{_colours(worth)[0]}"/>'
            f'<text x="{x + 20:.0f}" y="{tall - 33:.0f}" style="text-anchor:start">{word}</text>'
        )
        x += 30 + CHAR * len(word)
    return "".join(parts) + f'<text x="{MARGIN}" y="{tall - 12:.0f}" style="text-anchor:start">{escape(note)}</text>'


def _rows(diagram: Diagram) -> list[list[int]]:
    """Elements per height, each row in an order that crosses few lines: repeatedly sorted by where neighbours lie."""
    rows: list[list[int]] = [[] for _ in range(1 + max((e.level for e in diagram.elements), default=-1))]
    for k, e in enumerate(diagram.elements):
        rows[e.level].append(k)
    near: dict[int, list[int]] = defaultdict(list)
    for a, b in diagram.edges:
        near[a].append(b)
        near[b].append(a)
    where = {k: i / max(len(row), 1) for row in rows for i, k in enumerate(row)}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            row.sort(key=lambda k: (float(np.mean([where[m] for m in near[k]])) if near[k] else where[k], k))
            where.update({k: (i + 0.5) / len(row) for i, k in enumerate(row)})
    return rows


def _collapse(diagram: Diagram) -> tuple[Diagram, dict[tuple[int, int], int]]:
    """One element per band of heights and kind, with the number of covers between two of them."""
    highest = max(e.level for e in diagram.elements)
    band = [e.level * BANDS // (highest + 1) if highest >= BANDS else e.level for e in diagram.elements]
    words = [
        "not judged" if e.worth is None else "irreducible" if e.worth >= 0.5 else "reducible" for e in diagram.elements
    ]
    kinds = list(zip(band, words, strict=True))
    order = sorted(set(kinds))
    number = {kind: k for k, kind in enumerate(order)}
    inside: dict[tuple[int, str], list[Element]] = defaultdict(list)
    for kind, e in zip(kinds, diagram.elements, strict=True):
        inside[kind].append(e)

    def merged(kind: tuple[int, str]) -> Element:
        es = inside[kind]
        count = sum(e.size for e in es)
        worth = None if kind[1] == "not judged" else float(np.mean([e.worth or 0.0 for e in es]))
        return Element(f"{count} {kind[1]}" if count > 1 else es[0].label, kind[0], count, worth)

    weights = Counter((number[kinds[a]], number[kinds[b]]) for a, b in diagram.edges if band[a] != band[b])
    return Diagram(tuple(merged(k) for k in order), tuple(weights), diagram.title), dict(weights)
