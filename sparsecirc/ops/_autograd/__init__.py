"""Training ops for torch: one call runs a whole sequence, forward or backward, on the native kernels.

Each op is a ``torch.library.custom_op`` with fake and autograd registered, so `torch.compile` sees it as one node.
Float64 goes through the reference in ``_reference.py``; the native kernels compute in float32.
"""

from sparsecirc.ops._autograd._arrays import Sparse, dense
from sparsecirc.ops._autograd._gated import GATES, Recurrence, recurrent
from sparsecirc.ops._autograd._linear import linear
from sparsecirc.ops._autograd._spiking import Spiking, spiking

__all__ = ["GATES", "Recurrence", "Sparse", "Spiking", "dense", "linear", "recurrent", "spiking"]
