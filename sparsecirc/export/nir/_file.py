"""A written NIR file, read back and run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecirc.export._export import Export
from sparsecirc.export.nir._euler import euler
from sparsecirc.export.nir._metadata import unpack
from sparsecirc.export.nir._prepare import cut
from sparsecirc.export.nir._write import nir_module
from sparsecirc.ir import Graph, interpret


@dataclass(frozen=True)
class NirCheck:
    """How a file compares with the network that it was made of.

    Attributes:
        max_abs_diff: largest difference of outputs that are not spikes, before any reduction over time.
        spike_mismatches: spikes of output layers that differ.
        spikes: spikes of the reference in those outputs.
    """

    max_abs_diff: float
    spike_mismatches: int
    spikes: int

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values."""
        return asdict(self)


def check_nir(graph: Graph, export: Export, x: ArrayLike) -> NirCheck:
    """Read the file, run it by forward Euler in float64, and compare every output with `interpret`.

    Args:
        graph: what was exported.
        export: what `export_nir` returned.
        x: an input in the layout of ``graph``.

    Raises:
        MissingExtraError: the package ``nir`` is not installed.
    """
    read = nir_module("reading NIR files").read(export.paths[0])
    step_graph = cut(graph).graph
    array = np.asarray(x, np.float64)
    if graph.batch_first:
        array = np.swapaxes(array, 0, 1)
    expected = interpret(step_graph, array).outputs
    got = euler(read, array).outputs
    of = {str(unpack(read.nodes[name]).get("name", name)): name for name in got}
    spiking = {n.name for n in graph.recurrent} | {f"{n.name}.spk" for n in graph.recurrent}
    worst, wrong, spikes = 0.0, 0, 0
    for name, value in step_graph.outputs.items():
        want, have = expected[name], got[of[name]]
        if value in spiking:
            wrong += int(np.count_nonzero(want != have))
            spikes += int(np.count_nonzero(want))
        elif want.size:
            worst = max(worst, float(np.max(np.abs(want - have))))
    return NirCheck(worst, wrong, spikes)
