"""`Projecting`: what methods share that keep changes of weights away from the inputs of earlier tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.continual._method import Method
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._restricted import RestrictedProjection
from sparsecirc.continual._scenario import Scenario
from sparsecirc.continual._sites import Site, Tap, sites
from sparsecirc.errors import SparsecircWarning, UnsupportedError
from sparsecirc.nn._neurons import SparseNeurons


class CapacityWarning(SparsecircWarning):
    """A layer has no direction left to learn in."""


class Mode(Enum):
    """What is projected."""

    DELTA = "delta"
    """What the optimizer's step changed: right for every optimizer and for weight decay."""
    GRAD = "grad"
    """The gradient: the same for plain SGD."""
    TRACE = "trace"
    """The rows of the weight gradient, as in the paper; the only one for spiking lateral neurons. `SpikingNet` only."""


class Projecting(Method):
    """From the second task on, changes of the protected weights are projected; subclasses say onto what.

    Thresholds, decays and normalisation layers are frozen after the first task; biases are projected as the weight of
    one more input.

    Args:
        mode: what is projected.
        keep: which layers, by name; by default all, but read-outs of single tasks.
        steps: time steps, for convolutions of models that are no `SpikingNet`.
        energy: share of the activity that sparse layers protect, see `RestrictedProjection`.
    """

    idempotent = True
    """Whether projecting twice is projecting once; then the change of a whole task is projected again at its end."""

    def __init__(
        self, mode: Mode, keep: Callable[[str], bool] | None = None, steps: int | None = None, energy: float = 1.0
    ) -> None:
        self.mode, self.energy = mode, energy
        self._keep, self._steps = keep, steps

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Find the layers.

        Raises:
            NothingMatchedError: the model has no layer to protect.
        """
        super().attach(model, scenario)
        self.steps = model.steps if isinstance(model, SpikingNet) else self._steps or 1
        self.sites = sites(model, self._keep)
        self.tap = Tap(model, self.sites)
        self._restricted: dict[str, RestrictedProjection] = {}
        self._before: dict[str, list[Tensor]] = {}
        self._anchor: dict[str, list[Tensor]] = {}
        self._answers: dict[str, Tensor] = {}
        self._full: set[str] = set()

    def remaining(self, site: Site, change: Tensor) -> Tensor:
        """What may be kept of a change (out, n) of a dense weight."""
        raise NotImplementedError

    def basis(self, site: Site) -> tuple[Tensor, Tensor] | None:
        """Orthonormal rows (k, n) that a change must not answer to, and their variance (k,).

        ``None`` where a method has none; it then has no projection of sparse weights.
        """
        raise NotImplementedError

    def free(self, site: Site) -> int:
        """Directions of a layer that no earlier task has taken."""
        found = self.basis(site)
        return site.width if found is None else site.width - len(found[0])

    def before_task(self, task: int, steps: int = 0) -> None:
        """From the second task on, project."""
        super().before_task(task, steps)
        self._start(task)

    def _start(self, task: int) -> None:
        self._anchor = {}
        self._answers = {}
        if task == 0:
            return
        freeze_constants(self.model)
        for site in self.sites:
            self._warn_if_full(site)
            if self.mode is not Mode.TRACE:
                self._anchor[site.name] = [t.clone() for t in site.tensors()]

    def _warn_if_full(self, site: Site) -> None:
        free = int(self._restrict(site).free.max()) if site.sparse is not None else self.free(site)
        if free == 0 and site.name not in self._full:
            self._full.add(site.name)
            warnings.warn(
                f"layer '{site.name}' has no direction left to learn in: all {site.width} are taken by earlier tasks",
                CapacityWarning,
                stacklevel=5,
            )

    def _restrict(self, site: Site) -> RestrictedProjection:
        """The projection of a sparse layer for its present pattern."""
        sparse, found = site.sparse, self.basis(site)
        assert sparse is not None
        if found is None:
            raise UnsupportedError(f"{self.name} has no projection for the sparse layer '{site.name}': use hlop or gpm")
        if site.name not in self._restricted:
            rows, variance = found
            self._restricted[site.name] = RestrictedProjection(
                rows, sparse.pattern, bias=site.bias is not None, variance=variance, energy=self.energy
            )
        return self._restricted[site.name]

    def after_backward(self) -> None:
        """Project gradients, or remember the weights before the step."""
        if not self._anchor:
            return
        for site in self.sites:
            if self.mode is Mode.DELTA:
                if self._held(site) is None:
                    self._before[site.name] = [t.clone() for t in site.tensors()]
            elif grads := site.grads():
                self._off(site, grads)

    @torch.no_grad()
    def after_step(self) -> None:
        """Project what the optimizer changed."""
        for site in self.sites:
            if site.name in self._before:
                self._since(site, self._before.pop(site.name))
            elif self._anchor and self.mode is Mode.DELTA:
                self._restore(site)

    def _held(self, site: Site) -> Tensor | None:
        """Rows whose answers a dense weight keeps during a task, where keeping them is the cheapest projection."""
        found = self.basis(site) if self.idempotent and site.sparse is None else None
        return None if found is None or 2 * len(found[0]) > site.width else found[0]

    def _restore(self, site: Site) -> None:
        """Take back what a step changed of the answers ``A = W Q^T`` to orthonormal rows Q: ``W <- W - (W Q^T - A) Q``.

        That is the projection of the step, for all steps before it left A as it was at the start of the task; it needs
        no copy of the weights, and rounding errors do not add up.
        """
        rows = self._held(site)
        assert rows is not None
        if not len(rows):
            return
        if site.name not in self._answers:
            self._answers[site.name] = answers(self._anchor[site.name], rows)
        tensors = site.tensors()
        wrong = answers(tensors, rows).sub_(self._answers[site.name])
        weight = tensors[0].flatten(1)
        weight.addmm_(wrong, rows[:, : weight.shape[1]], alpha=-1)
        if weight.data_ptr() != tensors[0].data_ptr():  # a layout that has no matrix view
            tensors[0].copy_(weight.view(tensors[0].shape))
        if len(tensors) > 1:
            tensors[1].addmv_(wrong, rows[:, -1], alpha=-1)

    @torch.no_grad()
    def _off(self, site: Site, change: list[Tensor]) -> None:
        """Project a change of the tensors of a site in place."""
        if site.sparse is not None:
            values, bias = self._restrict(site)(change[0], change[1] if len(change) > 1 else None)
            change[0].copy_(values)
            if bias is not None:
                change[1].copy_(bias)
            return
        Site.write(self.remaining(site, Site.matrix(change)), change)

    @torch.no_grad()
    def _since(self, site: Site, start: list[Tensor]) -> None:
        """Project what a site has changed since ``start``."""
        tensors = site.tensors()
        change = [t - s for t, s in zip(tensors, start, strict=True)]
        self._off(site, change)
        for tensor, before, delta in zip(tensors, start, change, strict=True):
            torch.add(before, delta, out=tensor)

    def after_task(self, task: int) -> None:
        """The change of the whole task is projected once more, against the sum of rounding errors."""
        for site in self.sites:
            if site.name in self._anchor and self.mode is Mode.DELTA and self.idempotent:
                self._since(site, self._anchor[site.name])
        self._restricted.clear()
        self._anchor = {}
        self._answers = {}

    def capacity(self) -> dict[str, tuple[int, int]]:
        """Directions taken and width of each layer."""
        return {s.name: (s.width - self.free(s), s.width) for s in self.sites}

    def detach(self) -> None:
        """Leave the model without hooks."""
        self.tap.remove()

    def state_dict(self) -> dict[str, Any]:
        """The weights at the start of the task."""
        return super().state_dict() | {"anchor": dict(self._anchor)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task; subclasses load what `basis` needs first."""
        super().load_state_dict(state)
        self._restricted.clear()
        self._start(max(self.task, 0))
        self._anchor = {name: [t.clone() for t in kept] for name, kept in state["anchor"].items()}


def answers(tensors: list[Tensor], rows: Tensor) -> Tensor:
    """``W Q^T`` of a dense weight (and its bias, the weight of a last input) with rows Q (k, n); (out, k)."""
    weight = tensors[0].flatten(1)
    out = weight @ rows[:, : weight.shape[1]].T
    return out if len(tensors) == 1 else out.addr_(tensors[1], rows[:, -1])


def freeze_constants(model: nn.Module) -> None:
    """Stop training thresholds, decays and normalisation layers, whose change would move every old answer."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.eval()
            module.requires_grad_(False)
        elif isinstance(module, SparseNeurons) or type(module).__module__.split(".")[0] in ("snntorch", "spikingjelly"):
            for name, parameter in module.named_parameters(recurse=False):
                if name in ("alpha", "beta", "threshold", "w"):
                    parameter.requires_grad_(False)
