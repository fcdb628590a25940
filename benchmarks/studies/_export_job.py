"""What the study of exports hands to a consumer, and what it takes back."""

from __future__ import annotations

import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import SparsecircError
from sparsecirc.ir import Graph, interpret

Array = NDArray[Any]


class Refused(SparsecircError):
    """A consumer cannot run this network; the reason becomes the row's note."""


class Absent(SparsecircError):
    """A consumer, or something it needs, is not installed; says what."""


@dataclass(frozen=True)
class Model:
    """A network to export.

    Attributes:
        graph: pruned.
        x: input in the user's layout, of a length at which no exporter ever ran it.
        single: one sample for timing; batch 1.
    """

    graph: Graph
    x: Array
    single: Array

    @property
    def steps(self) -> int:
        """Time steps of ``single``; of a static input those for which it is repeated."""
        node = self.graph.inputs[0]
        if not node.time:
            return next((int(getattr(n, "steps", 1)) for n in self.graph.nodes if n.kind == "repeat"), 1)
        return int(self.single.shape[1 if self.graph.batch_first else 0])


@dataclass(frozen=True)
class Job:
    """One network for one consumer.

    Attributes:
        name: of the model.
        model: the network with its inputs.
        folder: an empty folder for artefacts.
        quick: measure briefly.
    """

    name: str
    model: Model
    folder: Path
    quick: bool

    @property
    def graph(self) -> Graph:
        """The network."""
        return self.model.graph

    def compare(self, outputs: Mapping[str, Any], x: Array | None = None) -> tuple[float | None, int | None]:
        """Largest difference of the analog outputs from the float64 interpreter, and spikes that differ.

        Either is ``None`` where the network has no such output.

        Args:
            outputs: what the artefact gave for ``x``, by output name, in the user's layout.
            x: what it was given; ``model.x`` by default.

        Raises:
            Refused: an output is missing, or its shape is wrong.
        """
        want = interpret(self.graph, self.model.x if x is None else x).outputs
        worst: float | None = None
        wrong: int | None = None
        for name, reference in want.items():
            got = np.asarray(outputs[name]) if name in outputs else None
            if got is None or got.shape != reference.shape:
                shape = "nothing" if got is None else f"shape {got.shape}"
                raise Refused(f"output '{name}' has {shape}: expected {reference.shape}")
            if self.graph.specs[self.graph.outputs[name]].spikes:
                wrong = (wrong or 0) + int(np.count_nonzero(got != reference))
            else:
                gap = np.abs(got.astype(np.float64) - reference)
                worst = max(worst or 0.0, float(gap.max(initial=0.0)) if not np.isnan(gap).any() else float("inf"))
        return worst, wrong

    def us_per_step(self, call: Callable[[], object]) -> float:
        """Median processor time per time step of a call that runs ``model.single``, in microseconds."""
        call()
        taken: list[float] = []
        end = time.process_time() + (0.15 if self.quick else 0.6)
        while len(taken) < 5 or (time.process_time() < end and len(taken) < 200):
            begun = time.process_time()
            call()
            taken.append(time.process_time() - begun)
        return 1e6 * statistics.median(taken) / max(self.model.steps, 1)


@dataclass(frozen=True)
class ExportRow:
    """One artefact in one consumer. What was not measured, or does not apply, is ``None``.

    Attributes:
        model: name of the network.
        format: ``onnx``, ``c``, ``nir`` or a consumer's own.
        form: variant of the format.
        consumer: program that ran the artefact.
        consumer_version: of that program.
        bytes: size of the artefact: of the file, or of code and constants.
        bytes_dense: the same with every connection stored.
        max_abs_diff: of analog outputs from the float64 interpreter.
        spike_mismatches: spikes of the outputs that differ.
        us_per_step: median processor time of one step at batch 1, in microseconds.
        instructions_per_step: counted by an emulator.
        note: why it was not run, or what to know.
    """

    model: str
    format: str
    form: str
    consumer: str
    consumer_version: str
    bytes: int | None = None
    bytes_dense: int | None = None
    max_abs_diff: float | None = None
    spike_mismatches: int | None = None
    us_per_step: float | None = None
    instructions_per_step: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Whether it agrees, or why it did not run."""
        if self.max_abs_diff is None and self.spike_mismatches is None:
            return f"{self.form or self.format}: {self.note}"
        diff = "" if self.max_abs_diff is None else f" {self.max_abs_diff:.1e}"
        spikes = "" if self.spike_mismatches is None else f" {self.spike_mismatches} spikes differ"
        return f"{self.form or self.format}:{diff}{spikes}"


@dataclass(frozen=True)
class Ran:
    """One artefact that a consumer ran; fields as in `ExportRow`."""

    form: str
    bytes: int | None = None
    bytes_dense: int | None = None
    max_abs_diff: float | None = None
    spike_mismatches: int | None = None
    us_per_step: float | None = None
    instructions_per_step: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Consumer:
    """A program that runs artefacts.

    Attributes:
        name: of the program.
        format: that it reads.
        version: of the program; raises `Absent` where it is not installed.
        run: exports the network of a job in the forms that make sense here, runs each, and gives a `Ran` for each;
            raises `Refused` (or any error of this package) where the program cannot run the network.
        models: names of the models to try; every one where it is empty.
    """

    name: str
    format: str
    version: Callable[[], str]
    run: Callable[[Job], Iterator[Ran]]
    models: tuple[str, ...] = field(default=())


def package(name: str) -> str:
    """Version of an installed Python package.

    Raises:
        Absent: it is not installed.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise Absent(f"the package '{name}' is not installed") from None
