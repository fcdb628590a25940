"""`to_target`: where a model is trained."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import nn

from sparsecirc._target import Target
from sparsecirc.errors import UnsupportedError
from sparsecirc.nn._integrator import SparseLI
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.nn._recurrent import SparseGRU, SparseRNNBase
from sparsecirc.nn._spiking import SparseLIF, SparseRLIF

M = TypeVar("M", bound=nn.Module)


def to_target(model: M, target: Target) -> M:
    """Move ``model``, in place, to the device of ``target``, once it is clear that its layers can be trained there.

    Args:
        model: any module.
        target: ``Target.cpu()``, or ``Target.cuda()`` for the Triton kernels of `SparseLinear`, `SparseGRU`,
            `SparseLIF` and `SparseRLIF`.

    Raises:
        UnsupportedError: there is no GPU that torch can use, Triton is not installed, or a layer has no GPU kernels.
    """
    if target.device == "cpu":
        return model.cpu()
    if not torch.cuda.is_available():
        raise UnsupportedError(
            f"Target.cuda() needs a GPU, and torch {torch.__version__} finds none here: use Target.cpu()"
        )
    if find_spec("triton") is None:
        raise UnsupportedError("Target.cuda() needs the package triton: pip install -c constraints.txt '.[gpu]'")
    for path, module in model.named_modules():
        known = isinstance(module, (SparseGRU, SparseLIF, SparseRLIF))
        if isinstance(module, (SparseRNNBase, SparseNeurons, SparseLI)) and not known:
            raise UnsupportedError(
                f"layer '{path or 'itself'}' is a {type(module).__name__}, which has no GPU kernels in this version: "
                "use SparseGRU, SparseLIF or SparseRLIF, or Target.cpu()"
            )
    return model.cuda()
