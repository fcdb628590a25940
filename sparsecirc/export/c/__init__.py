"""C99 without allocation: one header and one source file a network, for microcontrollers and anything else."""

from sparsecirc.export.c._export_c import export_c
from sparsecirc.export.c._exported import as_exported
from sparsecirc.export.c._footprint import CORES, Footprint, footprint_c
from sparsecirc.export.c._golden import TOLERANCE as GOLDEN_TOLERANCE
from sparsecirc.export.c._host import CCheck, check_c, run_c
from sparsecirc.export.c._options import FAST_TANH_ERROR, Activations, Arithmetic, COptions, Index, Neurons, Weights

__all__ = [
    "CORES",
    "FAST_TANH_ERROR",
    "GOLDEN_TOLERANCE",
    "Activations",
    "Arithmetic",
    "CCheck",
    "COptions",
    "Footprint",
    "Index",
    "Neurons",
    "Weights",
    "as_exported",
    "check_c",
    "export_c",
    "footprint_c",
    "run_c",
]
