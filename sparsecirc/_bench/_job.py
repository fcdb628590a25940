"""What an engine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._compile import SPIKE_RATE
from sparsecirc.errors import UsageError
from sparsecirc.ir import Embedding, Graph, Recurrent

if TYPE_CHECKING:  # torch is imported by the engines that need it, and only when they run
    from torch import nn

    from sparsecirc._program import Program

Array = NDArray[Any]
Inputs = dict[str, Array]
Run = Callable[[], Sequence[Array]]
SPARSE_UP_TO = 0.5
"""Sparse libraries get a matrix in compressed form up to this density; above it as a dense product."""


class CannotRun(Exception):
    """An engine says why it cannot run a job; it is then listed as skipped."""


@dataclass(frozen=True)
class Job:
    """One network and one input, the same for every engine.

    Attributes:
        graph: the network that is measured, with the weights as the program packed them.
        program: the compiled form of ``graph``.
        inputs: float32 (or integer) arrays by input name, in the user's layout.
        bound: the same in (T, B, ...) layout, contiguous.
        model: the user's own torch model of the same network, or ``None``.
        threads: most threads an engine may use.
        batch: samples per call.
        steps: time steps per call.
    """

    graph: Graph
    program: Program
    inputs: Inputs
    bound: Inputs
    model: nn.Module | None
    threads: int
    batch: int
    steps: int


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Attributes:
        name: as printed.
        dense: whether it multiplies with every weight, zeros included: the speed-up is over the best of these.
        package: import name of what it needs beyond numpy, or "".
        prepare: converts the network outside the timed region and returns the call to be timed, which gives the
            graph's outputs in order; raises :class:`CannotRun`.
        about: what it runs, for reports.
    """

    name: str
    dense: bool
    package: str
    prepare: Callable[[Job], Run]
    about: str


def used_ports(graph: Graph, node: Recurrent) -> tuple[str, ...]:
    """Ports of a recurrent layer that anything reads; its default port where nothing names one."""
    read = {i for n in graph.nodes for i in n.inputs} | set(graph.outputs.values())
    ports = tuple(p for p in node.ports() if f"{node.name}.{p}" in read)
    default = node.ports()[0]
    return ports if node.name not in read or default in ports else (default, *ports)


def fold_bias(node: Recurrent) -> tuple[Array | None, Array | None]:
    """(bias of the drive, late bias): all of the recurrent bias goes into the drive but a GRU's new-gate part."""
    drive, rec = node.params.get("bias_ih"), node.params.get("bias_hh")
    if rec is None:
        return drive, None
    late = None
    if node.cell.name == "gru":
        late, rec = rec[2 * node.units :], np.concatenate([rec[: 2 * node.units], np.zeros_like(rec[: node.units])])
    return (rec if drive is None else drive + rec), late


def resize(graph: Graph, x: Mapping[str, Array], batch: int | None, steps: int | None) -> Inputs:
    """Inputs repeated or cut to a batch and a length.

    Raises:
        UsageError: a batch or length below 1, or an empty input that is to be repeated.
    """
    out: Inputs = {}
    for node in graph.inputs:
        array = np.asarray(x[node.name])
        axes = {(0 if graph.batch_first or not node.time else 1): batch}
        if node.time:
            axes[1 if graph.batch_first else 0] = steps
        for axis, size in axes.items():
            if size is None:
                continue
            if size < 1:
                raise UsageError(f"batch or length is {size}: expected at least 1")
            if array.shape[axis] == 0:
                raise UsageError(f"input '{node.name}' has shape {array.shape}: it is empty and cannot be repeated")
            array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
        out[node.name] = array
    return out


def example_input(graph: Graph, *, batch: int = 1, steps: int = 64, seed: int = 0) -> Inputs:
    """Random inputs that fit ``graph``: normal for gated networks, uniform in [0, 1) for spiking ones, `SPIKE_RATE` of
    ones for inputs declared to be spikes, indices for embeddings; by input name, in the user's layout.
    """
    rng = np.random.default_rng(seed)
    tables = {n.inputs[0]: n.params["weight"].shape[0] for n in graph.nodes if isinstance(n, Embedding)}
    out: Inputs = {}
    for node in graph.inputs:
        lead = ((batch, steps) if graph.batch_first else (steps, batch)) if node.time else (batch,)
        shape = (*lead, *node.shape)
        if node.name in tables:
            out[node.name] = rng.integers(0, tables[node.name], shape)
        elif node.spiking:
            out[node.name] = (rng.random(shape) < SPIKE_RATE).astype(np.float32)
        elif graph.spiking:
            out[node.name] = rng.random(shape, dtype=np.float32)
        else:
            out[node.name] = rng.standard_normal(shape, dtype=np.float32)
    return out
