"""What the sparse layers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sparsecirc._pattern import Pattern
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.ops import _autograd

Live: TypeAlias = "Masks | Mapping[str, Pattern] | None"
"""Which connections of a dense layer stay alive: by weight name, or None for those that are not zero."""


def check_shape(name: str, pattern: Pattern, shape: tuple[int, int]) -> None:
    """Raises `UsageError` unless the pattern has the shape of the weight."""
    if pattern.shape != shape:
        raise UsageError(f"pattern of '{name}' has shape {pattern.shape}: expected {shape}")


def ops_for(values: Tensor) -> Any:
    """``linear``, ``recurrent`` and ``spiking`` where ``values`` are: native kernels on the CPU, Triton's on a GPU.

    Raises:
        UnsupportedError: they are elsewhere, or Triton is not installed.
    """
    if values.device.type != "cuda":
        return _autograd  # which says what it thinks of other devices
    try:
        from sparsecirc.ops import triton
    except ImportError as error:
        raise UnsupportedError(
            f"training on a GPU needs the package triton: pip install -c constraints.txt '.[gpu]' ({error})"
        ) from error
    return triton


def computed(x: Tensor, values: Tensor) -> Tensor:
    """``x`` in the number type that the layer computes in: half precision becomes that of the values."""
    return x.to(values.dtype) if x.dtype in (torch.float16, torch.bfloat16) else x


@torch.no_grad()
def copy_into(to: Tensor | None, from_: Tensor | None) -> None:
    """Copy where both are there."""
    if to is not None and from_ is not None:
        to.copy_(from_)


def pattern_of(masks: Live, name: str, weight: Tensor) -> Pattern:
    """The pattern that ``masks`` has for a name, all connections for a name it lacks; without masks, the non-zero ones.

    ``name`` is that of `sparsecirc.masks`, e.g. ``"rnn.l0.hh"``.
    """
    if masks is None:
        return Pattern.from_mask((weight != 0).detach().cpu().numpy(), "zeros")
    rows, cols = weight.shape
    patterns = masks.patterns if isinstance(masks, Masks) else masks
    return patterns[name] if name in patterns else Pattern.full(rows, cols)
