"""Random graphs as the wiring of layered recurrent networks (Darji 2021, arXiv:2407.20601): no framework needed."""

from sparsecirc.structures._graphs import barabasi_albert, erdos_renyi, watts_strogatz
from sparsecirc.structures._layered import LayeredGraph, layered
from sparsecirc.structures._statistics import STATISTICS, statistics

__all__ = [
    "STATISTICS",
    "LayeredGraph",
    "barabasi_albert",
    "erdos_renyi",
    "layered",
    "statistics",
    "watts_strogatz",
]
