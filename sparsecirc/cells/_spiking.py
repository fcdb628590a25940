"""Leaky integrate-and-fire cells with snntorch's reset conventions."""

from __future__ import annotations

from collections.abc import Mapping

from sparsecirc.cells._cell import Array, Cell, Options, Reset, States


def _membrane(drive: Array, mem: Array, v: Mapping[str, Array], o: Options) -> tuple[Array, Array]:
    """Decay, integrate, reset, fire; returns (spikes, membrane). ``drive`` is all that enters the membrane."""
    theta = v["threshold"]
    due = (mem > theta).astype(mem.dtype)  # [batch, units]: 1 where the previous membrane spiked
    if o.reset is Reset.ZERO:
        mem = (1 - due) * mem
    mem = v["beta"] * mem + drive
    if o.reset is Reset.SUBTRACT:
        mem = mem - due * theta
    elif o.reset is Reset.ZERO_UPDATE:
        mem = mem - due * mem
    spk = (mem > theta).astype(mem.dtype)
    if not o.delay:
        # A membrane still above theta after its reset was counted in `due` already.
        now = spk - due
        if o.reset is Reset.SUBTRACT:
            mem = mem - now * theta
        elif o.reset is not Reset.NONE:
            mem = mem - now * mem
    return spk, mem


def _lif(drive: Array, rec: Array | None, state: States, v: Mapping[str, Array], o: Options) -> States:
    # Sum order of the reference library: (beta * mem + drive) + rec. In float64 the order is immaterial.
    current = drive if rec is None else drive + rec
    spk, mem = _membrane(current, state["mem"], v, o)
    return {"spk": spk, "mem": mem}


def _synaptic(drive: Array, rec: Array | None, state: States, v: Mapping[str, Array], o: Options) -> States:
    current = drive if rec is None else drive + rec
    syn = v["alpha"] * state["syn"] + current
    spk, mem = _membrane(syn, state["mem"], v, o)
    return {"spk": spk, "syn": syn, "mem": mem}


LIF = Cell(
    "lif",
    ("in",),
    ("spk", "mem"),
    "spk",
    ("beta", "threshold"),
    True,
    _lif,
    "v = beta v + x + W_hh z + b_hh - reset; z = v > theta (snntorch Leaky and RLeaky; z is the previous step's)",
)
SYNAPTIC = Cell(
    "synaptic",
    ("in",),
    ("spk", "syn", "mem"),
    "spk",
    ("alpha", "beta", "threshold"),
    True,
    _synaptic,
    "i = alpha i + x + W_hh z + b_hh; v = beta v + i - reset; z = v > theta (snntorch Synaptic and RSynaptic)",
)
