"""Reading ONNX files."""

from sparsecirc.frontends._onnx._graph import from_onnx

__all__ = ["from_onnx"]
