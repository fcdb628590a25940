"""Pattern makers: from the scores of a matrix to which connections stay alive."""

from sparsecirc.patterns._block import Block, block
from sparsecirc.patterns._file import combined_digest, load_patterns, save_patterns
from sparsecirc.patterns._fixed import NM, FanIn, fan_in, n_m
from sparsecirc.patterns._lattice import (
    Adjacency,
    Keep,
    Lattice,
    LatticeExplanation,
    NeuronReason,
    Order,
    gate_max,
    gate_norm,
    lattice,
)
from sparsecirc.patterns._maker import (
    Explained,
    Joint,
    PatternMaker,
    Ranked,
    Wired,
    check_sparsity,
    live_count,
    rank_together,
)
from sparsecirc.patterns._structured import KeepDiagonal, Lines, columns, keep_diagonal, rows
from sparsecirc.patterns._unstructured import Unstructured, unstructured

__all__ = [
    "NM",
    "Adjacency",
    "Block",
    "Explained",
    "FanIn",
    "Joint",
    "Keep",
    "KeepDiagonal",
    "Lattice",
    "LatticeExplanation",
    "Lines",
    "NeuronReason",
    "Order",
    "PatternMaker",
    "Ranked",
    "Unstructured",
    "Wired",
    "block",
    "check_sparsity",
    "columns",
    "combined_digest",
    "fan_in",
    "gate_max",
    "gate_norm",
    "keep_diagonal",
    "lattice",
    "live_count",
    "load_patterns",
    "n_m",
    "rank_together",
    "rows",
    "save_patterns",
    "unstructured",
]
