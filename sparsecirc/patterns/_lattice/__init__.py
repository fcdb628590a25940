"""Lattice pruning: orders of neurons, what is critical in them, and why."""

from sparsecirc.patterns._lattice._choice import Adjacency, Keep, Order
from sparsecirc.patterns._lattice._explain import LatticeExplanation, NeuronReason
from sparsecirc.patterns._lattice._maker import Lattice, lattice
from sparsecirc.patterns._lattice._system import gate_max, gate_norm

__all__ = [
    "Adjacency",
    "Keep",
    "Lattice",
    "LatticeExplanation",
    "NeuronReason",
    "Order",
    "gate_max",
    "gate_norm",
    "lattice",
]
