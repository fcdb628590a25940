"""Linear and convolutional products whose weight gradient and error path may use other arrays than the product."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from sparsecirc.errors import UnsupportedError

Feedback = Callable[[str, Tensor], Tensor]
"""``feedback(layer, weight)``: the matrix that carries the error back through a layer, of the weight's shape."""
Project = Callable[[str, Tensor], Tensor]
"""``project(layer, rows)``: rows (..., n) to those that take part in the weight gradient."""


def exact(layer: str, weight: Tensor) -> Tensor:
    """The weight itself: the gradient."""
    return weight


def sign_symmetric(layer: str, weight: Tensor) -> Tensor:
    """Signs of the weight, scaled to its root mean square (Liao, Leibo & Poggio 2016)."""
    return torch.sign(weight) * weight.square().mean().sqrt()


class FeedbackAlignment:
    """A fixed random matrix per layer, drawn as nn.Linear draws weights (Lillicrap et al. 2016)."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._kept: dict[str, Tensor] = {}

    def __call__(self, layer: str, weight: Tensor) -> Tensor:
        """The matrix of ``layer``; depends on its name, its shape and the seed alone."""
        if layer not in self._kept or self._kept[layer].shape != weight.shape:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{self._seed} {layer}".encode()))
            drawn = torch.rand(weight.shape, generator=generator, dtype=weight.dtype)
            self._kept[layer] = (2 * drawn - 1) / max(weight[0].numel(), 1) ** 0.5
        return self._kept[layer]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, credit: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(credit, back)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        credit, back = ctx.saved_tensors
        width = back.shape[1]
        grad = grads[0].flatten(0, -2)
        rows = credit.flatten(0, -2)
        to_x = grads[0] @ back if ctx.needs_input_grad[0] else None
        to_weight = grad.T @ rows[:, :width] if ctx.needs_input_grad[1] else None
        to_bias = None
        if ctx.needs_input_grad[2]:
            to_bias = grad.T @ rows[:, width] if rows.shape[1] > width else grad.sum(0)
        return to_x, to_weight, to_bias, None, None


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, credit: Tensor, how: Any) -> Tensor:
        ctx.save_for_backward(x, weight, credit)
        ctx.how = how
        return functional.conv2d(x, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, credit = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = conv2d_input(  # type: ignore[no-untyped-call]
                list(x.shape), weight, grads[0], stride, padding, dilation, groups
            )
        width = weight[0].numel()
        grad = grads[0].permute(1, 0, 2, 3).reshape(groups, len(weight) // groups, -1)  # [groups, out / groups, rows]
        made = grad @ credit  # credit is [groups, rows, width (+ 1)]
        to_weight = made[..., :width].reshape(weight.shape) if ctx.needs_input_grad[1] else None
        to_bias = None
        if ctx.needs_input_grad[2]:
            to_bias = made[..., width].flatten() if credit.shape[2] > width else grads[0].sum((0, 2, 3))
        return to_x, to_weight, to_bias, None, None


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, credit: Tensor | None = None, back: Tensor | None = None
) -> Tensor:
    """``y = x W^T + b`` with gradients ``dW = G^T credit`` and ``dx = G back``, where G = dL/dy.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,) or ``None``.
        credit: rows in the place of x in dW, (..., in); with one more column, that gives db. x itself by default.
        back: matrix in the place of W in dx; W itself by default.
    """
    rows = (x if credit is None else credit).detach()
    matrix = (weight if back is None else back).detach()
    y: Tensor = _Linear.apply(x, weight, bias, rows, matrix)  # type: ignore[no-untyped-call]
    return y


def patches(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """What each output position sees: (B, C, H, W) to (groups, B * positions, C / groups * kh * kw)."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise UnsupportedError(
            f"a convolution with padding {conv.padding!r} ({conv.padding_mode}) has no patches: use zeros"
        )
    size = (conv.kernel_size[0], conv.kernel_size[1])
    seen = functional.unfold(
        x, size, (conv.dilation[0], conv.dilation[1]), (conv.padding[0], conv.padding[1]),
        (conv.stride[0], conv.stride[1]),
    )  # fmt: skip
    count, features, positions = seen.shape
    return seen.reshape(count, conv.groups, features // conv.groups, positions).permute(1, 0, 3, 2).flatten(1, 2)


def connect(
    module: nn.Module,
    x: Tensor,
    *,
    layer: str,
    feedback: Feedback = exact,
    credit: Tensor | None = None,
    project: Project | None = None,
) -> Tensor:
    """Apply a connection to vectors (T, B, n) or images (T, B, C, H, W).

    Args:
        module: nn.Linear, nn.Conv2d or SparseLinear.
        x: input.
        layer: its name.
        feedback: what carries the error back; another one than `exact` for nn.Linear only.
        credit: in the place of x in the weight's gradient.
        project: applied to the rows of that gradient; for nn.Linear and nn.Conv2d.

    Raises:
        UnsupportedError: the module cannot do that.
    """
    if feedback is exact and credit is None and project is None:
        return over_time(module, x)
    if isinstance(module, nn.Linear):
        back = None if feedback is exact else feedback(layer, module.weight.detach())
        rows = x if credit is None else credit
        rows = rows if project is None else project(layer, _with_one(rows.detach(), module.bias))
        return linear(x, module.weight, module.bias, credit=rows, back=back)
    if feedback is not exact:
        raise UnsupportedError(
            f"layer '{layer}' ({type(module).__name__}) has no other error path than the exact one: use nn.Linear"
        )
    if project is not None:
        return _projected_conv(module, x, layer, credit, project)
    assert credit is not None
    frozen = {name: p.detach() for name, p in module.named_parameters()}
    y = over_time(lambda z: torch.func.functional_call(module, frozen, (z,)), x)
    learned = over_time(module, credit.detach())
    return y + (learned - learned.detach())


def _projected_conv(module: nn.Module, x: Tensor, layer: str, credit: Tensor | None, project: Project) -> Tensor:
    if not isinstance(module, nn.Conv2d):
        raise UnsupportedError(
            f"the rows of layer '{layer}' ({type(module).__name__}) cannot be projected: use Mode.DELTA or Mode.GRAD"
        )
    flat = x.flatten(0, 1)
    rows = patches((flat if credit is None else credit.flatten(0, 1)).detach(), module)
    names = [layer] if module.groups == 1 else [f"{layer}[{k}]" for k in range(module.groups)]
    used = torch.stack([project(name, _with_one(r, module.bias)) for name, r in zip(names, rows, strict=True)])
    how = (module.stride, module.padding, module.dilation, module.groups)
    y: Tensor = _Conv.apply(flat, module.weight, module.bias, used, how)  # type: ignore[no-untyped-call]
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _with_one(rows: Tensor, bias: Tensor | None) -> Tensor:
    """Rows with the constant input that a bias stands for."""
    return rows if bias is None else torch.cat([rows, rows.new_ones((*rows.shape[:-1], 1))], dim=-1)


def over_time(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of a batch of images to (T, B, C, H, W); vectors (T, B, n) go through as they are."""
    if x.ndim < 5:
        return function(x)
    y = function(x.flatten(0, 1))
    return y.reshape(*x.shape[:2], *y.shape[1:])
