"""Neurons spread over the cores of a chip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UnsupportedError
from sparsecirc.hardware._chips import Chip
from sparsecirc.hardware._network import Network, Population, Projection

Ints = NDArray[np.int64]
Order = Callable[[Network, Population], Ints]
"""Gives the order in which the units of a population are put into cores."""


@dataclass(frozen=True)
class Core:
    """What one core holds.

    Attributes:
        population: the layer; a core holds units of one.
        units: which of its units, ascending.
        in_axons: units, in or outside the core, that send spikes into it.
        out_axons: pairs of a unit in it and a core that this unit sends spikes to.
        connections: synapses in it.
        synapse_bits: bits that they take; ``None`` where the chip's format is not known.
    """

    population: str
    units: tuple[int, ...]
    in_axons: int
    out_axons: int
    connections: int
    synapse_bits: int | None


@dataclass(frozen=True)
class Partition:
    """A network on the cores of a chip.

    Attributes:
        chip: its name.
        cores: in the order of the layers.
        crossing: connections between different cores, those from inputs left out.
    """

    chip: str
    cores: tuple[Core, ...]
    crossing: int

    def core_of(self, population: str, unit: int) -> int:
        """The index of the core that holds a unit."""
        return next(k for k, c in enumerate(self.cores) if c.population == population and unit in c.units)

    def table(self) -> str:
        """A line per core."""
        lines = ["core  layer                units  in-axons  out-axons  connections  synapse bits"]
        for k, c in enumerate(self.cores):
            bits = "-" if c.synapse_bits is None else f"{c.synapse_bits:,}"
            lines.append(
                f"{k:>4}  {c.population:<18} {len(c.units):>7} {c.in_axons:>9} {c.out_axons:>10} {c.connections:>12,}"
                f" {bits:>13}"
            )
        return "\n".join([*lines, f"{self.crossing:,} connections between cores"])

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values."""
        cores = [{**vars(c), "units": list(c.units)} for c in self.cores]
        return {"chip": self.chip, "crossing": self.crossing, "cores": cores}

    def __str__(self) -> str:
        return self.table()


def in_order(net: Network, population: Population) -> Ints:
    """Units as they are numbered."""
    return np.arange(population.units)


def by_neighbours(net: Network, population: Population) -> Ints:
    """Units that are connected with each other next to each other (reverse Cuthill-McKee)."""
    import networkx as nx

    loops = [c for c in net.into(population.name) if c.recurrent]
    graph: Any = nx.Graph()
    graph.add_nodes_from(range(population.units))
    for c in loops:
        pre, post, _ = c.connections
        graph.add_edges_from(zip(pre.tolist(), post.tolist(), strict=True))
    return np.array(list(nx.utils.reverse_cuthill_mckee_ordering(graph)), dtype=np.int64)


def partition(net: Network, chip: Chip, *, orders: tuple[Order, ...] = (in_order, by_neighbours)) -> Partition:
    """Spread a network over cores, filling each with units of one layer as far as the chip's limits allow.

    Every order is tried; the result is that with the fewest cores, then the fewest connections between cores. It may
    need more cores than the chip has: `fits` says so.

    Args:
        net: the network.
        chip: with at least one limit per core.
        orders: in which units fill the cores.

    Raises:
        UnsupportedError: the chip has no known limit per core, or one unit alone is too much for a core.
    """
    if not any(chip.limit(n) for n in ("neurons_per_core", "in_axons_per_core", "synapse_bits_per_core")):
        unknown = [n for n in chip.unknown if n.endswith("_per_core")]
        raise UnsupportedError(
            f"{chip.title} has no known limit per core{f' ({unknown[0]} is not public)' if unknown else ''}: set one, "
            "e.g. --limit neurons_per_core=1024, or chip.with_limits(neurons_per_core=1024)"
        )
    found = [_with_order(net, chip, order) for order in orders]
    return min(found, key=lambda p: (len(p.cores), p.crossing))


