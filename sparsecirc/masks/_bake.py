"""Take masks that torch keeps inside a model out of it, and leave plain parameters with exact zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

Found = dict[str, NDArray[np.bool_]]


def bake(model: nn.Module) -> Found:
    """Masks by state-dict key; each masked parameter is an ordinary one again afterwards, under its old key.

    Knows the forward pre-hooks of torch.nn.utils.prune, and parametrizations with a buffer ``mask`` of the shape of
    the parameter (torch.ao.pruning's form). Parameter objects stay, so an optimizer that holds them goes on.
    """
    found: Found = {}
    for path, module in model.named_modules():
        if isinstance(module, (parametrize.ParametrizationList, torch_prune.BasePruningMethod)):
            continue
        prefix = f"{path}." if path else ""
        masks = {**_of_hooks(module), **_of_parametrizations(module)}
        for name, (mask, unwrap) in masks.items():
            found[prefix + name] = mask.detach().cpu().numpy() != 0
            unwrap(module, name)
        if masks:
            _restore_order(module)
    return found


_Masks = dict[str, tuple[torch.Tensor, Callable[[nn.Module, str], object]]]


def _of_hooks(module: nn.Module) -> _Masks:
    names = [h._tensor_name for h in module._forward_pre_hooks.values() if isinstance(h, torch_prune.BasePruningMethod)]
    return {name: (module.get_buffer(f"{name}_mask"), torch_prune.remove) for name in names}


def _of_parametrizations(module: nn.Module) -> _Masks:
    out: _Masks = {}
    if not parametrize.is_parametrized(module):
        return out
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    for name, steps in lists.items():
        shape = getattr(module, name).shape
        masks = [buffer for step in steps.children() for key, buffer in step.named_buffers() if key == "mask"]
        masks = [m for m in masks if m.shape == shape]
        if masks:
            out[name] = (torch.stack([m != 0 for m in masks]).all(dim=0), parametrize.remove_parametrizations)
    return out


def _restore_order(module: nn.Module) -> None:
    """Put parameters back in the order of an untouched layer, and an RNN's weights back into one buffer."""
    if isinstance(module, nn.RNNBase):
        order = list(module._flat_weights_names)
        module._flat_weights = [getattr(module, n) for n in order]
        module.flatten_parameters()
    else:
        order = sorted(module._parameters, key=lambda n: "bias" in n)
    for name in order:
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)
