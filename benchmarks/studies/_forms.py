"""ONNX forms beside each other in ONNX Runtime: what form ``auto`` is chosen by."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._networks import CELLS, gated, gated_input, spiking
from benchmarks.studies._export_job import Job, Model, Refused
from benchmarks.studies._page import grouped, markdown
from benchmarks.studies._study import Page, Setting, Study, Task
from sparsecirc import Pattern
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.onnx import custom_ops, export_onnx, open_session
from sparsecirc.export.onnx._run import run_session
from sparsecirc.patterns import PatternMaker, block, modular, unstructured

SIZES = (128, 512, 1024)
DENSITIES = (0.1, 0.2, 0.3, 0.5, 1.0)
BATCHES = (1, 4, 16, 64)
STEPS = 100
FORMS: Mapping[str, str] = {
    "op": "op", "scan": "scan", "packed": "packed", "custom": "custom", "custom + library": "custom",
}  # fmt: skip
"""What is measured -> the form of the file."""


def g2g(scores: NDArray[Any], sparsity: float | None, /) -> Pattern:
    """Eight groups of units that are connected inside as densely as the sparsity allows, and a little between."""
    density = 1 - (sparsity or 0.0)
    inside = min(1.0, 8 * density * 0.9)
    maker, gates = modular(8, inside, 8 / 7 * (density - inside / 8)), len(scores) // scores.shape[1]
    return Pattern.from_mask(np.concatenate([maker(part, None).mask() for part in np.split(scores, gates)]))


MAKERS: Mapping[str, PatternMaker] = {"unstructured": unstructured, "16x1 blocks": block(16, 1), "G2G": g2g}


@dataclass(frozen=True)
class FormRow:
    """One network in one form.

    Attributes:
        cell: of the layer.
        units: of the layer.
        pattern: kind of its recurrent matrix.
        density: of that matrix.
        batch: samples.
        form: of the file, and whether our library was registered.
        bytes: of the file.
        load_ms: processor time to open a session, in milliseconds.
        us_per_step: median processor time of one step, in microseconds.
        max_abs_diff: of analog outputs from the float64 interpreter.
        spike_mismatches: spikes that differ.
    """

    cell: str
    units: int
    pattern: str
    density: float
    batch: int
    form: str
    bytes: int
    load_ms: float
    us_per_step: float
    max_abs_diff: float | None
    spike_mismatches: int | None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Size and time."""
        return f"{self.form}: {self.bytes:,} bytes, {self.us_per_step:.1f} us/step"


def tasks(setting: Setting) -> Iterator[Task]:
    """Every form at batch 1, then densities and batches for the operator and our library."""
    for n in SIZES[:1] if setting.quick else SIZES:
        for cell in (*CELLS, "lif"):
            for pattern in MAKERS if cell in CELLS else ("unstructured",):
                yield Task(f"{cell} {n} {pattern}", partial(_measure, setting, cell, n, pattern, 0.1, 1, tuple(FORMS)))
        for density in DENSITIES:
            for batch in BATCHES:
                work = partial(_measure, setting, "gru", n, "unstructured", density, batch, ("op", "custom + library"))
                if not setting.quick and (density, batch) != (0.1, 1):
                    yield Task(f"gru {n} {density} x {batch}", work)


def _model(cell: str, n: int, pattern: str, density: float, batch: int) -> Model:
    if cell == "lif":
        graph, x = spiking(n, density, STEPS, batch)
        return Model(graph, x, x)
    x = gated_input(STEPS, batch)
    return Model(gated(CELLS[cell], n, density, MAKERS[pattern]), x, x)


def _measure(
    setting: Setting, cell: str, n: int, pattern: str, density: float, batch: int, forms: Sequence[str]
) -> list[FormRow]:
    rows = []
    with tempfile.TemporaryDirectory(prefix="sparsecirc-forms-") as folder:
        job = Job(cell, _model(cell, n, pattern, density, batch), Path(folder), setting.quick)
        for form in forms:
            try:
                made = export_onnx(job.graph, job.folder / "net.onnx", form=FORMS[form], step=False)
            except UnsupportedError:
                continue  # neurons have no operator
            library = custom_ops() if form.endswith("library") else None
            begun = time.process_time()
            session = open_session(made.paths[0], library=library)
            load = time.process_time() - begun
            call = partial(run_session, session, job.model.single)
            diff, spikes = job.compare(call())
            if (diff or 0) > 1e-5 or spikes:
                raise Refused(f"{cell} {n} {pattern} {form} differs by {diff}, {spikes} spikes: it is not timed")
            rows.append(FormRow(cell, n, pattern, density, batch, form, made.bytes, 1e3 * load, job.us_per_step(call),
                                diff, spikes))  # fmt: skip
    return rows


HEAD = ("cell", "units", "pattern", *(f"{form}{what}" for what in (" KB", " µs") for form in ("op", "scan", "packed")),
        "custom µs", "+ library µs")  # fmt: skip


def _forms(rows: Sequence[FormRow]) -> list[tuple[str, ...]]:
    body = []
    for (cell, n, pattern), here in grouped(rows, lambda r: (r.cell, r.units, r.pattern)).items():
        found = {r.form: r for r in here if r.batch == 1 and r.density == 0.1}
        size = [f"{found[f].bytes / 1e3:.0f}" if f in found else "-" for f in ("op", "scan", "packed")]
        taken = [f"{found[f].us_per_step:.1f}" if f in found else "-" for f in FORMS]
        body.append((cell, str(n), pattern, *size, *taken))
    return body


def _ratios(rows: Sequence[FormRow]) -> list[tuple[str, ...]]:
    """Time of the operator over that of our library, by units, density and batch."""
    times = {(r.units, r.density, r.batch, r.form): r.us_per_step for r in rows
             if r.cell == "gru" and r.pattern == "unstructured"}  # fmt: skip
    body = []
    for n in SIZES:
        for density in DENSITIES:
            pairs = [
                (times.get((n, density, b, "op")), times.get((n, density, b, "custom + library"))) for b in BATCHES
            ]
            if any(op and own for op, own in pairs):
                body.append(
                    (str(n), f"{density:.0%}", *(f"{op / own:.2f}" if op and own else "-" for op, own in pairs))
                )
    return body


def table(rows: Sequence[FormRow]) -> str:
    """Both tables as text."""
    lines = [HEAD, *_forms(rows), ("units", "density", *(f"batch {b}" for b in BATCHES)), *_ratios(rows)]
    return "\n".join("  ".join(f"{cell:>12}" for cell in line) for line in lines)


def page(rows: Sequence[FormRow], setting: Setting) -> Page:
    """Forms at batch 1, then our library beside the operator."""
    parts = [
        "One layer on 64 features, 90 % of its recurrent weights pruned (of LIF: of both matrices, 5 % of the neurons "
        "fire). Size of the file, and processor time of one step in ONNX Runtime at batch 1, one thread. Every file is "
        "compared with the float64 interpreter before it is timed: within 1e-5, and spike by spike.",
        markdown(HEAD, _forms(rows)),
        "How much faster a GRU with unstructured recurrent weights is with our library than ONNX's operator, by "
        "density and batch; below 1 it is slower.",
        markdown(("units", "density", *(f"batch {b}" for b in BATCHES)), _ratios(rows)),
    ]
    return Page("\n\n".join(parts) + "\n", {})


ONNX_FORMS = Study(
    "forms",
    "ONNX forms, beside each other",
    "no paper; ONNX Runtime",
    tasks,
    page,
    row=FormRow,
    table=table,
)
