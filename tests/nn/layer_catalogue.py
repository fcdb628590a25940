"""One of every trainable sparse layer, for (T, B, 5) inputs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sparsecirc.nn import (
    SparseGRU,
    SparseLI,
    SparseLIF,
    SparseLinear,
    SparseLSTM,
    SparseRLIF,
    SparseRNN,
    SparseRSynaptic,
    SparseSynaptic,
)

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: SparseLinear(5, 12, density=0.5),
    "rnn": lambda: SparseRNN(5, 12, density=0.3),
    "gru": lambda: SparseGRU(5, 12, num_layers=2, bidirectional=True, density=0.3),
    "lstm": lambda: SparseLSTM(5, 12, density=0.3),
    "projected": lambda: SparseLSTM(5, 12, proj_size=4, density=0.5),
    "li": lambda: SparseLI(0.9, learn_beta=True),
    "lif": lambda: SparseLIF(0.9, learn_beta=True, learn_threshold=True),
    "recurrent_lif": lambda: SparseRLIF(0.9, 5, learn_beta=True, density=0.5, reset_delay=False),
    "synaptic": lambda: SparseSynaptic(0.5, 0.9, learn_alpha=True),
    "recurrent_synaptic": lambda: SparseRSynaptic(0.5, 0.9, 5, learn_alpha=True, learn_threshold=True, density=0.5),
}


def first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out if isinstance(out, Tensor) else out[0]


def gradients(layer: nn.Module, run: Callable[[Tensor], Tensor | tuple[Tensor, ...]], x: Tensor) -> list[Tensor]:
    """Output, gradient of the input, gradients of the parameters."""
    layer.zero_grad()
    given = x.clone().requires_grad_()
    out = first(run(given))
    out.square().sum().backward()
    return [out.detach(), given.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]
