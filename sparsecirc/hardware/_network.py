"""A spiking graph as chips and simulators see it: populations of neurons, and lists of connections between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cells import Options, Reset
from sparsecirc.errors import UnsupportedError
from sparsecirc.export.nir._prepare import expand, owners
from sparsecirc.ir import Add, Context, Conv, Flatten, Graph, Input, Linear, Node, Pool, Recurrent, Repeat
from sparsecirc.ir import Affine as AffineNode

Array = NDArray[np.float64]
UNROLL = 2**26
"""Most entries of a matrix that a convolution is unrolled to."""
INPUT = "input"
"""Kind of the population that an input is."""
ONES = "ones"
"""Kind of a single unit that spikes in every step; see `with_ones`."""
SOURCES = (INPUT, ONES)


@dataclass(frozen=True)
class Population:
    """Neurons of one layer, or an input.

    Attributes:
        name: of the layer or the input.
        units: how many.
        kind: name of the cell (``"lif"``, ``"synaptic"``, ``"alif"``, ``"li"``), or ``"input"``.
        vectors: the cell's parameters, each (units,) in float64; without ``"input"``.
        bias: constant drive per step, (units,); zeros where there is none.
        options: how a spike resets the membrane.
    """

    name: str
    units: int
    kind: str
    vectors: Mapping[str, Array]
    bias: Array
    options: Options

    @property
    def spiking(self) -> bool:
        """Whether it can fire: an input counts, a leaky integrator does not."""
        return self.kind != "li"


@dataclass(frozen=True)
class Projection:
    """Connections from one population to another.

    Attributes:
        name: the weight that they come from, e.g. ``"fc1.weight"`` or ``"lif1.hh"``; several joined by ``" * "``.
        pre, post: names of the populations.
        weight: (units of post, units of pre), float64; zero where there is no connection.
        recurrent: whether it carries the spikes of the step before; else those of the same step.
    """

    name: str
    pre: str
    post: str
    weight: Array
    recurrent: bool = False

    @cached_property
    def connections(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Presynaptic index, postsynaptic index and weight of each connection, sorted by the presynaptic one."""
        pre, post = np.nonzero(self.weight.T)
        return pre, post, self.weight[post, pre]

    @property
    def nnz(self) -> int:
        """Connections."""
        return int(np.count_nonzero(self.weight))

    def fan_in(self) -> NDArray[np.int64]:
        """Connections that reach each postsynaptic unit."""
        return np.asarray(np.count_nonzero(self.weight, axis=1))

    def fan_out(self) -> NDArray[np.int64]:
        """Connections that leave each presynaptic unit."""
        return np.asarray(np.count_nonzero(self.weight, axis=0))


