"""ONNX: graphs written operator by operator, free in time and batch, with a second file that takes one step at a time.

from sparsecirc.export.onnx import check_onnx, export_onnx, run_onnx

done = export_onnx(graph, "net.onnx")     # also writes net_step.onnx
print(done.table())
y = run_onnx("net.onnx", x)["output"]
print(check_onnx(graph, done, x))         # largest difference from the float64 interpreter
"""

from sparsecirc.export.onnx._check import OnnxCheck, check_onnx
from sparsecirc.export.onnx._form import Consumer, Form
from sparsecirc.export.onnx._library import custom_ops
from sparsecirc.export.onnx._packed import round_int8
from sparsecirc.export.onnx._run import metadata, open_session, run_onnx, stream_onnx
from sparsecirc.export.onnx._write import export_onnx

__all__ = [
    "Consumer",
    "Form",
    "OnnxCheck",
    "check_onnx",
    "custom_ops",
    "export_onnx",
    "metadata",
    "open_session",
    "round_int8",
    "run_onnx",
    "stream_onnx",
]
