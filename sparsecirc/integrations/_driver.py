"""What the callbacks of all trainers share: masks on the optimizers, one step of the rule per optimizer step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

from sparsecirc.errors import UsageError
from sparsecirc.masks import Masks
from sparsecirc.rules import Rule


class Driver:
    """Steps ``rule`` as a trainer's step counter grows, with its masks attached while training runs.

    Args:
        rule: made from the model that the trainer trains.
        masks: what the rule changes; by default its own ``masks``.

    Raises:
        UsageError: the rule has no masks and none were given.
    """

    def __init__(self, rule: Rule, masks: Masks | None = None) -> None:
        found = getattr(rule, "masks", None) if masks is None else masks
        if not isinstance(found, Masks):
            raise UsageError(f"{type(rule).__name__} has no masks: pass the Masks that it changes as masks=")
        self.rule, self.masks = rule, found
        self._attached: list[Any] = []
        self._seen = 0

    def start(self, optimizers: Iterable[Optimizer], steps: int) -> None:
        """Attach the masks to the optimizers that own masked weights; ``steps`` is the trainer's counter.

        Raises:
            UsageError: none does.
        """
        self.stop()
        refused = UsageError("the trainer has no optimizer: expected one that owns the masked weights")
        for optimizer in optimizers:
            # accelerate and others wrap the optimizer that really steps
            inner = getattr(optimizer, "optimizer", optimizer)
            try:
                self._attached.append(self.masks.attach(inner))
            except UsageError as error:
                refused = error
        if not self._attached:
            raise refused
        self._seen = steps

    def advance(self, steps: int) -> bool:
        """One step of the rule where the trainer's counter has grown; whether the masks were changed."""
        if steps <= self._seen:
            return False  # gradients are still accumulating
        self._seen = steps
        return self.rule.step()

    def stop(self) -> None:
        """Remove what `start` attached."""
        for attachment in self._attached:
            attachment.remove()
        self._attached.clear()
