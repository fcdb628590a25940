"""Pruning round by round: back to earlier weights, or until accuracy drops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecirc._prune import Criteria, PruneReport, Scope, Select, Sparsity
from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.patterns import PatternMaker, check_sparsity, unstructured
from sparsecirc.rules._schedule import Schedule
from sparsecirc.scores import Score, magnitude

Saved = dict[str, Tensor]


class Rewind(Schedule):
    """Iterative pruning with rewinding (lottery tickets): train, prune a share, go back to early weights, train again.

    After round k of ``every`` steps the sparsity is ``1 - (1 - share)^k``; then the whole model (buffers too) returns
    to what it was after step ``to``, but for the connections that are dead now. Sources: Frankle & Carbin 2019
    (``to=0``, the initial weights), Frankle et al. 2020 (early weights).

    Args:
        target: the model, or its masks; then these weights take part.
        share: of the live connections, pruned each round, in (0, 1).
        rounds: 1 or more.
        every: steps of a round.
        to: step whose weights come back, less than ``every``; 0 for those of now.
        optimizer: its state (moments) is cleared at each rewinding.
        score, pattern, scope, select: as for `prune`.

    Raises:
        UsageError: a number out of range.
        UsageError, NothingMatchedError: as `prune`, at once.
    """

    def __init__(
        self,
        target: Masks | nn.Module,
        share: float,
        rounds: int,
        every: int,
        *,
        to: int = 0,
        optimizer: Optimizer | None = None,
        score: Score = magnitude,
        pattern: PatternMaker = unstructured,
        scope: Scope = Scope.PER_GATE,
        select: Select | None = None,
    ) -> None:
        if rounds < 1 or not 0 <= to < every:
            raise UsageError(
                f"rewinding with rounds={rounds}, every={every}, to={to}: expected rounds >= 1 and 0 <= to < every"
            )
        if not 0 < check_sparsity(share, "share of a round") < 1:
            raise UsageError(f"share of a round is {share}: expected a number above 0 and below 1")
        self.share, self.rounds, self.every, self.to = share, rounds, every, to
        self._optimizer = optimizer
        super().__init__(target, Criteria(score, pattern, scope, select))
        self._early: Saved | None = _snapshot(self.masks.model) if to == 0 else None

    @property
    def _final(self) -> int:
        return self.rounds * self.every

    def due(self, step: int) -> bool:
        """The last step of each round."""
        return step <= self._final and step > 0 and step % self.every == 0

    def sparsity_at(self, step: int) -> Sparsity:
        """1 - (1 - share)^k after k rounds."""
        return 1.0 - (1.0 - self.share) ** min(step // self.every, self.rounds)

    def step(self) -> bool:
        """Call once after each optimizer step; whether weights were pruned and rewound."""
        changed = super().step()
        if self.steps == self.to:
            self._early = _snapshot(self.masks.model)
        if changed:
            assert self._early is not None  # `to` comes before the end of the first round
            _restore(self.masks.model, self._early)
            self.masks.apply()
            if self._optimizer is not None:
                self._optimizer.state.clear()
        return changed

    def state_dict(self) -> dict[str, Any]:
        """As `Schedule.state_dict`, with the early weights."""
        return {**super().state_dict(), "early": self._early}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`; restore the weights of the model first.

        Raises:
            UsageError: the state of another rule, or of another model.
        """
        early = state.get("early")
        if early is not None:
            _check_saved(self.masks.model, early)
        super().load_state_dict(state)
        self._early = None if early is None else {k: v.clone() for k, v in early.items()}


