"""How a spiking network is trained: what is differentiated, and which rows make the weight gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sparsecirc.continual._connect import Feedback, Project, connect
from sparsecirc.errors import UnsupportedError
from sparsecirc.nn import SparseLIF, SparseRLIF, SparseRSynaptic
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.ops._autograd._reference import slope

Observer = Callable[[str, Tensor], None]
"""``observe(layer, rows)``: told the rows (T, B, ...) that make the weight gradient of a layer."""
RECURRENT = (SparseRLIF, SparseRSynaptic)


@dataclass(frozen=True)
class Path:
    """What a connection does beside its product.

    Attributes:
        layer: its name.
        feedback: what carries the error back.
        project: applied to the rows of its weight gradient, or ``None``.
        observe: told these rows before that, or ``None``.
    """

    layer: str
    feedback: Feedback
    project: Project | None = None
    observe: Observer | None = None

    def __call__(self, module: nn.Module, x: Tensor, credit: Tensor | None = None) -> Tensor:
        """Apply the connection to (T, B, ...)."""
        if self.observe is not None:
            self.observe(self.layer, (x if credit is None else credit).detach())
        return connect(
            module, x, layer=self.layer, feedback=self.feedback, credit=credit, project=self.project
        )  # fmt: skip


@dataclass(frozen=True)
class Signal:
    """What goes from layer to layer.

    Attributes:
        spikes: (T, B, ...), or (1, B, ...) for an input that is the same in each step.
        credit: rows of the next layer's weight gradient; ``None`` for the spikes themselves.
    """

    spikes: Tensor
    credit: Tensor | None = None


class Learning(Protocol):
    """How gradients are made."""

    def start(self, x: Tensor, steps: int) -> Signal:
        """From the coded input."""
        ...

    def block(self, path: Path, connection: nn.Module, neurons: nn.Module, signal: Signal, steps: int) -> Signal:
        """One connection and its neurons."""
        ...

    def readout(self, path: Path, module: nn.Module, signal: Signal) -> Tensor:
        """Outputs (S, B, outputs): their loss is taken for each of the S entries and averaged."""
        ...


def fire(neurons: nn.Module, drive: Tensor, path: Path) -> tuple[Tensor, Tensor]:
    """Spikes and membranes (T, B, ...) of neurons that take (T, B, N)."""
    flat = drive.flatten(2)
    out = neurons(flat)
    spikes, membranes = out[0], out[-1]
    if path.observe is not None and isinstance(neurons, RECURRENT):
        before = torch.cat([torch.zeros_like(spikes[:1]), spikes[:-1]]).detach()
        path.observe(f"{path.layer.removesuffix('connection')}neurons.recurrent", before)
    return spikes.view(drive.shape), membranes.view(drive.shape)


@dataclass(frozen=True)
class BPTT:
    """Backpropagation through time with a surrogate gradient; the read-out averages over the steps."""

    def start(self, x: Tensor, steps: int) -> Signal:
        """The input."""
        return Signal(x)

    def block(self, path: Path, connection: nn.Module, neurons: nn.Module, signal: Signal, steps: int) -> Signal:
        """Everything is differentiated."""
        drive = path(connection, signal.spikes)
        return Signal(fire(neurons, drive.expand(steps, *drive.shape[1:]), path)[0])

    def readout(self, path: Path, module: nn.Module, signal: Signal) -> Tensor:
        """(1, B, outputs): a linear read-out of the mean is the mean of linear read-outs."""
        return path(module, signal.spikes.mean(0, keepdim=True))


class _Instant(torch.autograd.Function):
    """The drive's gradient is the spikes' times the surrogate of the same step; no path through time."""

    @staticmethod
    def forward(ctx: Any, _drive: Tensor, spikes: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return grads[0] * slopes, None, None


def trace(spikes: Tensor, decay: float) -> Tensor:
    """``a[t] = decay a[t-1] + s[t]`` along the first axis."""
    out = torch.empty_like(spikes)
    last = torch.zeros_like(spikes[0])
    for t in range(len(spikes)):
        last = decay * last + spikes[t]
        out[t] = last
    return out


@dataclass(frozen=True)
class OTTT:
    """Online training through time (Xiao et al., NeurIPS 2022): a loss in each step, presynaptic traces.

    ``dW = sum over t of delta[t] a[t]^T`` with ``a[t] = (1 - 1/tau) a[t-1] + s[t]`` and delta the error of step t,
    which passes back through layers but not through time. All steps are computed at once; the sum is that of
    an online run that updates after the last step. Decays and thresholds get no gradient.

    Attributes:
        decay: ``1 - 1/tau`` of the traces.
    """

    decay: float = 0.5

    def start(self, x: Tensor, steps: int) -> Signal:
        """The input and its trace."""
        seq = x.expand(steps, *x.shape[1:])
        return Signal(seq, trace(seq, self.decay))

    def block(self, path: Path, connection: nn.Module, neurons: nn.Module, signal: Signal, steps: int) -> Signal:
        """Errors pass through the neurons step by step."""
        if not isinstance(neurons, SparseNeurons) or isinstance(neurons, RECURRENT):
            raise UnsupportedError(
                f"layer '{path.layer}' feeds {type(neurons).__name__}: OTTT takes SparseLIF and SparseSynaptic"
            )
        drive = path(connection, signal.spikes, signal.credit)
        with torch.no_grad():
            spikes, membranes = fire(neurons, drive.detach(), path)
            above = membranes.flatten(2) - neurons.threshold
            slopes = slope(neurons.surrogate.kind, above, neurons.surrogate.scale).view(drive.shape)
        out: Tensor = _Instant.apply(drive, spikes, slopes)  # type: ignore[no-untyped-call]
        return Signal(out, trace(spikes, self.decay))

    def readout(self, path: Path, module: nn.Module, signal: Signal) -> Tensor:
        """(T, B, outputs)."""
        return path(module, signal.spikes, signal.credit)


@dataclass(frozen=True)
class DSR:
    """Differentiation on spike representation (Meng et al., CVPR 2022): weighted firing rates are trained.

    With weights ``w[t]`` proportional to ``decay^(T - 1 - t)`` and sum 1, the rate ``r = sum over t of w[t] s[t]`` of
    LIF neurons that subtract their threshold follows ``clip(W r_in + b, 0, theta) / theta`` up to the membrane that
    is left at the end. Forward the spikes are simulated; backward that clip is differentiated at the simulated rates.

    Attributes:
        decay: of the neurons, per step.
    """

    decay: float = 0.5

    def weights(self, steps: int) -> Tensor:
        """(T,), sum 1."""
        powers = self.decay ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)
        return (powers / powers.sum()).float()

    def _rate(self, spikes: Tensor) -> Tensor:
        if len(spikes) == 1:
            return spikes
        w = self.weights(len(spikes)).to(spikes.dtype)
        rate: Tensor = torch.tensordot(w, spikes, dims=1)
        return rate.unsqueeze(0)

    def start(self, x: Tensor, steps: int) -> Signal:
        """The input and its weighted rate."""
        return Signal(x, self._rate(x))

    def block(self, path: Path, connection: nn.Module, neurons: nn.Module, signal: Signal, steps: int) -> Signal:
        """Rates get gradients, spikes none."""
        if not isinstance(neurons, SparseLIF):
            raise UnsupportedError(f"layer '{path.layer}' feeds {type(neurons).__name__}: DSR takes SparseLIF")
        assert signal.credit is not None
        drive = path(connection, signal.credit)
        with torch.no_grad():
            current = drive if len(signal.spikes) == 1 else connect(connection, signal.spikes, layer=path.layer)
            spikes = fire(neurons, current.expand(steps, *current.shape[1:]), path)[0]
            rate = self._rate(spikes)
        theta = neurons.threshold if neurons.threshold.ndim == 0 else neurons.threshold.view(drive.shape[2:])
        ideal = (drive / theta).clamp(0, 1)
        return Signal(spikes, ideal + (rate - ideal).detach())

    def readout(self, path: Path, module: nn.Module, signal: Signal) -> Tensor:
        """(1, B, outputs) of the weighted rates."""
        assert signal.credit is not None
        return path(module, signal.credit)
