"""Data sets and trained weights, read from a folder, a cache or their canonical address; no framework needed."""

from sparsecirc._machine import cache_dir
from sparsecirc.data._dataset import Dataset
from sparsecirc.data._events import bin_events, nmnist
from sparsecirc.data._images import digits, fashion_mnist, mnist, parse_idx
from sparsecirc.data._reber import accepts, reber
from sparsecirc.data._series import Series, japanese_vowels, pad, parse_ts
from sparsecirc.data._speech import SPEAKERS, log_mel, spoken_digits
from sparsecirc.data._store import DataFile, Progress, read
from sparsecirc.data._trained import wavernn_768

__all__ = [
    "SPEAKERS",
    "DataFile",
    "Dataset",
    "Progress",
    "Series",
    "accepts",
    "bin_events",
    "cache_dir",
    "digits",
    "fashion_mnist",
    "japanese_vowels",
    "log_mel",
    "mnist",
    "nmnist",
    "pad",
    "parse_idx",
    "parse_ts",
    "read",
    "reber",
    "spoken_digits",
    "wavernn_768",
]
