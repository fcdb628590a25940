"""NIR files and graphs into a `Graph`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LI
from sparsecirc.errors import SparsecircError, UnsupportedError
from sparsecirc.export.nir._euler import NIR_DT, FlatGraph, conv_padding, flatten, kind, pairs, schedule
from sparsecirc.export.nir._metadata import read_pattern, unpack
from sparsecirc.frontends._nir_file import check_size, check_values, read_nir
from sparsecirc.frontends._nir_neurons import Group, constant_input, find_groups, membrane, parameters
from sparsecirc.ir import Add, Affine, Conv, Flatten, Graph, Input, Linear, Node, Pool, Recurrent, Spec

Array = NDArray[Any]
LONGEST_DELAY = 4096
"""Values that one Delay may hold at a time: its layer has that many units, and a matrix over them."""


def from_nir(path_or_graph: str | os.PathLike[str] | Any, *, dt: float | None = None) -> Graph:
    """A graph with the spikes that forward Euler gives for a NIR file.

    Recognised: Affine, Linear, Scale, Conv1d, Conv2d, Flatten, SumPool2d, AvgPool2d, Delay, LIF, CubaLIF, IF, LI,
    CubaLI, I and Threshold, recurrent connections nested or flat, and resets by subtraction as this package writes
    them. A recurrent connection acts one step later, and membranes start at their ``v_reset``. Leaks whose membranes
    nobody compares with a threshold become leaky integrators, a leak between a Threshold and itself an adaptation,
    and a Delay by whole steps a layer that hands values on. Sequences are (T, B, ...).

    Args:
        path_or_graph: a file, or a ``nir.NIRGraph``, which is not changed.
        dt: seconds per step for which the time constants are meant; by default 1e-4, which NIR's readers assume.

    Raises:
        FileFormatError: the file is missing, truncated or not a NIR file; it points at other files, or claims more than
            it holds; or a value is no finite number.
        UnsupportedError: a node, or a cycle, that no cell here gives exactly; named.
        MissingExtraError: the package ``nir`` is not installed.
    """
    is_path = isinstance(path_or_graph, str | os.PathLike)
    graph = read_nir(path_or_graph) if is_path else path_or_graph
    check_values(graph)
    flat = flatten(graph)
    order, delayed = schedule(flat)
    step = NIR_DT if dt is None else dt
    reader = _Reader(flat, step, find_groups(flat, order, step))
    reader.check_cycles(delayed)
    for path in order:
        reader.visit(path)
    info = unpack(graph)
    told = info.get("dt")
    seconds = told if dt is None and isinstance(told, float) and told > 0 else step
    meta = {"source": "nir", "file": Path(path_or_graph).name if is_path else None, "profile": info.get("profile")}
    outputs = {
        name: value for _, (name, value) in sorted(reader.outputs.items())
    }  # the order in which they were written
    return Graph(tuple(reader.nodes), outputs, dt=seconds, meta={k: v for k, v in meta.items() if v})


@dataclass
class _Reader:
    flat: FlatGraph
    dt: float
    groups: list[Group]
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[str, tuple[str, str]] = field(default_factory=dict)  # NIR path -> name and value
    values: dict[str, str] = field(default_factory=dict)  # NIR path -> value of ours
    specs: dict[str, Spec] = field(default_factory=dict)
    scaled: dict[str, tuple[str, Array]] = field(
        default_factory=dict
    )  # NIR path -> value and gain, where that is not 1

    def __post_init__(self) -> None:
        self.of = {m: g for g in self.groups for m in g.members}

    def check_cycles(self, delayed: set[tuple[str, str]]) -> None:
        """Refuse cycles, and delays, that are not those of a layer."""
        known = {e for g in self.groups for e in g.delayed}
        for a, b in sorted(delayed ^ known):
            raise UnsupportedError(
                f"the NIR graph has a cycle through '{a}' and '{b}' that no layer here has: known are LIF, IF or "
                "CubaLIF with one Linear or Affine back to itself, and LI -> Threshold with a Linear of -threshold back"
            )

    def visit(self, path: str) -> None:
        group = self.of.get(path)
        if group is not None:
            if path == group.entry:
                self._layer(group)
            return
        node = self.flat.nodes[path]
        if kind(node) == "Input":
            shape = tuple(int(n) for n in np.ravel(node.input_type["input"])) if path in self.flat.inputs else None
            if shape is not None:
                self.values[path] = self._add(
                    Input(self._label(path), shape=shape, time=True, spiking=unpack(node).get("spiking") is True)
                )
                return
        value = self._input(path)
        if kind(node) == "Output" and path in self.flat.outputs:
            name = str(unpack(node).get("name") or path)
            self.outputs[path] = (path if name in {n for n, _ in self.outputs.values()} else name, value)
        elif kind(node) in ("Input", "Output"):
            self.values[path] = value
        else:
            self.values[path] = self._stateless(path, node, value)

    # ---- names and values ---------------------------------------------------------------------------------------
    def _label(self, path: str, ending: str = "") -> str:
        told = unpack(self.flat.nodes[path]).get("name")
        base = (told if isinstance(told, str) and told else path.replace("/", ".")) + ending
        name, k = base, 2
        while name in self.specs:
            name, k = f"{base}_{k}", k + 1
        return name

    def _add(self, node: Node) -> str:
        for port, spec in node.infer([self.specs[i] for i in node.inputs]).items():
            check_size(node.name, tuple(spec.shape))
            self.specs[f"{node.name}.{port}" if port else node.name] = spec
        if node.name not in self.specs:
            self.specs[node.name] = self.specs[f"{node.name}.{node.ports()[0]}"]
        self.nodes.append(node)
        return node.name

    def _input(self, path: str) -> str:
        """The value that feeds a NIR node from outside its own layer, summed where there are several."""
        group = self.of.get(path)
        sources = [s for s in self.flat.sources(path) if group is None or s not in group.members]
        for layer in self.groups:
            if layer.lowered and {layer.mem, layer.lowered} & set(sources):
                if not {layer.mem, layer.lowered} <= set(sources):
                    raise UnsupportedError(
                        f"NIR node '{path}' reads the membrane '{layer.mem}' before its reset, which no layer puts out"
                    )
                sources.remove(layer.lowered)
        terms = [self._value(s) for s in sources]
        if len(terms) == 1:
            return terms[0]
        return self._add(Add(self._label(path, ".sum"), tuple(terms)))

    def _value(self, source: str) -> str:
        if source in self.scaled:
            value, gain = self.scaled.pop(source)
            self.values[source] = self._add(Affine(self._label(source, ".gain"), (value,), {"scale": gain}))
        if source not in self.values:
            raise UnsupportedError(f"NIR node '{source}' is inside a neuron, but another node reads it")
        return self.values[source]

    # ---- nodes --------------------------------------------------------------------------------------------------
    def _stateless(self, path: str, node: Any, value: str) -> str:
        name, label, shape = kind(node), self._label(path), self.specs[value].shape
        if name in ("Affine", "Linear"):
            weight = np.asarray(node.weight)
            if weight.ndim != 2:
                raise UnsupportedError(f"NIR node '{path}' has a weight of {weight.ndim} axes: expected 2")
            params = {"weight": weight} | ({"bias": np.asarray(node.bias)} if name == "Affine" else {})
            return self._add(Linear(label, (value,), params, self._patterns(node, weight)))
        if name == "Scale":
            return self._add(Affine(label, (value,), {"scale": np.asarray(node.scale)}))
        if name in ("Conv1d", "Conv2d"):
            return self._conv(label, path, node, value)
        if name in ("SumPool2d", "AvgPool2d"):
            return self._pool(label, path, node, value)
        if name == "Flatten":
            return self._flatten(label, path, node, value, shape)
        if name == "Delay":
            return self._delay(label, path, node, value, shape)
        raise UnsupportedError(f"NIR node '{path}' is a {name}, which no layer here can hold")

    @staticmethod
    def _patterns(node: Any, weight: Array) -> dict[str, Pattern]:
        pattern = read_pattern(unpack(node).get("pattern"), weight.reshape(len(weight), -1))
        return {} if pattern is None else {"weight": pattern}

    def _conv(self, label: str, path: str, node: Any, value: str) -> str:
        n = int(kind(node)[4])
        padding, dilation = conv_padding(node, n), pairs(node.dilation, n)
        weight = np.asarray(node.weight)
        if any(a != b for a, b in padding):  # only "same" of an even kernel: one zero more behind than before
            if any(a != b and d != 1 for (a, b), d in zip(padding, dilation, strict=True)):
                raise UnsupportedError(
                    f"NIR node '{path}' pads its two sides differently ({padding}), which no dilated kernel here does"
                )
            weight = np.pad(weight, [(0, 0), (0, 0), *((b - a, 0) for a, b in padding)])
        return self._add(
            Conv(
                label,
                (value,),
                {"weight": weight, "bias": np.asarray(node.bias)},
                self._patterns(node, weight),
                stride=pairs(node.stride, n),
                padding=tuple(b for _, b in padding),
                dilation=dilation,
                groups=int(node.groups),
            )
        )

    def _pool(self, label: str, path: str, node: Any, value: str) -> str:
        kernel, stride, average = pairs(node.kernel_size, 2), pairs(node.stride, 2), kind(node) == "AvgPool2d"
        places = kernel[0] * kernel[1]
        if np.any(np.asarray(node.padding)):  # zeros around count as values: one kernel of equal weights per channel
            channels = self.specs[value].shape[0]
            weight = np.full((channels, 1, *kernel), 1 / places if average else 1.0)
            padding = pairs(node.padding, 2)
            return self._add(
                Conv(
                    label,
                    (value,),
                    {"weight": weight},
                    stride=stride,
                    padding=padding,
                    dilation=(1, 1),
                    groups=channels,
                )
            )
        pooled = self._add(Pool(label, (value,), how="avg", kernel=kernel, stride=stride))
        if average:
            return pooled
        size = np.array([places], np.float32)
        return self._add(Affine(self._label(path, ".sum"), (pooled,), {"scale": size}))

    def _delay(self, label: str, path: str, node: Any, value: str, shape: tuple[int, ...]) -> str:
        """A shift register: integrators without memory (beta 0), each of which takes what the one before it held."""
        told = np.asarray(node.delay, dtype=np.float64) / self.dt
        if not np.all(np.isfinite(told)) or np.any(told < 0) or np.any(np.abs(told - np.rint(told)) > 1e-3):
            raise UnsupportedError(
                f"NIR node '{path}' delays by {np.min(told):g} to {np.max(told):g} steps of {self.dt:g} s: expected "
                "whole steps from 0; pass the step the file was made for as dt"
            )
        if not np.any(np.rint(told)):
            return value
        if len(shape) != 1 or told.size not in (1, shape[0]):
            raise UnsupportedError(f"NIR node '{path}' delays values of shape {shape}: only rows of features here")
        steps = np.broadcast_to(np.rint(told).ravel(), shape)
        places = int(np.sum(steps + 1)) if np.sum(steps) < LONGEST_DELAY else LONGEST_DELAY + 1
        if places > LONGEST_DELAY:
            raise UnsupportedError(
                f"NIR node '{path}' keeps {np.sum(steps):.0f} values at a time: at most {LONGEST_DELAY} are held here"
            )
        last = np.cumsum(steps.astype(int) + 1) - 1
        first = np.concatenate([[0], last[:-1] + 1])
        units = np.arange(len(steps))
        take, shift, give = np.zeros((places, len(steps))), np.eye(places, k=-1), np.zeros((len(steps), places))
        take[first, units] = give[units, last] = 1
        shift[first] = 0
        params = {"ih": take, "hh": shift, "beta": np.zeros(places)}
        patterns = {k: Pattern.from_mask(params[k] != 0) for k in ("ih", "hh")}
        register = self._add(
            Recurrent(self._label(path, ".register"), (value,), params, patterns, cell=LI, units=places)
        )
        return self._add(Linear(label, (register,), {"weight": give}, {"weight": Pattern.from_mask(give != 0)}))

    def _flatten(self, label: str, path: str, node: Any, value: str, shape: tuple[int, ...]) -> str:
        first, last = int(node.start_dim), int(node.end_dim) % max(len(shape), 1)
        whole = all(self._takes(t, int(np.prod(shape))) for t in self.flat.targets(path))
        # Files made from torch count the batch as axis 0: what follows tells whether a start of 1 means all features.
        if last != len(shape) - 1 or not (first == 0 or (first == 1 and whole)):
            raise UnsupportedError(f"NIR node '{path}' joins axes {first} to {last} of {shape}: expected all of them")
        return value if len(shape) == 1 else self._add(Flatten(label, (value,), axes=len(shape)))

    def _takes(self, path: str, size: int) -> bool:
        node = self.flat.nodes[path]
        expected = getattr(node, "input_type", None) or {}
        return all(v is not None and np.array_equal(np.ravel(v), [size]) for v in expected.values())

    def _layer(self, group: Group) -> None:
        value = self._input(group.entry)
        shape = self.specs[value].shape
        if kind(self.flat.nodes[group.mem]) == "CubaLI" and group.integrates:
            value = self._synapse(group.mem, value, shape)
        try:
            cell, vectors, options, gains = parameters(self.flat, group, shape, self.dt)
            drive = constant_input(self.flat, group, self.dt)
            if np.any(drive):
                shift = np.ascontiguousarray(np.broadcast_to(drive, shape))
                value = self._add(Affine(self._label(group.entry, ".leak"), (value,), {"shift": shift}))
        except ValueError as error:
            if isinstance(error, SparsecircError):
                raise
            raise UnsupportedError(
                f"NIR node '{group.mem}' is given values of shape {shape}, which its own parameters do not fit"
            ) from error
        params: dict[str, Array] = {k: v.reshape(-1) for k, v in vectors.items()}
        patterns: dict[str, Pattern] = {}
        units = int(np.prod(shape))
        if group.rec:
            self._recurrence(group, units, params, patterns)
        if group.integrates and "hh" in params:
            params["hh"] = params["hh"] * gains["mem"].reshape(1, -1)
        elif group.integrates and "hh_diag" in params:
            params["hh_diag"] = params["hh_diag"] * gains["mem"].reshape(-1)
        name = self._label(group.mem)
        inner = () if len(shape) == 1 else shape
        self._add(
            Recurrent(name, (value,), params, patterns, cell=cell, units=units, options=options, feature_shape=inner)
        )
        if group.spike:
            self.values[group.spike] = f"{name}.spk"
        for part, port in ((group.syn, "syn"), (group.mem if group.holds_membrane else "", "mem")):
            if part and np.allclose(gains[port], 1, rtol=1e-12, atol=0):
                self.values[part] = f"{name}.{port}"
            elif part:
                self.scaled[part] = (f"{name}.{port}", gains[port])

    def _synapse(self, path: str, value: str, shape: tuple[int, ...]) -> str:
        """The synapse of a CubaLI, as an integrator of its own before that of the membrane."""
        leak = membrane(path, self.flat.nodes[path], self.dt, "syn")
        params = {"beta": np.ascontiguousarray(np.broadcast_to(leak.decay, shape)).reshape(-1)}
        inner = () if len(shape) == 1 else shape
        name = self._label(path, ".syn")
        return self._add(Recurrent(name, (value,), params, cell=LI, units=int(np.prod(shape)), feature_shape=inner))

    def _recurrence(self, group: Group, units: int, params: dict[str, Array], patterns: dict[str, Pattern]) -> None:
        node = self.flat.nodes[group.rec]
        info, weight = unpack(node), np.asarray(node.weight)
        if weight.shape != (units, units):
            raise UnsupportedError(
                f"NIR node '{group.rec}' has a recurrent weight of shape {weight.shape}: expected {(units, units)}"
            )
        diagonal = units > 1 and bool(np.any(weight)) and not np.any(weight - np.diag(np.diag(weight)))
        if info.get("role") in ("hh", "hh_diag"):
            diagonal = info["role"] == "hh_diag" and not np.any(weight - np.diag(np.diag(weight)))
        role = "hh_diag" if diagonal else "hh"
        params[role] = np.diag(weight).copy() if diagonal else weight
        pattern = read_pattern(info.get("pattern"), params[role].reshape(1, -1) if diagonal else weight)
        if pattern is not None:
            patterns[role] = pattern
        if kind(node) == "Affine":
            params["bias_hh"] = np.asarray(node.bias)
