"""`check_onnx`: an exported file against the float64 interpreter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecirc.export._export import Export
from sparsecirc.export.onnx._run import run_onnx
from sparsecirc.ir import Graph, interpret


@dataclass(frozen=True)
class OnnxCheck:
    """How far a file is from the interpreter.

    Attributes:
        max_abs_diff: largest absolute difference, by output.
        spike_mismatches: spikes of the outputs that differ, by output; only outputs that are spikes are listed.
        tolerance: what counts as equal, for outputs that are not spikes.
    """

    max_abs_diff: dict[str, float]
    spike_mismatches: dict[str, int]
    tolerance: float

    @property
    def ok(self) -> bool:
        """No spike differs and every other output is within the tolerance."""
        analog = (d for name, d in self.max_abs_diff.items() if name not in self.spike_mismatches)
        return not any(self.spike_mismatches.values()) and all(d <= self.tolerance for d in analog)

    def table(self) -> str:
        """One line per output."""
        lines = []
        for name, diff in self.max_abs_diff.items():
            spikes = f", {self.spike_mismatches[name]} spikes differ" if name in self.spike_mismatches else ""
            lines.append(f"{name}: largest difference {diff:.2e}{spikes}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All fields, and whether the check passed."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        return self.table()


def check_onnx(
    graph: Graph,
    exported: Export | str | os.PathLike[str],
    x: ArrayLike | Mapping[str, ArrayLike],
    *,
    lengths: ArrayLike | None = None,
    tolerance: float = 1e-4,
    threads: int = 1,
) -> OnnxCheck:
    """Run a main file in ONNX Runtime and compare it with ``interpret`` in float64.

    Args:
        graph: what was exported.
        exported: what :func:`export_onnx` returned, or the path of its main file.
        x: input in the user's layout.
        lengths: valid steps per sample, for a file exported with lengths.
        tolerance: largest difference allowed in outputs that are not spikes.
        threads: of ONNX Runtime.

    Raises:
        UsageError, FileFormatError, MissingExtraError: see :func:`run_onnx`.
    """
    path = exported.paths[0] if isinstance(exported, Export) else Path(exported)
    want = interpret(graph, x, lengths=lengths).outputs
    got = run_onnx(path, x, lengths=lengths, threads=threads)
    spiking = {v for n in graph.recurrent if n.cell.spiking for v in (n.name, f"{n.name}.{n.cell.feedback}")}
    diff = {k: float(np.max(np.abs(got[k] - w), initial=0.0)) for k, w in want.items()}
    spikes = {k: int(np.sum(got[k] != want[k])) for k, v in graph.outputs.items() if v in spiking}
    return OnnxCheck(diff, spikes, tolerance)
