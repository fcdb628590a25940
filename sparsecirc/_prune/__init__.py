"""Pruning: one planner over named weights, for graphs here and for torch models in `sparsecirc.masks`."""

from sparsecirc._prune._graph import graph_weights, plan, prune
from sparsecirc._prune._plan import plan_weights
from sparsecirc._prune._report import PruneReport, PruneRow, format_rows, rows_of
from sparsecirc._prune._select import (
    Criteria,
    Named,
    Scope,
    Select,
    Sparsity,
    WeightInfo,
    default_select,
    named,
    skip_reason,
    unknown_name,
)
from sparsecirc._prune._wiring import MIXING, driven_layer, graph_wiring

__all__ = [
    "MIXING",
    "Criteria",
    "Named",
    "PruneReport",
    "PruneRow",
    "Scope",
    "Select",
    "Sparsity",
    "WeightInfo",
    "default_select",
    "driven_layer",
    "format_rows",
    "graph_weights",
    "graph_wiring",
    "named",
    "plan",
    "plan_weights",
    "prune",
    "rows_of",
    "skip_reason",
    "unknown_name",
]
