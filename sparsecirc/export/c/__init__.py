"""C99 without allocation: one header and one source file a network, for microcontrollers and anything else."""

from sparsecirc.export.c._export_c import export_c
from sparsecirc.export.c._host import CCheck, check_c, run_c

__all__ = ["CCheck", "check_c", "export_c", "run_c"]
