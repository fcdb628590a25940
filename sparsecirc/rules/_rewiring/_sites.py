"""The weights that rules rewire: live values of sparse layers, or masked weights of dense ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecirc._pattern import IntArray, Pattern
from sparsecirc._torch_layers import WeightRef, node_name
from sparsecirc.errors import NothingMatchedError
from sparsecirc.masks import Masks
from sparsecirc.nn import SparseLinear, SparseWeight
from sparsecirc.nn._neurons import SparseNeurons
from sparsecirc.nn._recurrent import SparseRNNBase
from sparsecirc.ops._autograd import GATES
from sparsecirc.patterns import exchange


class Site(Protocol):
    """One weight that can be rewired.

    Attributes:
        name: as in `Masks` and graphs, e.g. ``"rnn.l0.hh"``.
        owner: the layer it belongs to.
        role: ``weight``, ``ih``, ``hh`` or ``hr``.
        suffix: layer and direction inside of the owner, ``"l0_reverse"``; "" where it has one.
        gates: equal blocks along the rows, each rewired by itself.
    """

    name: str
    owner: nn.Module
    role: str
    suffix: str
    gates: int

    @property
    def pattern(self) -> Pattern:
        """What is alive."""
        ...

    @property
    def nnz(self) -> int:
        """How many are alive."""
        ...

    @property
    def parameter(self) -> nn.Parameter:
        """What the optimizer holds."""
        ...

    def values(self) -> NDArray[np.float32]:
        """Live values in the order of the pattern, (nnz,)."""
        ...

    def set_values(self, values: NDArray[np.float32]) -> None:
        """Put live values back."""
        ...

    def rewire(self, drop: NDArray[np.int64], grow: NDArray[np.int64], optimizer: Optimizer | None) -> IntArray:
        """Exchange connections (see `exchange`); what grows is exactly 0 and has no optimizer state."""
        ...


class SparseSite:
    """The live values of a sparse layer; nothing of the size of the matrix is ever made."""

    def __init__(self, name: str, owner: nn.Module, weight: SparseWeight, role: str, suffix: str, gates: int) -> None:
        self.name, self.owner, self.weight = name, owner, weight
        self.role, self.suffix, self.gates = role, suffix, gates

    @property
    def pattern(self) -> Pattern:
        """What is alive."""
        return self.weight.pattern

    @property
    def nnz(self) -> int:
        """How many are alive."""
        return self.weight.nnz

    @property
    def parameter(self) -> nn.Parameter:
        """The live values."""
        return self.weight.values

    def values(self) -> NDArray[np.float32]:
        """Live values, (nnz,)."""
        return np.asarray(self.weight.values.detach().float().cpu().numpy())

    @torch.no_grad()
    def set_values(self, values: NDArray[np.float32]) -> None:
        """Put live values back."""
        self.weight.values.copy_(torch.from_numpy(values))

    def rewire(self, drop: NDArray[np.int64], grow: NDArray[np.int64], optimizer: Optimizer | None) -> IntArray:
        """Exchange connections in place."""
        return self.weight.rewire(drop, grow, optimizer)


class MaskedSite:
    """A weight of a dense layer whose dead connections masks keep at zero; torch holds the matrix anyway."""

    def __init__(self, masks: Masks, ref: WeightRef) -> None:
        self.masks, self.ref = masks, ref
        self.name, self.owner, self.role, self.gates = ref.name, ref.owner, ref.role, max(len(ref.gates), 1)
        self.suffix = ref.node.rpartition(".")[2] if isinstance(ref.owner, nn.RNNBase) else ""

    @property
    def pattern(self) -> Pattern:
        """What is alive."""
        return self.masks[self.name]

    @property
    def nnz(self) -> int:
        """How many are alive."""
        return self.masks[self.name].nnz

    @property
    def parameter(self) -> nn.Parameter:
        """The dense weight."""
        found = self.ref.parameter(self.masks.model)
        assert isinstance(found, nn.Parameter)
        return found

    def _index(self, pattern: Pattern) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(pattern.rows.astype(np.int64)), torch.from_numpy(pattern.indices.astype(np.int64))

    def values(self) -> NDArray[np.float32]:
        """Live values, (nnz,)."""
        flat = self.parameter.detach().float().cpu().reshape(self.pattern.shape)
        return np.asarray(flat[self._index(self.pattern)].numpy())

    @torch.no_grad()
    def set_values(self, values: NDArray[np.float32]) -> None:
        """Put live values back."""
        parameter = self.parameter
        index = tuple(i.to(parameter.device) for i in self._index(self.pattern))
        new = torch.from_numpy(values).to(parameter)
        parameter.view(self.pattern.shape).index_put_(index, new)

    def rewire(self, drop: NDArray[np.int64], grow: NDArray[np.int64], optimizer: Optimizer | None) -> IntArray:
        """Exchange connections; the masks clear the optimizer state of what is dead, so what grows has none."""
        pattern, source = exchange(self.pattern, drop, grow)
        self.masks.update({self.name: pattern})
        return source


def sites_of(target: nn.Module | Masks) -> dict[str, Site]:
    """Every weight of ``target`` that can be rewired, by name.

    Raises:
        NothingMatchedError: there is none.
    """
    if isinstance(target, Masks):
        found: dict[str, Site] = {name: MaskedSite(target, target.ref(name)) for name in target.patterns}
        if not found:
            raise NothingMatchedError("the masks hold no weight: first prune, Masks.prune(model, 0.9)")
        return found
    found = {site.name: site for site in _sparse_sites(target)}
    if not found:
        raise NothingMatchedError(
            "the model has no sparse layer to rewire: use layers of sparsecirc.nn, or pass Masks.prune(model, 0.9)"
        )
    return found


def _sparse_sites(model: nn.Module) -> Iterator[Site]:
    for path, module in model.named_modules():
        node = node_name(path, module)
        if isinstance(module, SparseLinear):
            yield SparseSite(f"{node}.weight", module, module.weight, "weight", "", 1)
        elif isinstance(module, SparseRNNBase):
            for name, weight in module.weights():
                _, role, suffix = name.split("_", 2)
                gates = 1 if role == "hr" else GATES[module._kind()]
                yield SparseSite(f"{node}.{suffix}.{role}", module, weight, role, suffix, gates)
        elif isinstance(module, SparseNeurons) and "spk" in module.states:
            yield SparseSite(f"{node}.hh", module, module.recurrent, "hh", "", 1)


def model_of(target: nn.Module | Masks) -> nn.Module:
    """The model itself."""
    return target.model if isinstance(target, Masks) else target


def patterns_of(sites: Mapping[str, Site]) -> dict[str, Pattern]:
    """Present pattern of each weight."""
    return {name: site.pattern for name, site in sites.items()}
