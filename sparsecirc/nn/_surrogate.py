"""Surrogate derivatives of the spike, as data that the native kernels understand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsecirc.errors import UnsupportedError


@dataclass(frozen=True)
class Surrogate:
    """What stands in for dS/dU of S = (U > 0) in the backward pass; formulas of snntorch.surrogate.

    Attributes:
        kind: name of its formula.
        scale: its parameter.
    """

    kind: str
    scale: float = 1.0


def fast_sigmoid(slope: float = 25.0) -> Surrogate:
    """1 / (slope |U| + 1)^2 (Zenke & Ganguli 2018)."""
    return Surrogate("fast_sigmoid", float(slope))


def atan(alpha: float = 2.0) -> Surrogate:
    """0.5 alpha / (1 + (pi / 2 alpha U)^2) (Fang et al. 2021); the default, as in snntorch."""
    return Surrogate("atan", float(alpha))


def sigmoid(slope: float = 25.0) -> Surrogate:
    """Derivative of the logistic function, slope e / (e + 1)^2 with e = exp(-slope |U|)."""
    return Surrogate("sigmoid", float(slope))


def triangular(threshold: float = 1.0) -> Surrogate:
    """``threshold`` below the threshold, ``-threshold`` from it on (snntorch's form)."""
    return Surrogate("triangular", float(threshold))


def straight_through() -> Surrogate:
    """1."""
    return Surrogate("straight_through")


_MAKERS: dict[str, Callable[..., Surrogate]] = {
    "fast_sigmoid": fast_sigmoid,
    "atan": atan,
    "sigmoid": sigmoid,
    "triangular": triangular,
    "straight_through_estimator": straight_through,
}


def surrogate_of(function: Any) -> Surrogate:
    """The surrogate that a function made by ``snntorch.surrogate`` stands for.

    Raises:
        UnsupportedError: it is none of those that the kernels have.
    """
    if function is None:
        return atan()
    if isinstance(function, Surrogate):
        return function
    name = getattr(function, "__qualname__", "").split(".")[0]
    if getattr(function, "__module__", "") != "snntorch.surrogate" or name not in _MAKERS:
        raise UnsupportedError(
            f"surrogate {name or function!r} has no kernel: use one of {', '.join(sorted(_MAKERS))} "
            "of snntorch.surrogate or sparsecirc.nn"
        )
    return _MAKERS[name](*(cell.cell_contents for cell in function.__closure__ or ()))
