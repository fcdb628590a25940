"""Pruning schedules: how much is pruned, and when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsecirc._pattern import Pattern
from sparsecirc._prune import Criteria, PruneReport, Scope, Select, Sparsity
from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.patterns import PatternMaker, check_sparsity, unstructured
from sparsecirc.scores import Score, magnitude


class Schedule:
    """Counts the steps of the training loop and, when one is due, ranks the present weights and updates the masks.

    Step ``t`` is the ``t``-th call of :meth:`step`, that is ``t`` optimizer steps were made. Patterns only shrink,
    unless ``regrow``. The same weights give the same masks: nothing here is random.

    Attributes:
        masks: attach these to the optimizer; from the start they hold every weight that takes part.
        last: report of the last update, or ``None``.
    """

    def __init__(self, target: Masks | nn.Module, how: Criteria) -> None:
        self.masks = target if isinstance(target, Masks) else Masks(target, {})
        held = frozenset(self.masks.patterns)
        if how.select is None and held:
            how = Criteria(how.score, how.pattern, how.scope, lambda info: info.name in held, how.regrow)
        self._how = how
        self._steps = 0
        self.last: PruneReport | None = None
        # A dry run: every mistake in the arguments shows now, not after the first epochs.
        planned = self.masks.plan(self.sparsity_at(self._final), how).patterns
        self.masks.update({n: Pattern.full(*p.shape) for n, p in planned.items() if n not in held})

    @property
    def steps(self) -> int:
        """How often :meth:`step` was called."""
        return self._steps

    @property
    def done(self) -> bool:
        """Whether the last update was made."""
        return self._steps >= self._final

    @property
    def _final(self) -> int:
        raise NotImplementedError

    def due(self, step: int) -> bool:
        """Whether step number ``step`` updates the masks."""
        raise NotImplementedError

    def sparsity_at(self, step: int) -> Sparsity:
        """What the masks hold from step number ``step`` on."""
        raise NotImplementedError

    def step(self) -> bool:
        """Call once after each optimizer step; whether the masks were updated."""
        self._steps += 1
        if not self.due(self._steps):
            return False
        self.last = self.masks.plan(self.sparsity_at(self._steps), self._how)
        self.masks.update(self.last.patterns)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Steps made and the masks; loads with ``torch.load(weights_only=True)``."""
        return {"rule": type(self).__name__, "steps": self._steps, "masks": self.masks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`; restore the weights of the model first.

        Raises:
            UsageError: the state of another rule, or of another model.
        """
        name = type(self).__name__
        if state.get("rule") != name or not isinstance(state.get("steps"), int) or "masks" not in state:
            raise UsageError(f"state of {state.get('rule', 'something else')!r}: expected the state_dict() of a {name}")
        self.masks.load_state_dict(state["masks"])
        self._steps = int(state["steps"])


class OneShot(Schedule):
    """Prunes once, after step ``at``.

    Args:
        target: the model, or its masks; then these weights take part.
        sparsity: as for `prune`.
        at: 1 or more. To prune before training use `Masks.prune`.
        score, pattern, scope, select: as for `prune`.

    Raises:
        UsageError, NothingMatchedError: as `prune`, at once.
    """

    def __init__(
        self,
        target: Masks | nn.Module,
        sparsity: Sparsity,
        at: int = 1,
        *,
        score: Score = magnitude,
        pattern: PatternMaker = unstructured,
        scope: Scope = Scope.PER_GATE,
        select: Select | None = None,
    ) -> None:
        if at < 1:
            raise UsageError(f"one-shot pruning at step {at}: expected 1 or more; before training use Masks.prune")
        self._at = at
        self._wanted = sparsity
        super().__init__(target, Criteria(score, pattern, scope, select))

    @property
    def _final(self) -> int:
        return self._at

    def due(self, step: int) -> bool:
        """Only step ``at`` is."""
        return step == self._at

    def sparsity_at(self, step: int) -> Sparsity:
        """0 before ``at``, then the sparsity."""
        return self._wanted if step >= self._at else 0.0


class Cubic(Schedule):
    r"""Prunes in growing portions that get smaller: fast while there is much to spare, slowly near the end.

    At step t from ``begin`` (t_0) to ``end``, each ``every`` steps and at ``end`` itself::

        s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (end - t_0))^3

    (Zhu & Gupta 2017, equation 1, where end - t_0 is n times delta t.)

    Args:
        target: the model, or its masks; then these weights take part.
        sparsity: s_f, as for `prune`.
        begin: first step, 0 or more; with 0 the first update is at step ``every``.
        end: last step.
        every: steps between updates, 1 or more.
        initial: s_i.
        score, pattern, scope, select: as for `prune`.
        regrow: let connections that died earlier compete again.

    Raises:
        UsageError: not 0 <= begin < end, every < 1, s_i above s_f, or a pattern whose sparsity is fixed (N:M).
        UsageError, NothingMatchedError: as `prune`, at once.
    """

    def __init__(
        self,
        target: Masks | nn.Module,
        sparsity: Sparsity,
        begin: int,
        end: int,
        every: int = 1,
        *,
        initial: float = 0.0,
        score: Score = magnitude,
        pattern: PatternMaker = unstructured,
        scope: Scope = Scope.PER_GATE,
        select: Select | None = None,
        regrow: bool = False,
    ) -> None:
        if not 0 <= begin < end or every < 1:
            raise UsageError(
                f"cubic schedule from step {begin} to {end} every {every}: expected 0 <= begin < end and every >= 1"
            )
        if sparsity is None:
            raise UsageError(
                "a cubic schedule needs a final sparsity, got None: for a pattern that fixes it use OneShot"
            )
        self.begin, self.end, self.every = begin, end, every
        self.initial = check_sparsity(initial, "initial sparsity")
        final: Mapping[Any, float] = sparsity if isinstance(sparsity, Mapping) else {"*": sparsity}
        for value in final.values():
            if self.initial > check_sparsity(value):
                raise UsageError(f"initial sparsity {self.initial} exceeds the final {value}: expected it below")
        self._wanted: float | Mapping[str | re.Pattern[str], float] = sparsity
        super().__init__(target, Criteria(score, pattern, scope, select, regrow))
        self.masks.plan(self.sparsity_at(next(t for t in range(1, end + 1) if self.due(t))), self._how)

    @property
    def _final(self) -> int:
        return self.end

    def due(self, step: int) -> bool:
        """Each ``every``-th step from ``begin``, and ``end``."""
        return self.begin <= step <= self.end and ((step - self.begin) % self.every == 0 or step == self.end)

    def sparsity_at(self, step: int) -> Sparsity:
        """s_t for the last update at or before ``step``; 0 before ``begin``."""
        if step < self.begin:
            return 0.0
        last = self.end if step >= self.end else step - (step - self.begin) % self.every
        left = (1 - (last - self.begin) / (self.end - self.begin)) ** 3
        if isinstance(self._wanted, Mapping):
            return {name: value + (self.initial - value) * left for name, value in self._wanted.items()}
        return self._wanted + (self.initial - self._wanted) * left
