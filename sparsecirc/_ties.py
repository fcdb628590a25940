"""Spikes that rounding decides: the one rule of ties, for every comparison of spiking networks.

A membrane so close to its threshold that float32 sums may rightly fall on either side of it is a *tie*. From a tie on,
two runs are different networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import ALIF, Options, Reset, crossed
from sparsecirc.ir import Context, Recurrent, Result

Array = NDArray[Any]

TIE = 1e-5
"""Largest |v - theta| / max(|v|, |theta|, largest input to the membrane) that rounding may explain."""


@dataclass(frozen=True)
class Tie:
    """A spike that rounding decided.

    Attributes:
        layer, step, sample, unit: where.
        margin: |v - theta| in units of the threshold, the larger of the two runs.
        explained: whether rounding can explain it.
    """

    layer: str
    step: int
    sample: int
    unit: int
    margin: float
    explained: bool


def first_difference(layers: Sequence[Recurrent], truth: Result, got: Result, b: int) -> Tie | None:
    """The earliest spike of sample ``b`` that differs, in the first layer where it does."""
    first: tuple[int, int, Recurrent] | None = None  # steps computed before it, step, layer
    for node in layers:
        differs = truth.values[f"{node.name}.spk"][:, b] != got.values[f"{node.name}.spk"][:, b]
        at = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
        if at.size:
            step = int(at[-1] if node.reverse else at[0])
            order = len(differs) - 1 - step if node.reverse else step
            if first is None or order < first[0]:
                first = (order, step, node)
    if first is None:
        return None
    _, step, node = first
    want = truth.values[f"{node.name}.spk"][step, b].ravel()
    units = np.flatnonzero(want != got.values[f"{node.name}.spk"][step, b].ravel())
    margin, scale = _margin(node, truth, step, b)
    margin = np.maximum(margin, _margin_of_run(node, got, step, b))
    worst = int(units[np.argmax((margin / scale)[units])])
    explained = bool(np.all(margin[units] <= TIE * scale[units]))
    return Tie(node.name, step, b, worst, _relative(node, margin, worst), explained)


def possible_tie(layers: Sequence[Recurrent], truth: Result, last: int, b: int) -> Tie | None:
    """The latest tie of sample ``b`` up to step ``last`` in layers whose spikes the other run does not show.

    Such a spike may have gone the other way there, unseen, and explains what differs from then on. Layers that run
    backwards are searched over the whole sequence.
    """
    found: Tie | None = None
    for node in layers:
        steps = len(truth.values[f"{node.name}.spk"])
        for step in range(steps - 1 if node.reverse else min(last, steps - 1), -1, -1):
            if found is not None and step <= found.step:
                break
            margin, scale = _margin(node, truth, step, b)
            if np.any(margin <= TIE * scale):
                unit = int(np.argmin(margin / scale))
                found = Tie(node.name, step, b, unit, _relative(node, margin, unit), True)
                break
    return found


def _relative(node: Recurrent, margin: Array, unit: int) -> float:
    return float(margin[unit] / max(float(abs(_threshold(node)[unit])), 1e-30))


def _threshold(node: Recurrent) -> Array:
    """One resting threshold per unit, float64."""
    return _flat(node, node.vectors()["threshold"])


def _level(node: Recurrent, values: Mapping[str, Array], step: int, b: int) -> Array:
    """What the membrane of every unit was compared with at (step, b), float64."""
    state = {s: values[f"{node.name}.{s}"][step, b] for s in node.cell.states if f"{node.name}.{s}" in values}
    return _flat(node, crossed(node.vectors(), state))


def _flat(node: Recurrent, value: Array) -> Array:
    return np.broadcast_to(value, node.feature_shape or (node.units,)).astype(np.float64).ravel()


def _state_before(node: Recurrent, values: Mapping[str, Array], step: int, b: int) -> dict[str, Array]:
    """State of sample ``b`` before ``step``, each (1, features); zeros at the first step."""
    at = step + 1 if node.reverse else step - 1
    inside = 0 <= at < len(values[f"{node.name}.spk"])
    return {
        s: values[f"{node.name}.{s}"][at, b][None] if inside else np.zeros((1, *shape))
        for s, shape in node.states().items()
        if f"{node.name}.{s}" in values
    }


def _margin(node: Recurrent, truth: Result, step: int, b: int) -> tuple[Array, Array]:
    """|v - theta| of every unit before its reset at (step, b) in float64, and the scale that rounding works on.

    The scale is the sum of the magnitudes that enter the membrane in this step, or the largest membrane so far.
    """
    before = _state_before(node, truth.values, step, b)
    options = replace(node.options, delay=True)
    if node.cell is ALIF and not node.options.delay:
        options = Options(Reset.NONE)  # it resets after it has fired, and at no other time
    delayed = replace(node, options=options)
    x = truth.values[node.inputs[0]][step : step + 1, b : b + 1]
    out, _ = delayed.compute([x], before, Context(np.float64, None))
    v = out["mem"].ravel()
    theta = _flat(node, crossed(node.vectors(), {s: a[0, 0] for s, a in out.items()}))
    size = np.abs(x[0, 0])
    drive = np.abs(node.weight("ih")) @ size if "ih" in node.params else np.full(node.units, size.max(initial=0.0))
    if "hh" in node.params:
        drive = drive + np.abs(node.weight("hh")) @ before["spk"][0].ravel()
    for role in ("bias_ih", "bias_hh", "hh_diag"):
        if role in node.params:
            drive = drive + np.abs(node.params[role]).max(initial=0.0)
    held = np.abs(truth.values[f"{node.name}.mem"][:, b]).max(axis=0, initial=0.0).ravel()
    return np.abs(v - theta), np.maximum.reduce([np.abs(v), np.abs(theta), held, drive, np.full(node.units, 1e-30)])


def _margin_of_run(node: Recurrent, got: Result, step: int, b: int) -> Array:
    """|v - theta| before the reset of the run itself, as far as its membranes tell; else 0."""
    if any(f"{node.name}.{s}" not in got.values for s in {"mem", "adapt"} & set(node.cell.states)):
        return np.zeros(node.units)
    v = got.values[f"{node.name}.mem"][step, b].ravel().astype(np.float64)
    theta, reset = _level(node, got.values, step, b), node.options.reset
    if not node.options.delay and reset is not Reset.NONE:  # undo what this step's spike did (see sparsecirc/cells)
        now = got.values[f"{node.name}.spk"][step, b].ravel()
        if node.cell is not ALIF:
            now = now - (_state_before(node, got.values, step, b)["mem"].ravel() > theta)
        amount = theta if node.options.adapted else _threshold(node)
        v = v + now * amount if reset is Reset.SUBTRACT else np.where(now > 0, theta, np.where(now < 0, v / 2, v))
    return np.asarray(np.abs(v - theta))
