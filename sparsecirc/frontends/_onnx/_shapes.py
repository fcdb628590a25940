"""Reshape: which axes of a value are joined, parted, added or dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparsecirc.errors import UnsupportedError
from sparsecirc.frontends._onnx._build import Build
from sparsecirc.frontends._onnx._values import Axis, Length, Value, divide


def reshaped(b: Build, value: Value, shape: list[Any], hint: str) -> Value:
    """The value in another shape; 0 keeps a length, -1 takes what is left.

    Raises:
        UnsupportedError: it mixes time or batch with features, or parts features.
    """
    old = b.shape(value)
    new = _wanted(old, shape, hint)
    groups: list[list[Axis]] = []
    i = 0
    for k, length in enumerate(new):
        group: list[Axis] = []
        have: Length = 1
        if length != 1 or (i < len(old) and old[i] == 1):
            while i < len(old) and (have != length or not group):
                group.append(value.axes[i])
                have = old[i] * have
                i += 1
        if have != length:
            parted = _parted(b, value, group, new[k:])
            if parted is None:
                raise UnsupportedError(
                    f"Reshape '{hint}' to {_text(shape)} mixes axes that a graph keeps apart: {b.layout(value)}"
                )
            groups += [[axis] for axis in parted]
            i = len(old)
            break
        groups.append([axis for axis in group if axis is not None])
    if any(axis is not None for axis in value.axes[i:]):
        raise UnsupportedError(f"Reshape '{hint}' to {_text(shape)} drops an axis: {b.layout(value)}")
    return _regrouped(b, value, groups, hint)


def _text(shape: list[Any]) -> list[str]:
    return [n if isinstance(n, str) else str(n) if isinstance(n, int) else "*".join(n.of) for n in shape]


def _wanted(old: list[Length], shape: list[Any], hint: str) -> list[Length]:
    """The shape with every length known."""
    new: list[Length] = [old[k] if isinstance(n, int) and n == 0 and k < len(old) else n for k, n in enumerate(shape)]
    free = [k for k, n in enumerate(new) if isinstance(n, int) and n == -1]
    if len(free) > 1:
        raise UnsupportedError(f"Reshape '{hint}' leaves two lengths open")
    if free:
        rest: Length = 1
        for n in old:
            rest = n * rest
        for k, n in enumerate(new):
            if k != free[0]:
                rest = divide(rest, n)
        new[free[0]] = rest
    return new


def _regrouped(b: Build, value: Value, groups: list[list[Axis]], hint: str) -> Value:
    """The value whose axes are joined by group."""
    features = list(range(len(b.specs[value.names[0]].shape)))
    axes: list[Axis] = []
    made = value
    for group in groups:
        if len(group) <= 1:
            axes.append(group[0] if group else None)
        elif group in (["T", "B"], ["B", "T"]):
            axes.append(("T", "B") if group[0] == "T" else ("B", "T"))
        elif group == ["D", 0] and features == [0]:
            made = b.joined(value, hint)
            axes.append(0)
        elif group == features:
            made = b.flat(value, hint)
            axes.append(0)
        else:
            raise UnsupportedError(f"Reshape '{hint}' joins axes that a graph keeps apart: {b.layout(value)}")
    return replace(made, axes=tuple(axes))


def _parted(b: Build, value: Value, group: list[Axis], rest: list[Length]) -> list[Axis] | None:
    """("T", "B") or ("B", "T") taken apart again, with the features behind it."""
    features = list(range(len(b.specs[value.names[0]].shape)))
    for both in (("T", "B"), ("B", "T")):
        if group == [both, *features] and rest == [
            *(b.sizes[a] for a in both),
            *(b.length(value, k) for k in features),
        ]:
            return [*both, *features]
    return None
