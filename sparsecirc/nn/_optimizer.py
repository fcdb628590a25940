"""Moving an optimizer's state along when layers become sparse, or dense again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecirc.errors import UsageError
from sparsecirc.nn._weight import SparseWeight


class ParameterPair(NamedTuple):
    """A parameter of the old model, its successor, and how tensors shaped like the old become like the new."""

    old: nn.Parameter
    new: nn.Parameter
    convert: Callable[[Tensor], Tensor]


def parameter_pairs(old: nn.Module, new: nn.Module) -> list[ParameterPair]:
    """Which parameter of ``new`` succeeds which of ``old``, by name; one of them may be the sparse form of the other.

    Raises:
        UsageError: a parameter of ``old`` has no successor.
    """
    was, now = _named(old), _named(new)
    pairs = []
    for name, source in was.items():
        target = now.get(name)
        if target is None:
            raise UsageError(f"parameter '{name}' has no successor: the new module has {', '.join(now)}")
        pairs.append(_pair(source, target))
    return pairs


def _pair(source: nn.Parameter | SparseWeight, target: nn.Parameter | SparseWeight) -> ParameterPair:
    if isinstance(source, SparseWeight):
        if isinstance(target, SparseWeight):
            return ParameterPair(source.values, target.values, lambda t: target.live(source.scatter(t)))
        return ParameterPair(source.values, target, source.scatter)
    if isinstance(target, SparseWeight):
        return ParameterPair(source, target.values, target.live)
    return ParameterPair(source, target, torch.clone)


def _named(module: nn.Module) -> dict[str, nn.Parameter | SparseWeight]:
    """Parameters and sparse weights by the name that the dense layer gives them."""
    named: dict[str, nn.Parameter | SparseWeight] = {}
    for path, sub in module.named_modules():
        if isinstance(sub, SparseWeight):
            # snntorch keeps the feedback in a linear layer
            named[f"{path}.weight" if path.rpartition(".")[2] == "recurrent" else path] = sub
        else:
            dot = f"{path}." if path else ""
            own = dict(sub.named_parameters(recurse=False))
            named |= {dot + name.replace("recurrent_bias", "recurrent.bias"): p for name, p in own.items()}
    return named


@torch.no_grad()
def transfer_optimizer_state(optimizer: Optimizer, pairs: Iterable[ParameterPair]) -> None:
    """Let ``optimizer`` go on with the new parameters: groups, and momentum and the like at the live connections.

    Args:
        optimizer: it holds the old parameters; parameters that are in no pair stay.
        pairs: from `parameter_pairs`.

    Raises:
        UsageError: the optimizer holds none of the old parameters.
    """
    by_old = {id(pair.old): pair for pair in pairs}
    found = 0
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            pair = by_old.get(id(parameter))
            if pair is None:
                continue
            found += 1
            group["params"][i] = pair.new
            state = optimizer.state.pop(pair.old, {})
            if state:
                shape = pair.old.shape
                optimizer.state[pair.new] = {
                    k: pair.convert(v) if isinstance(v, Tensor) and v.shape == shape and v.ndim else v
                    for k, v in state.items()
                }
    if not found:
        raise UsageError("the optimizer holds none of the old parameters: expected those of the model it was made for")
