"""`OnlineHebb`: scores of chosen connections, step by step, while the network runs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UsageError
from sparsecirc.rules._rewiring._sides import EPS
from sparsecirc.rules._rewiring._windows import Stdp


class OnlineHebb:
    """Spike-timing scores of the connections of a pattern, updated with every step; nothing is kept of the past.

    It holds one trace per unit of either side and sample, and one sum per connection, as a chip would: for a connection
    from unit i to unit o, with traces x of i and y of o,

        score += potentiation s_o x_i - depression y_o s_i,    then x, y <- traces with the new spikes

    in the order of `Stdp`. `scores` divides by the norms of both ends, so it is what `Signals(window=Stdp(...))` gives
    for the same spikes.

    Args:
        pattern: the connections that are watched, live ones and candidates alike.
        window: decays and weights.
    """

    def __init__(self, pattern: Pattern, window: Stdp | None = None) -> None:
        self.pattern, self.window = pattern, Stdp() if window is None else window
        self._rows = torch.from_numpy(pattern.rows.astype(np.int64))
        self._cols = torch.from_numpy(pattern.indices.astype(np.int64))
        self.reset()

    def reset(self) -> None:
        """Forget all sums and traces."""
        rows, cols = self.pattern.shape
        self._sums = torch.zeros(self.pattern.nnz)
        self._norms = torch.zeros(rows), torch.zeros(cols)
        self.rest()

    def rest(self) -> None:
        """Forget the traces: the next step begins another sequence."""
        self._pre: Tensor | None = None
        self._post: Tensor | None = None

    @torch.no_grad()
    def step(self, pre: Tensor, post: Tensor) -> None:
        """Spikes of one step, presynaptic (B, cols) and postsynaptic (B, rows).

        Raises:
            UsageError: other numbers of units than the pattern has.
        """
        if pre.shape[-1] != self.pattern.shape[1] or post.shape[-1] != self.pattern.shape[0] or len(pre) != len(post):
            raise UsageError(
                f"spikes of shapes {tuple(pre.shape)} and {tuple(post.shape)}: expected (B, cols) and (B, rows) of "
                f"{self.pattern.shape}"
            )
        w = self.window
        before = torch.zeros_like(post) if self._post is None else self._post
        x = pre if self._pre is None else w.decay_pre * self._pre + pre
        self._sums += w.potentiation * (post[:, self._rows] * x[:, self._cols]).sum(0)
        self._sums -= w.depression * (before[:, self._rows] * pre[:, self._cols]).sum(0)
        self._norms[0].add_((w.potentiation * post.square() + w.depression * before.square()).sum(0))
        self._norms[1].add_((w.potentiation * x.square() + w.depression * pre.square()).sum(0))
        self._pre, self._post = x, w.decay_post * before + post

    def scores(self) -> NDArray[np.float32]:
        """Of every connection, in the order of the pattern, (nnz,)."""
        left, right = (norm.sqrt() + EPS for norm in self._norms)
        return np.asarray((self._sums / (left[self._rows] * right[self._cols])).numpy())
