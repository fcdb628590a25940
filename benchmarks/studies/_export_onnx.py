"""Consumers of ONNX: ONNX Runtime, the reference evaluator, OpenVINO and tract."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies._export_job import Array, Consumer, Job, Ran, Refused, package
from sparsecirc.errors import FileFormatError, UnsupportedError
from sparsecirc.export import Export
from sparsecirc.export.onnx import custom_ops, export_onnx, open_session, round_int8
from sparsecirc.export.onnx._run import run_session

Outputs = Mapping[str, Any]
Runner = Callable[[Path, Job], Callable[[Array], Outputs]]
"""Opens a file; what it gives runs an input."""

FORMS = ("op", "scan", "packed", "packed int8", "events", "custom")
"""``packed int8``: the network with its weights rounded to bytes, compared with that network."""


def _files(job: Job, forms: Sequence[str]) -> Iterator[tuple[str, Job, Export]]:
    """The network in every form that it has, with the job to compare it with."""
    for form in forms:
        path, written = job.folder / f"{form.replace(' ', '_')}.onnx", form.split()[0]
        exact = job
        if form == "packed int8":
            exact = replace(job, model=replace(job.model, graph=round_int8(job.graph)[0]))
        try:
            made = export_onnx(exact.graph, path, form=written, step=False)
        except UnsupportedError as error:
            if written != "op":  # neurons have no operator
                raise Refused(str(error)) from error
            continue
        if written in ("op", "scan") or written in made.form:
            yield form, exact, made


def _each(runner: Runner, job: Job, forms: Sequence[str] = FORMS) -> Iterator[Ran]:
    """Every form as this runner runs it."""
    for form, exact, made in _files(job, forms):
        try:
            call = runner(made.paths[0], job)
            diff, spikes = exact.compare(call(job.model.x))
        except (Refused, FileFormatError) as error:
            yield Ran(form, made.bytes, made.bytes_dense, note=f"not run: {error}")
            continue
        time = job.us_per_step(partial(call, job.model.single))
        yield Ran(form, made.bytes, made.bytes_dense, diff, spikes, time)


def _with_library(path: Path, job: Job) -> Callable[[Array], Outputs]:
    session = open_session(path, library=custom_ops())
    return lambda x: run_session(session, x)


def _onnxruntime(path: Path, job: Job) -> Callable[[Array], Outputs]:
    session = open_session(path)
    return lambda x: run_session(session, x)


def _reference(path: Path, job: Job) -> Callable[[Array], Outputs]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    kind = np.int64 if evaluator.proto_.graph.input[0].type.tensor_type.elem_type == 7 else np.float32
    name, outputs = evaluator.input_names[0], evaluator.output_names
    return lambda x: dict(zip(outputs, evaluator.run(None, {name: x.astype(kind)}), strict=True))


def _openvino(path: Path, job: Job) -> Callable[[Array], Outputs]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    try:
        request = core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise Refused(" ".join(str(error).split())[:200]) from error
    names = list(job.graph.outputs)

    def call(x: Array) -> Outputs:
        found = request.infer([np.ascontiguousarray(x)])
        return {name: np.array(found[name]) for name in names}

    return call


_TRACT = """
import sys, time
import numpy as np, tract

def ready(shape, kind):
    for fixed in (True, False):  # its RNN operators need a fixed batch, its Scan a free one
        try:
            model = tract.onnx().load(sys.argv[1])
            if fixed:
                model.set_input_fact(0, ",".join(map(str, shape)) + "," + kind)
            return model.into_model().into_runnable()
        except tract.TractError as error:
            said = str(error)
    sys.exit(" ".join(said.partition("Stack backtrace")[0].split())[:200])

given = np.load(sys.argv[2])
x, single = given["x"], given["single"]
kind = "i64" if x.dtype.kind == "i" else "f32"
found = [v.to_numpy() for v in ready(x.shape, kind).run([x])]
runnable = ready(single.shape, kind)
taken = []
for k in range(int(sys.argv[4])):
    begun = time.process_time()
    runnable.run([single])
    taken.append(time.process_time() - begun)
np.savez(sys.argv[3], *found, seconds=np.median(taken))
"""


def _tract(job: Job) -> Iterator[Ran]:
    """In a process of its own: a panic of tract ends the process that it is in."""
    given, got = job.folder / "given.npz", job.folder / "got.npz"
    np.savez(given, x=job.model.x, single=job.model.single)
    for form, exact, made in _files(job, FORMS):
        command = [sys.executable, "-c", _TRACT, str(made.paths[0]), str(given), str(got), "5" if job.quick else "25"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
            yield Ran(form, made.bytes, made.bytes_dense, note=f"not run: {said[0]}")
            continue
        with np.load(got) as found:
            outputs = {name: found[f"arr_{k}"] for k, name in enumerate(job.graph.outputs)}
            time = 1e6 * float(found["seconds"]) / job.model.steps
        yield Ran(form, made.bytes, made.bytes_dense, *exact.compare(outputs), time)


ONNX_CONSUMERS = (
    Consumer("onnxruntime", "onnx", partial(package, "onnxruntime"), partial(_each, _onnxruntime)),
    Consumer("onnxruntime + library", "onnx", partial(package, "onnxruntime"),
             partial(_each, _with_library, forms=("custom",))),
    Consumer("reference", "onnx", partial(package, "onnx"), partial(_each, _reference),
             models=("demo_gru", "demo_lstm", "demo_rnn", "demo_snn", "rleaky", "rsynaptic", "gru_128")),
    Consumer("openvino", "onnx", partial(package, "openvino"), partial(_each, _openvino)),
    Consumer("tract", "onnx", partial(package, "tract"), _tract),
)  # fmt: skip
"""Programs that read ONNX files."""
