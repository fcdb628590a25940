"""Neuromorphic targets: networks as populations and connections, and exports for simulators of other hands."""

from sparsecirc.hardware._network import Network, Population, Projection, network
from sparsecirc.hardware._simulators import check_simulator, export_brian2, export_pynn, run_simulator

__all__ = [
    "Network",
    "Population",
    "Projection",
    "check_simulator",
    "export_brian2",
    "export_pynn",
    "network",
    "run_simulator",
]
