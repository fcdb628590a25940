"""Native operations: which kernel can run what, and nodes prepared on them. The reference is ``sparsecirc.ir``."""

from sparsecirc.ops._kernel import Kernel, Problem, kernels_for
from sparsecirc.ops._run import RecurrentRunner, Runner, batched_formats, prepare
from sparsecirc.ops._step import Fixed, fixed_step

__all__ = [
    "Fixed",
    "Kernel",
    "Problem",
    "RecurrentRunner",
    "Runner",
    "batched_formats",
    "fixed_step",
    "kernels_for",
    "prepare",
]
