"""What a loader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """A classification data set of sequences, split as its publishers split it.

    Attributes:
        name: as in the literature.
        x_train: float32 (N, T, features); padded with zeros after ``lengths_train`` where lengths vary.
        y_train: class of each sample, int64 (N,), from 0.
        x_test: like ``x_train``.
        y_test: like ``y_train``.
        lengths_train: valid steps per sample, int64 (N,); ``None`` where every sample has T steps.
        lengths_test: like ``lengths_train``.
        note: origin, licence, and anything a printed number has to say about the data.
    """

    name: str
    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    lengths_train: NDArray[np.int64] | None = None
    lengths_test: NDArray[np.int64] | None = None
    note: str = ""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    def head(self, train: int, test: int) -> Dataset:
        """The first ``train`` and ``test`` samples: a small data set for quick runs."""

        def cut(array: Any, n: int) -> Any:
            return None if array is None else array[:n]

        return Dataset(
            self.name,
            self.x_train[:train],
            self.y_train[:train],
            self.x_test[:test],
            self.y_test[:test],
            cut(self.lengths_train, train),
            cut(self.lengths_test, test),
            f"{self.note}; first {train} training and {test} test samples",
        )
