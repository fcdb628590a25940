"""The framework-free network: nodes, graph, the interpreter that is the truth, and its file."""

from sparsecirc.ir._graph import Graph
from sparsecirc.ir._interpret import Result, interpret
from sparsecirc.ir._io import load_graph, save_graph
from sparsecirc.ir._layers import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Input,
    Linear,
    Multiply,
    Pool,
    Repeat,
)
from sparsecirc.ir._node import Node, Spec
from sparsecirc.ir._recurrent import Recurrent, TimeReduce

__all__ = [
    "Add",
    "Affine",
    "Concat",
    "Conv",
    "Elementwise",
    "Embedding",
    "Flatten",
    "Graph",
    "Input",
    "Linear",
    "Multiply",
    "Node",
    "Pool",
    "Recurrent",
    "Repeat",
    "Result",
    "Spec",
    "TimeReduce",
    "interpret",
    "load_graph",
    "save_graph",
]
