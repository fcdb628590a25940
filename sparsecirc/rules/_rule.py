"""What every rule offers to a training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Rule(Protocol):
    """Something that changes weights or patterns over time, stepped by the user's own loop."""

    def step(self) -> bool:
        """Call once after each optimizer step; whether anything was changed."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on later; loads with ``torch.load(weights_only=True)``."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        ...
