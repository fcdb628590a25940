"""Trainable sparse layers: each weight is a vector of the values of its live connections.

Gradients, optimizer state and checkpoints shrink with the density. Layers run whole sequences in one native call.
"""

from sparsecirc.nn._convert import has_sparse_layers, sparse_model, to_dense_model
from sparsecirc.nn._graph import GraphRNN
from sparsecirc.nn._integrator import SparseLI
from sparsecirc.nn._linear import SparseLinear
from sparsecirc.nn._optimizer import parameter_pairs, transfer_optimizer_state
from sparsecirc.nn._recurrent import SparseGRU, SparseLSTM, SparseRNN
from sparsecirc.nn._spiking import SparseLIF, SparseRLIF
from sparsecirc.nn._surrogate import Surrogate, atan, fast_sigmoid, sigmoid, straight_through, triangular
from sparsecirc.nn._synaptic import SparseRSynaptic, SparseSynaptic
from sparsecirc.nn._target import to_target
from sparsecirc.nn._weight import SparseWeight, fan_in_uniform_

__all__ = [
    "GraphRNN",
    "SparseGRU",
    "SparseLI",
    "SparseLIF",
    "SparseLSTM",
    "SparseLinear",
    "SparseRLIF",
    "SparseRNN",
    "SparseRSynaptic",
    "SparseSynaptic",
    "SparseWeight",
    "Surrogate",
    "atan",
    "fan_in_uniform_",
    "fast_sigmoid",
    "has_sparse_layers",
    "parameter_pairs",
    "sigmoid",
    "sparse_model",
    "straight_through",
    "to_dense_model",
    "to_target",
    "transfer_optimizer_state",
    "triangular",
]
