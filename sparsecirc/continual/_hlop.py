"""`HLOP`: Hebbian learning based orthogonal projection, and what it shares with other projections."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.continual._method import Method
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._restricted import RestrictedProjection
from sparsecirc.continual._scenario import Scenario
from sparsecirc.continual._sites import Rows, Site, Tap, firing_rate, sites
from sparsecirc.continual._subspace import ORTHONORMAL, Lateral, Oja, Subspace, linear_lateral
from sparsecirc.errors import UsageError
from sparsecirc.nn._neurons import SparseNeurons


class CapacityWarning(UserWarning):
    """A layer has no direction left to learn in."""


class Mode(Enum):
    """What is projected."""

    DELTA = "delta"
    """What the optimizer's step changed: right for every optimizer and for weight decay."""
    GRAD = "grad"
    """The gradient: the same for plain SGD."""
    TRACE = "trace"
    """The rows of the weight gradient, as in the paper; the only one for spiking lateral neurons. `SpikingNet` only."""


@dataclass(frozen=True)
class Ranks:
    """How many rows subspaces grow by.

    Attributes:
        first: for the first task, one number per layer; a layer past the end takes the last.
        more: for each later task.
        fewer: subtracted from ``more`` at every third task.
        least: what that leaves at least.
        share: without ``first``: the share of the free directions that rows are added for.
        energy: cut the new rows of a layer to the fewest that hold this share of their variance; ``None`` keeps all.
    """

    first: tuple[int, ...] = ()
    more: tuple[int, ...] = ()
    fewer: int = 20
    least: int = 10
    share: float = 0.25
    energy: float | None = None

    def count(self, layer: int, task: int, width: int, used: int) -> int:
        """Rows to add for a layer."""
        if not self.first:
            return min(width - used, max(8, round(self.share * (width - used))))
        if task == 0:
            return self.first[min(layer, len(self.first) - 1)]
        more = self.more or self.first
        return max(self.least, more[min(layer, len(more) - 1)] - self.fewer * (task // 3))


AUTOMATIC = Ranks(energy=0.999)
"""A quarter of what is free, cut to what carries activity."""
PERMUTED_MNIST = Ranks((80, 200, 100), (70,))
"""Of the authors, for permuted MNIST."""


class HLOP(Method):
    """Hebbian learning based orthogonal projection (Xiao et al., ICLR 2024).

    Each layer learns a subspace of its input with Oja's rule while it trains, mini-batch by mini-batch; after a task
    the subspace is frozen, and weights then change only orthogonally to it::

        dW = G^T (X - X Q^T Q)

    Neither data nor gradients of old tasks are kept, no pass is made over them, and inference costs nothing extra.
    After the first task normalisation layers, thresholds and decays are frozen; biases are projected as one more input.

    Args:
        ranks: how many rows subspaces grow by.
        rule: of learning; `ORTHONORMAL`, or `PUBLISHED` for the authors' update.
        mode: what is projected.
        lateral: lateral neurons, `linear_lateral` or a `SpikingLateral`.
        rows: what of the activity the subspace learns: `firing_rate`, `each_step`, `WeightedRate`, ...
        keep: which layers, by name; by default all, but read-outs of single tasks.
        energy: share of the activity that sparse layers protect, see `RestrictedProjection`.
        steps: time steps, for convolutions of models that are no `SpikingNet`.
        seed: of new rows.

    Raises:
        UsageError: spiking lateral neurons in another mode than `Mode.TRACE`.
    """

    name = "hlop"

    def __init__(
        self,
        ranks: Ranks = AUTOMATIC,
        *,
        rule: Oja = ORTHONORMAL,
        mode: Mode = Mode.DELTA,
        lateral: Lateral = linear_lateral,
        rows: Rows = firing_rate,
        keep: Callable[[str], bool] | None = None,
        energy: float = 1.0,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        if lateral is not linear_lateral and mode is not Mode.TRACE:
            raise UsageError(f"spiking lateral neurons answer to rows, not to a {mode.value}: use mode=Mode.TRACE")
        self.ranks, self.rule, self.mode, self.lateral, self.rows = ranks, rule, mode, lateral, rows
        self.energy = energy
        self._keep, self._steps = keep, steps
        self._generator = torch.Generator().manual_seed(seed)

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Find the layers and make their subspaces.

        Raises:
            NothingMatchedError: the model has no layer to protect.
            UsageError: `Mode.TRACE` on a model that is no `SpikingNet`.
        """
        super().attach(model, scenario)
        if self.mode is Mode.TRACE and not isinstance(model, SpikingNet):
            raise UsageError(f"Mode.TRACE projects inside a SpikingNet, got {type(model).__name__}: use Mode.DELTA")
        self.steps = model.steps if isinstance(model, SpikingNet) else self._steps or 1
        self.sites = sites(model, self._keep)
        self.tap = Tap(model, self.sites)
        self.subspaces: dict[str, Subspace] = {}
        for k, site in enumerate(self.sites):
            rate = self.rule.first_rate if k == 0 else None
            dtype = site.tensors()[0].dtype
            self.subspaces[site.name] = Subspace(
                site.width, self.rule, lateral=self.lateral, rate=rate, generator=self._generator, dtype=dtype
            )
        self._restricted: dict[str, RestrictedProjection] = {}
        self._before: dict[str, list[Tensor]] = {}
        self._anchor: dict[str, list[Tensor]] = {}
        self._outside: dict[str, Tensor] = {}
        self._full: set[str] = set()

    def before_task(self, task: int) -> None:
        """Grow the subspaces; from the second task on, project."""
        super().before_task(task)
        for k, site in enumerate(self.sites):
            space = self.subspaces[site.name]
            space.grow(self.ranks.count(k, task, site.width, space.rank))
        self._project(task)

    def _project(self, task: int) -> None:
        """Prepare to project changes of ``task``."""
        self._anchor = {}
        if task == 0:
            return
        freeze_constants(self.model)
        for site in self.sites:
            if self.mode is not Mode.TRACE:
                self._anchor[site.name] = [t.clone() for t in site.tensors()]
            self._warn_if_full(site)
        if self.mode is Mode.TRACE and isinstance(self.model, SpikingNet):
            self.model.project = self._rows_outside

    def _warn_if_full(self, site: Site) -> None:
        free = self._restrict(site).free.max() if site.sparse is not None else self.free(site)
        if free == 0 and site.name not in self._full:
            self._full.add(site.name)
            warnings.warn(
                f"layer '{site.name}' has no direction left to learn in: all {site.width} are taken by earlier tasks",
                CapacityWarning,
                stacklevel=4,
            )

    def free(self, site: Site) -> int:
        """Directions of a layer that no earlier task has taken."""
        return site.width - self.subspaces[site.name].frozen

    def _restrict(self, site: Site) -> RestrictedProjection:
        """The projection of a sparse layer for its frozen rows and its present pattern."""
        sparse = site.sparse
        assert sparse is not None
        if site.name not in self._restricted:
            space = self.subspaces[site.name]
            self._restricted[site.name] = RestrictedProjection(
                space.old, sparse.pattern, bias=site.bias is not None, variance=space.variance, energy=self.energy
            )
        return self._restricted[site.name]

    def _rows_outside(self, layer: str, rows: Tensor) -> Tensor:
        space = self.subspaces.get(layer)
        if space is None:
            return rows
        self._outside[layer] = space.outside(rows)
        return self._outside[layer]

    def after_backward(self) -> None:
        """Project gradients, or remember the weights before the step."""
        if not self._anchor:
            return
        for site in self.sites:
            if self.mode is Mode.DELTA:
                self._before[site.name] = [t.clone() for t in site.tensors()]
            else:
                grads = site.grads()
                if grads:
                    self._off(site, grads)

    @torch.no_grad()
    def _off(self, site: Site, change: list[Tensor]) -> None:
        """Take from a change of the tensors of a site, in place, what would answer to old inputs."""
        if site.sparse is not None:
            values, bias = self._restrict(site)(change[0], change[1] if len(change) > 1 else None)
            change[0].copy_(values)
            if bias is not None:
                change[1].copy_(bias)
            return
        Site.write(self.subspaces[site.name].outside(Site.matrix(change)), change)

    @torch.no_grad()
    def _since(self, site: Site, start: list[Tensor]) -> None:
        """Project what a site has changed since ``start``."""
        tensors = site.tensors()
        change = [t - s for t, s in zip(tensors, start, strict=True)]
        self._off(site, change)
        for tensor, before, delta in zip(tensors, start, change, strict=True):
            torch.add(before, delta, out=tensor)

    @torch.no_grad()
    def after_step(self) -> None:
        """Project what the optimizer changed, then learn the subspaces from the mini-batch."""
        for site in self.sites:
            if site.name in self._before:
                self._since(site, self._before.pop(site.name))
            seq = self.tap.rows(site, self.steps)
            if seq is not None:
                outside = self._outside.get(site.name)
                same = outside is not None and outside.shape == seq.shape
                self.subspaces[site.name].learn(
                    self.rows(seq), self.rows(outside) if same and outside is not None else None
                )
        self._outside.clear()
        self.tap.clear()

    def after_task(self, task: int) -> None:
        """Freeze what was learned. What changed in the task is projected once more, against sums of rounding errors."""
        for site in self.sites:
            if site.name in self._anchor and self.mode is Mode.DELTA:
                self._since(site, self._anchor[site.name])
            self.subspaces[site.name].merge(self.ranks.energy)
        self._restricted.clear()
        self._anchor = {}

    def capacity(self) -> dict[str, tuple[int, int]]:
        """Frozen rows and width of each layer."""
        return {s.name: (self.subspaces[s.name].frozen, s.width) for s in self.sites}

    def detach(self) -> None:
        """Leave the model without hooks."""
        self.tap.remove()
        if isinstance(self.model, SpikingNet):
            self.model.project = None

    def state_dict(self) -> dict[str, Any]:
        """Subspaces, the weights at the start of the task, and the generator of new rows."""
        return super().state_dict() | {
            "subspaces": {name: space.state_dict() for name, space in self.subspaces.items()},
            "anchor": dict(self._anchor),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        for name, kept in state["subspaces"].items():
            self.subspaces[name].load_state_dict(kept)
        self._generator.set_state(state["generator"])
        self._restricted.clear()
        self._project(max(self.task, 0))
        self._anchor = {name: [t.clone() for t in kept] for name, kept in state["anchor"].items()}


def freeze_constants(model: nn.Module) -> None:
    """Stop training thresholds, decays and normalisation layers, whose change would move every old answer."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
            module.requires_grad_(False)
        elif isinstance(module, SparseNeurons) or _is_foreign_neuron(module):
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("alpha", "beta", "threshold", "w"):
                    parameter.requires_grad_(False)


def _is_foreign_neuron(module: nn.Module) -> bool:
    home = type(module).__module__.split(".")[0]
    return home in ("snntorch", "spikingjelly")
