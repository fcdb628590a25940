"""Consumers of ONNX: ONNX Runtime, the reference evaluator, OpenVINO and tract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies._export_job import Array, Consumer, Job, Ran, Refused, package
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.onnx import export_onnx, open_session
from sparsecirc.export.onnx._run import run_session

Outputs = Mapping[str, Any]
Runner = Callable[[Path, Job], Callable[[Array], Outputs]]
"""Opens a file; what it gives runs an input."""

FORMS = ("op", "scan")


def _each(runner: Runner, job: Job, forms: tuple[str, ...] = FORMS) -> Iterator[Ran]:
    """Every form that the network can be written in, as this runner runs it."""
    for form in forms:
        path = job.folder / f"{form}.onnx"
        try:
            made = export_onnx(job.graph, path, form=form, step=False)
        except UnsupportedError as error:
            if form == "op":  # neurons have no operator
                continue
            raise Refused(str(error)) from error
        try:
            call = runner(path, job)
            diff, spikes = job.compare(call(job.model.x))
        except Refused as error:
            yield Ran(form, made.bytes, made.bytes_dense, note=f"not run: {error}")
            continue
        yield Ran(form, made.bytes, made.bytes_dense, diff, spikes, job.us_per_step(partial(call, job.model.single)))


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


def _tract(path: Path, job: Job) -> Callable[[Array], Outputs]:
    import tract

    runnable: dict[tuple[int, ...], Any] = {}
    names = list(job.graph.outputs)

    def call(x: Array) -> Outputs:
        if x.shape not in runnable:
            try:
                model = tract.onnx().load(str(path))
                kind = "i64" if x.dtype.kind == "i" else "f32"
                model.set_input_fact(0, f"{','.join(map(str, x.shape))},{kind}")
                runnable[x.shape] = model.into_model().into_runnable()
            except tract.TractError as error:
                raise Refused(" ".join(str(error).partition("Stack backtrace")[0].split())[:200]) from error
        found = runnable[x.shape].run([np.ascontiguousarray(x)])
        return {name: value.to_numpy() for name, value in zip(names, found, strict=True)}

    return call


ONNX_CONSUMERS = (
    Consumer("onnxruntime", "onnx", partial(package, "onnxruntime"), partial(_each, _onnxruntime)),
    Consumer("reference", "onnx", partial(package, "onnx"), partial(_each, _reference),
             models=("demo_gru", "demo_lstm", "demo_rnn", "demo_snn", "rleaky", "rsynaptic", "gru_128")),
    Consumer("openvino", "onnx", partial(package, "openvino"), partial(_each, _openvino)),
    Consumer("tract", "onnx", partial(package, "tract"), partial(_each, _tract)),
)  # fmt: skip
"""Programs that read ONNX files."""
