"""Recordings of event cameras, binned into steps of spikes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.data._arrays import read_arrays
from sparsecirc.data._dataset import Dataset
from sparsecirc.errors import UsageError

_KEYS = {
    "x": "column of each event", "y": "row", "p": "polarity, 0 or 1", "t": "microseconds", "offsets":
    "first event of each sample, and the end", "label": "digit", "is_train": "part",
}  # fmt: skip
_SIDE = 34


def bin_events(
    x: ArrayLike,
    y: ArrayLike,
    p: ArrayLike,
    t: ArrayLike,
    offsets: ArrayLike,
    *,
    steps: int,
    side: int,
    pool: int = 1,
    duration: float | None = None,
) -> NDArray[np.float32]:
    """Events of several recordings as spikes (N, steps, features), 1 where at least one event fell.

    Feature ``(p, y // pool, x // pool)`` in row-major order, ``2 ceil(side / pool)^2`` of them.

    Args:
        x: column of each event, all recordings one behind the other.
        y: row.
        p: polarity, 0 or 1.
        t: time from the start of its recording.
        offsets: number of the first event of each recording, and the number of events.
        steps: T.
        side: rows and columns of the camera.
        pool: side of the squares of pixels that become one feature.
        duration: of the T steps together, in the unit of ``t``; later events are left out. By default each recording is
            divided into T equal steps from its first to its last event.

    Raises:
        UsageError: T, side or pool is below 1, or a coordinate lies outside of the camera.
    """
    columns, rows, signs = (np.asarray(a).astype(np.int64) for a in (x, y, p))
    times, starts = np.asarray(t, dtype=np.float64), np.asarray(offsets, dtype=np.int64)
    if min(steps, side, pool) < 1:
        raise UsageError(f"steps {steps}, side {side} and pool {pool}: expected 1 or more of each")
    if len(columns) and (min(columns.min(), rows.min(), signs.min()) < 0 or max(columns.max(), rows.max()) >= side):
        raise UsageError(f"events lie outside of a camera of {side} x {side}")
    if len(signs) and signs.max() > 1:
        raise UsageError(f"polarity {signs.max()}: expected 0 or 1")
    width = -(-side // pool)
    counts = np.diff(starts)
    sample = np.repeat(np.arange(len(counts)), counts)
    if duration is None:
        low, high = np.zeros(len(counts)), np.ones(len(counts))
        full = counts > 0
        low[full] = np.minimum.reduceat(times, starts[:-1][full]) if full.any() else 0.0
        high[full] = np.maximum.reduceat(times, starts[:-1][full]) if full.any() else 1.0
        span = np.maximum(high - low, 1e-9)
        step = np.minimum(((times - low[sample]) / span[sample] * steps).astype(np.int64), steps - 1)
        inside = np.ones(len(times), dtype=bool)
    else:
        step = np.floor(times / duration * steps).astype(np.int64)
        inside = (step >= 0) & (step < steps)
    feature = (signs * width + rows // pool) * width + columns // pool
    out = np.zeros((len(counts), steps, 2 * width * width), dtype=np.float32)
    out[sample[inside], step[inside], feature[inside]] = 1.0
    return out


def nmnist(*, steps: int = 10, pool: int = 2) -> Dataset:
    """1000 + 100 recordings of N-MNIST (Orchard et al. 2015) as spikes (N, steps, features), digits 0 to 9.

    34 x 34 pixels and two polarities, pooled by ``pool``: 578 features for 2. The first 300 ms, three saccades, are
    divided into equal steps.

    Raises:
        UsageError: ``nmnist-small/nmnist_small.npz`` is neither in $SPARSECIRC_DATA nor in the cache.
        FileFormatError: the file is damaged.
    """
    found = read_arrays("nmnist-small", "nmnist_small.npz", _KEYS, "github.com/bamsumit/slayerPytorch, NMNISTsmall")
    spikes = bin_events(
        *(found[k] for k in ("x", "y", "p", "t", "offsets")), steps=steps, side=_SIDE, pool=pool, duration=300_000.0
    )
    train, labels = found["is_train"].astype(bool), found["label"].astype(np.int64)
    note = "N-MNIST, 1000 + 100 recordings; CC BY-SA 4.0"
    return Dataset("nmnist", spikes[train], labels[train], spikes[~train], labels[~train], note=note)
