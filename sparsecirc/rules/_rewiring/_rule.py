"""`Rewire`: connections leave and as many grow, stepped by the user's own loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from sparsecirc._prune import unknown_name
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.masks import Masks
from sparsecirc.patterns import Tiered, combined_digest
from sparsecirc.rules import drop as drops
from sparsecirc.rules import grow as grows
from sparsecirc.rules._rewiring._choice import Candidates
from sparsecirc.rules._rewiring._edges import Drop, Edges, Floats, Grow, Scored
from sparsecirc.rules._rewiring._needs import Needs
from sparsecirc.rules._rewiring._ranks import agreed
from sparsecirc.rules._rewiring._signals import Signals
from sparsecirc.rules._rewiring._sites import MaskedSite, Site, patterns_of, sites_of

Fraction = Callable[[int], float]
"""Number of the step -> share of the live connections that is exchanged."""
Change = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions that leave, keys that grow."""


def cosine(initial: float, end: int) -> Fraction:
    """Share initial / 2 (1 + cos(pi t / end)), 0 from step ``end`` on (Evci et al. 2020).

    Raises:
        UsageError: no share, or no step.
    """
    if not 0 <= initial <= 1 or end < 1:
        raise UsageError(f"cosine({initial}, {end}): expected a share in [0, 1] and a last step of 1 or more")
    return lambda step: initial / 2 * (1 + math.cos(math.pi * min(step, end) / end))


@dataclass(frozen=True)
class Exchanged:
    """What a rewiring step did to one weight.

    Attributes:
        name: of the weight.
        count: connections that left, and as many that grew.
        nnz: live connections, before and after.
    """

    name: str
    count: int
    nnz: int


