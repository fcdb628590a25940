"""Neuromorphic targets: what fits on which chip, and exports for simulators that this project did not write."""

from sparsecirc.hardware._chips import (
    BRAINSCALES2,
    CHIPS,
    LIMITS,
    LOIHI1,
    LOIHI2,
    SPECK2,
    SPINNAKER2,
    XYLO_AUDIO2,
    XYLO_AUDIO3,
    XYLO_IMU,
    Chip,
    Limit,
    chip_named,
)
from sparsecirc.hardware._fits import Check, Fit, fits
from sparsecirc.hardware._host import answers, classes
from sparsecirc.hardware._integer import IntegerNetwork
from sparsecirc.hardware._network import Network, Population, Projection, network
from sparsecirc.hardware._partition import Core, Partition, by_neighbours, in_order, partition
from sparsecirc.hardware._quantise import Cost, LayerCost, Quantised, quantise, round_weights, weight_cost
from sparsecirc.hardware._simulators import (
    check_simulator,
    export_brian2,
    export_lava,
    export_nengo_loihi,
    export_pynn,
    export_xylo,
    run_simulator,
)
from sparsecirc.hardware._terms import Terms, terms

__all__ = [
    "BRAINSCALES2",
    "CHIPS",
    "LIMITS",
    "LOIHI1",
    "LOIHI2",
    "SPECK2",
    "SPINNAKER2",
    "XYLO_AUDIO2",
    "XYLO_AUDIO3",
    "XYLO_IMU",
    "Check",
    "Chip",
    "Core",
    "Cost",
    "Fit",
    "IntegerNetwork",
    "LayerCost",
    "Limit",
    "Network",
    "Partition",
    "Population",
    "Projection",
    "Quantised",
    "Terms",
    "answers",
    "by_neighbours",
    "check_simulator",
    "chip_named",
    "classes",
    "export_brian2",
    "export_lava",
    "export_nengo_loihi",
    "export_pynn",
    "export_xylo",
    "fits",
    "in_order",
    "network",
    "partition",
    "quantise",
    "round_weights",
    "run_simulator",
    "terms",
    "weight_cost",
]
