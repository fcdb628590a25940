"""A network in the integers of a chip, run as the chip runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UsageError
from sparsecirc.hardware._network import INPUT, ONES, Network

Ints = NDArray[np.int64]
Run = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class IntegerNetwork(ABC):
    """A network whose numbers are those that a chip stores.

    Attributes:
        net: the network with the numbers that the integers stand for, in the units of the original.
        weights: projection name -> (units of post, units of pre), as stored.
        scales: population -> integers per unit of the original's membrane.
    """

    net: Network
    weights: Mapping[str, Ints]
    scales: Mapping[str, float]

    @abstractmethod
    def start(self, batch: int) -> dict[str, Any]:
        """The state before the first step."""

    @abstractmethod
    def advance(self, name: str, arrivals: Sequence[tuple[str, Ints]], state: dict[str, Any]) -> Ints:
        """One step of a population: its spikes, (B, units).

        Args:
            name: of the population.
            arrivals: projections that end at it, each with the spikes of its source, (B, units of the source).
            state: is changed.
        """

    @abstractmethod
    def membrane(self, name: str, state: dict[str, Any]) -> NDArray[np.float64]:
        """The membranes of a population in the units of the original, (B, units)."""

    def run(self, x: ArrayLike | Mapping[str, ArrayLike]) -> Run:
        """Spikes and membranes of every layer on a sequence of input spikes.

        Args:
            x: (T, B, *features) of whole numbers, or one such array per input.

        Returns:
            ``"NAME.spk"``, counts of spikes (one at most where the chip fires once a step), and ``"NAME.mem"``, in the
            units of the original; each (T, B, units).

        Raises:
            UsageError: an input is not made of whole numbers.
        """
        inputs = [p for p in self.net.populations if p.kind == INPUT]
        given = dict(x) if isinstance(x, Mapping) else {inputs[0].name: x}
        arrays: dict[str, Ints] = {}
        for p in inputs:
            value = np.asarray(given[p.name], dtype=np.float64)
            if np.any(value != np.rint(value)):
                raise UsageError(
                    f"input '{p.name}' is not made of whole numbers: a chip is driven by spikes, encode it"
                )
            arrays[p.name] = value.reshape(*value.shape[:2], p.units).astype(np.int64)
        steps, batch = next(iter(arrays.values())).shape[:2]
        found: Run = {}
        for p in self.net.neurons:
            found[f"{p.name}.spk"] = np.zeros((steps, batch, p.units))
            found[f"{p.name}.mem"] = np.zeros((steps, batch, p.units))
        state = self.start(batch)
        fired: dict[str, Ints] = {p.name: np.zeros((batch, p.units), np.int64) for p in self.net.neurons}
        for t in range(steps):
            before = dict(fired)
            for p in self.net.populations:
                if p.kind == INPUT:
                    fired[p.name] = arrays[p.name][t]
                    continue
                if p.kind == ONES:
                    fired[p.name] = np.ones((batch, 1), np.int64)
                    continue
                arrivals = [(c.name, (before if c.recurrent else fired)[c.pre]) for c in self.net.into(p.name)]
                fired[p.name] = self.advance(p.name, arrivals, state)
                found[f"{p.name}.spk"][t] = fired[p.name]
                found[f"{p.name}.mem"][t] = self.membrane(p.name, state)
        return found
