"""Why a lattice kept or cut each neuron: a table, JSON, and the Hasse diagram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sparsecirc._lattice import Preorder, cut, members, pack, preorder
from sparsecirc.patterns._lattice._choice import Adjacency, Choice, Order, Settings, threshold_of_degree
from sparsecirc.patterns._lattice._draw import Diagram, Element, draw
from sparsecirc.patterns._lattice._system import Flags, System

DRAWN_DEGREE = 2.0
"""Connections per neuron in the drawing of a continuous adjacency, which has no threshold of its own."""
NAMED = 3
"""Neurons named in a reason before the rest is counted."""


@dataclass(frozen=True)
class NeuronReason:
    """One neuron.

    Attributes:
        name: ``"rnn.l0[17]"``.
        layer: its layer, or the input it belongs to.
        judged: whether it was judged; inputs and read-outs are not.
        kept: whether any of its connections survive.
        live_in: connections into it that survive, over all gates.
        live_out: connections out of it that survive, over all gates of their targets.
        irreducible: share of the thresholds at which it is irreducible; 0 or 1 for a binary adjacency.
        centrality: 0 to 1; 0 where it has no weight.
        level: longest chain below it.
        component: number of its component, counted from below.
        component_size: neurons in it.
        upper_covers: neurons right above it (of a component, its first).
        reason: in words.
    """

    name: str
    layer: str
    judged: bool
    kept: bool
    live_in: int
    live_out: int
    irreducible: float
    centrality: float
    level: int
    component: int
    component_size: int
    upper_covers: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class LatticeExplanation:
    """Every neuron of an adjacency.

    Attributes:
        gate: the gate it is of; empty where all gates are taken together.
        settings: what was asked for and found: adjacency, order, keep, threshold, components, ...
        neurons: in the order of the layers.
        diagram: the order that is drawn.
    """

    gate: str
    settings: dict[str, Any]
    neurons: tuple[NeuronReason, ...]
    diagram: Diagram = field(repr=False)

    def table(self) -> str:
        """Plain text, a line per neuron that is judged."""
        head = ("neuron", "", "irreducible", "level", "component", "in", "out", "why")
        rows = [
            (
                n.name, "kept" if n.kept else "cut", f"{n.irreducible:.3f}", str(n.level),
                f"{n.component} ({n.component_size})", str(n.live_in), str(n.live_out), n.reason,
            )
            for n in self.neurons if n.judged
        ]  # fmt: skip
        widths = [max(len(r[k]) for r in [head, *rows]) for k in range(len(head))]
        left = {0, 1, 7}
        lines = [
            "  ".join(c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in [head, *rows]
        ]
        title = ", ".join(f"{k} {v}" for k, v in self.settings.items() if v is not None)
        return "\n".join([f"lattice{f' of gate {self.gate}' if self.gate else ''}: {title}", *map(str.rstrip, lines)])

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        edges = [list(e) for e in self.diagram.edges]
        return {
            "gate": self.gate,
            "settings": self.settings,
            "neurons": [asdict(n) for n in self.neurons],
            "hasse": {"nodes": [e.label for e in self.diagram.elements], "edges": edges},
        }

    def critical(self, least: float = 1.0) -> dict[str, Flags]:
        """Flags of the critical neurons of each layer that is judged, for `remove_units` (structured pruning).

        Args:
            least: share of the thresholds at which a neuron has to be irreducible; below 1 for a continuous adjacency.
        """
        found: dict[str, list[bool]] = {}
        for n in self.neurons:
            if n.judged:
                found.setdefault(n.layer, []).append(n.irreducible >= least)
        return {layer: np.array(flags) for layer, flags in found.items()}

    def svg(self) -> str:
        """The Hasse diagram as a self-contained SVG; drawn in groups above 60 elements."""
        return draw(self.diagram)


def explain(choice: Choice, how: Settings, found: Sequence[Flags]) -> LatticeExplanation:
    """Why each neuron of ``choice`` keeps or loses its connections; ``found`` are the masks of its weights."""
    system = choice.system
    names = system.names()
    order = _shown_order(choice, how)
    live_in, live_out = _live(system, found)
    layer = [group for group, where in system.groups.items() for _ in where]
    first = [names[int(np.flatnonzero(order.component == c)[0])] for c in range(order.m)]
    upper = [members(order.upper_covers[c], order.m) for c in range(order.m)]
    neurons = []
    for k, name in enumerate(names):
        c = int(order.component[k])
        covers = tuple(first[q] for q in upper[c])
        neurons.append(
            NeuronReason(
                name=name,
                layer=layer[k],
                judged=bool(system.inner[k]),
                kept=bool(live_in[k] + live_out[k]),
                live_in=int(live_in[k]),
                live_out=int(live_out[k]),
                irreducible=float(choice.neuron[k]),
                centrality=float(choice.central[k]),
                level=int(order.level[c]),
                component=c,
                component_size=int(order.sizes[c]),
                upper_covers=covers,
                reason=_reason(choice, how, order, c, k, covers),
            )
        )
    settings = {
        "adjacency": how.adjacency.value,
        "order": how.order.value,
        "keep": how.keep.value,
        "irreducible by": "joins" if how.join else "meets",
        "threshold": None if choice.threshold is None else float(f"{choice.threshold:.4g}"),
        "centrality": how.centrality or None,
        "neurons": system.n,
        "components": order.m,
        "irreducible": int(np.sum(choice.neuron[system.inner] >= 1)) if how.adjacency is Adjacency.BINARY else None,
    }
    return LatticeExplanation(system.gate, settings, tuple(neurons), _diagram(choice, order, names))


def _shown_order(choice: Choice, how: Settings) -> Preorder:
    """The order to speak of: the one that was judged by, or, where there are many, one of them."""
    system = choice.system
    level = choice.threshold
    if level is None:
        level = threshold_of_degree(system, DRAWN_DEGREE)
    if how.order is Order.TIME:  # extents by inclusion
        extents = choice.edges > level
        outside = extents.astype(np.float32) @ (~extents).T.astype(np.float32)
        inside = outside == 0  # [p, q] what p has, q has
        return preorder(pack(inside.T))
    return choice.order or preorder(cut(choice.edges, level))


def _live(system: System, found: Sequence[Flags]) -> tuple[np.ndarray, np.ndarray]:
    live_in, live_out = np.zeros(system.n, dtype=int), np.zeros(system.n, dtype=int)
    for block, mask in zip(system.blocks, found, strict=True):
        shaped = mask.reshape(block.matrix.n_gates, len(block.rows), len(block.cols))
        live_in[block.rows] += shaped.sum(axis=(0, 2))
        live_out[block.cols] += shaped.sum(axis=(0, 1))
    return live_in, live_out


def _reason(choice: Choice, how: Settings, order: Preorder, c: int, k: int, covers: tuple[str, ...]) -> str:
    if not choice.system.inner[k]:
        return "not judged: an input or a read-out"
    if how.adjacency is Adjacency.CONTINUOUS:
        return f"irreducible at {choice.neuron[k]:.1%} of all thresholds"
    size = int(order.sizes[c])
    among = f"with {size - 1} others on cycles, " if size > 1 else ""
    near, sets = (order.covers, order.up) if how.join else (order.upper_covers, order.down)
    beside = members(near[c], order.m)
    word, side, end = ("join", "below", "least") if how.join else ("meet", "above", "greatest")
    if choice.neuron[k] < 1:
        if not len(beside):
            return f"reducible: {among}the {end} element"
        return f"reducible: {among}the {word} of {_list(covers) if not how.join else f'the {len(beside)} below it'}"
    if not len(beside):
        return f"irreducible: {among}nothing {side} it, and it is not the {end} element"
    if len(beside) == 1:
        return f"irreducible: {among}one neuron right {side} it"
    meet = np.bitwise_and.reduce(sets[beside], axis=0) & ~sets[c]
    other = int(np.flatnonzero(order.component == int(members(meet, order.m)[0]))[0])
    name = choice.system.names()[other]
    apart = "above" if how.join else "below"
    return f"irreducible: {among}{name} is {apart} all {len(beside)} right {side} it, and not {apart} it"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"


def _diagram(choice: Choice, order: Preorder, names: Sequence[str]) -> Diagram:
    groups = list(choice.system.groups)
    short = [name.rpartition("[")[2].rstrip("]") for name in names] if len(groups) == 1 else names

    def elements() -> Iterator[Element]:
        for c in range(order.m):
            inside = np.flatnonzero(order.component == c)
            label = short[inside[0]] + (f" +{len(inside) - 1}" if len(inside) > 1 else "")
            judged = choice.system.inner[inside].any()
            worth = float(choice.neuron[inside].max()) if judged else None
            yield Element(label, int(order.level[c]), len(inside), worth)

    edges = [(int(j), i) for i in range(order.m) for j in members(order.covers[i], order.m)]
    return Diagram(tuple(elements()), tuple(edges), f"neurons of {', '.join(groups)}; a neuron acts on those above")
