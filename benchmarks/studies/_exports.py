"""Exports, run by programs that this project did not write, each beside the float64 interpreter.

To add consumers, write a module with a tuple of `Consumer` (``_export_job.py``) and add it to `CONSUMERS` below::

    def run(job: Job) -> Iterator[Ran]:
        made = export_nir(job.graph, job.folder / "net.nir")      # Refused or an UnsupportedError: a row says why
        outputs = {"y": ...}                                      # of job.model.x, in the user's layout
        diff, spikes = job.compare(outputs)
        time = job.us_per_step(lambda: ...)                       # a call that runs job.model.single, batch 1
        yield Ran("exact", made.bytes, made.bytes_dense, diff, spikes, time)

    NORSE = Consumer("norse", "nir", partial(package, "norse"), run)     # models=(...) where only some make sense

A consumer that is not installed, and one that lives in an environment of its own and is not found there, raises
`Absent` from ``version``: the study then has one row that says so. An error of this package from ``run`` becomes a row
with the reason; a row is kept under the consumer's version, so an upgrade is measured again. Networks are in
``_export_models.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

from benchmarks.studies._export_c import C_CONSUMERS
from benchmarks.studies._export_job import Absent, Consumer, ExportRow, Job, Model, Ran
from benchmarks.studies._export_models import MODELS
from benchmarks.studies._export_neuro import NEURO_CONSUMERS
from benchmarks.studies._export_onnx import ONNX_CONSUMERS
from benchmarks.studies._page import markdown
from benchmarks.studies._study import Page, Setting, Study, Task
from sparsecirc.errors import SparsecircError

CONSUMERS: tuple[Consumer, ...] = (*ONNX_CONSUMERS, *C_CONSUMERS, *NEURO_CONSUMERS)
"""Every consumer, in the order of the page."""


@lru_cache(maxsize=1)
def _built(name: str) -> Model:
    return MODELS[name]()


def tasks(setting: Setting) -> Iterator[Task]:
    """Network by network, every consumer."""
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    for consumer in CONSUMERS:
        try:
            versions[consumer.name] = consumer.version()
        except Absent as error:
            missing[consumer.name] = str(error)
            yield Task(f"{consumer.name} is absent", partial(_absent, consumer, str(error)))
    for model in MODELS:
        for consumer in CONSUMERS:
            if consumer.name in versions and (not consumer.models or model in consumer.models):
                version = versions[consumer.name]
                yield Task(f"{model} {consumer.format} {consumer.name} {version}",
                           partial(_run, setting, model, consumer, version))  # fmt: skip


def _absent(consumer: Consumer, why: str) -> list[ExportRow]:
    return [ExportRow("", consumer.format, "", consumer.name, "", note=f"not run: {why}")]


def _run(setting: Setting, model: str, consumer: Consumer, version: str) -> list[ExportRow]:
    facts = model, consumer.format
    rows: list[ExportRow] = []
    with tempfile.TemporaryDirectory(prefix="sparsecirc-exports-") as folder:
        try:
            for ran in consumer.run(Job(model, _built(model), Path(folder), setting.quick)):
                rows.append(_row(facts, consumer, version, ran))
        except SparsecircError as error:
            rows.append(ExportRow(*facts, "", consumer.name, version, note=f"not run: {error}"))
    return rows


def _row(facts: tuple[str, str], consumer: Consumer, version: str, ran: Ran) -> ExportRow:
    return ExportRow(
        *facts, ran.form, consumer.name, version, ran.bytes, ran.bytes_dense, ran.max_abs_diff, ran.spike_mismatches,
        ran.us_per_step, ran.instructions_per_step, ran.note,
    )  # fmt: skip


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _cells(row: ExportRow) -> tuple[str, ...]:
    return (
        row.model,
        f"{row.format} {row.form}".strip(),
        row.consumer,
        _number(row.bytes, ",d"),
        _number(row.bytes_dense, ",d"),
        _number(row.max_abs_diff, ".1e"),
        _number(row.spike_mismatches, "d"),
        _number(row.us_per_step, ".1f"),
        _number(row.instructions_per_step, ",.0f"),
    )


HEAD = ("model", "form", "consumer", "bytes", "dense", "max diff", "spikes differ", "us/step", "instr./step")


def table(rows: Sequence[ExportRow]) -> str:
    """Rows as aligned text; what did not run below."""
    body = [HEAD, *(_cells(r) for r in rows if not r.note.startswith("not run"))]
    widths = [max(len(line[k]) for line in body) for k in range(len(HEAD))]
    lines = [
        "  ".join(c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in body
    ]
    notes = [f"{' '.join(filter(None, (r.model, r.format, r.form, r.consumer)))}: {r.note}" for r in rows if r.note]
    return "\n".join([*lines, *notes])


def page(rows: Sequence[ExportRow], setting: Setting) -> Page:
    """A table per network, then what did not run and why."""
    parts = [
        "Each network is exported, and the artefact is run by a program that this project did not write, at a length "
        "at which no exporter ever ran it. *max diff* is the largest difference of the analog outputs from the float64 "
        "interpreter, *spikes differ* counts spikes of the outputs; *us/step* is processor time at batch 1 on one "
        "core; *instr./step* are counted by an emulator, which knows no cycles; on x86, aarch64 and riscv64 reading "
        "the input and writing the output are among them.",
    ]
    versions = sorted({(r.consumer, r.consumer_version) for r in rows if r.consumer_version})
    parts.append("Consumers: " + ", ".join(f"{name} {version}" for name, version in versions) + ".")
    for model in MODELS:
        here = [r for r in rows if r.model == model and not r.note.startswith("not run")]
        if here:
            body = [_cells(r)[1:] for r in here]
            parts += [f"## {model}", markdown(HEAD[1:], body)]
            parts += [f"{r.consumer}, {r.form}: {r.note}." for r in here if r.note]
    refused = [(r.model or "all", f"{r.format} {r.form}".strip(), r.consumer, r.note.removeprefix("not run: "))
               for r in rows if r.note.startswith("not run")]  # fmt: skip
    if refused:
        parts += ["## What did not run", markdown(("model", "form", "consumer", "why"), refused)]
    return Page("\n\n".join(parts) + "\n", {})


EXPORTS = Study(
    "exports",
    "Exports, run elsewhere",
    "no paper; the programs named below",
    tasks,
    page,
    row=ExportRow,
    table=table,
)
