"""`SpikingNet`: feed-forward and recurrent spiking networks with one read-out or one per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc._pattern import Pattern
from sparsecirc.continual._coding import Coding, direct
from sparsecirc.continual._connect import Feedback, Project, exact, over_time
from sparsecirc.continual._learning import BPTT, Learning, Observer, Path
from sparsecirc.errors import UsageError
from sparsecirc.nn import SparseLIF, SparseLinear, SparseRLIF, sigmoid, to_dense_model
from sparsecirc.patterns import PatternMaker


class Block(nn.Module):
    """A connection, the neurons it feeds, and what is done to their spikes (pooling, flattening) or ``None``."""

    def __init__(self, connection: nn.Module, neurons: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.connection, self.neurons, self.after = connection, neurons, after


class SpikingNet(nn.Module):
    """Blocks of connections and neurons over T steps, and linear read-outs of what the last neurons do.

    Logits are the mean over time of ``W s[t] + b``, or what ``learning`` makes of the spikes.

    Args:
        blocks: in order. Connections are nn.Linear, nn.Conv2d or `SparseLinear`; neurons those of `sparsecirc.nn`.
        readouts: nn.Linear, one or one per task, all with the same number of outputs.
        steps: T.
        coding: from samples to T steps of input.
        learning: how it is trained: `BPTT`, `OTTT` or `DSR`.
        feedback: the error path through its connections.
        seed: of codings that draw.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        readouts: Sequence[nn.Module],
        *,
        steps: int = 5,
        coding: Coding = direct,
        learning: Learning | None = None,
        feedback: Feedback = exact,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not readouts or steps < 1:
            raise UsageError(f"{len(readouts)} read-outs and {steps} steps: expected at least one of each")
        self.blocks = nn.ModuleList(blocks)
        self.readouts = nn.ModuleList(readouts)
        self.steps, self.coding, self.feedback = steps, coding, feedback
        self.learning: Learning = BPTT() if learning is None else learning
        self.generator = torch.Generator().manual_seed(seed)
        self.project: Project | None = None
        """Applied to the rows of every weight gradient while training; set by methods that project."""
        self.observe: Observer | None = None
        """Told the rows of every weight gradient; set by methods that look at them."""

    def forward(self, x: Tensor, head: int | Tensor = 0) -> Tensor:
        """Logits (B, outputs) of samples (B, ...); ``head`` is one number, or one per sample (B,)."""
        return self.outputs(x, head).mean(0)

    def outputs(self, x: Tensor, head: int | Tensor = 0) -> Tensor:
        """Logits (S, B, outputs): S = T where the loss is taken in each step, else 1."""
        signal = self.learning.start(self.coding(x, self.steps, self.generator), self.steps)
        for k, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            path = self._path(f"blocks.{k}.connection")
            signal = self.learning.block(path, block.connection, block.neurons, signal, self.steps)
            if block.after is not None:
                after: Callable[[Tensor], Tensor] = block.after
                spikes = over_time(after, signal.spikes)
                signal = type(signal)(spikes, None if signal.credit is None else over_time(after, signal.credit))
        if isinstance(head, int):
            return self.learning.readout(self._path(f"readouts.{head}"), self.readouts[head], signal)
        made = torch.stack(
            [self.learning.readout(self._path(f"readouts.{k}"), m, signal) for k, m in enumerate(self.readouts)]
        )
        return made[head, :, torch.arange(len(head))].transpose(0, 1)

    def _path(self, layer: str) -> Path:
        if not self.training:
            return Path(layer, exact, None, self.observe)
        return Path(layer, self.feedback, self.project, self.observe)

    def to_snntorch(self, head: int = 0) -> nn.Sequential:
        """An ordinary model of one time step with snntorch's neurons, for `from_snntorch`, compile and export.

        It ends in the read-out of ``head``, whose mean over the steps are the logits. Sparse layers become dense ones
        with exact zeros.
        """
        layers: list[Any] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            neurons: Any = block.neurons
            dense = neurons.to_dense()
            dense.init_hidden = True
            layers += [to_dense_model(block.connection), dense, *([] if block.after is None else [block.after])]
        return nn.Sequential(*layers, to_dense_model(self.readouts[head]))


def lif(
    tau: float = 2.0, *, slope: float = 4.0, learn: bool = False, reset_mechanism: str = "subtract"
) -> Callable[[int], nn.Module]:
    """Makes LIF neurons with decay ``1 - 1/tau``, threshold 1, soft reset, sigmoid surrogate (Xiao et al. 2024).

    ``reset_mechanism="zero"`` is what Loihi has.
    """

    def make(units: int) -> nn.Module:
        beta = torch.full((units,), 1 - 1 / tau) if learn else 1 - 1 / tau
        threshold: float | Tensor = torch.ones(units) if learn else 1.0
        return SparseLIF(
            beta, threshold, sigmoid(slope), learn_beta=learn, learn_threshold=learn, reset_mechanism=reset_mechanism
        )

    return make


def rlif(
    tau: float = 2.0,
    *,
    slope: float = 4.0,
    density: float = 1.0,
    pattern: PatternMaker | None = None,
    reset_mechanism: str = "subtract",
) -> Callable[[int], nn.Module]:
    """Makes LIF neurons as `lif` does that also hear each other's spikes of the step before, all to all or sparsely."""

    def make(units: int) -> nn.Module:
        return SparseRLIF(
            1 - 1 / tau, units, 1.0, sigmoid(slope), density=density, pattern=pattern, reset_mechanism=reset_mechanism
        )

    return make


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    heads: int = 1,
    neurons: Callable[[int], nn.Module] | None = None,
    bias: bool = False,
    density: float = 1.0,
    pattern: Pattern | PatternMaker | Sequence[Pattern] | None = None,
    **settings: Any,
) -> SpikingNet:
    """A fully connected `SpikingNet`; hidden layers are sparse where a density below 1 or patterns are given.

    Args:
        inputs: features of a sample, or of a step of it.
        hidden: neurons of each layer.
        outputs: labels.
        heads: read-outs.
        neurons: makes the neurons of a layer of so many; `lif` by default.
        bias: whether connections have biases.
        density: share of live connections of the hidden layers.
        pattern: makes their patterns, or is them, one per layer.
        settings: of `SpikingNet`.
    """
    make = lif() if neurons is None else neurons
    sizes = (inputs, *hidden)
    blocks = []
    for k, (before, size) in enumerate(zip(sizes, hidden, strict=False)):
        live = pattern[k] if isinstance(pattern, Sequence) else pattern
        sparse = density < 1.0 or live is not None
        connection: nn.Module = (
            SparseLinear(before, size, bias, density=density, pattern=live) if sparse else nn.Linear(before, size, bias)
        )
        blocks.append(Block(connection, make(size)))
    return SpikingNet(blocks, [nn.Linear(sizes[-1], outputs, bias) for _ in range(heads)], **settings)
