"""Recurrent layers that read the same input, run as one: one native call instead of one for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.nn._common import computed, ops_for
from sparsecirc.nn._recurrent import Layer, SparseRNNBase
from sparsecirc.nn._weight import SparseWeight
from sparsecirc.ops import _autograd as ops


class Joined:
    """Layers of one cell and one input, each with one level, one direction and no projection.

    Input weights are stacked and recurrent weights stand on the diagonal, both gate by gate, so that the joined layer
    has the units of all of them side by side. Its values are gathered from theirs at each run: gradients, optimizers
    and checkpoints see the layers as they are.

    Args:
        kind: name of the cell, e.g. ``"gru"``.
        layers: one or more.
    """

    def __init__(self, kind: str, layers: Sequence[SparseRNNBase]) -> None:
        self._kind, self.layers = kind, list(layers)
        self._units = [layer.hidden_size for layer in layers]
        self._ih: _Stacked | None = None
        self._hh: _Stacked | None = None
        gates = ops.GATES[kind]
        # Where each row of the joined layer stands when the layers are put one below the other.
        self._rows = np.concatenate(
            [
                gates * before + gate * units + np.arange(units)
                for gate in range(gates)
                for before, units in zip(accumulate(self._units, initial=0), self._units, strict=False)
            ]
        )

    def run(self, x: Tensor) -> list[Tensor]:
        """Output (T, B, units) of each layer for x (T, B, features), from states of zero."""
        parts = [layer.layer("l0") for layer in self.layers]
        values = parts[0].ih.values
        seq = computed(x, values)
        if self._ih is None or not self._ih.fits([p.ih for p in parts]):
            self._ih = _Stacked([p.ih for p in parts], self._rows, diagonal=False)
        if self._hh is None or not self._hh.fits([p.hh for p in parts]):
            self._hh = _Stacked([p.hh for p in parts], self._rows, diagonal=True)
        states = [seq.new_zeros(seq.shape[1], sum(self._units)) for _ in range(2 if self._kind == "lstm" else 1)]
        out, _ = ops_for(values).recurrent(
            ops.Recurrence(self._kind), seq, states, ih=self._ih.sparse(), hh=self._hh.sparse(), hr=None,
            bias_ih=self._bias(parts, "bias_ih"), bias_hh=self._bias(parts, "bias_hh"), offsets=None,
        )  # fmt: skip
        return list(out.to(x.dtype).split(self._units, dim=-1))

    def _bias(self, parts: Sequence[Layer], name: str) -> Tensor | None:
        found = [getattr(part, name) for part in parts]
        if found[0] is None:
            return None
        return torch.cat(found).index_select(0, torch.from_numpy(self._rows).to(found[0].device))


class _Stacked:
    """Several sparse weights as one whose rows are in another order."""

    def __init__(self, weights: Sequence[SparseWeight], rows: NDArray[np.int64], *, diagonal: bool) -> None:
        self._weights = list(weights)
        self._seen = self._state()
        patterns = [w.pattern for w in weights]
        shift = list(accumulate((p.shape[1] for p in patterns), initial=0)) if diagonal else [0] * (len(patterns) + 1)
        columns = [p.indices.astype(np.int64) + s for p, s in zip(patterns, shift, strict=False)]
        counts = np.concatenate([np.diff(p.indptr) for p in patterns])
        begins = np.concatenate([[0], np.cumsum(counts)])[:-1]
        indptr = np.concatenate([[0], np.cumsum(counts[rows])]).astype(np.int32)
        # Entries of one row stay together: the source of each is where its old row begins, and its place in that row.
        order = np.repeat(begins[rows] - indptr[:-1], counts[rows]) + np.arange(indptr[-1])
        width = shift[-1] if diagonal else patterns[0].shape[1]
        made = Pattern((len(rows), width), indptr, np.concatenate(columns)[order].astype(np.int32), "joined")
        device = weights[0].values.device
        self._indptr, self._indices = (torch.from_numpy(a.copy()).to(device) for a in (made.indptr, made.indices))
        self._order, self._shape = torch.from_numpy(order).to(device), made.shape

    def _state(self) -> list[tuple[Tensor, int]]:
        """The tensors of the connections, and how often each was written to; another device has other tensors."""
        return [(w.indices, 0 if w.indices.is_inference() else w.indices._version) for w in self._weights]

    def fits(self, weights: Sequence[SparseWeight]) -> bool:
        """Whether these are the weights it was made from, with the connections that they had then."""
        if any(a is not b for a, b in zip(weights, self._weights, strict=True)):
            return False
        return all(a is c and b == d for (a, b), (c, d) in zip(self._seen, self._state(), strict=True))

    def sparse(self) -> ops.Sparse:
        """The tensors that the ops take, differentiable in the values of each weight."""
        values = torch.cat([w.values for w in self._weights]).index_select(0, self._order)
        return ops.Sparse(self._indptr, self._indices, values, self._shape)
