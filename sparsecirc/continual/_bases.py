"""Projections away from the activity of earlier tasks: GPM, SGP, OWM and Adam-NSCL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.continual._method import memory_index
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._projecting import Mode, Projecting
from sparsecirc.continual._scenario import Scenario
from sparsecirc.continual._sites import Site, Tap, firing_rate


class GPM(Projecting):
    """Gradient projection memory (Saha et al., ICLR 2021).

    After a task, the singular vectors of some samples' activations that the basis B does not cover are added until
    B holds the share ``energy`` of what they amount to; gradients of later tasks become ``g - g B^T B``.

    Args:
        first: energy of the first layer.
        other: energy of the others.
        samples: of the training part of a task that are looked at.
        mode: what is projected; the paper projects gradients.
        keep: which layers, by name.
        seed: of the choice of samples.
    """

    name = "gpm"

    def __init__(
        self,
        first: float = 0.95,
        other: float = 0.99,
        *,
        samples: int = 300,
        mode: Mode = Mode.GRAD,
        keep: Callable[[str], bool] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(mode, keep)
        self.first, self.other, self.samples, self.seed = first, other, samples, seed

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Start with empty bases."""
        super().attach(model, scenario)
        self.tap.remove()  # activations are looked at after a task only
        self.bases = {s.name: torch.zeros(0, s.width) for s in self.sites}
        self.importance = {s.name: torch.zeros(0) for s in self.sites}

    def basis(self, site: Site) -> tuple[Tensor, Tensor]:
        """B, its rows equally important."""
        rows = self.bases[site.name]
        return rows, torch.ones(len(rows))

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """Off the basis."""
        rows = self.bases[site.name]
        return change - change @ rows.T @ rows

    def after_task(self, task: int) -> None:
        """Extend the bases by what the task used."""
        super().after_task(task)
        for k, (site, seen) in enumerate(zip(self.sites, self._activations(task), strict=True)):
            self._extend(site, seen, self.first if k == 0 else self.other)

    @torch.no_grad()
    def _activations(self, task: int) -> list[Tensor]:
        """Inputs (samples, n) of each layer on training samples of a task."""
        chosen = self.scenario.tasks[task]
        x, _ = chosen.train(memory_index(len(chosen.y_train), self.samples, self.seed, task))
        training = self.model.training
        self.model.eval()
        tap = Tap(self.model, self.sites, testing=True)
        try:
            _ = self.model(x, chosen.head) if isinstance(self.model, SpikingNet) else self.model(x)
            found = [tap.rows(site, self.steps) for site in self.sites]
        finally:
            tap.remove()
            self.model.train(training)
        return [
            torch.zeros(0, s.width) if f is None else firing_rate(f) for s, f in zip(self.sites, found, strict=True)
        ]

    def _extend(self, site: Site, seen: Tensor, energy: float) -> None:
        total, rows = float(seen.square().sum()), self.bases[site.name]
        left = seen - seen @ rows.T @ rows
        _, strength, axes = torch.linalg.svd(left, full_matrices=False)
        held = total - float(left.square().sum())
        count = 0
        while count < min(len(strength), site.width - len(rows)) and held < energy * total:
            held += float(strength[count] ** 2)
            count += 1
        self._weigh(site, seen, strength[:count])
        self.bases[site.name] = torch.cat([rows, axes[:count]])

    def _weigh(self, site: Site, seen: Tensor, new: Tensor) -> None:
        """Importance of the old rows and of those that are added."""

    def state_dict(self) -> dict[str, Any]:
        """Bases and importances."""
        return super().state_dict() | {"bases": dict(self.bases), "importance": dict(self.importance)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        self.bases, self.importance = dict(state["bases"]), dict(state["importance"])
        super().load_state_dict(state)


class SGP(GPM):
    """Scaled gradient projection (Saha & Roy, AAAI 2023): `GPM` that lets go of directions that matter little.

    ``g - g B^T diag(l) B`` with ``l_i = (a + 1) s_i / (a s_i + s_max)``, s the singular values; importances of a
    direction add up over tasks, up to 1.

    Args:
        scale: a.
        settings: of `GPM`.
    """

    name = "sgp"
    idempotent = False

    def __init__(self, scale: float = 10.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.scale = scale

    def basis(self, site: Site) -> None:  # type: ignore[override]
        """None: what is taken away is scaled."""

    def free(self, site: Site) -> int:
        """Directions outside the basis."""
        return site.width - len(self.bases[site.name])

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """Less of the basis, by importance."""
        rows = self.bases[site.name]
        return change - (change @ rows.T * self.importance[site.name]) @ rows

    def _weigh(self, site: Site, seen: Tensor, new: Tensor) -> None:
        old = (seen @ self.bases[site.name].T).norm(dim=0)  # singular values that the old rows stand for
        strength = torch.cat([old, new])
        if not len(strength):
            return
        top = strength.max().clamp_min(1e-30)
        now = (self.scale + 1) * strength / (self.scale * strength + top)
        before = self.importance[site.name]
        self.importance[site.name] = torch.cat([(before + now[: len(old)]).clamp_max(1.0), now[len(old) :]])


class OWM(Projecting):
    """Orthogonal weight modification (Zeng et al., Nature Machine Intelligence 2019).

    ``P <- P - P X^T (alpha R I + X P X^T)^-1 X P`` for each mini-batch of R rows, recursive least squares from the
    identity; changes of later tasks become ``g P``, with the P that stood at the end of the last task.

    Args:
        alpha: how much activity counts as none, as a share of the layer's mean square input.
        mode: what is projected.
        keep: which layers, by name.
    """

    name = "owm"
    idempotent = False

    def __init__(
        self, alpha: float = 1.0, *, mode: Mode = Mode.GRAD, keep: Callable[[str], bool] | None = None
    ) -> None:
        super().__init__(mode, keep)
        self.alpha = alpha

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Start from the identity."""
        super().attach(model, scenario)
        self.running = {s.name: torch.eye(s.width) for s in self.sites}
        self.projectors = {s.name: torch.eye(s.width) for s in self.sites}

    def basis(self, site: Site) -> None:
        """None: nothing is taken away for good."""

    def free(self, site: Site) -> int:
        """Trace of the projector: directions counted by how free they still are."""
        return round(float(self.projectors[site.name].trace()))

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """Times the projector."""
        return change @ self.projectors[site.name]

    @torch.no_grad()
    def after_step(self) -> None:
        """One mini-batch of recursive least squares."""
        super().after_step()
        for site in self.sites:
            seq = self.tap.rows(site, self.steps)
            if seq is None:
                continue
            x, p = firing_rate(seq), self.running[site.name]
            floor = self.alpha * float(x.square().mean()) * len(x)
            if floor == 0:
                continue
            seen = x @ p
            inner = seen @ x.T
            inner.diagonal().add_(floor)
            p -= seen.T @ torch.linalg.solve(inner, seen)
        self.tap.clear()

    def after_task(self, task: int) -> None:
        """Take over the projector."""
        super().after_task(task)
        self.projectors = {name: (p + p.T) / 2 for name, p in self.running.items()}

    def state_dict(self) -> dict[str, Any]:
        """Both projectors."""
        return super().state_dict() | {"running": dict(self.running), "projectors": dict(self.projectors)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        self.running = {n: p.clone() for n, p in state["running"].items()}
        self.projectors = dict(state["projectors"])
        super().load_state_dict(state)


class AdamNSCL(Projecting):
    """Training in the null space of the feature covariance (Wang et al., CVPR 2021); what the optimizer changed is kept
    in the directions that hold the least of the activity of all tasks so far.

    The paper takes eigenvalues up to a multiple of the smallest; of spike rates many are exactly 0, so we take the most
    directions that together hold at most ``share`` of the trace (our definition). Use it with `adam`.

    Args:
        share: of the activity that may be disturbed.
        mode: what is projected; the paper projects Adam's update.
        keep: which layers, by name.
    """

    name = "adam_nscl"

    def __init__(
        self, share: float = 0.01, *, mode: Mode = Mode.DELTA, keep: Callable[[str], bool] | None = None
    ) -> None:
        super().__init__(mode, keep)
        self.share = share

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Start from zero covariance."""
        super().attach(model, scenario)
        self.covariance = {s.name: torch.zeros(s.width, s.width) for s in self.sites}
        self.bases = {s.name: torch.zeros(0, s.width) for s in self.sites}

    def basis(self, site: Site) -> tuple[Tensor, Tensor]:
        """Directions outside the null space."""
        rows = self.bases[site.name]
        return rows, torch.ones(len(rows))

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """Within the null space."""
        rows = self.bases[site.name]
        return change - change @ rows.T @ rows

    @torch.no_grad()
    def after_step(self) -> None:
        """Add the mini-batch to the covariance."""
        super().after_step()
        for site in self.sites:
            seq = self.tap.rows(site, self.steps)
            if seq is not None:
                x = firing_rate(seq)
                self.covariance[site.name].addmm_(x.T, x, alpha=1 / len(x))
        self.tap.clear()

    def after_task(self, task: int) -> None:
        """The null space of all tasks so far."""
        super().after_task(task)
        for name, covariance in self.covariance.items():
            strength, axes = torch.linalg.eigh(covariance.double())
            small = strength.clamp_min(0).cumsum(0) <= self.share * strength.clamp_min(0).sum()
            self.bases[name] = axes[:, int(small.sum()) :].T.float()

    def state_dict(self) -> dict[str, Any]:
        """Covariances and bases."""
        return super().state_dict() | {"covariance": dict(self.covariance), "bases": dict(self.bases)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        self.covariance = {n: c.clone() for n, c in state["covariance"].items()}
        self.bases = dict(state["bases"])
        super().load_state_dict(state)
