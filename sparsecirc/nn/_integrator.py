"""`SparseLI`: leaky integrators, the read-out of spiking networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.errors import UsageError
from sparsecirc.nn._common import computed, ops_for
from sparsecirc.ops import _autograd as ops


class SparseLI(nn.Module):
    """Leaky integrators over whole sequences: v = beta v + x; they never fire (cell ``li``).

    They follow a `SparseLinear`, whose output they smooth: ``SparseLI(0.95)(linear(spikes))``.

    Args:
        beta: decay per step, clamped to [0, 1]; a number or one per unit.
        learn_beta: whether ``beta`` is a Parameter.
    """

    beta: Tensor

    def __init__(self, beta: float | Tensor, *, learn_beta: bool = False) -> None:
        super().__init__()
        tensor = torch.as_tensor(beta).detach().clone()
        if learn_beta:
            self.beta = nn.Parameter(tensor)
        else:
            self.register_buffer("beta", tensor)

    def forward(self, x: Tensor, mem: Tensor | None = None) -> Tensor:
        """Membranes of all steps for x (T, B, N); of one for x (B, N). ``mem`` (B, N) is zero if None.

        Half-precision input is computed in float32; the output comes back in the input's type.
        """
        if x.ndim not in (2, 3):
            raise UsageError(f"input of shape {tuple(x.shape)}: expected (T, B, N), or (B, N) for one step")
        seq = computed(x if x.ndim == 3 else x.unsqueeze(0), self.beta)
        shape = tuple(seq.shape[1:])
        first = seq.new_zeros(shape) if mem is None else computed(mem, seq)
        if tuple(first.shape) != shape:
            raise UsageError(f"state of shape {tuple(first.shape)}: expected {shape}")
        out: Tensor = ops_for(self.beta).spiking(
            ops.Spiking(), seq, None, None, first, beta=self.beta.clamp(0, 1).expand(shape[1]), theta=None
        )[2]
        return (out if x.ndim == 3 else out[0]).to(x.dtype)

    def to_dense(self) -> Any:
        """The same integrators as snntorch's Leaky, one step per call: its membranes, with spikes that do nothing."""
        import snntorch

        learn = isinstance(self.beta, nn.Parameter)
        return snntorch.Leaky(beta=self.beta.detach().clone(), learn_beta=learn, reset_mechanism="none")
