"""A smaller torch model: the units that a graph can lose, taken out of the modules themselves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from sparsecirc._shrink import layers, max_difference, remove_units, shrink
from sparsecirc._torch_layers import is_spiking, layer_suffixes, node_name
from sparsecirc.errors import MismatchError, UnsupportedError
from sparsecirc.frontends import to_graph
from sparsecirc.ir import Graph, Node, Recurrent

AGREEMENT = 1e-9
"""Largest difference in float64 between the smaller model and the smaller graph, relative to the largest output."""


def shrink_model(
    model: nn.Module,
    keep: Mapping[str, ArrayLike] | None = None,
    *,
    example: Any = None,
    dt: float | None = None,
) -> nn.Module:
    """A copy of ``model`` whose layers hold fewer units; an ordinary model that can be trained, saved and converted.

    Without ``keep`` the units go that do nothing, see `shrink`; dead connections are zeros where masks were applied.
    With ``keep`` (by layer of the graph, ``{"rnn.l0": flags}``, as `LatticeExplanation.critical` gives it) all others
    go.

    Args:
        model: of the layers that `to_graph` knows; it stays as it is.
        keep: as for `remove_units`.
        example: an input, where `to_graph` needs one.
        dt: seconds per step of a spiking network.

    Raises:
        UsageError: as `remove_units`.
        UnsupportedError: as `to_graph` and `remove_units`; or units belong to a module that cannot be made smaller
            (several layers in one nn.LSTM lose different numbers of units, an embedding, a convolution).
        MismatchError: the smaller model computes something else than the smaller graph (a fault of ours).
    """
    graph = to_graph(model, example=example, dt=dt)
    small = shrink(graph).graph if keep is None else remove_units(graph, keep)
    new = copy.deepcopy(model)
    changed = {
        node.name: small.node(node.name)
        for node in graph.nodes
        if any(v.shape != small.node(node.name).params[r].shape for r, v in node.params.items())
    }
    done: set[str] = set()
    for path, module in list(new.named_modules()):
        done |= _resize(path, module, changed)
    left = [name for name in changed if name not in done]
    if left:
        raise UnsupportedError(
            f"units of '{left[0]}' cannot be taken out of the torch module: linear, recurrent and recurrent spiking "
            "layers can; for others use remove_units on the graph"
        )
    _prove(new, small, example, dt)
    return new


def _resize(path: str, module: nn.Module, changed: Mapping[str, Node]) -> set[str]:
    """Make one module as its nodes are now; names of the nodes that are done."""
    name = node_name(path, module)
    if isinstance(module, nn.RNNBase):
        return _resize_stack(name, module, changed)
    node = changed.get(name)
    if node is None:
        return set()
    if isinstance(module, nn.RNNCellBase):
        assert isinstance(node, Recurrent)
        for role in ("ih", "hh"):
            _put(module, f"weight_{role}", node.params[role])
            if f"bias_{role}" in node.params:
                _put(module, f"bias_{role}", node.params[f"bias_{role}"])
        module.input_size, module.hidden_size = node.params["ih"].shape[1], node.units
        return {name}
    if isinstance(module, nn.Linear):
        for role, value in node.params.items():
            _put(module, role, value)
        module.out_features, module.in_features = node.params["weight"].shape
        return {name}
    if is_spiking(module):
        assert isinstance(node, Recurrent)
        _resize_spiking(module, node)
        return {name}
    return set()


def _resize_stack(name: str, module: nn.RNNBase, changed: Mapping[str, Node]) -> set[str]:
    """All layers and directions of an nn.RNN, nn.GRU or nn.LSTM."""
    nodes = {suffix: changed.get(f"{name}.{suffix}") for _, suffix in layer_suffixes(module)}
    if not any(nodes.values()):
        return set()
    for suffix, node in nodes.items():
        if node is not None:
            for role, value in node.params.items():
                _put(module, f"{role if role.startswith('bias') else f'weight_{role}'}_{suffix}", value)
    first = nodes["l0"]
    if first is not None:
        module.input_size = first.params["ih"].shape[1]
    heights = {getattr(module, f"weight_hh_{s}").shape for s in nodes}
    if len(heights) > 1:
        units = sorted({shape[1] for shape in heights})
        raise UnsupportedError(
            f"the layers of '{name}' would have {' and '.join(map(str, units))} units: a {type(module).__name__} has "
            "one size for all of them; keep as many in each, or use remove_units on the graph"
        )
    rows, width = heights.pop()
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    module.hidden_size = rows // gates
    if module.proj_size:
        module.proj_size = width
    return {f"{name}.{suffix}" for suffix, node in nodes.items() if node is not None}


def _resize_spiking(module: Any, node: Recurrent) -> None:
    """A neuron layer of snntorch: its all-to-all recurrence, and whatever it holds per neuron."""
    recurrent = getattr(module, "recurrent", None)
    if isinstance(recurrent, nn.Linear) and "hh" in node.params:
        before = recurrent.out_features
        _put(recurrent, "weight", node.params["hh"])
        if "bias_hh" in node.params:
            _put(recurrent, "bias", node.params["bias_hh"])
        recurrent.out_features = recurrent.in_features = node.units
        module.linear_features = node.units
    else:
        before = 0
    for role in node.cell.vectors:
        own = getattr(module, role, None)
        if isinstance(own, torch.Tensor) and own.numel() > 1 and own.numel() != node.units:
            if role not in node.params or (before and own.numel() != before):
                raise UnsupportedError(
                    f"'{node.name}' holds '{role}' of {own.numel()} entries: expected one per neuron"
                )
            value = torch.from_numpy(np.array(node.params[role])).to(own)
            if isinstance(own, nn.Parameter):
                setattr(module, role, nn.Parameter(value, own.requires_grad))
            else:
                module.register_buffer(role, value)


def _put(module: nn.Module, name: str, value: np.ndarray) -> None:
    """Replace a parameter by a smaller one of the same number type, device and wish for gradients."""
    old = module.get_parameter(name)
    setattr(module, name, nn.Parameter(torch.from_numpy(np.array(value)).to(old), old.requires_grad))


def _prove(new: nn.Module, small: Graph, example: Any, dt: float | None) -> None:
    twin = to_graph(new, example=example, dt=dt)
    if layers(twin) != layers(small):
        raise MismatchError(f"the smaller model has layers {layers(twin)}: expected {layers(small)}")
    worst = max_difference(small, twin)
    if worst > AGREEMENT:
        raise MismatchError(f"the smaller model differs from the smaller graph by {worst:.3g}: expected rounding only")
