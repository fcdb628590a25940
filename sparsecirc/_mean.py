"""`Mean`: a mean over seeds with its confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t at 97.5 % by degrees of freedom, from 1."""


@dataclass(frozen=True)
class Mean:
    """Mean of some seeds, and half the width of its 95 % confidence interval (Student's t; NaN for one seed)."""

    mean: float
    half: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of one number per seed."""
        if len(values) < 2:
            return cls(statistics.fmean(values), math.nan, len(values))
        t = _T975[min(len(values) - 1, len(_T975)) - 1]
        return cls(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(len(values)), len(values))
