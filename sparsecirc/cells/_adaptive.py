"""A leaky integrate-and-fire cell whose threshold rises with every spike of its own and sinks back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsecirc.cells._cell import Array, Cell, Options, Reset, States


def _alif(drive: Array, rec: Array | None, state: States, v: Mapping[str, Array], o: Options) -> States:
    fired = state["spk"]  # z of the step before
    before = state["adapt"]
    adapt = v["rho"] * before + fired
    current = drive if rec is None else drive + rec
    mem = state["mem"]
    late = fired if o.delay else 0
    if o.reset is Reset.ZERO:
        mem = (1 - late) * mem
    mem = v["beta"] * mem + current
    if o.reset is Reset.SUBTRACT:
        mem = mem - late * _amount(v, before, o)
    elif o.reset is Reset.ZERO_UPDATE:
        mem = (1 - late) * mem
    spk = (mem > crossed(v, {"adapt": adapt})).astype(mem.dtype)
    if not o.delay:
        if o.reset is Reset.SUBTRACT:
            mem = mem - spk * _amount(v, adapt, o)
        elif o.reset is not Reset.NONE:
            mem = (1 - spk) * mem
    return {"spk": spk, "adapt": adapt, "mem": mem}


def crossed(vectors: Mapping[str, Array], state: Mapping[str, Array]) -> Array:
    """The level that a membrane of any spiking cell has to cross: its threshold, raised where the cell adapts.

    Args:
        vectors: parameters per unit.
        state: of the step in question; of an adaptive cell ``adapt`` is read.
    """
    if "strength" not in vectors:
        return vectors["threshold"]
    return np.asarray(vectors["threshold"] + vectors["strength"] * state["adapt"])


def _amount(v: Mapping[str, Array], adapt: Array, o: Options) -> Array:
    """What a spike takes off the membrane."""
    return crossed(v, {"adapt": adapt}) if o.adapted else v["threshold"]


ALIF = Cell(
    "alif",
    ("in",),
    ("spk", "adapt", "mem"),
    "spk",
    ("beta", "threshold", "rho", "strength"),
    True,
    _alif,
    "a = rho a + z; A = threshold + strength a; v = beta v + x + W_hh z + b_hh - reset; z' = v > A (z: the spikes of "
    "the step before; Bellec et al. 2018, 2020)",
)
