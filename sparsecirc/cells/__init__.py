"""Recurrences as data: gates, states, equations. One generic loop (``sparsecirc.ir``) runs them all."""

from sparsecirc.cells._cell import Cell, Options, Reset
from sparsecirc.cells._gated import GRU, LSTM, RNN_RELU, RNN_TANH
from sparsecirc.cells._spiking import LIF, SYNAPTIC

CELLS: dict[str, Cell] = {c.name: c for c in (RNN_TANH, RNN_RELU, GRU, LSTM, LIF, SYNAPTIC)}
"""Every cell by the name that files and kernels use."""

__all__ = ["CELLS", "GRU", "LIF", "LSTM", "RNN_RELU", "RNN_TANH", "SYNAPTIC", "Cell", "Options", "Reset"]
