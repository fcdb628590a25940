"""Training ops on a GPU, in Triton; importing them needs the package triton.

The functions take what those of `sparsecirc.ops._autograd` take, with tensors on a CUDA device, and have kernels for
GRU layers, LIF neurons, and products with sparse and block-sparse matrices. They are simple: a step of a layer is one
launch that multiplies the rows of a unit and goes on with its gates; gradients of weights are one launch for all steps.
Tested against the float64 reference by Triton's interpreter on the CPU; on a GPU they have not been measured.
"""

from sparsecirc.ops.triton._gru import recurrent
from sparsecirc.ops.triton._lif import spiking
from sparsecirc.ops.triton._products import linear

__all__ = ["linear", "recurrent", "spiking"]
