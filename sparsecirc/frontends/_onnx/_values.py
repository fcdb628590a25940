"""What a name in an ONNX graph stands for while the graph is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UnsupportedError

Array = NDArray[Any]
Axis: TypeAlias = str | int | tuple[str, str] | None
"""Of a value: "T", "B" or "D" (several values of ours, such as both directions), the number of one of our feature axes,
``None`` for an axis of length one that ours lacks, or ("T", "B") where ONNX joined both."""


@dataclass(frozen=True)
class Size:
    """A length that the file leaves open: ``factor`` times the product of ``of`` ("T", "B")."""

    factor: int
    of: tuple[str, ...]

    def __mul__(self, other: object) -> Length:
        if isinstance(other, Size):
            return Size(self.factor * other.factor, tuple(sorted(self.of + other.of)))
        if isinstance(other, (int, np.integer)):
            return Size(self.factor * int(other), self.of) if other else 0
        return NotImplemented

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> Length:
        return divide(self, other) if isinstance(other, (int, np.integer, Size)) else NotImplemented


Length: TypeAlias = int | Size


def divide(a: Length, b: Any) -> Length:
    """A / b, where that is exact.

    Raises:
        UnsupportedError: it is not, or cannot be known.
    """
    of = list(a.of) if isinstance(a, Size) else []
    top = a.factor if isinstance(a, Size) else int(a)
    bottom = b.factor if isinstance(b, Size) else int(b)
    for symbol in b.of if isinstance(b, Size) else ():
        if symbol not in of:
            raise UnsupportedError("the ONNX file computes a length that depends on T or B in a way not known here")
        of.remove(symbol)
    if not bottom or top % bottom:
        raise UnsupportedError("the ONNX file computes a length that depends on T or B in a way not known here")
    return Size(top // bottom, tuple(of)) if of else top // bottom


@dataclass(frozen=True)
class Value:
    """A value of the graph that is built.

    Attributes:
        names: of it there; several where ONNX stacks them along the axis "D".
        axes: what each axis of ONNX's value is.
        dtype: "f" or "i" (indices).
        reversed: whether ONNX's value has the last step first.
    """

    names: tuple[str, ...]
    axes: tuple[Axis, ...]
    dtype: str = "f"
    reversed: bool = False

    @property
    def name(self) -> str:
        """The one name.

        Raises:
            UnsupportedError: there are several.
        """
        if len(self.names) != 1:
            raise UnsupportedError("the ONNX graph uses both directions of a layer, stacked, in a way not known here")
        return self.names[0]

    @property
    def time(self) -> bool:
        """Whether it is a sequence."""
        return any(a == "T" or isinstance(a, tuple) for a in self.axes)


@dataclass(frozen=True)
class Fill:
    """One number everywhere, in a shape that depends on T or B: what first states and valid steps are made of.

    Attributes:
        value: the number; a length where it is one.
        width: of the last axis, where it is known.
    """

    value: float | Size
    width: int | None = None


@dataclass(frozen=True)
class Unknown:
    """What nothing here can follow; an error once something needs it."""

    why: str


@dataclass(frozen=True)
class Skipped:
    """An input of the file that a graph has no input for: valid steps, or a first state."""

    name: str
    role: str


Anything: TypeAlias = Array | Value | Fill | Unknown | Skipped | None