@dataclass(frozen=True)
class Network:
    """Populations in order of computation, and the projections between them.

    Attributes:
        populations: inputs first as they are met.
        projections: feed-forward ones go from an earlier population to a later one.
        outputs: output of the graph -> population and state (``"spk"``, ``"mem"``, ...), for those that are one.
        dt: seconds per step, or ``None``.
        notes: what was left to the host, in words.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    outputs: Mapping[str, tuple[str, str]]
    dt: float | None
    notes: tuple[str, ...] = ()

    def population(self, name: str) -> Population:
        """The population of that name."""
        return next(p for p in self.populations if p.name == name)

    @property
    def neurons(self) -> tuple[Population, ...]:
        """The populations that are not inputs."""
        return tuple(p for p in self.populations if p.kind not in SOURCES)

    @cached_property
    def depths(self) -> dict[str, int]:
        """By population: the most feed-forward connections one after the other from an input to it.

        A simulator in which every connection takes one step gives the spikes of a population so many steps late.
        """
        found: dict[str, int] = {}
        for p in self.populations:
            before = [found[c.pre] for c in self.into(p.name) if not c.recurrent]
            found[p.name] = 1 + max(before, default=0) if p.kind not in SOURCES else 0
        return found

    def delay(self, projection: Projection) -> int:
        """Steps that a connection takes where every one takes at least one; more where it skips layers."""
        return 1 if projection.recurrent else self.depths[projection.post] - self.depths[projection.pre]

    def into(self, name: str) -> tuple[Projection, ...]:
        """Projections that end at a population."""
        return tuple(p for p in self.projections if p.post == name)

    def out_of(self, name: str) -> tuple[Projection, ...]:
        """Projections that start at a population."""
        return tuple(p for p in self.projections if p.pre == name)


def with_ones(net: Network) -> Network:
    """The same network, biases that enter synapses turned into connections from a unit that spikes in every step.

    Chips add a bias to the membrane, past the synapse.
    """
    biased = [p for p in net.neurons if p.kind == "synaptic" and np.any(p.bias)]
    if not biased:
        return net
    name = "ones"
    while any(p.name == name for p in net.populations):
        name += "_"
    unit = Population(name, 1, ONES, {}, np.zeros(1), Options())
    links = tuple(Projection(f"{p.name}.bias", name, p.name, p.bias[:, None]) for p in biased)
    plain = tuple(replace(p, bias=np.zeros(p.units)) if p in biased else p for p in net.populations)
    return replace(net, populations=(unit, *plain), projections=(*links, *net.projections))


def one_threshold(net: Network) -> Network:
    """The same spikes with one threshold per layer: what enters a unit is scaled instead, where layers reset to zero.

    Layers of a threshold that is not above 0, and those that subtract it, stay as they are.
    """
    factor: dict[str, Array] = {}
    for p in net.neurons:
        theta = p.vectors.get("threshold", np.ones(1))
        if p.options.reset is not Reset.SUBTRACT and np.any(theta != theta[0]) and np.all(theta > 0):
            factor[p.name] = theta.max() / theta
    populations = tuple(
        replace(p, vectors={**p.vectors, "threshold": p.vectors["threshold"] * f}, bias=p.bias * f)
        if (f := factor.get(p.name)) is not None
        else p
        for p in net.populations
    )
    projections = tuple(
        replace(c, weight=c.weight * factor[c.post][:, None]) if c.post in factor else c for c in net.projections
    )
    return replace(net, populations=populations, projections=projections)


@dataclass
class _Drive:
    """What reaches a layer: a matrix per source, and a constant."""

    matrices: dict[str, tuple[str, Array]]  # population -> name of the weight, (units, units of the population)
    bias: Array


def network(graph: Graph) -> Network:
    """The populations and connections of a spiking graph.

    Linear layers, scalings, convolutions, average pools and sums between two layers of neurons become one matrix.
    What comes after the last neurons is left to the host, with a note.

    Raises:
        UnsupportedError: there are no spiking neurons, or something between them is no weighted sum of spikes.
    """
    if not graph.spiking:
        raise UnsupportedError("the network has no spiking layer: neuromorphic targets run spikes, see export_c and "
                               "export_onnx for others")  # fmt: skip
    flat = expand(graph)
    walker = _Walker(flat, frozenset(n.name for n in graph.nodes))
    populations: list[Population] = []
    projections: list[Projection] = []
    for node in flat.nodes:
        if isinstance(node, Input):
            populations.append(_input(node))
        elif isinstance(node, Recurrent):
            drive = walker.drive(node.inputs[0], node.name)
            populations.append(_neurons(node, drive.bias))
            projections += [Projection(name, pre, node.name, m) for pre, (name, m) in drive.matrices.items()]
            for role in ("hh", "hh_diag"):
                if role in node.params:
                    if not node.cell.spiking:
                        raise UnsupportedError(
                            f"layer '{node.name}' feeds its membranes back, not spikes: no neuromorphic target does; "
                            "export it to ONNX or C"
                        )
                    weight = node.weight(role).astype(np.float64)
                    matrix = np.diag(weight.reshape(-1)) if role == "hh_diag" else weight
                    projections.append(Projection(f"{node.name}.{role}", node.name, node.name, matrix, True))
    outputs, notes = _outputs(flat, walker)
    used = {p.pre for p in projections}
    kept = tuple(p for p in populations if p.kind != INPUT or p.name in used)
    return Network(kept, tuple(projections), outputs, graph.dt, notes)


def _input(node: Input) -> Population:
    units = int(np.prod(node.shape))
    return Population(node.name, units, INPUT, {}, np.zeros(units), Options())


def _neurons(node: Recurrent, bias: Array) -> Population:
    if not node.cell.vectors:
        raise UnsupportedError(
            f"layer '{node.name}' is a {node.cell.name}, which does not fire: neuromorphic targets hold neurons only; "
            "export it to ONNX or C"
        )
    if node.reverse:
        raise UnsupportedError(f"layer '{node.name}' runs backwards in time, which no neuromorphic target does")
    vectors = {
        k: np.broadcast_to(v, node.feature_shape or (node.units,)).astype(np.float64).reshape(-1)
        for k, v in node.vectors().items()
    }
    return Population(node.name, node.units, node.cell.name, vectors, bias, node.options)


@dataclass
class _Walker:
    graph: Graph
    given: frozenset[str]  # nodes of the user; the others are input weights of a layer, which is their name

    def __post_init__(self) -> None:
        self.owner = owners(self.graph)

    def drive(self, value: str, reader: str) -> _Drive:
        """The matrices through which populations reach ``value``."""
        node = self.owner[value]
        size = int(np.prod(self.graph.specs[value].shape))
        if isinstance(node, Repeat):
            return self.drive(node.inputs[0], reader)
        if isinstance(node, Input):
            return _Drive({node.name: ("", np.eye(size))}, np.zeros(size))
        if isinstance(node, Recurrent):
            if not node.cell.spiking or value not in (node.name, f"{node.name}.spk"):
                raise UnsupportedError(
                    f"layer '{reader}' reads membranes or synapses of '{node.name}': neuromorphic targets pass spikes "
                    "only"
                )
            return _Drive({node.name: ("", np.eye(size))}, np.zeros(size))
        if isinstance(node, Add) and node.kind == "add":
            parts = [self.drive(i, reader) for i in node.inputs]
            total = parts[0]
            for part in parts[1:]:
                total = _plus(total, part)
            return total
        if isinstance(node, Flatten):
            return self.drive(node.inputs[0], reader)
        if isinstance(node, Linear | AffineNode | Conv) or (isinstance(node, Pool) and node.how == "avg"):
            return self._through(node, reader)
        raise UnsupportedError(
            f"node '{node.name}' ({getattr(node, 'fn', node.kind)}) before layer '{reader}' is no weighted sum of "
            "spikes: neuromorphic targets cannot hold it; take it out or export to ONNX or C"
        )

    def _through(self, node: Node, reader: str) -> _Drive:
        before = self.drive(node.inputs[0], reader)
        name = f"{node.name}.weight" if "weight" in node.params and node.name in self.given else node.name
        shape = self.graph.specs[node.inputs[0]].shape
        if isinstance(node, Linear) and len(shape) == 1:
            matrix = node.weight("weight").astype(np.float64)
            bias = np.asarray(node.params.get("bias", np.zeros(len(matrix))), dtype=np.float64)
        else:
            matrix, bias = _unrolled(self.graph, node, shape)
        found = {}
        for pre, (inner, m) in before.matrices.items():
            whole = matrix if not inner else matrix @ m
            found[pre] = (f"{inner} * {name}" if inner else name, whole)
        return _Drive(found, matrix @ before.bias + bias)


def _unrolled(graph: Graph, node: Node, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Matrix and constant of a node that is linear, found by its answers to zeros and to each unit vector."""
    units, out = int(np.prod(shape)), int(np.prod(graph.specs[node.name].shape))
    if units * out > UNROLL:
        raise UnsupportedError(
            f"node '{node.name}' would unroll to {out} x {units} connections, more than {UNROLL:,}: use a smaller input"
        )
    probe = np.concatenate([np.zeros((1, units)), np.eye(units)]).reshape(1, units + 1, *shape)
    values, _ = node.compute([probe], {}, Context(np.float64, None))
    answers = np.asarray(values[""], dtype=np.float64).reshape(units + 1, out)
    matrix = (answers[1:] - answers[0]).T
    exact = np.abs(matrix) > 1e-12 * max(float(np.abs(answers).max(initial=0.0)), 1e-30)
    return np.where(exact, matrix, 0.0), answers[0]


def _plus(a: _Drive, b: _Drive) -> _Drive:
    found = dict(a.matrices)
    for pre, (name, matrix) in b.matrices.items():
        found[pre] = (f"{found[pre][0]} + {name}", found[pre][1] + matrix) if pre in found else (name, matrix)
    return _Drive(found, a.bias + b.bias)


def _outputs(graph: Graph, walker: _Walker) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Outputs that are a state of a population, and words on the others."""
    found: dict[str, tuple[str, str]] = {}
    notes: list[str] = []
    for name, value in graph.outputs.items():
        tail: list[str] = []
        node: Any = walker.owner[value]
        while not isinstance(node, Recurrent | Input) and node.inputs:
            tail.append(node.name)
            value = node.inputs[0]
            node = walker.owner[value]
        if isinstance(node, Recurrent):
            found[name] = (node.name, value.removeprefix(node.name).lstrip(".") or node.ports()[0])
        if tail:
            notes.append(f"output '{name}': {', then '.join(reversed(tail))} is left to the host")
    return found, tuple(notes)
