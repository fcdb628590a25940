"""`MaskLedger`: each task gets connections of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparsecirc._pattern import Pattern
from sparsecirc.continual._method import Method
from sparsecirc.continual._projecting import freeze_constants
from sparsecirc.continual._scenario import Scenario
from sparsecirc.continual._sites import Site, sites


class MaskLedger(Method):
    """A ledger of which task owns which connection (after PackNet, Mallya & Lazebnik, CVPR 2018).

    A task trains all connections that nobody owns. After ``prune_at`` of its steps it keeps the largest ones, its share
    of those free, and hands back the others as zeros; the rest of its steps trains what it kept. Owned connections
    never change again. A task is tested on its own connections and those of earlier tasks, so it has to be named then,
    and later tasks cannot disturb it: nothing is forgotten, and capacity runs out instead.

    Args:
        share: of the free connections that a task keeps; by default ``1 / (tasks still to come, this one included)``.
        prune_at: share of a task's steps after which it prunes.
        keep: which layers, by name; by default all, but read-outs of single tasks.
    """

    name = "ledger"

    def __init__(
        self, share: float | None = None, *, prune_at: float = 0.5, keep: Callable[[str], bool] | None = None
    ) -> None:
        self.share, self.prune_at, self._keep = share, prune_at, keep

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Nobody owns anything."""
        super().attach(model, scenario)
        self.sites = sites(model, self._keep)
        self.owner = {s.name: torch.full_like(s.tensors()[0], -1, dtype=torch.int16) for s in self.sites}
        self._held: dict[str, list[Tensor]] = {}
        self._step = self._steps = 0

    def before_task(self, task: int, steps: int = 0) -> None:
        """Connections that are owned are held; free ones that were handed back start small again."""
        super().before_task(task, steps)
        self._step, self._steps = 0, steps
        if task:
            freeze_constants(self.model)
            for site in self.sites:
                free = self.owner[site.name] < 0
                weight = site.tensors()[0]
                drawn = torch.empty_like(weight).uniform_(-1, 1) / max(1, site.width) ** 0.5
                weight.copy_(torch.where(free & (weight == 0), drawn, weight))
        self._hold()

    def _hold(self) -> None:
        self._held = {s.name: [t.clone() for t in s.tensors()] for s in self.sites}

    @torch.no_grad()
    def after_step(self) -> None:
        """Put back what is owned; prune when it is time."""
        for site in self.sites:
            tensors, held = site.tensors(), self._held[site.name]
            tensors[0].copy_(torch.where(self._trains(site), tensors[0], held[0]))
            if self.task and len(tensors) > 1:
                tensors[1].copy_(held[1])
        self._step += 1
        if self._step == max(1, round(self.prune_at * self._steps)):
            self._prune()

    def _trains(self, site: Site) -> Tensor:
        owner = self.owner[site.name]
        pruned = self._step >= max(1, round(self.prune_at * self._steps))
        return owner == self.task if pruned else owner < 0

    def _prune(self) -> None:
        left = len(self.scenario.tasks) - self.task
        share = 1.0 / left if self.share is None else self.share
        for site in self.sites:
            weight, owner = site.tensors()[0], self.owner[site.name]
            free = owner < 0
            count = round(share * int(free.sum()))
            strength = torch.where(free, weight.abs(), torch.full_like(weight, -1.0))
            chosen = strength.flatten().argsort(descending=True, stable=True)[:count]
            owner.view(-1)[chosen] = self.task
            weight.masked_fill_(owner < 0, 0.0)
        self._hold()

    @contextmanager
    def testing(self, task: int) -> Iterator[None]:
        """Only connections of this task and of earlier ones."""
        kept = [s.tensors()[0].clone() for s in self.sites]
        done = torch.stack([(o >= 0).any() for o in self.owner.values()]).any()
        if done:
            for site in self.sites:
                owner = self.owner[site.name]
                site.tensors()[0].masked_fill_((owner < 0) | (owner > task), 0.0)
        try:
            yield
        finally:
            for site, weight in zip(self.sites, kept, strict=True):
                site.tensors()[0].copy_(weight)

    def pattern(self, name: str, task: int) -> Pattern:
        """Connections of a dense layer that a task uses, as a `Pattern`."""
        owner = self.owner[name].flatten(1).numpy()
        return Pattern.from_mask(np.asarray((owner >= 0) & (owner <= task)), f"ledger {task}")

    def capacity(self) -> dict[str, tuple[int, int]]:
        """Connections owned and all connections of each layer."""
        return {name: (int((o >= 0).sum()), o.numel()) for name, o in self.owner.items()}

    def state_dict(self) -> dict[str, Any]:
        """Owners, held weights and the step within the task."""
        kept = {"owner": dict(self.owner), "held": dict(self._held), "steps": [self._step, self._steps]}
        return super().state_dict() | kept

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        self.owner = {n: o.clone() for n, o in state["owner"].items()}
        self._held = {n: [t.clone() for t in kept] for n, kept in state["held"].items()}
        self._step, self._steps = state["steps"]
        if self.task > 0:
            freeze_constants(self.model)
