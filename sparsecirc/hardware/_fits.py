"""`fits`: does a network go onto a chip, and if not, which layer does not, and what pruning would make it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.cells import Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.hardware._chips import LIMITS, Chip
from sparsecirc.hardware._network import INPUT, Network, Population, Projection, network
from sparsecirc.hardware._partition import Partition, partition
from sparsecirc.ir import Graph

Array = NDArray[Any]


@dataclass(frozen=True)
class Check:
    """One limit and what the network needs of it.

    Attributes:
        limit: its name, see `LIMITS`; or what the chip cannot do at all.
        layer: the layer or weight that needs most; ``""`` for the network as a whole.
        needed, allowed: the numbers; ``None`` where there are none.
        ok: whether it fits.
        source: where the limit is from.
        cure: what would make it fit, in words; empty where it does.
        patterns: weight name -> live connections that would make it fit, the strongest kept.
    """

    limit: str
    layer: str
    needed: int | None
    allowed: int | None
    ok: bool
    source: str
    cure: str = ""
    patterns: Mapping[str, Pattern] = field(default_factory=dict)


@dataclass(frozen=True)
class Fit:
    """Whether a network goes onto a chip.

    Attributes:
        chip: the chip.
        checks: one per limit, the layer that needs most of it.
        unknown: limits of unknown value, which were not checked.
        partition: the network on cores, where the chip has cores and the network can be spread.
        notes: what is left to the host.
    """

    chip: Chip
    checks: tuple[Check, ...]
    unknown: tuple[str, ...]
    partition: Partition | None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every limit that is known holds."""
        return all(c.ok for c in self.checks)

    @property
    def patterns(self) -> dict[str, Pattern]:
        """Live connections by weight name that cure every check that pruning can cure."""
        found: dict[str, Pattern] = {}
        for check in self.checks:
            for name, pattern in check.patterns.items():
                found[name] = found[name].intersect(pattern) if name in found else pattern
        return found

    def pruned(self, graph: Graph) -> Graph:
        """The same network with the connections taken out that do not fit."""
        nodes = []
        for node in graph.nodes:
            mine = {r: self.patterns[f"{node.name}.{r}"] for r in node.params if f"{node.name}.{r}" in self.patterns}
            nodes.append(node.with_patterns(**mine) if mine else node)
        return replace(graph, nodes=tuple(nodes))

    def table(self) -> str:
        """A line per limit, what does not fit first, then how to make it fit."""
        lines = [f"{self.chip.title}: {'fits' if self.ok else 'does not fit'}"]
        for c in sorted(self.checks, key=lambda c: c.ok):
            numbers = "" if c.needed is None else f"{c.needed:,} of {c.allowed:,}"
            where = f" in '{c.layer}'" if c.layer else ""
            lines.append(f"  {'ok ' if c.ok else 'NO '} {c.limit:<22} {numbers:<22}{where} [{c.source}]")
            if c.cure:
                lines.append(f"       {c.cure}")
        lines += [f"  ?   {n:<22} unknown: {LIMITS[n]}; set it to have it checked" for n in self.unknown]
        return "\n".join([*lines, *(f"  note: {n}" for n in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """All facts as JSON-able values; patterns by their density."""
        checks = [{**vars(c), "patterns": {n: p.density for n, p in c.patterns.items()}} for c in self.checks]
        return {
            "chip": self.chip.name, "ok": self.ok, "checks": checks, "unknown": list(self.unknown),
            "partition": None if self.partition is None else self.partition.to_json(), "notes": list(self.notes),
        }  # fmt: skip

    def __str__(self) -> str:
        return self.table()


def fits(graph: Graph, chip: Chip) -> Fit:
    """Compare what a spiking network needs with what a chip has.

    Args:
        graph: spiking layers and weighted sums between them; zeros are no connections.
        chip: one of `CHIPS`, maybe with limits of your own (`Chip.with_limits`).

    Raises:
        UnsupportedError: the graph is no network of spiking neurons.
    """
    net = network(graph)
    checks = [*_structure(net, chip), *_sizes(net, chip), *_fans(net, chip)]
    spread: Partition | None = None
    notes = list(net.notes)
    if chip.limit("cores") is not None and "dense" not in chip.obstacles:
        try:
            spread = partition(net, chip)
        except UnsupportedError as error:
            notes.append(f"not spread over cores: {error}")
        else:
            checks += _cores(net, chip, spread)
    if not checks:
        notes.append("nothing was checked: no limit of this chip is known")
    unknown = tuple(n for n in chip.unknown)
    return Fit(chip, tuple(checks), unknown, spread, tuple(notes))


def _structure(net: Network, chip: Chip) -> Iterator[Check]:
    for p in net.neurons:
        if p.kind not in chip.cells:
            yield _cannot("cell", p.name, f"it has no {p.kind} neurons: train with {' or '.join(chip.cells)}")
        elif p.spiking and not _resets(p, chip):
            names = " or ".join(r.value for r in chip.resets)
            why = f"its neurons reset by {names}, this layer by {p.options.reset.value}: train with what the chip has"
            yield _cannot("reset", p.name, why)
    loop = next((c for c in net.projections if c.recurrent), None)
    if loop is not None and "recurrent" in chip.obstacles:
        yield _cannot("recurrence", loop.name, chip.obstacles["recurrent"])
    flat = next((c for c in net.projections if not c.recurrent and "weight" in c.name), None)
    if flat is not None and "dense" in chip.obstacles:
        yield _cannot("structure", flat.name, chip.obstacles["dense"])


def _cannot(what: str, layer: str, why: str) -> Check:
    return Check(what, layer, None, None, False, "how the chip works", why)


def _resets(p: Population, chip: Chip) -> bool:
    """Whether the chip has the reset of a layer; a delayed reset to zero that keeps its input fires alike at once."""
    reset, delay = p.options.reset, p.options.delay
    if len(chip.resets) == len(Reset):
        return True
    if Reset.ZERO in chip.resets and (reset is Reset.ZERO or (reset is Reset.ZERO_UPDATE and not delay)):
        return True
    return reset in chip.resets and not (reset is Reset.ZERO_UPDATE and delay)


def _sizes(net: Network, chip: Chip) -> Iterator[Check]:
    last = net.neurons[-1]
    inputs = sum(p.units for p in net.populations if p.kind == INPUT)
    hidden = [p for p in net.neurons if p is not last]
    biggest = max(hidden, key=lambda p: p.units).name if hidden else ""
    total = sum(p.units for p in net.neurons)
    sizes = {
        "inputs": (next((p.name for p in net.populations if p.kind == INPUT), ""), inputs),
        "hidden": (biggest, sum(p.units for p in hidden)),
        "outputs": (last.name, last.units),
        "neurons": (max(net.neurons, key=lambda p: p.units).name, total),
    }
    for name, (layer, needed) in sizes.items():
        if (allowed := chip.limit(name)) is None:
            continue
        over = needed - allowed
        cure = ""
        if over > 0 and name == "inputs":
            cure = f"take {over} inputs out or encode them in {allowed}"
        elif over > 0:
            cure = f"take {over} units out of '{layer}': rank_units names those to spare, remove_units takes them out"
        yield Check(name, layer, needed, allowed, over <= 0, chip.limits[name].source, cure)


def _fans(net: Network, chip: Chip) -> Iterator[Check]:
    last = net.neurons[-1].name
    inner = tuple(c for c in net.projections if net.population(c.pre).kind != INPUT and c.post != last)
    if (allowed := chip.limit("fan_in")) is not None:
        yield _fan("fan_in", net.projections, allowed, chip, axis=1)
    if (allowed := chip.limit("fan_out")) is not None and inner:
        yield _fan("fan_out", inner, allowed, chip, axis=0)
    hidden = sum(p.units for p in net.neurons if p.name != last)
    if (average := chip.limit("fan_out_average")) is not None and inner:
        total = _total("fan_out_average", inner, average * hidden, chip)
        yield replace(total, needed=-(-(total.needed or 0) // max(hidden, 1)), allowed=average)
    if (allowed := chip.limit("synapses")) is not None:
        yield _total("synapses", net.projections, allowed, chip)


def _fan(name: str, projections: tuple[Projection, ...], allowed: int, chip: Chip, *, axis: int) -> Check:
    """Connections of the busiest unit, over all weights that it has in common."""
    groups: dict[str, list[Projection]] = {}
    for c in projections:
        groups.setdefault(c.post if axis == 1 else c.pre, []).append(c)
    worst, layer = 0, ""
    patterns: dict[str, Pattern] = {}
    for members in groups.values():
        whole = np.concatenate([c.weight for c in members], axis=axis)
        count = np.count_nonzero(whole, axis=axis)
        if len(count) and count.max() > worst:
            worst = int(count.max())
            layer = max(members, key=lambda c: int(np.count_nonzero(c.weight, axis=axis).max(initial=0))).name
        if len(count) and count.max() > allowed:
            patterns |= _split(members, _strongest(whole, allowed, axis), axis)
    cure = _cure(patterns, f"keep the {allowed} strongest connections of every unit") if patterns else ""
    return Check(name, layer, worst, allowed, worst <= allowed, chip.limits[name].source, cure, patterns)


def _total(name: str, projections: tuple[Projection, ...], allowed: int, chip: Chip) -> Check:
    needed = sum(c.nnz for c in projections)
    layer = max(projections, key=lambda c: c.nnz).name if projections else ""
    patterns = _keep(projections, allowed) if needed > allowed else {}
    cure = _cure(patterns, f"keep the {allowed:,} strongest of {needed:,} connections") if patterns else ""
    return Check(name, layer, needed, allowed, needed <= allowed, chip.limits[name].source, cure, patterns)


def _strongest(weight: Array, count: int, axis: int) -> Array:
    """Mask of the ``count`` largest magnitudes along ``axis``; ties by position."""
    size = np.moveaxis(np.abs(weight), axis, -1)
    order = np.argsort(-size, axis=-1, kind="stable")
    mask = np.zeros(size.shape, bool)
    np.put_along_axis(mask, order[..., :count], True, axis=-1)
    return np.asarray(np.moveaxis(mask & (size > 0), -1, axis))


def _split(members: list[Projection], mask: Array, axis: int) -> dict[str, Pattern]:
    edges = np.cumsum([c.weight.shape[axis] for c in members])[:-1]
    parts = np.split(mask, edges, axis=axis)
    return {c.name: _pattern(c, part) for c, part in zip(members, parts, strict=True)}


def _keep(projections: tuple[Projection, ...], count: int) -> dict[str, Pattern]:
    """Patterns of the ``count`` strongest connections over several weights."""
    sizes = np.concatenate([np.abs(c.weight).reshape(-1) for c in projections])
    mask = np.zeros(sizes.size, bool)
    mask[np.argsort(-sizes, kind="stable")[: max(count, 0)]] = True
    mask &= sizes > 0
    edges = np.cumsum([c.weight.size for c in projections])[:-1]
    parts = np.split(mask, edges)
    return {c.name: _pattern(c, part.reshape(c.weight.shape)) for c, part in zip(projections, parts, strict=True)}


def _pattern(projection: Projection, mask: Array) -> Pattern:
    if projection.name.endswith(".hh_diag"):
        return Pattern.from_mask(np.diag(mask)[None], "what fits")
    return Pattern.from_mask(mask, "what fits")


def _cure(patterns: Mapping[str, Pattern], words: str) -> str:
    shares = ", ".join(f"'{name}' to {p.sparsity:.1%} sparsity" for name, p in patterns.items())
    return f"{words}: prune {shares} (Fit.pruned does)"


def _cores(net: Network, chip: Chip, spread: Partition) -> Iterator[Check]:
    allowed, needed = chip.limit("cores"), len(spread.cores)
    assert allowed is not None
    count = {p.name: sum(c.population == p.name for c in spread.cores) for p in net.neurons}
    layer = max(count, key=lambda n: count[n])
    patterns: dict[str, Pattern] = {}
    cure = ""
    if needed > allowed:
        patterns = _fewer_cores(net, chip, allowed)
        cure = (
            _cure(patterns, f"then {allowed} cores hold it")
            if patterns
            else f"'{layer}' takes {count[layer]} cores however sparse it is: take units out (rank_units, remove_units)"
        )
    yield Check("cores", layer, needed, allowed, needed <= allowed, chip.limits["cores"].source, cure, patterns)
    for name, value in (("out_axons_per_core", "out_axons"), ("in_axons_per_core", "in_axons")):
        if (most := chip.limit(name)) is not None:
            core = max(spread.cores, key=lambda c: int(getattr(c, value)))
            count_here = int(getattr(core, value))
            words = f"prune the connections that leave '{core.population}'" if count_here > most else ""
            yield Check(name, core.population, count_here, most, count_here <= most, chip.limits[name].source, words)
    if (most := chip.limit("synapse_bits_per_core")) is not None and chip.axon_bits is not None:
        core = max(spread.cores, key=lambda c: c.synapse_bits or 0)
        source = chip.limits["synapse_bits_per_core"].source
        yield Check("synapse_bits_per_core", core.population, core.synapse_bits, most, True, source)


def _fewer_cores(net: Network, chip: Chip, allowed: int) -> dict[str, Pattern]:
    """Patterns of the largest share of all connections, the strongest, with which the cores suffice; empty: none."""
    total = sum(c.nnz for c in net.projections)
    low, high = 0, 64  # in 64ths of all connections
    best: dict[str, Pattern] = {}
    while high - low > 1:
        middle = (low + high) // 2
        patterns = _keep(net.projections, total * middle // 64)
        thinner = replace(
            net, projections=tuple(replace(c, weight=_masked(c, patterns[c.name])) for c in net.projections)
        )
        try:
            enough = len(partition(thinner, chip).cores) <= allowed
        except UnsupportedError:
            enough = False
        if enough:
            low, best = middle, patterns
        else:
            high = middle
    return best


def _masked(projection: Projection, pattern: Pattern) -> Array:
    mask = np.diag(pattern.mask()[0]) if projection.name.endswith(".hh_diag") else pattern.mask()
    return projection.weight * mask
