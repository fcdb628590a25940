"""Whole models between dense and sparse layers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from sparsecirc._torch_layers import node_name
from sparsecirc.errors import NothingMatchedError, UnsupportedError
from sparsecirc.masks import Masks
from sparsecirc.nn._integrator import SparseLI
from sparsecirc.nn._linear import SparseLinear
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.nn._recurrent import SparseRNNBase

M = TypeVar("M", bound=nn.Module)


def sparse_model(model: M, masks: Masks) -> M:
    """A copy of ``model`` whose masked nn.RNN, GRU, LSTM and Linear layers are sparse; the rest is as it was.

    Neurons of snntorch run step by step in the model's own loop, so they are not replaced: use `SparseRLIF.from_dense`.

    Raises:
        NothingMatchedError: no masked weight belongs to such a layer.
    """
    masked = {name.rsplit(".", 1)[0] for name in masks.patterns}

    def make(path: str, module: nn.Module) -> nn.Module | None:
        node = node_name(path, module)
        if type(module) is nn.Linear and node in masked:
            return SparseLinear.from_dense(module, masks, node)
        if type(module) in (nn.RNN, nn.GRU, nn.LSTM) and any(name.startswith(f"{node}.l") for name in masked):
            assert isinstance(module, nn.RNNBase)
            return SparseRNNBase.from_dense(module, masks, node)
        return None

    made, count = _replaced(model, make)
    if not count:
        raise NothingMatchedError(
            f"no masked weight of {sorted(masks.patterns)} belongs to an RNN, GRU, LSTM or Linear"
        )
    return made


def to_dense_model(model: M) -> M:
    """A copy of ``model`` whose sparse layers are dense again, with exact zeros, as frontends and exporters take it."""

    def make(path: str, module: nn.Module) -> nn.Module | None:
        dense: nn.Module | None = None
        if isinstance(module, (SparseLinear, SparseRNNBase, SparseNeurons, SparseLI)):
            dense = module.to_dense()
        return dense

    return _replaced(model, make)[0]


def has_sparse_layers(model: nn.Module) -> bool:
    """Whether `to_dense_model` would change ``model``, so that a frontend can take it.

    Raises:
        UnsupportedError: it has sparse neurons, which take whole sequences where their dense form takes one step.
    """
    for path, module in model.named_modules():
        if isinstance(module, (SparseNeurons, SparseLI)):
            raise UnsupportedError(
                f"layer '{path or type(module).__name__}' runs whole sequences: put {type(module).__name__}.to_dense() "
                "in a model that calls it step by step, and convert that"
            )
    return any(isinstance(module, (SparseLinear, SparseRNNBase)) for module in model.modules())


def _replaced(model: M, make: Callable[[str, nn.Module], nn.Module | None]) -> tuple[M, int]:
    """A copy of ``model`` with the modules that ``make`` gives in place of its own, and how many those were."""
    made = copy.deepcopy(model)
    new = {path: module for path, old in made.named_modules() if (module := make(path, old)) is not None}
    for path, module in new.items():
        if not path:
            return module, 1  # type: ignore[return-value]
        parent, _, name = path.rpartition(".")
        setattr(made.get_submodule(parent), name, module)
    return made, len(new)
