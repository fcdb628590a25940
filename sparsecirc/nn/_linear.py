"""`SparseLinear`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsecirc._pattern import Pattern
from sparsecirc.nn._common import Live, check_shape, computed, copy_into, ops_for, pattern_of
from sparsecirc.nn._weight import SparseWeight, fan_in_uniform_, random_pattern
from sparsecirc.patterns import PatternMaker


class SparseLinear(nn.Module):
    """``y = x W^T + b`` on the live connections of W (out, in); a drop-in for nn.Linear.

    Args:
        in_features: features of x.
        out_features: features of y.
        bias: whether there is a b.
        density: share of live connections of a random pattern; None for what the maker brings (`patterns.modular`).
        pattern: makes that pattern from random scores, or is the pattern itself.
        dtype: float32, or float64 for the plain torch reference.

    Raises:
        UsageError: the density is outside (0, 1], or the pattern has another shape.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        density: float | None = 0.1,
        pattern: Pattern | PatternMaker | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        if not isinstance(pattern, Pattern):
            pattern = random_pattern(out_features, in_features, density, pattern)
        check_shape("weight", pattern, (out_features, in_features))
        self.weight = SparseWeight(pattern, dtype=dtype)
        self.bias = nn.Parameter(torch.zeros(out_features, dtype=dtype)) if bias else None
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Row by row uniform within +-1 / sqrt(its live fan-in): nn.Linear's bound, widened as connections are fewer.

        Biases are within +-1 / sqrt(mean live fan-in).
        """
        fan_in_uniform_(self.weight, 1.0 / math.sqrt(max(1, self.in_features)))
        if self.bias is not None:
            fan_in = self.weight.nnz / max(1, self.out_features)
            bound = 1.0 / math.sqrt(fan_in) if fan_in else 0.0
            self.bias.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out); half precision is computed in float32."""
        values = self.weight.values
        y: Tensor = ops_for(values).linear(computed(x, values), self.weight.sparse(), self.bias)
        return y.to(x.dtype)

    @classmethod
    def from_dense(cls, module: nn.Linear, masks: Live = None, prefix: str = "linear") -> SparseLinear:
        """The same layer on the connections that ``masks`` calls ``<prefix>.weight``; see `pattern_of`."""
        pattern = pattern_of(masks, f"{prefix}.weight", module.weight)
        made = cls(module.in_features, module.out_features, module.bias is not None, pattern=pattern,
                   dtype=module.weight.dtype)  # fmt: skip
        made.weight.set_dense(module.weight)
        copy_into(made.bias, module.bias)
        return made.train(module.training)

    def to_dense(self) -> nn.Linear:
        """The same layer as nn.Linear, with exact zeros."""
        made = nn.Linear(self.in_features, self.out_features, self.bias is not None, dtype=self.weight.values.dtype)
        copy_into(made.weight, self.weight.dense())
        copy_into(made.bias, self.bias)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """As nn.Linear's."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
