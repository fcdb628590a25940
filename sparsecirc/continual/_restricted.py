"""`RestrictedProjection`: away from a subspace, for weights whose rows may use some of their columns only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsecirc._pattern import Pattern

EXACT = 1e-12
"""Squared singular values below this share of the largest count as zero."""


class RestrictedProjection:
    """Projects the live entries of each row off what a subspace shows on that row's columns.

    Row i may change on its support S_i alone. Masking after a dense projection breaks orthogonality; the projector that
    is right is ``P_i = I - A_i^+ A_i`` with ``A_i = Q[:, S_i]``. Rows of one support share theirs: one product for a
    block of G2G, one batched product for all rows of an unstructured pattern.

    With ``energy`` below 1, directions are counted by the activity behind them: those of ``A_i^T diag(v) A_i``, v the
    variance of each row of Q, that hold this share of its trace are projected off, the others are free. A row whose
    support is narrower than the subspace has no freedom left under the exact projector, and some under this one.

    Args:
        q: subspace rows (m, n), orthonormal.
        pattern: live entries; the last column of Q belongs to a bias where ``bias``.
        bias: whether rows have a bias.
        variance: v (m,).
        energy: share to protect; 1 is exact.
    """

    def __init__(
        self, q: Tensor, pattern: Pattern, *, bias: bool = False, variance: Tensor | None = None, energy: float = 1.0
    ) -> None:
        indptr, indices = pattern.indptr, pattern.indices
        groups: dict[bytes, list[int]] = {}
        for i in range(pattern.shape[0]):
            groups.setdefault(indices[indptr[i] : indptr[i + 1]].tobytes(), []).append(i)
        supports = [np.frombuffer(key, indices.dtype).astype(np.int64) for key in groups]
        members = list(groups.values())
        self._bias = bias
        widest = max((len(s) for s in supports), default=0) + bias
        most = max((len(m) for m in members), default=0)
        count, nnz = len(supports), len(indices)
        columns = torch.full((count, widest), q.shape[1], dtype=torch.long)  # one past the end: a column of zeros
        self._slots = torch.full((count, most, widest), nnz + (pattern.shape[0] if bias else 0), dtype=torch.long)
        for g, (support, rows) in enumerate(zip(supports, members, strict=True)):
            size = len(support)
            columns[g, :size] = torch.from_numpy(support)
            for r, i in enumerate(rows):
                self._slots[g, r, :size] = torch.arange(int(indptr[i]), int(indptr[i + 1]))
                if bias:
                    self._slots[g, r, size] = nnz + i
            if bias:
                columns[g, size] = q.shape[1] - 1
        self._size = nnz + (pattern.shape[0] if bias else 0)
        self._split = nnz
        self.projectors, self.free = _projectors(q, columns, variance, energy)
        """Projectors (groups, widest, widest), and the dimensions that they leave free (groups,)."""

    @torch.no_grad()
    def __call__(self, values: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Project changes of the live values (nnz,) and of the biases (out,)."""
        parts = [values, *([] if bias is None else [bias]), values.new_zeros(1)]
        flat = torch.cat(parts)
        moved = flat[self._slots] @ self.projectors.to(values.dtype)
        flat[self._slots.flatten()] = moved.flatten()
        return flat[: self._split], None if bias is None else flat[self._split : self._size]


def _projectors(q: Tensor, columns: Tensor, variance: Tensor | None, energy: float) -> tuple[Tensor, Tensor]:
    padded = torch.cat([q.double(), q.new_zeros((len(q), 1)).double()], dim=1)
    weight = None if variance is None or energy >= 1 else variance.double().clamp_min(0).sqrt()
    seen = padded if weight is None else padded * weight[:, None]
    width = columns.shape[1]
    eye = torch.eye(width, dtype=torch.float64)
    made = torch.empty(len(columns), width, width)
    free = torch.empty(len(columns), dtype=torch.long)
    live = (columns < q.shape[1]).sum(1)
    for low in range(0, len(columns), 64):  # a bounded number of matrices at a time
        part = columns[low : low + 64]
        a = seen[:, part].transpose(0, 1)  # [groups, m, width]
        strength, axes = torch.linalg.eigh(a.transpose(1, 2) @ a)
        strength, axes = strength.flip(1).clamp_min(0), axes.flip(2)
        held = strength > EXACT * strength[:, :1].clamp_min(1e-300)
        if energy < 1:
            before = strength.cumsum(1) - strength
            held &= before < energy * strength.sum(1, keepdim=True)
        basis = axes * held[:, None, :]
        made[low : low + 64] = (eye - basis @ basis.transpose(1, 2)).float()
        free[low : low + 64] = live[low : low + 64] - held.sum(1)
    return made, free
