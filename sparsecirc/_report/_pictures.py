"""Pictures for the page: matrices as PNG, bars and spike rasters as SVG; nothing but the standard library and numpy."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 320
"""Most pixels along a side of a matrix; larger ones are averaged."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG of (rows, cols)."""
    rows, cols = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels], axis=1)  # filter type 0 before each line
    header = struct.pack(">IIBBBBB", cols, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def matrix(weight: NDArray[Any], live: NDArray[np.bool_], alt: str) -> str:
    """|weight| as an image, dark where large; dead connections white."""
    size = np.abs(weight).astype(np.float64)
    top = float(np.quantile(size[live], 0.98)) if live.any() else 1.0
    shade = np.where(live, 0.25 + 0.75 * np.minimum(size / max(top, 1e-30), 1), 0.0)
    shade = _pool(shade)
    pixels = (255 * (1 - shade / max(float(shade.max(initial=0.0)), 1e-30))).astype(np.uint8)
    if pixels.size == 0:
        return "<p>empty</p>"
    scale = max(1, SIDE // max(pixels.shape))
    pixels = np.kron(pixels, np.ones((scale, scale), np.uint8)).astype(np.uint8)
    data = base64.b64encode(png(pixels)).decode()
    height, width = pixels.shape
    return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'


def _pool(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, cols = values.shape
    by = max(1, -(-max(rows, cols) // SIDE))
    padded = np.zeros((-(-rows // by) * by, -(-cols // by) * by))
    padded[:rows, :cols] = values
    pooled: NDArray[np.float64] = padded.reshape(padded.shape[0] // by, by, padded.shape[1] // by, by).mean(axis=(1, 3))
    return pooled


def bars(engines: Sequence[Mapping[str, Any]]) -> str:
    """Microseconds per step by engine, with the spread from the tenth to the ninetieth percentile."""
    if not engines:
        return "<p>nothing was measured</p>"
    top = max(float(e["p90"]) for e in engines) or 1.0
    name_width, width, height = 130, 640, 28
    room = width - name_width - 150
    parts = [
        f'<svg viewBox="0 0 {width} {height * len(engines)}" role="img" aria-label="microseconds per step by engine">'
    ]
    for k, engine in enumerate(engines):
        y, value = k * height, float(engine["us_per_step"])
        length = room * value / top
        low, high = (name_width + room * float(engine[p]) / top for p in ("p10", "p90"))
        kind = "ours" if engine["name"] == "sparsecirc" else "peer"
        parts.append(
            f'<text x="{name_width - 8}" y="{y + 19}" text-anchor="end">{escape(str(engine["name"]))}</text>'
            f'<rect class="{kind}" x="{name_width}" y="{y + 5}" width="{length:.1f}" height="{height - 10}"/>'
            f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{y + height / 2}" y2="{y + height / 2}"/>'
            f'<text x="{max(name_width + length, high) + 8:.1f}" y="{y + 19}">{value:.2f} us'
            f" ({float(engine['speedup']):.1f}x)</text>"
        )
    return "".join([*parts, "</svg>"])


def raster(data: Mapping[str, Any]) -> str:
    """Spikes as dots: time to the right, neurons downwards."""
    steps, units = int(data["steps"]), int(data["units"])
    width, height, left, bottom = 640, 260, 44, 28
    sx, sy = (width - left - 8) / max(steps, 1), (height - bottom - 8) / max(units, 1)
    dots = "".join(
        f'<circle cx="{left + (int(t) + 0.5) * sx:.1f}" cy="{8 + (int(u) + 0.5) * sy:.1f}" r="1.6"/>'
        for t, u in data["events"]
    )
    last_x, last_y = left + (steps - 0.5) * sx, 8 + (units - 0.5) * sy
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="spike raster">'
        f'<rect class="frame" x="{left}" y="8" width="{width - left - 8}" height="{height - bottom - 8}"/>'
        f'<g class="dots">{dots}</g>'
        f'<text x="{left - 6}" y="18" text-anchor="end">1</text>'
        f'<text x="{left - 6}" y="{last_y:.0f}" text-anchor="end">{units}</text>'
        f'<text x="{left}" y="{height - 8}">step 1</text>'
        f'<text x="{last_x:.0f}" y="{height - 8}" text-anchor="end">{steps}</text>'
        f'<text x="{(left + width) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        f"{len(data['events'])} spikes of {units} neurons</text></svg>"
    )
