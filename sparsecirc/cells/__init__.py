"""Recurrences as data: gates, states, equations. One generic loop (``sparsecirc.ir``) runs them all."""

from sparsecirc.cells._adaptive import ALIF, crossed
from sparsecirc.cells._cell import Cell, Options, Reset
from sparsecirc.cells._gated import GRU, LSTM, RNN_RELU, RNN_TANH
from sparsecirc.cells._integrator import LI
from sparsecirc.cells._spiking import LIF, SYNAPTIC

CELLS: dict[str, Cell] = {c.name: c for c in (RNN_TANH, RNN_RELU, GRU, LSTM, LIF, SYNAPTIC, ALIF, LI)}
"""Every cell by the name that files and kernels use."""

__all__ = [
    "ALIF",
    "CELLS",
    "GRU",
    "LI",
    "LIF",
    "LSTM",
    "RNN_RELU",
    "RNN_TANH",
    "SYNAPTIC",
    "Cell",
    "Options",
    "Reset",
    "crossed",
]
