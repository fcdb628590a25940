"""Writing a graph for other runtimes: packages ``onnx``, ``nir`` and ``c``; each needs its extra only when used."""

from sparsecirc.export._export import Export

__all__ = ["Export"]
