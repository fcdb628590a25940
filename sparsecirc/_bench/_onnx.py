"""Runtimes that read the exported ONNX file: ONNX Runtime and OpenVINO."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sparsecirc._bench._job import Array, CannotRun, Job, Run
from sparsecirc.errors import MissingExtraError, UnsupportedError


def exported(job: Job) -> bytes:
    """The network as an ONNX file.

    Raises:
        CannotRun: it cannot be exported; says why.
    """
    try:
        from sparsecirc.export.onnx import export_onnx

        with tempfile.TemporaryDirectory(prefix="sparsecirc-bench-") as folder:
            path = Path(folder) / "net.onnx"
            export_onnx(job.graph, path)
            return path.read_bytes()
    except (MissingExtraError, UnsupportedError) as error:
        raise CannotRun(f"cannot export to ONNX: {error}") from error


def prepare_onnxruntime(job: Job) -> Run:
    """The exported ONNX file in ONNX Runtime's CPU provider, all graph optimisations on."""
    session = onnxruntime_session(exported(job), job.threads)
    feeds: dict[str, Array] = {}
    for wanted in session.get_inputs():
        if wanted.name not in job.inputs:
            raise CannotRun(f"the exported file asks for input '{wanted.name}'; the graph has {list(job.inputs)}")
        array = job.inputs[wanted.name]
        feeds[wanted.name] = array.astype(np.int64) if "int64" in wanted.type else array.astype(np.float32)
    names = [o.name for o in session.get_outputs() if o.name in job.graph.outputs]
    if names != list(job.graph.outputs):
        raise CannotRun(f"the exported file gives {names}: expected {list(job.graph.outputs)}")
    return lambda: list(session.run(names, feeds))


def onnxruntime_session(content: bytes, threads: int) -> Any:
    """A session with all graph optimisations on."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def prepare_openvino(job: Job) -> Run:
    """The exported ONNX file in OpenVINO's CPU plugin, shapes fixed, in float32 (its own choice may be bfloat16)."""
    import openvino

    core = openvino.Core()
    try:
        model = core.read_model(exported(job))
        model.reshape({name: list(array.shape) for name, array in job.inputs.items()})
        settings = {
            "INFERENCE_NUM_THREADS": job.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CannotRun(f"OpenVINO cannot read the exported file: {reason[:160]}") from error
    feeds = {name: np.ascontiguousarray(array) for name, array in job.inputs.items()}

    def run() -> list[Array]:
        found = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [found[name] for name in job.graph.outputs]

    return run
