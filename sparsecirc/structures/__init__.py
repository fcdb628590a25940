"""Random graphs as the wiring of layered recurrent networks, and measures of any wiring: no framework needed."""

from sparsecirc.structures._connectivity import (
    Connectivity,
    clustering,
    communities,
    draw,
    measure,
    modularity,
    path_length,
    wiring_cost,
)
from sparsecirc.structures._graphs import barabasi_albert, erdos_renyi, watts_strogatz
from sparsecirc.structures._layered import LayeredGraph, layered
from sparsecirc.structures._statistics import STATISTICS, statistics

__all__ = [
    "STATISTICS",
    "Connectivity",
    "LayeredGraph",
    "barabasi_albert",
    "clustering",
    "communities",
    "draw",
    "erdos_renyi",
    "layered",
    "measure",
    "modularity",
    "path_length",
    "statistics",
    "watts_strogatz",
    "wiring_cost",
]
