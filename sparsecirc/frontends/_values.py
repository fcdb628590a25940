"""What the recorder knows about a tensor: the graph value it holds, and the role of each of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Axis = str | int
"""``"T"``, ``"B"``, ``"1"`` (an axis of size one that is no feature), or the number of a feature axis."""


class Refusal(Exception):
    """Something that cannot be converted: what it is, and the cure."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what)
        self.what = what
        self.cure = cure


@dataclass(frozen=True)
class Value:
    """A tensor that holds a graph value.

    Attributes:
        name: the value's name in the graph.
        axes: role of each axis of the tensor.
        step: the time step that it is, where it is one step of a sequence; ``None`` for a whole sequence (it has an
            axis ``"T"``) and for a static value.
    """

    name: str
    axes: tuple[Axis, ...]
    step: int | None = None

    @property
    def whole(self) -> bool:
        """Whether it is a whole sequence."""
        return "T" in self.axes

    @property
    def features(self) -> tuple[int, ...]:
        """Its feature axes in the order of the tensor."""
        return tuple(a for a in self.axes if isinstance(a, int))

    def lead(self) -> tuple[Axis, ...]:
        """The axes before the features.

        Raises:
            Refusal: the features are not the last axes, in order.
        """
        n = len(self.features)
        if self.features != tuple(range(n)) or self.axes[len(self.axes) - n :] != self.features:
            raise Refusal(f"reads a tensor with axes {describe(self.axes)}", "put the features last, in their order")
        return self.axes[: len(self.axes) - n]


@dataclass(frozen=True)
class Running:
    """The sum of the steps 0..last of a sequence, built by a loop."""

    name: str
    axes: tuple[Axis, ...]
    last: int


@dataclass(frozen=True)
class Stack:
    """Several values along an axis of their own, e.g. ``h_n`` with its layers."""

    parts: tuple[Value, ...]
    axis: int


@dataclass
class Buffer:
    """A preallocated tensor that a loop fills step by step along ``axis``."""

    axis: int
    filled: dict[int, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Opaque:
    """A result that has no counterpart in a graph, refused once it is used."""

    what: str


Tracked = Value | Running | Stack | Buffer | Opaque


def describe(axes: Sequence[Axis]) -> str:
    """Axes for people: ``(B, T, f0)``."""
    return f"({', '.join(f'f{a}' if isinstance(a, int) else a for a in axes)})"
