"""Runs of one network beside the interpreter, as rows of a table; `sparsecirc._verify` judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc import _verify
from sparsecirc._verify import VerifyReport
from sparsecirc.errors import MismatchError
from sparsecirc.ir import Graph, Result

TOLERANCE = 1e-4
"""Largest difference of another float32 computation of the network, relative to the largest value of the output."""


@dataclass(frozen=True)
class Row:
    """One output of one comparison.

    Attributes:
        against: what was compared with.
        output: its name.
        max_abs: largest difference, but for what a tie explains.
        mean_abs: mean difference, but for the same.
        first: largest difference in the first quarter of the steps; of all where the output has no time.
        last: the same for the last quarter: above ``first`` where errors grow.
        spikes: spikes of the reference in what was compared; on the first row of a comparison, for all its layers.
        mismatches: spikes that differ and that no tie explains; on the first row.
        ties: samples that are compared only up to a spike that rounding decided; on the first row.
        tolerance: largest ``max_abs`` that passes.
    """

    against: str
    output: str
    max_abs: float
    mean_abs: float
    first: float
    last: float
    spikes: int
    mismatches: int
    ties: int
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether nothing differs that may not."""
        return self.max_abs <= self.tolerance and self.mismatches == 0


def rows_of(report: VerifyReport, against: str, tolerance: float) -> list[Row]:
    """One row per output of ``report``, which was made with ``tolerance``."""
    counts = (report.spikes, report.spike_mismatches, len(report.ties))
    return [
        Row(
            against,
            check.name,
            check.max_abs_diff,
            check.mean_abs_diff,
            check.first_quarter,
            check.last_quarter,
            *(counts if k == 0 else (0, 0, 0)),
            tolerance * max(check.scale, 1e-3),
        )
        for k, check in enumerate(report.outputs)
    ]


def compare(
    graph: Graph, against: str, reference: Result, got: Mapping[str, NDArray[Any]], tolerance: float = TOLERANCE
) -> list[Row]:
    """One row per output that both have.

    Args:
        graph: the network.
        against: name of the other computation.
        reference: a run of ``interpret`` that kept its values.
        got: the other computation's outputs, in the user's layout.
        tolerance: see :data:`TOLERANCE`.

    Raises:
        MismatchError: they have no output in common.
    """
    common = [name for name in graph.outputs if name in got]
    if not common:
        raise MismatchError(
            f"{against} gives the outputs {', '.join(got) or 'none'}, the network has {', '.join(graph.outputs)}"
        )
    fit = {n: graph.outputs[n] for n in common if np.shape(got[n]) == reference.outputs[n].shape}
    never = np.inf, np.inf, np.inf, np.inf, 0, 0, 0, tolerance
    rows = [Row(against, n, *never) for n in common if n not in fit]
    if not fit:
        return rows
    outputs = {n: np.asarray(got[n]) for n in fit}
    shown = replace(graph, outputs=fit)
    report = _verify.compare(shown, reference, _verify.run_of(shown, outputs), tolerance=tolerance)
    return [*rows, *rows_of(report, against, tolerance)]
