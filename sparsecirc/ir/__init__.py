"""The framework-free network: nodes, graph, the interpreter that is the truth, and its file."""

from sparsecirc.ir._graph import Graph
from sparsecirc.ir._interpret import Compute, Result, interpret, walk
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
from sparsecirc.ir._node import Context, Node, Spec, State, Values
from sparsecirc.ir._recurrent import Recurrent, TimeReduce
from sparsecirc.ir._reset_first import ResetFirstGru

__all__ = [
    "Add",
    "Affine",
    "Compute",
    "Concat",
    "Context",
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
    "ResetFirstGru",
    "Result",
    "Spec",
    "State",
    "TimeReduce",
    "Values",
    "interpret",
    "load_graph",
    "save_graph",
    "walk",
]
