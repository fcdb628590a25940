"""Frontends: models of other packages to a `Graph`."""

from sparsecirc.frontends._convert import with_zero_patterns
from sparsecirc.frontends._nir import from_nir
from sparsecirc.frontends._onnx import from_onnx
from sparsecirc.frontends._snntorch import from_snntorch
from sparsecirc.frontends._torch import from_torch, to_graph

__all__ = ["from_nir", "from_onnx", "from_snntorch", "from_torch", "to_graph", "with_zero_patterns"]
