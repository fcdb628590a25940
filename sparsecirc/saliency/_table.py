"""A score whose part that does not come from the weight was computed before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UsageError

Combine = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Table:
    """``combine(weight, values[name])``; pure, as every score.

    Attributes:
        what: name of the score, for errors.
        values: by weight name, an array that combines with the weight of shape (rows, cols).
        combine: the formula.
    """

    what: str
    values: Mapping[str, NDArray[np.float64]] = field(repr=False)
    combine: Combine = field(repr=False)

    def __call__(self, weight: NDArray[Any], name: str) -> NDArray[Any]:
        """Scores of the shape of ``weight``.

        Raises:
            UsageError: nothing is known of this weight, or it has another shape than when the score was computed.
        """
        if name not in self.values:
            known = ", ".join(self.values) or "none"
            raise UsageError(f"{self.what} knows nothing of weight '{name}': it was computed for {known}")
        value = self.values[name]
        if value.shape[-1] != weight.shape[1] or value.shape[0] not in (1, weight.shape[0]):
            raise UsageError(
                f"{self.what} of '{name}' was computed for shape {value.shape}, the weight has {weight.shape}: "
                "compute it for this network"
            )
        return np.asarray(self.combine(weight, value))
