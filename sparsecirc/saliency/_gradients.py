"""Scores from gradients of a loss: SNIP, first-order Taylor, empirical Fisher, GraSP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsecirc._torch_layers import WeightRef, weight_refs
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.masks import matrix_shape
from sparsecirc.saliency._table import Combine, Table

Loss = Callable[[nn.Module, Any], Tensor]
"""``loss(model, batch)``: the mean loss of one batch, a scalar that gradients flow through."""


def snip(model: nn.Module, batches: Iterable[Any], loss: Loss) -> Table:
    r"""``|w dL/dw|``, L the mean of the losses of all batches: how much the loss changes without a connection.

    Source: Lee, Ajanthan & Torr 2019 (SNIP); in a trained network the gradient is near zero and `taylor` says more.

    Raises:
        UsageError: no batch, a loss that is no finite scalar, or that does not depend on the weights.
        NothingMatchedError: the model has no weights.
    """
    return _accumulated("snip", model, batches, loss, lambda g: g, lambda w, g: np.abs(w * g))


def taylor(model: nn.Module, batches: Iterable[Any], loss: Loss) -> Table:
    """``w^2 mean_b (dL_b/dw)^2``: the squared first-order change of the loss, batch by batch.

    Source: Molchanov et al. 2019, equation 8. Errors as `snip`.
    """
    return _accumulated("taylor", model, batches, loss, np.square, lambda w, f: w * w * f)


def fisher(model: nn.Module, batches: Iterable[Any], loss: Loss) -> Table:
    """``w^2 F / 2`` with ``F = mean_b (dL_b/dw)^2``, the diagonal of the empirical Fisher matrix.

    It stands for the second derivative in Optimal Brain Damage (LeCun, Denker & Solla 1990) where the loss is a log
    likelihood and the network is trained. Batches of one sample give the Fisher matrix itself; larger ones an estimate
    that is too small by up to the batch size, the same for all weights. Ranks as `taylor`. Errors as `snip`.
    """
    return _accumulated("fisher", model, batches, loss, np.square, lambda w, f: 0.5 * w * w * f)


def grasp(model: nn.Module, batches: Iterable[Any], loss: Loss) -> Table:
    """``w (H g)``: how much the squared length of the gradient loses without a connection, to keep gradients flowing.

    g and H are gradient and Hessian of the mean loss (Wang, Zhang & Grosse 2020, GraSP, whose score to *remove* by is
    the negative of this). Meant for networks before training. Errors as `snip`; layers must be twice differentiable.
    """
    refs = _refs(model)
    with _gradients_on(refs, model) as parameters:
        total = torch.zeros((), dtype=torch.float64)
        count = 0
        for batch in batches:
            total = total + _checked(loss(model, batch)).double()
            count += 1
        _some(count)
        first = _grad(total / count, parameters, "grasp", create_graph=True)
        length = sum((g * g.detach()).sum() for g in first)
        assert isinstance(length, Tensor)
        second = _grad(length, parameters, "grasp")
    values = {ref.name: _matrix(h) for ref, h in zip(refs, second, strict=True)}
    return Table("grasp", values, lambda w, hg: w * hg)


def _accumulated(
    what: str,
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    each: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    combine: Combine,
) -> Table:
    """Mean over batches of ``each(gradient)``, combined with the weight."""
    refs = _refs(model)
    sums: dict[str, NDArray[np.float64]] = {}
    count = 0
    with _gradients_on(refs, model) as parameters:
        for batch in batches:
            found = _grad(_checked(loss(model, batch)), parameters, what)
            for ref, g in zip(refs, found, strict=True):
                part = each(_matrix(g))
                sums[ref.name] = part if count == 0 else sums[ref.name] + part
            count += 1
    _some(count)
    return Table(what, {name: total / count for name, total in sums.items()}, combine)


def _refs(model: nn.Module) -> list[WeightRef]:
    refs = list(weight_refs(model))
    if not refs:
        raise NothingMatchedError("the model has no weights that can be pruned, so there is nothing to score")
    return refs


@contextmanager
def _gradients_on(refs: list[WeightRef], model: nn.Module) -> Iterator[list[Tensor]]:
    """The weights, all of them differentiable; the model's own gradients and flags are as before afterwards."""
    parameters = [ref.parameter(model) for ref in refs]
    frozen = [p for p in parameters if not p.requires_grad]
    for p in frozen:
        p.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield parameters
    finally:
        for p in frozen:
            p.requires_grad_(False)


def _grad(value: Tensor, parameters: list[Tensor], what: str, *, create_graph: bool = False) -> list[Tensor]:
    """Gradients; zeros where ``value`` does not depend on a weight."""
    if not value.requires_grad:
        raise UsageError(f"{what}: the loss does not depend on any weight; was it computed under no_grad, or detached?")
    found = torch.autograd.grad(value, parameters, create_graph=create_graph, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def _checked(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"loss(model, batch) gave {shape}: expected a tensor with one number, the mean loss")
    if not bool(torch.isfinite(value.detach())):
        raise UsageError(f"loss(model, batch) is {value.item()}: gradients of it mean nothing")
    return value.reshape(())


def _some(count: int) -> None:
    if count == 0:
        raise UsageError("no batch was given: a score from gradients needs at least one")


def _matrix(g: Tensor) -> NDArray[np.float64]:
    array = g.detach().to("cpu", torch.float64).numpy()
    return array.reshape(matrix_shape(array.shape))
