"""What ties masks to an optimizer or to gradients."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from torch.utils.hooks import RemovableHandle


class Attachment:
    """Hooks in place; :meth:`remove`, or leaving the ``with`` block, takes them out again."""

    def __init__(self, handles: Iterable[RemovableHandle]) -> None:
        self._handles = list(handles)

    def remove(self) -> None:
        """Take the hooks out; weights stay as they are. A second call does nothing."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def active(self) -> bool:
        """Whether the hooks are still in place."""
        return bool(self._handles)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
