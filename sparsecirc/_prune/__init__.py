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

__all__ = [
    "Criteria",
    "Named",
    "PruneReport",
    "PruneRow",
    "Scope",
    "Select",
    "Sparsity",
    "WeightInfo",
    "default_select",
    "format_rows",
    "graph_weights",
    "named",
    "plan",
    "plan_weights",
    "prune",
    "rows_of",
    "skip_reason",
    "unknown_name",
]