class Rewire:
    """Every ``every`` steps a share of the connections of each weight leaves, and as many dead ones grow at exactly 0.

    Each gate is rewired by itself; its number of connections never changes. What left does not grow back in the same
    step. Optimizer state of what left or grew is reset, that of the others moves along. With several processes
    (torch.distributed) the first one chooses for all.

    Args:
        target: a model with sparse layers (`sparsecirc.nn`), or the masks of a dense one.
        optimizer: that trains it; masks are attached to it where they are not yet.
        drop: what leaves: `rules.drop.magnitude`, `random`, `correlation`, `three`, or a function of your own.
        grow: what comes: `rules.grow.random`, `correlation`, `gradient`, or a function of your own.
        fraction: share of the live connections, or a function of the step such as `cosine`.
        every: optimizer steps between.
        begin: no rewiring before this step.
        end: none after it; None for never.
        names: weights that take part; all that can be rewired by default.
        modules: a modular pattern, or one by weight name, whose tiers keep their numbers of connections: what leaves
            inside of a group comes back inside of one. A tier that is full stays as it is.
        signals: activity to use, made by default where ``drop`` or ``grow`` need it.
        seed: of everything random here.

    Attributes:
        last: what the last rewiring step did, a line per weight.

    Raises:
        NothingMatchedError: nothing can be rewired.
        UsageError: a number out of range, an unknown name, or an optimizer without the weights.
    """

    def __init__(
        self,
        target: nn.Module | Masks,
        optimizer: Optimizer,
        *,
        drop: Drop = drops.magnitude,
        grow: Grow = grows.random,
        fraction: float | Fraction = 0.3,
        every: int = 100,
        begin: int = 0,
        end: int | None = None,
        names: list[str] | None = None,
        modules: Tiered | Mapping[str, Tiered] | None = None,
        signals: Signals | None = None,
        seed: int = 0,
    ) -> None:
        if every < 1 or begin < 0 or (end is not None and end < begin):
            raise UsageError(
                f"rewiring every {every} steps from {begin} to {end}: expected 1 or more, 0 <= begin <= end"
            )
        if not callable(fraction) and not 0 <= fraction <= 1:
            raise UsageError(f"fraction {fraction}: expected the share of connections that is exchanged, in [0, 1]")
        self.sites = _chosen(sites_of(target), names)
        self.optimizer, self.drop, self.grow = optimizer, drop, grow
        self._fraction = fraction if callable(fraction) else lambda _step: fraction
        self.every, self.begin, self.end = every, begin, end
        self._modules = self._modules_of(modules)
        self.masks = target if isinstance(target, Masks) else None
        self._own(target, optimizer)
        self.needs = drops.needs_of(drop) | drops.needs_of(grow)
        self.signals = signals if signals is not None or not self._hears() else Signals(target)
        self.generator = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.last: tuple[Exchanged, ...] = ()
        self._listen()

    def _modules_of(self, modules: Tiered | Mapping[str, Tiered] | None) -> dict[str, Tiered]:
        given = dict.fromkeys(self.sites, modules) if isinstance(modules, Tiered) else dict(modules or {})
        for name, tiers in given.items():
            if name not in self.sites:
                raise unknown_name("modules", name, list(self.sites))
            assert tiers is not None
            rows, cols = self.sites[name].pattern.shape
            tiers.labels(rows // self.sites[name].gates, cols)  # refuses what does not divide
        return {name: tiers for name, tiers in given.items() if tiers is not None}

    def _own(self, target: nn.Module | Masks, optimizer: Optimizer) -> None:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        lacking = [name for name, site in self.sites.items() if id(site.parameter) not in owned]
        if lacking:
            raise UsageError(
                f"the optimizer does not hold '{lacking[0]}': make it from the parameters of the same model, or choose "
                "weights with names="
            )
        if isinstance(target, Masks) and not target.attached(optimizer):
            target.attach(optimizer)

    @property
    def digest(self) -> str:
        """16 hex digits over the names and patterns; compare it across ranks and reruns."""
        return combined_digest(patterns_of(self.sites))

    def due(self, step: int) -> bool:
        """Whether step number ``step`` rewires."""
        return step > 0 and self.begin <= step <= (self.end or step) and (step - self.begin) % self.every == 0

    def step(self) -> bool:
        """Call once after each optimizer step; whether connections were exchanged."""
        self.steps += 1
        due = self.due(self.steps)
        if self.signals is not None and self.signals.listening and Needs.ACTIVITY in self.needs:
            self.signals.take(self.sites)
        if due:
            self._rewire()
        if self.signals is not None:
            self.signals.forget_step()
        self._listen()
        return due

    def _hears(self) -> bool:
        dense = all(isinstance(site, MaskedSite) for site in self.sites.values())
        return Needs.ACTIVITY in self.needs or (Needs.GRADIENT in self.needs and not dense)

    def _listen(self) -> None:
        if self.signals is not None and self._hears():
            soon = self.due(self.steps + 1)
            always = Needs.ACTIVITY in self.needs and self.signals.momentum > 0
            self.signals.listen(soon or always, gradients=soon and Needs.GRADIENT in self.needs)

    def _rewire(self) -> None:
        share = float(self._fraction(self.steps))
        done = []
        for name, site in self.sites.items():
            drop, grow = agreed(lambda site=site: self._plan(site, share), self.generator)  # type: ignore[misc]
            site.rewire(drop, grow, self.optimizer)
            done.append(Exchanged(name, len(drop), site.nnz))
        self.last = tuple(done)

    def _plan(self, site: Site, share: float) -> Change:
        """What leaves and what grows, by gates and tiers; nothing is changed."""
        whole, values = site.pattern, site.values()
        height, cols = whole.shape[0] // site.gates, whole.shape[1]
        scores = _Scores(site, self.signals)
        out, new = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for gate in range(site.gates):
            start = int(whole.indptr[gate * height])
            pattern = whole if site.gates == 1 else whole.row_block(gate * height, (gate + 1) * height)
            part = values[start : start + pattern.nnz]
            tiers = self._modules.get(site.name)
            for tier in range(len(tiers.probabilities) if tiers is not None else 1):
                candidates = Candidates(pattern, tiers, tier)
                may = candidates.tiers_alive()
                n = min(round(share * int(may.sum())), candidates.count())
                if not n:
                    continue
                edges = Edges(
                    site.name, gate, pattern, part, candidates, self.generator, scores.activity,
                    lambda gate=gate: scores.gradient(gate),  # type: ignore[misc]
                )  # fmt: skip
                keys = np.asarray(self.grow(edges, n), np.int64)
                out.append(np.asarray(self.drop(edges, len(keys), may), np.int64) + start)
                new.append(keys + gate * height * cols)
        return np.concatenate(out), np.concatenate(new)

    def remove(self) -> None:
        """Take the hooks out of the model; masks stay attached."""
        if self.signals is not None:
            self.signals.remove()

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on, beside model and optimizer; loads with ``torch.load(weights_only=True)``."""
        return {
            "rule": type(self).__name__,
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "masks": None if self.masks is None else self.masks.state_dict(),
            "signals": None if self.signals is None else self.signals.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`; restore model and optimizer first.

        Raises:
            UsageError: the state of another rule, or of another model.
        """
        name = type(self).__name__
        if state.get("rule") != name or not isinstance(state.get("steps"), int):
            raise UsageError(f"state of {state.get('rule', 'something else')!r}: expected the state_dict() of a {name}")
        if (state["masks"] is None) != (self.masks is None):
            raise UsageError(
                "the state is of masks and the rule of sparse layers, or the reverse: expected the same kind"
            )
        if self.masks is not None:
            self.masks.load_state_dict(state["masks"])
        if self.signals is not None:
            self.signals.load_state_dict(state["signals"] or {})
        self.steps = int(state["steps"])
        self.generator.set_state(state["generator"].cpu())
        self._listen()


class _Scores:
    """Scores of one weight, made when they are first asked for."""

    def __init__(self, site: Site, signals: Signals | None) -> None:
        self.site, self.signals = site, signals
        self._activity: Scored | None = None
        self._gradient: Any = None

    def _heard(self) -> Signals:
        if self.signals is None:
            raise UsageError(
                "this choice needs activity or gradients: give the rule signals=Signals(model), and 'needs'"
            )
        return self.signals

    def activity(self) -> Scored:
        if self._activity is None:
            self._activity = self._heard().sides(self.site.name)
        return self._activity

    def gradient(self, gate: int) -> Scored:
        height = self.site.pattern.shape[0] // self.site.gates
        if isinstance(self.site, MaskedSite):
            return DenseGradient(self.site, gate * height)
        if self._gradient is None:
            self._gradient = self._heard().gradient_sides(self.site.name)
        part: Scored = self._gradient.part(gate * height, (gate + 1) * height)
        return part


class DenseGradient:
    """Gradients of a dense weight, which torch has made anyway; of one gate from row ``start``."""

    def __init__(self, site: MaskedSite, start: int) -> None:
        grad = site.parameter.grad
        if grad is None:
            raise UsageError(f"weight '{site.name}' has no gradient: call rule.step() before zero_grad()")
        self.grad, self.start = grad.reshape(site.pattern.shape), start

    def block(self, start: int, stop: int) -> Floats:
        """Of the rows ``start:stop`` of the gate."""
        part = self.grad[self.start + start : self.start + stop]
        return np.array(part.float().cpu().numpy())  # a copy: the caller overwrites it

    def of(self, pattern: Any) -> Floats:
        """Of the live connections of the gate."""
        rows, cols = torch.from_numpy(pattern.rows.astype(np.int64)), torch.from_numpy(pattern.indices.astype(np.int64))
        found = self.grad[(rows + self.start).to(self.grad.device), cols.to(self.grad.device)]
        return np.asarray(found.float().cpu().numpy())


def _chosen(sites: dict[str, Site], names: list[str] | None) -> dict[str, Site]:
    if names is None:
        return sites
    for name in names:
        if name not in sites:
            raise unknown_name("names", name, list(sites))
    if not names:
        raise NothingMatchedError(f"names is empty: expected some of {', '.join(sites)}")
    return {name: sites[name] for name in sites if name in names}
