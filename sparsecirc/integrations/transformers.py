"""`PruneCallback` for the Trainer of Hugging Face: ``Trainer(..., callbacks=[PruneCallback(rule)])``."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from sparsecirc._files import write_atomic
from sparsecirc.errors import FileFormatError, missing_extra
from sparsecirc.integrations._driver import Driver
from sparsecirc.masks import Masks
from sparsecirc.rules import Rule

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as absent:
    raise missing_extra("transformers", "transformers", "PruneCallback of Hugging Face") from absent

STATE_FILE = "sparsecirc_rule.pt"
"""The state of the rule in a checkpoint folder."""


class PruneCallback(TrainerCallback):  # type: ignore[misc, unused-ignore] # untyped where transformers is absent
    """Steps a rule after every optimizer step; its state lies in each checkpoint folder, and training resumes with it.

    Args:
        rule: made from the model that the Trainer is given.
        masks: what the rule changes; by default its own ``masks``.

    Raises:
        UsageError: the rule has no masks; when training starts, the optimizer does not own the masked weights.
        FileFormatError: training resumes from a checkpoint that holds no state of a rule.
    """

    def __init__(self, rule: Rule, masks: Masks | None = None) -> None:
        super().__init__()
        self._driver = Driver(rule, masks)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on from the checkpoint where one is resumed, and attach the masks."""
        if state.global_step:
            resumed = args.resume_from_checkpoint
            folder = Path(resumed) if isinstance(resumed, str) else _folder(args, state)
            self._driver.rule.load_state_dict(_read(folder / STATE_FILE))
        self._driver.start([kwargs["optimizer"]], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Step the rule."""
        self._driver.advance(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the state of the rule into the checkpoint that was just written."""
        if state.is_world_process_zero:
            buffer = io.BytesIO()
            torch.save(self._driver.rule.state_dict(), buffer)
            write_atomic(_folder(args, state) / STATE_FILE, buffer.getvalue())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the masks and detach them."""
        self._driver.stop()
        self._driver.masks.check()


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _read(path: Path) -> Any:
    if not path.is_file():
        raise FileFormatError(
            f"{path} is not a file: expected the state of the rule; resume from a checkpoint that was written with "
            "PruneCallback"
        )
    return torch.load(path, weights_only=True)