class UntilDrop:
    """Prunes a share more, as long as the network stays good; at the first drop it returns to the last good state.

    Every ``every`` steps ``evaluate()`` says how good the network is (higher is better). While it is at least the
    first value minus ``tolerance``, weights and masks are kept as the last good ones and a share more is pruned.
    Otherwise the last good ones come back and the rule is `done`.

    Args:
        target: the model, or its masks; then these weights take part.
        evaluate: e.g. the accuracy on validation data; called once now, for the unpruned network.
        tolerance: how much may be lost, in the unit of ``evaluate``, 0 or more.
        share: of the live connections, pruned each time, in (0, 1).
        every: steps between, 1 or more: time to recover.
        limit: no sparsity above this.
        optimizer: its state is cleared when the last good weights come back.
        score, pattern, scope, select: as for `prune`.

    Attributes:
        masks: attach these to the optimizer.
        sparsity: that of the present masks.
        history: (step, sparsity, value) of each evaluation.
        last: report of the pruning that the present masks come from, or ``None``.
        done: whether the search has ended.

    Raises:
        UsageError: a number out of range, or ``evaluate`` gives no finite number.
        UsageError, NothingMatchedError: as `prune`, at once.
    """

    def __init__(
        self,
        target: Masks | nn.Module,
        evaluate: Callable[[], float],
        *,
        tolerance: float,
        every: int,
        share: float = 0.2,
        limit: float = 0.99,
        optimizer: Optimizer | None = None,
        score: Score = magnitude,
        pattern: PatternMaker = unstructured,
        scope: Scope = Scope.PER_GATE,
        select: Select | None = None,
    ) -> None:
        if tolerance < 0 or every < 1:
            raise UsageError(f"tolerance={tolerance}, every={every}: expected tolerance >= 0 and every >= 1")
        if not 0 < check_sparsity(share, "share of a round") < 1:
            raise UsageError(f"share of a round is {share}: expected a number above 0 and below 1")
        self.tolerance, self.every, self.share = tolerance, every, share
        self.limit = check_sparsity(limit, "limit")
        self.masks = target if isinstance(target, Masks) else Masks(target, {})
        held = frozenset(self.masks.patterns)
        if select is None and held:
            select = lambda info: info.name in held  # noqa: E731
        self._how = Criteria(score, pattern, scope, select)
        self._evaluate, self._optimizer = evaluate, optimizer
        self.masks.plan(self._next(0.0), self._how)  # mistakes show now
        self.sparsity, self.steps, self.done = 0.0, 0, False
        self.history: list[tuple[int, float, float]] = [(0, 0.0, self._value())]
        self._good = _snapshot(self.masks.model)
        self._good_masks = self.masks.state_dict()
        self._good_sparsity = 0.0
        self.last: PruneReport | None = None
        self._good_last: PruneReport | None = None

    def step(self) -> bool:
        """Call once after each optimizer step; whether masks or weights were changed."""
        self.steps += 1
        if self.done or self.steps % self.every:
            return False
        if not self._judge():
            return True
        if self.sparsity >= self.limit:
            self.done = True
            return False
        self.sparsity = self._next(self.sparsity)
        self.last = self.masks.plan(self.sparsity, self._how)
        self.masks.update(self.last.patterns)
        return True

    def finish(self) -> bool:
        """Call instead of `step` after the last optimizer step; whether the last good weights had to come back.

        `step` prunes a share more as soon as it has found the network good, and nobody would judge the last one.
        """
        if self.done:
            return False
        self.steps += 1
        good = self._judge()
        self.done = True
        return not good

    def _judge(self) -> bool:
        """Keep the present weights as the last good ones, or bring those back; whether the present ones are good."""
        value = self._value()
        self.history.append((self.steps, self.sparsity, value))
        if value >= self.history[0][2] - self.tolerance:
            self._good, self._good_masks = _snapshot(self.masks.model), self.masks.state_dict()
            self._good_sparsity, self._good_last = self.sparsity, self.last
            return True
        self.done = True
        self.masks.load_state_dict(self._good_masks)
        _restore(self.masks.model, self._good)
        self.sparsity, self.last = self._good_sparsity, self._good_last
        if self._optimizer is not None:
            self._optimizer.state.clear()
        return False

    def _next(self, sparsity: float) -> float:
        return min(1.0 - (1.0 - sparsity) * (1.0 - self.share), self.limit)

    def _value(self) -> float:
        value = float(self._evaluate())
        if value != value or value in (float("inf"), float("-inf")):
            raise UsageError(f"evaluate() gave {value}: expected a finite number, higher for a better network")
        return value

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on; loads with ``torch.load(weights_only=True)``."""
        return {
            "rule": "UntilDrop",
            "steps": self.steps,
            "done": self.done,
            "sparsity": self.sparsity,
            "history": [list(h) for h in self.history],
            "masks": self.masks.state_dict(),
            "good": {"weights": self._good, "masks": self._good_masks, "sparsity": self._good_sparsity},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`; restore the weights of the model first.

        Raises:
            UsageError: the state of another rule, or of another model.
        """
        if state.get("rule") != "UntilDrop":
            raise UsageError(
                f"state of {state.get('rule', 'something else')!r}: expected the state_dict() of an UntilDrop"
            )
        good = state["good"]
        _check_saved(self.masks.model, good["weights"])
        self.masks.load_state_dict(state["masks"])
        self.steps, self.done, self.sparsity = int(state["steps"]), bool(state["done"]), float(state["sparsity"])
        self.history = [(int(a), float(b), float(c)) for a, b, c in state["history"]]
        self._good = {k: v.clone() for k, v in good["weights"].items()}
        self._good_masks, self._good_sparsity = good["masks"], float(good["sparsity"])


def _snapshot(model: nn.Module) -> Saved:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def _restore(model: nn.Module, saved: Saved) -> None:
    """In place, so that optimizers, views and flat buffers stay what they are."""
    for name, value in model.state_dict().items():
        value.copy_(saved[name])


def _check_saved(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    here = model.state_dict()
    if set(here) != set(saved) or any(saved[n].shape != v.shape for n, v in here.items()):
        raise UsageError("the state holds weights of another model: its names or shapes differ")
