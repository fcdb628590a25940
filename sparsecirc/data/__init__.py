"""Data sets and trained weights, read from a folder, a cache or their canonical address; no framework needed."""

from sparsecirc._machine import cache_dir
from sparsecirc.data._dataset import Dataset
from sparsecirc.data._images import digits, fashion_mnist, mnist, parse_idx
from sparsecirc.data._reber import accepts, reber
from sparsecirc.data._series import Series, japanese_vowels, pad, parse_ts
from sparsecirc.data._store import DataFile, Progress, read
from sparsecirc.data._trained import wavernn_768

__all__ = [
    "DataFile",
    "Dataset",
    "Progress",
    "Series",
    "accepts",
    "cache_dir",
    "digits",
    "fashion_mnist",
    "japanese_vowels",
    "mnist",
    "pad",
    "parse_idx",
    "parse_ts",
    "read",
    "reber",
    "wavernn_768",
]
