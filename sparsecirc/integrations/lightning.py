"""Callbacks for Lightning: ``Trainer(callbacks=[PruneCallback(rule)])``, or a `RewireCallback`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsecirc.errors import UsageError, missing_extra
from sparsecirc.integrations._driver import Driver
from sparsecirc.masks import Masks
from sparsecirc.rules import Rule

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError as absent:
    raise missing_extra("lightning", "lightning", "PruneCallback of Lightning") from absent


class PruneCallback(Callback):  # type: ignore[misc, unused-ignore] # untyped where lightning is absent
    """Steps a rule after every optimizer step; its state is part of Lightning's checkpoints.

    Args:
        rule: made from the LightningModule, or from a module inside it.
        masks: what the rule changes; by default its own ``masks``.

    Raises:
        UsageError: the rule has no masks; when training starts, no optimizer owns the masked weights.
    """

    def __init__(self, rule: Rule, masks: Masks | None = None) -> None:
        super().__init__()
        self._driver = Driver(rule, masks)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the masks."""
        self._driver.start(trainer.optimizers, trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Step the rule, unless gradients are still accumulating."""
        self._driver.advance(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Check the masks and detach them."""
        self._driver.stop()
        self._driver.masks.check()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Detach the masks."""
        self._driver.stop()

    def state_dict(self) -> dict[str, Any]:
        """State of the rule."""
        return self._driver.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._driver.rule.load_state_dict(state_dict)


class RewireCallback(Callback):  # type: ignore[misc, unused-ignore] # untyped where lightning is absent
    """Makes a rewiring rule when the trainer has its optimizer, and steps it after every optimizer step.

    ``RewireCallback(lambda module, optimizer: rules.SET(module, optimizer, every=100))``; the state of the rule is part
    of Lightning's checkpoints.

    Args:
        make: (LightningModule, its first optimizer) -> rule.

    Raises:
        UsageError: when training starts, the trainer has no optimizer.
    """

    def __init__(self, make: Callable[[Any, Any], Rule]) -> None:
        super().__init__()
        self._make = make
        self.rule: Rule | None = None
        self._saved: dict[str, Any] | None = None
        self._seen = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the rule, and let it go on from a checkpoint."""
        if not trainer.optimizers:
            raise UsageError("the trainer has no optimizer: rewiring needs the one that holds the weights")
        first = trainer.optimizers[0]
        self.rule = self._make(pl_module, getattr(first, "optimizer", first))
        if self._saved is not None:
            self.rule.load_state_dict(self._saved)
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Step the rule, unless gradients are still accumulating."""
        if self.rule is not None and trainer.global_step > self._seen:
            self._seen = trainer.global_step
            self.rule.step()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the rule's hooks out of the model, and its masks from the optimizer."""
        remove, masks = getattr(self.rule, "remove", None), getattr(self.rule, "masks", None)
        if remove is not None:
            remove()
        if masks is not None:
            masks.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """As `on_train_end`."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """State of the rule."""
        return {} if self.rule is None else self.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint when training starts."""
        self._saved = state_dict or None
