"""The leaky integrator: a membrane that never fires, as read-out of spiking networks."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecirc.cells._cell import Array, Cell, Options, States


def _li(drive: Array, rec: Array | None, state: States, v: Mapping[str, Array], _o: Options) -> States:
    return {"mem": v["beta"] * state["mem"] + (drive if rec is None else drive + rec)}


LI = Cell(
    "li",
    ("in",),
    ("mem",),
    "mem",
    ("beta",),
    False,
    _li,
    "v = beta v + x + W_hh v + b_hh (the v on the right is the previous step's; mostly without W_hh)",
)
