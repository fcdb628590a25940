"""Multivariate time series of the UEA archive in ``.ts`` text files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsecirc.data._dataset import Dataset
from sparsecirc.data._store import DataFile, Progress, read
from sparsecirc.errors import FileFormatError

_VOWELS_URL = (
    "https://raw.githubusercontent.com/aeon-toolkit/aeon/a101ddc8b35a65441609b45c9bcce5aeafa0c131/"
    "aeon/datasets/data/JapaneseVowels/"
)
_VOWELS = {
    "TRAIN": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
    "TEST": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
}


@dataclass(frozen=True)
class Series:
    """Content of a ``.ts`` file.

    Attributes:
        cases: one float32 (T, dimensions) array per sample.
        labels: class label of each sample as written.
        classes: the labels in the order of the header; of first appearance where the header has none.
    """

    cases: tuple[NDArray[np.float32], ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]


def parse_ts(text: str, origin: str) -> Series:
    """A ``.ts`` file: ``#`` comments, ``@`` headers, then a sample a line, dimensions and label divided by ``:``.

    Raises:
        FileFormatError: no data section, time stamps, or a line that does not parse; names the line.
    """
    cases: list[NDArray[np.float32]] = []
    labels: list[str] = []
    classes: tuple[str, ...] = ()
    in_data = False
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        lower = line.lower()
        if not in_data:
            in_data = lower == "@data"
            if lower.startswith("@classlabel true"):
                classes = tuple(line.split()[2:])
            if lower.startswith("@timestamps true"):
                raise FileFormatError(f"{origin}:{number} has time stamps: expected evenly sampled series")
            continue
        *dimensions, label = line.split(":")
        try:
            columns = [np.array([float(v) for v in d.split(",")], dtype=np.float32) for d in dimensions]
        except ValueError as error:
            raise FileFormatError(f"{origin}:{number} holds a value that is not a number ({error})") from error
        if not columns or len({len(c) for c in columns}) != 1:
            raise FileFormatError(
                f"{origin}:{number} has dimensions of lengths {[len(c) for c in columns]}: expected one length"
            )
        if cases and len(columns) != cases[0].shape[1]:
            raise FileFormatError(f"{origin}:{number} has {len(columns)} dimensions: expected {cases[0].shape[1]}")
        cases.append(np.stack(columns, axis=1))
        labels.append(label.strip())
    if not cases:
        raise FileFormatError(f"{origin} has no sample after '@data': it is truncated or of another kind")
    known = classes or tuple(dict.fromkeys(labels))
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise FileFormatError(f"{origin} has label '{unknown[0]}', which its header does not list: {', '.join(known)}")
    return Series(tuple(cases), tuple(labels), known)


def pad(cases: tuple[NDArray[np.float32], ...], steps: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Series of different lengths as one (N, steps, dimensions) array with zeros behind, and their lengths."""
    out = np.zeros((len(cases), steps, cases[0].shape[1]), dtype=np.float32)
    for k, case in enumerate(cases):
        out[k, : len(case)] = case
    return out, np.array([len(c) for c in cases], dtype=np.int64)


def japanese_vowels(*, progress: Progress | None = None) -> Dataset:
    """JapaneseVowels: 270 + 370 utterances of 9 speakers, 12 cepstra, 7 to 29 steps (Kudo et al. 1999, UCI).

    Raises:
        UsageError: the files are neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
        FileFormatError: a file is damaged.
    """
    parts: list[Series] = []
    for split, digest in _VOWELS.items():
        name = f"JapaneseVowels_{split}.ts"
        file = DataFile("ts-aeon", f"{name}.gz", _VOWELS_URL + name, digest)
        parts.append(parse_ts(read(file, progress=progress).decode("utf-8"), name))
    train, test = parts
    steps = max(len(c) for c in (*train.cases, *test.cases))
    (x_train, n_train), (x_test, n_test) = pad(train.cases, steps), pad(test.cases, steps)
    y_train, y_test = (np.array([p.classes.index(v) for v in p.labels], dtype=np.int64) for p in parts)
    return Dataset(
        "japanese_vowels", x_train, y_train, x_test, y_test, n_train, n_test, "UCI / UEA archive, from aeon-toolkit"
    )
