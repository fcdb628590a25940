"""Spoken digits as spectra over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.data._arrays import read_arrays
from sparsecirc.data._dataset import Dataset
from sparsecirc.errors import UsageError

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
_KEYS = {
    "audio": "int16 at 8 kHz, one behind the other", "offsets": "first sample of each recording, and the end",
    "label": "digit", "speaker": "number", "take": "0 to 49", "speaker_names": "names by number",
}  # fmt: skip
_RATE, _WINDOW, _HOP = 8000, 256, 80


def mel_filters(bands: int, window: int, rate: float) -> NDArray[np.float64]:
    """Triangles (bands, window // 2 + 1) that are evenly spaced on the mel scale, ``2595 log10(1 + f / 700)``."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    f = np.fft.rfftfreq(window, 1 / rate)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.clip(np.minimum((f - low) / (middle - low), (high - f) / (high - middle)), 0, None)


def log_mel(audio: ArrayLike, *, steps: int, bands: int = 20, rate: float = _RATE) -> NDArray[np.float32]:
    """Logarithmic mel spectrum (steps, bands) of one recording, whatever its length.

    Windows of 256 samples every 80 (Hann), their power in ``bands`` triangles, its logarithm, and means over ``steps``
    equal stretches of the recording. The largest value of the recording is 0, the smallest -8.
    """
    wave = np.asarray(audio, dtype=np.float64)
    if len(wave) < _WINDOW:
        wave = np.pad(wave, (0, _WINDOW - len(wave)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[::_HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW), axis=1)) ** 2
    spectrum = np.log(power @ mel_filters(bands, _WINDOW, rate).T + 1e-9)
    spectrum = np.maximum(spectrum - spectrum.max(), -8.0)
    edges = np.linspace(0, len(spectrum), steps + 1)
    sums = np.concatenate([np.zeros((1, bands)), np.cumsum(spectrum, axis=0)])
    whole = np.floor(edges).astype(int)
    part = (edges - whole)[:, None]
    at = sums[whole] + part * (sums[np.minimum(whole + 1, len(spectrum))] - sums[whole])  # the integral up to an edge
    means: NDArray[np.float64] = (at[1:] - at[:-1]) / (len(spectrum) / steps)
    return means.astype(np.float32)


def spoken_digits(*, steps: int = 25, bands: int = 20, speakers: Sequence[str] = SPEAKERS) -> Dataset:
    """The free spoken digit data set (Jackson et al.) as mel spectra (N, steps, bands); six speakers, 50 takes of each.

    Takes 0 to 4 are the test part, as published: 2700 + 300 recordings for all speakers, see `log_mel`.

    Raises:
        UsageError: an unknown speaker, or ``fsdd/fsdd.npz`` is neither in $SPARSECIRC_DATA nor in the cache.
        FileFormatError: the file is damaged.
    """
    unknown = [s for s in speakers if s not in SPEAKERS]
    if unknown or not speakers:
        raise UsageError(f"speaker {unknown[0] if unknown else 'none'!r} is unknown: there are {', '.join(SPEAKERS)}")
    found = read_arrays("fsdd", "fsdd.npz", _KEYS, "github.com/Jakobovski/free-spoken-digit-dataset")
    names = [str(n) for n in found["speaker_names"]]
    chosen = np.flatnonzero(np.isin(found["speaker"], [names.index(s) for s in speakers]))
    offsets = found["offsets"]
    x = np.stack([log_mel(found["audio"][offsets[k] : offsets[k + 1]], steps=steps, bands=bands) for k in chosen])
    y, train = found["label"][chosen].astype(np.int64), found["take"][chosen] >= 5
    note = f"free spoken digit data set, {', '.join(speakers)}; CC BY-SA 4.0"
    return Dataset("spoken_digits", x[train], y[train], x[~train], y[~train], note=note)
