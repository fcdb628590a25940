"""`HLOP`: Hebbian learning based orthogonal projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._projecting import Mode, Projecting
from sparsecirc.continual._scenario import Scenario
from sparsecirc.continual._sites import Rows, Site, firing_rate
from sparsecirc.continual._subspace import ORTHONORMAL, Lateral, Oja, Subspace, linear_lateral
from sparsecirc.errors import UsageError


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


class HLOP(Projecting):
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
        super().__init__(mode, keep, steps, energy)
        self.ranks, self.rule, self.lateral, self.rows = ranks, rule, lateral, rows
        self.name = "hlop" if rule.orthonormal else "hlop_published"
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def idempotent(self) -> bool:  # type: ignore[override]
        """Rows of the published rule are not orthonormal."""
        return self.rule.orthonormal

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Find the layers and make their subspaces.

        Raises:
            NothingMatchedError: the model has no layer to protect.
            UsageError: `Mode.TRACE` on a model that is no `SpikingNet`.
        """
        super().attach(model, scenario)
        if self.mode is Mode.TRACE and not isinstance(model, SpikingNet):
            raise UsageError(f"Mode.TRACE projects inside a SpikingNet, got {type(model).__name__}: use Mode.DELTA")
        self.subspaces: dict[str, Subspace] = {}
        for k, site in enumerate(self.sites):
            rate = self.rule.first_rate if k == 0 else None
            dtype = site.tensors()[0].dtype
            self.subspaces[site.name] = Subspace(
                site.width, self.rule, lateral=self.lateral, rate=rate, generator=self._generator, dtype=dtype
            )
        self._outside: dict[str, Tensor] = {}

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """Off the frozen rows."""
        return self.subspaces[site.name].outside(change)

    def basis(self, site: Site) -> tuple[Tensor, Tensor]:
        """The frozen rows."""
        space = self.subspaces[site.name]
        return space.old, space.variance

    def before_task(self, task: int, steps: int = 0) -> None:
        """Grow the subspaces; from the second task on, project."""
        for k, site in enumerate(self.sites):
            space = self.subspaces[site.name]
            space.grow(self.ranks.count(k, task, site.width, space.rank))
        super().before_task(task, steps)

    def _start(self, task: int) -> None:
        super()._start(task)
        if task and self.mode is Mode.TRACE and isinstance(self.model, SpikingNet):
            self.model.project = self._rows_outside

    def _rows_outside(self, layer: str, rows: Tensor) -> Tensor:
        space = self.subspaces.get(layer)
        if space is None:
            return rows
        self._outside[layer] = space.outside(rows)
        return self._outside[layer]

    @torch.no_grad()
    def after_step(self) -> None:
        """Project what the optimizer changed, then learn the subspaces from the mini-batch."""
        super().after_step()
        for site in self.sites:
            seq = self.tap.rows(site, self.steps)
            if seq is not None:
                outside = self._outside.get(site.name)
                known = None if outside is None or outside.shape != seq.shape else self.rows(outside)
                self.subspaces[site.name].learn(self.rows(seq), known)
        self._outside.clear()
        self.tap.clear()

    def after_task(self, task: int) -> None:
        """Freeze what was learned."""
        super().after_task(task)
        for site in self.sites:
            self.subspaces[site.name].merge(self.ranks.energy)

    def detach(self) -> None:
        """Leave the model without hooks."""
        super().detach()
        if isinstance(self.model, SpikingNet):
            self.model.project = None

    def state_dict(self) -> dict[str, Any]:
        """Subspaces, the weights at the start of the task, and the generator of new rows."""
        return super().state_dict() | {
            "subspaces": {name: space.state_dict() for name, space in self.subspaces.items()},
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        for name, kept in state["subspaces"].items():
            self.subspaces[name].load_state_dict(kept)
        self._generator.set_state(state["generator"])
        super().load_state_dict(state)
