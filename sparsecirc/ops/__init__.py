"""Native operations: which kernel can run what, and nodes prepared on them. The reference is ``sparsecirc.ir``."""

from sparsecirc.ops._kernel import Kernel, Problem, kernels_for
from sparsecirc.ops._run import Runner, prepare

__all__ = ["Kernel", "Problem", "Runner", "kernels_for", "prepare"]
