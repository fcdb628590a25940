"""`PruneCallback` for Lightning: ``Trainer(callbacks=[PruneCallback(rule)])``."""

from __future__ import annotations

from typing import Any

from sparsecirc.errors import missing_extra
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
