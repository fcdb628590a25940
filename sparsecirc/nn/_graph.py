"""`GraphRNN`: a recurrent network wired like a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.nn._joined import Joined
from sparsecirc.nn._recurrent import SparseGRU, SparseLSTM, SparseRNN, SparseRNNBase
from sparsecirc.ops import _autograd as ops
from sparsecirc.structures import LayeredGraph

Make = Callable[..., SparseRNNBase]

CELLS: dict[str, Make] = {
    "rnn_tanh": partial(SparseRNN, nonlinearity="tanh"),
    "rnn_relu": partial(SparseRNN, nonlinearity="relu"),
    "gru": SparseGRU,
    "lstm": SparseLSTM,
}


class GraphRNN(nn.Module):
    """Recurrent layers whose connections are the links of a layered graph (Darji 2021, arXiv:2407.20601).

    Each layer of the graph is a recurrent layer with a unit per node and a dense recurrence (h2h). Its input weights
    (i2h) from the layer before are live where the graph has a link, in every gate. A pair of layers that is linked
    over others has a recurrent layer of its own, and outputs are added:

        y_0 = R_0(x),    y_k = R_k(y_{k-1}) + sum over skips (a, k) of S_{a,k}(y_a).

    All of them run on the sparse training kernels. The output is that of the last layer: (T, B, nodes of it), or
    (B, T, ...) with ``batch_first``; padding of a packed input is carried through.

    Args:
        cell: ``"rnn_tanh"``, ``"rnn_relu"``, ``"gru"`` or ``"lstm"``.
        input_size: features of the input; layer 0 reads all of them.
        graph: the wiring (`sparsecirc.structures.layered`).
        batch_first: whether sequences are (B, T, features).

    Raises:
        UsageError: an unknown cell, or no input features.
    """

    def __init__(self, cell: str, input_size: int, graph: LayeredGraph, *, batch_first: bool = False) -> None:
        super().__init__()
        if cell not in CELLS:
            raise UsageError(f"cell {cell!r} is unknown: expected one of {', '.join(CELLS)}")
        self.cell, self.input_size, self.graph, self.batch_first = cell, input_size, graph, batch_first
        make = CELLS[cell]
        sizes = graph.sizes
        dense = {"ih": 1.0, "hh": 1.0}
        self.layers = nn.ModuleList([make(input_size, sizes[0], batch_first=batch_first, density=dense)])
        for k in range(1, len(sizes)):
            self.layers.append(self._linked(make, graph.wiring[k - 1, k]))
        self.skips = nn.ModuleDict({_key(pair): self._linked(make, graph.wiring[pair]) for pair in graph.skips})
        self._joined: list[Joined] = []

    def _linked(self, make: Make, links: Pattern) -> SparseRNNBase:
        units, inputs = links.shape
        gates = ops.GATES[self.cell]
        every_gate = Pattern.from_mask(np.tile(links.mask(), (gates, 1)), links.origin)
        return make(
            inputs,
            units,
            batch_first=self.batch_first,
            density={"ih": 1.0, "hh": 1.0},
            patterns={"weight_ih_l0": every_gate},
        )

    @property
    def output_size(self) -> int:
        """Features of the output: nodes of the last layer."""
        return self.graph.sizes[-1]

    def forward(self, x: Tensor | PackedSequence) -> Tensor | PackedSequence:
        """The last layer's output of x (T, B, input), (B, T, input) with ``batch_first``, or packed."""
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, batch_first=self.batch_first)
            # Outputs never depend on later steps, so that what runs over the padding is dropped by packing again.
            return pack_padded_sequence(self._run(padded), lengths, self.batch_first, enforce_sorted=False)
        return self._run(x)

    def _run(self, x: Tensor) -> Tensor:
        if x.ndim == 3 and all(isinstance(layer, SparseRNNBase) for layer in [*self.layers, *self.skips.values()]):
            y = self._by_source(x.transpose(0, 1) if self.batch_first else x)
            return y.transpose(0, 1) if self.batch_first else y
        return self._one_by_one(x)

    def _by_source(self, x: Tensor) -> Tensor:
        """All layers that read the same one run together: a graph of 44 nodes has some 50 layers of few units each."""
        targets = [[k] for k in range(len(self.layers))]
        groups: list[list[Any]] = [[layer] for layer in self.layers]
        for a, b in self.graph.skips:
            targets[a + 1].append(b)
            groups[a + 1].append(self.skips[_key((a, b))])
        if [joined.layers for joined in self._joined] != groups:
            self._joined = [Joined(self.cell, group) for group in groups]
        sums: dict[int, Tensor] = {}
        y = x
        for k, (joined, reached) in enumerate(zip(self._joined, targets, strict=True)):
            for target, part in zip(reached, joined.run(y), strict=True):
                sums[target] = sums[target] + part if target in sums else part
            y = sums.pop(k)
        return y

    def _one_by_one(self, x: Tensor) -> Tensor:
        """Each layer by itself: what `_by_source` has to equal, and what layers of torch in their places can do."""
        made: list[Tensor] = [self.layers[0](x)[0]]
        for k, layer in enumerate(list(self.layers)[1:], 1):
            y: Tensor = layer(made[-1])[0]
            for a, b in self.graph.skips:
                if b == k:
                    y = y + self.skips[_key((a, b))](made[a])[0]
            made.append(y)
        return made[-1]

    def extra_repr(self) -> str:
        """Sizes of the layers."""
        return f"cell={self.cell}, layers={self.graph.sizes}, links={self.graph.n_edges}"


def _key(pair: tuple[int, int]) -> str:
    return f"from{pair[0]}to{pair[1]}"
