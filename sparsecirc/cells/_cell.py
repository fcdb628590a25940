"""`Cell`: one recurrence as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
States = dict[str, Array]


class Reset(str, Enum):
    """What a spike does to the membrane. ``theta`` is the threshold, ``r`` = 1 where a reset is due.

    ====================  ====================================================================================
    ``NONE``              nothing
    ``SUBTRACT``          theta is subtracted from the updated membrane
    ``ZERO``              the membrane is cleared before it decays; the input of the step is kept (snntorch Leaky)
    ``ZERO_UPDATE``       the whole update of the step is dropped, its input too (snntorch RLeaky, Synaptic, RSynaptic)
    ====================  ====================================================================================
    """

    NONE = "none"
    SUBTRACT = "subtract"
    ZERO = "zero"
    ZERO_UPDATE = "zero_update"


@dataclass(frozen=True)
class Options:
    """How a spiking cell resets. Gated cells ignore it.

    Attributes:
        reset: see :class:`Reset`.
        delay: the reset of a spike at step t acts in step t + 1 (snntorch's default); else at once.
        adapted: of an adaptive cell, `Reset.SUBTRACT` takes off the threshold that was crossed, adaptation included
            (Bellec et al. 2018); else the resting one (Bellec et al. 2020). One and the same for the other cells.
    """

    reset: Reset = Reset.SUBTRACT
    delay: bool = True
    adapted: bool = False


Step = Callable[[Array, Array | None, States, Mapping[str, Array], Options], States]


@dataclass(frozen=True)
class Cell:
    """One recurrence: its gates, its states, and the equation of one step.

    Attributes:
        name: how files, kernels and exports call it.
        gates: gate blocks in the order they are stacked in the weights (torch's order); each has ``units`` rows.
        states: carried from step to step, each of shape (batch, units); every state is also an output port, the
            first one is the default output.
        feedback: the state that the recurrent weight multiplies.
        vectors: per-unit parameters of shape (units,), e.g. decay and threshold.
        spiking: whether ``feedback`` is 0/1.
        step: ``step(drive, rec, state, vectors, options) -> state``. ``drive`` (batch, gates * units) is the input
            product with its bias; ``rec`` the recurrent product with its bias, or ``None`` without recurrence.
        equation: the step in plain notation, for people.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    feedback: str
    vectors: tuple[str, ...]
    spiking: bool
    step: Step
    equation: str

    @property
    def n_gates(self) -> int:
        """Number of gate blocks stacked in the weights."""
        return len(self.gates)
