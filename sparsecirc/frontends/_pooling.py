"""Pooling, as layers and as functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sparsecirc.frontends._recorder import Handler, Recorder
from sparsecirc.frontends._values import Refusal, Value, describe
from sparsecirc.ir import Pool

Tensor = torch.Tensor


def pool(
    rec: Recorder, hint: str, key: tuple[Any, ...], how: str, value: Value, kernel: Any, stride: Any, rank: int
) -> Value:
    """Max or average pooling over the last ``rank`` feature axes."""
    kernel = _pair(kernel, rank)
    stride = kernel if stride is None or stride == [] else _pair(stride, rank)
    if len(value.features) != rank + 1:
        raise Refusal(
            f"pools over {rank} axes of a value with axes {describe(value.axes)}",
            "pool over feature axes, not over time",
        )
    key = (*key, how, kernel, stride)
    return rec.draft.emit(hint, key, lambda n, i: Pool(n, i, how=how, kernel=kernel, stride=stride), [value])


def adaptive_pool(
    rec: Recorder, hint: str, key: tuple[Any, ...], how: str, value: Value, size: Any, rank: int
) -> Value:
    """Pooling to a given size, where it divides the input's; over time to one value."""
    target = _pair(size, rank)
    if value.axes[-1] == "T" and rank == 1 and target == (1,):
        return replace(rec.draft.reduce(value.name, "mean" if how == "avg" else "max"), axes=(*value.axes[:-1], "1"))
    spatial = rec.draft.specs[value.name].shape[-rank:]
    if len(value.features) != rank + 1 or any(n % t for n, t in zip(spatial, target, strict=True)):
        raise Refusal(f"pools {spatial} to {target}", "pool to a size that divides the input's")
    kernel = tuple(n // t for n, t in zip(spatial, target, strict=True))
    return pool(rec, hint, key, how, value, kernel, kernel, rank)


def plain_pooling(
    padding: Any, dilation: Any = 1, ceil_mode: bool = False, divisor: Any = None, indices: bool = False
) -> None:
    """Refuse the options of pooling that a graph does not have."""
    if any(np.ravel(padding)) or any(np.ravel(dilation) != 1) or ceil_mode or divisor is not None or indices:
        raise Refusal("pools with padding, dilation, ceil_mode, divisor_override or indices", "pool without them")


def _pair(n: Any, rank: int) -> tuple[int, ...]:
    return (int(n),) * rank if isinstance(n, int) else tuple(int(i) for i in n) * (rank if len(n) == 1 else 1)


def _max_pool(rank: int) -> Handler:
    def handler(rec: Recorder, func: Any, x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
                dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Tensor:  # fmt: skip
        plain_pooling(padding, dilation, ceil_mode, None, return_indices)
        made = pool(rec, "max_pool", ("pool",), "max", rec.value(x), kernel_size, stride, rank)
        return rec.track(func(x, kernel_size, stride), made)

    return handler


def _avg_pool(rank: int) -> Handler:
    def handler(
        rec: Recorder,
        func: Any,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: Any = None,
    ) -> Tensor:
        plain_pooling(padding, 1, ceil_mode, divisor_override)
        made = pool(rec, "avg_pool", ("pool",), "avg", rec.value(x), kernel_size, stride, rank)
        return rec.track(func(x, kernel_size, stride), made)

    return handler


def _adaptive(how: str, rank: int) -> Handler:
    def handler(rec: Recorder, func: Any, x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        plain_pooling(0, indices=return_indices)
        made = adaptive_pool(rec, f"{how}_pool", ("pool",), how, rec.value(x), output_size, rank)
        return rec.track(func(x, output_size), made)

    return handler


POOLING: dict[str, Handler] = {
    **{f"max_pool{r}d": _max_pool(r) for r in (1, 2)},
    **{f"avg_pool{r}d": _avg_pool(r) for r in (1, 2)},
    **{f"adaptive_{how}_pool{r}d": _adaptive(how, r) for how in ("avg", "max") for r in (1, 2)},
}
"""Handlers by the function's name."""
