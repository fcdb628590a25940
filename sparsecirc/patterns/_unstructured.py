"""Any connection may live: the best scores of the whole matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.patterns._maker import Scores, check_scores, check_sparsity, live_count, top


@dataclass(frozen=True)
class Unstructured:
    """Keeps the round((1 - sparsity) * rows * cols) highest scores; of equal scores, the first in row-major order.

    Raises:
        UsageError: on call, where the sparsity is missing or outside [0, 1), or a score is NaN.
    """

    origin: str = "unstructured"

    def __call__(self, scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
        """Pattern of the shape of ``scores``."""
        if sparsity is None:
            raise UsageError(f"pattern {self.origin} needs a sparsity, got None: expected a number in [0, 1)")
        units = self.units(scores)
        return self.build(top(units, live_count(units.size, check_sparsity(sparsity))))

    def units(self, scores: NDArray[Any], /) -> Scores:
        """The scores themselves."""
        return check_scores(scores)

    def build(self, keep: NDArray[np.bool_], /) -> Pattern:
        """Pattern of a mask."""
        return Pattern.from_mask(keep, self.origin)


unstructured = Unstructured()