def _with_order(net: Network, chip: Chip, order: Order) -> Partition:
    groups: list[tuple[Population, Ints]] = []
    for population in net.neurons:
        units = order(net, population)
        cap = chip.limit("neurons_per_core") or population.units
        while True:
            parts = _fill(net, chip, population, units, cap)
            if cap == 1 or _out_axons_fit(net, chip, population, parts):
                break
            cap = max(1, cap * 3 // 4)
        groups += [(population, part) for part in parts]
    return _described(net, chip, groups)


def _fill(net: Network, chip: Chip, population: Population, units: Ints, cap: int) -> list[Ints]:
    """Units cut into cores, each as full as neurons, in-axons and synapse memory allow."""
    axons, memory = chip.limit("in_axons_per_core"), chip.limit("synapse_bits_per_core")
    incoming = net.into(population.name)
    parts: list[Ints] = []
    start = 0
    while start < len(units):
        stop = min(start + cap, len(units))

        def room(stop: int, start: int = start) -> bool:
            needed, bits = _load(incoming, chip, units[start:stop])
            return (axons is None or needed <= axons) and (memory is None or bits is None or bits <= memory)

        low = start  # most units that fit: what a core needs grows with its units
        while low < stop:
            middle = (low + stop + 1) // 2
            low, stop = (middle, stop) if room(middle) else (low, middle - 1)
        if stop == start:
            needed, bits = _load(incoming, chip, units[start : start + 1])
            raise UnsupportedError(
                f"unit {int(units[start])} of layer '{population.name}' alone needs {needed} in-axons and {bits} bits "
                f"of synapse memory, more than a core of {chip.title} has: prune its inputs"
            )
        parts.append(np.sort(units[start:stop]))
        start = stop
    return parts


def _load(incoming: tuple[Projection, ...], chip: Chip, units: Ints) -> tuple[int, int | None]:
    """In-axons and synapse bits of a core with these units."""
    fan = [np.count_nonzero(c.weight[units], axis=0) for c in incoming]  # per source: connections into the core
    axons = sum(int(np.count_nonzero(n)) for n in fan)
    if chip.axon_bits is None:
        return axons, None
    count = np.bincount(np.concatenate(fan)) if fan else np.zeros(1, np.int64)
    return axons, sum(int(m) * chip.axon_bits(n, len(units)) for n, m in enumerate(count) if n and m)


def _out_axons_fit(net: Network, chip: Chip, population: Population, parts: list[Ints]) -> bool:
    """Whether no core sends to too many others, for its feedback alone; what lies behind is not spread yet."""
    allowed = chip.limit("out_axons_per_core")
    loops = [c for c in net.out_of(population.name) if c.recurrent]
    if allowed is None or not loops:
        return True
    return all(sum(_targets(c, part, parts) for c in loops) <= allowed for part in parts)


def _targets(projection: Projection, units: Ints, parts: list[Ints]) -> int:
    return sum(int(np.any(projection.weight[np.ix_(part, units)], axis=0).sum()) for part in parts)


def _described(net: Network, chip: Chip, groups: list[tuple[Population, Ints]]) -> Partition:
    cores: list[Core] = []
    crossing = 0
    by_name: dict[str, list[Ints]] = {}
    for population, units in groups:
        by_name.setdefault(population.name, []).append(units)
    for population, units in groups:
        incoming = net.into(population.name)
        axons, bits = _load(incoming, chip, units)
        out = sum(_targets(c, units, by_name[c.post]) for c in net.out_of(population.name))
        inside = sum(
            int(np.count_nonzero(c.weight[np.ix_(units, units)])) for c in incoming if c.pre == population.name
        )
        total = sum(int(np.count_nonzero(c.weight[units])) for c in incoming)
        from_neurons = sum(int(np.count_nonzero(c.weight[units])) for c in incoming if c.pre in by_name)
        crossing += from_neurons - inside
        cores.append(Core(population.name, tuple(units.tolist()), axons, out, total, bits))
    return Partition(chip.name, tuple(cores), crossing)
