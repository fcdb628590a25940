"""The judge: a NIR graph run in float64 by the forward Euler method, in plain numpy and without importing ``nir``.

One step of a neuron with time constant tau, resistance r and step dt is, with k = dt / tau,

    v~ = (1 - k) v + r k I + k v_leak;   z = v~ > theta (strictly);   v = v_reset where z, else v~

and a synapse (CubaLI, CubaLIF) i = (1 - k_syn) i + w_in k_syn I is updated first, its new value feeding the membrane.
``IF`` and ``I`` have k = 0 and a gain of r dt. NIR does not say where states start: here membranes start at their
``v_reset``, everything else at zero. A ``Delay`` gives zeros until its first value arrives.

NIR does not say which edge of a cycle carries the delay that any clocked run needs. Here it is each edge that closes a
cycle when the graph is walked depth first from its inputs, along edges in the order of node names: for
``input -> lif <-> w_rec`` the edge from ``w_rec`` back to ``lif``. Before the first step such an edge carries what its
source gives for a silent network: the bias of an Affine, else zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import UnsupportedError, UsageError

Array = NDArray[Any]
NIR_DT = 1e-4
"""Seconds per step that readers of NIR files assume; the file itself does not hold it."""


@dataclass(frozen=True)
class EulerRun:
    """What one run gave; every array is (T, B, ...).

    Attributes:
        outputs: by name of the Output node.
        spikes: by path of each spiking node (``"a/lif"`` for node ``lif`` inside node ``a``).
        margins: like ``spikes``: (v~ - theta) / theta, or v~ where theta is 0.
    """

    outputs: dict[str, Array]
    spikes: dict[str, Array]
    margins: dict[str, Array]


@dataclass(frozen=True)
class FlatGraph:
    """A NIR graph without nesting: inputs and outputs of inner graphs have become plain pass-through nodes.

    Attributes:
        nodes: by path.
        edges: (source, target).
        inputs: Input nodes of the outermost graph.
        outputs: Output nodes of the outermost graph.
    """

    nodes: dict[str, Any]
    edges: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def sources(self, name: str) -> list[str]:
        """Nodes that feed ``name``, in name order."""
        return self._sides[0].get(name, [])

    def targets(self, name: str) -> list[str]:
        """Nodes that ``name`` feeds, in name order."""
        return self._sides[1].get(name, [])

    @cached_property
    def _sides(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Sources by node, and targets by node."""
        sources: dict[str, list[str]] = {}
        targets: dict[str, list[str]] = {}
        for a, b in sorted(self.edges):
            sources.setdefault(b, []).append(a)
            targets.setdefault(a, []).append(b)
        return sources, targets


def kind(node: Any) -> str:
    """Name of the NIR primitive."""
    return type(node).__name__


def flatten(graph: Any) -> FlatGraph:
    """Unnest a NIR graph; the graph itself is left as it is.

    Raises:
        UnsupportedError: an inner graph has several inputs or outputs.
        UsageError: an edge names a node that is not there, or the graph has no input or output.
    """
    nodes, edges, inputs, outputs = _unnest(graph, "")
    if not inputs or not outputs:
        raise UsageError(f"the NIR graph has {len(inputs)} Input and {len(outputs)} Output nodes: expected one or more")
    return FlatGraph(nodes, tuple(dict.fromkeys(edges)), tuple(inputs), tuple(outputs))


def _unnest(graph: Any, prefix: str) -> tuple[dict[str, Any], list[tuple[str, str]], list[str], list[str]]:
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ports: dict[str, tuple[list[str], list[str]]] = {}  # name here -> (where edges into it go, where they come from)
    for name in sorted(graph.nodes):
        node, path = graph.nodes[name], prefix + name
        if kind(node) != "NIRGraph":
            nodes[path] = node
            ports[name] = ([path], [path])
            continue
        inner_nodes, inner_edges, ins, outs = _unnest(node, f"{path}/")
        if len(ins) != 1 or len(outs) != 1:
            raise UnsupportedError(
                f"the inner NIR graph '{path}' has {len(ins)} inputs and {len(outs)} outputs: only one of each is run"
            )
        nodes |= inner_nodes
        edges += inner_edges
        ports[name] = (ins, outs)
    for a, b in graph.edges:
        if a not in ports or b not in ports:
            raise UsageError(
                f"the NIR graph has an edge from '{a}' to '{b}', but no node '{a if a not in ports else b}'"
            )
        edges += [(s, t) for s in ports[a][1] for t in ports[b][0]]
    ins = [prefix + n for n in sorted(graph.nodes) if kind(graph.nodes[n]) == "Input"]
    outs = [prefix + n for n in sorted(graph.nodes) if kind(graph.nodes[n]) == "Output"]
    return nodes, edges, ins, outs


def schedule(flat: FlatGraph) -> tuple[list[str], set[tuple[str, str]]]:
    """Order of computation, and the edges that carry a one-step delay.

    Raises:
        UnsupportedError: a node is not reached from any input.
    """
    targets = {n: flat.targets(n) for n in flat.nodes}
    done: set[str] = set()
    path: set[str] = set()
    post: list[str] = []
    delayed: set[tuple[str, str]] = set()
    for root in reversed(flat.inputs):  # reversed: the order is turned round at the end
        if root in done:
            continue
        stack = [(root, iter(targets[root]))]
        path.add(root)
        while stack:
            name, rest = stack[-1]
            for target in rest:
                if target in path:
                    delayed.add((name, target))
                elif target not in done:
                    path.add(target)
                    stack.append((target, iter(targets[target])))
                    break
            else:
                stack.pop()
                path.discard(name)
                done.add(name)
                post.append(name)
    unreached = sorted(set(flat.nodes) - done)
    if unreached:
        raise UnsupportedError(f"NIR node '{unreached[0]}' is not reached from any input: connect or remove it")
    return post[::-1], delayed


class _Neuron:
    """State and step of every neuron primitive; ``margin`` is what the last step left between v~ and theta."""

    def __init__(self, node: Any, dt: float):
        rate = {k: dt / _f64(v) for k, v in vars(node).items() if k in ("tau", "tau_mem", "tau_syn")}
        leak_rate = rate.get("tau", rate.get("tau_mem"))
        gain = _f64(node.r) * (dt if leak_rate is None else leak_rate)
        self.decay = 1.0 if leak_rate is None else 1.0 - leak_rate
        self.gain = gain
        self.leak = 0.0 if leak_rate is None else leak_rate * _f64(node.v_leak)
        self.syn = (1.0 - rate["tau_syn"], _f64(node.w_in) * rate["tau_syn"]) if "tau_syn" in rate else None
        self.theta = _f64(node.v_threshold) if hasattr(node, "v_threshold") else None
        self.reset = _f64(node.v_reset) if hasattr(node, "v_reset") else 0.0
        self.i: Any = 0.0
        self.v: Any = self.reset
        self.margin: Array | None = None

    def __call__(self, x: Array) -> Array:
        if self.syn is not None:
            self.i = self.syn[0] * self.i + self.syn[1] * x
            x = self.i
        v = self.decay * self.v + self.gain * x + self.leak
        if self.theta is None:
            self.v = v
            return _f64(v)
        z = v > self.theta
        self.margin = _margin(v, self.theta)
        self.v = np.where(z, self.reset, v)
        return _f64(z)


class _Threshold:
    def __init__(self, node: Any):
        self.theta = _f64(node.threshold)
        self.margin: Array | None = None

    def __call__(self, x: Array) -> Array:
        self.margin = _margin(x, self.theta)
        return (x > self.theta).astype(np.float64)


class _Delay:
    def __init__(self, node: Any, dt: float):
        self.steps = np.rint(_f64(node.delay) / dt)
        if not np.all(np.isfinite(self.steps)) or np.any(self.steps < 0):
            raise UnsupportedError(f"a NIR Delay of {self.steps} steps of {dt} s is not run: expected 0 or more")
        self.longest = int(self.steps.max(initial=0))
        self.past: list[Array] = []

    def __call__(self, x: Array) -> Array:
        self.past = [x, *self.past[: self.longest]]
        steps = np.broadcast_to(self.steps, x.shape)
        y = np.zeros_like(x)
        for ago, values in enumerate(self.past):
            y = np.where(steps == ago, values, y)
        return y


def _f64(value: Any) -> Array:
    return np.asarray(value, dtype=np.float64)


def _margin(v: Array, theta: Array) -> Array:
    return np.asarray((v - theta) / np.where(theta > 0, theta, 1.0))


def pairs(value: Any, n: int) -> tuple[int, ...]:
    """An int, or one int per axis, as ``n`` ints."""
    return tuple(int(i) for i in np.broadcast_to(np.asarray(value), (n,)))


def conv_padding(node: Any, n: int) -> list[tuple[int, int]]:
    """Zeros before and after each axis; ``"same"`` and ``"valid"`` as in torch."""
    padding = node.padding.decode() if isinstance(node.padding, bytes) else node.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(pairs(node.dilation, n), node.weight.shape[2:], strict=True)]
        return [(r // 2, r - r // 2) if padding == "same" else (0, 0) for r in reach]
    return [(p, p) for p in pairs(padding, n)]


def _conv(node: Any, n: int) -> Callable[[Array], Array]:
    weight, bias = _f64(node.weight), _f64(node.bias)
    stride, dilation, groups = pairs(node.stride, n), pairs(node.dilation, n), int(node.groups)
    padding = conv_padding(node, n)
    out, per_group, *kernel = weight.shape

    def step(x: Array) -> Array:  # [B, C, *space]
        x = np.pad(x, [(0, 0), (0, 0), *padding])
        sizes = [
            (m - d * (k - 1) - 1) // s + 1 for m, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
        ]
        y = np.zeros((x.shape[0], out, *sizes))
        for place in np.ndindex(*kernel):
            window = tuple(
                slice(p * d, p * d + (m - 1) * s + 1, s)
                for p, d, m, s in zip(place, dilation, sizes, stride, strict=True)
            )
            seen = x[(slice(None), slice(None), *window)]
            for g in range(groups):
                rows = slice(g * (out // groups), (g + 1) * (out // groups))
                cols = slice(g * per_group, (g + 1) * per_group)
                y[:, rows] += np.einsum("bc...,oc->bo...", seen[:, cols], weight[(rows, slice(None), *place)])
        return y + bias.reshape(-1, *(1,) * n)

    return step


def _pool(node: Any, average: bool) -> Callable[[Array], Array]:
    kernel, stride, padding = (pairs(v, 2) for v in (node.kernel_size, node.stride, node.padding))

    def step(x: Array) -> Array:
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
        h, w = ((m - k) // s + 1 for m, k, s in zip(x.shape[2:], kernel, stride, strict=True))
        y = np.zeros((*x.shape[:2], h, w))
        for i, j in np.ndindex(*kernel):
            y += x[:, :, i : i + (h - 1) * stride[0] + 1 : stride[0], j : j + (w - 1) * stride[1] + 1 : stride[1]]
        return y / (kernel[0] * kernel[1]) if average else y

    return step


def _flatten_step(node: Any) -> Callable[[Array], Array]:
    first, last = int(node.start_dim), int(node.end_dim)

    def step(x: Array) -> Array:
        shape = x.shape[1:]
        stop = last % len(shape) + 1
        return x.reshape(len(x), *shape[:first], int(np.prod(shape[first:stop])), *shape[stop:])

    return step


def _affine(node: Any) -> Callable[[Array], Array]:
    weight = _f64(node.weight)
    bias = _f64(node.bias) if hasattr(node, "bias") else None
    return lambda x: x @ weight.T if bias is None else x @ weight.T + bias


def _operation(path: str, node: Any, dt: float) -> Callable[[Array], Array]:
    name = kind(node)
    if name in ("Input", "Output"):
        return lambda x: x
    if name in ("Affine", "Linear"):
        return _affine(node)
    if name == "Scale":
        scale = _f64(node.scale)
        return lambda x: x * scale
    if name in ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"):
        return _Neuron(node, dt)
    if name == "Threshold":
        return _Threshold(node)
    if name in ("Conv1d", "Conv2d"):
        return _conv(node, int(name[4]))
    if name in ("SumPool2d", "AvgPool2d"):
        return _pool(node, average=name == "AvgPool2d")
    if name == "Flatten":
        return _flatten_step(node)
    if name == "Delay":
        return _Delay(node, dt)
    raise UnsupportedError(f"NIR node '{path}' is a {name}, which is not run here")


def euler(graph: Any, x: ArrayLike | Mapping[str, ArrayLike], *, dt: float = NIR_DT) -> EulerRun:
    """Run a NIR graph over a sequence, step by step in float64.

    Args:
        graph: a ``nir.NIRGraph``; not changed.
        x: (T, B, *features), or one such array per Input node.
        dt: seconds per step.

    Raises:
        UnsupportedError: a primitive, or a structure, that is not run.
        UsageError: an input is missing, or an edge leads nowhere.
    """
    flat = flatten(graph)
    given = dict(x) if isinstance(x, Mapping) else {flat.inputs[0]: x}
    if set(given) != set(flat.inputs):
        raise UsageError(f"the NIR graph has the inputs {list(flat.inputs)}, got {sorted(given)}")
    sequences = {n: _f64(v) for n, v in given.items()}
    order, delayed = schedule(flat)
    operations = {n: _operation(n, flat.nodes[n], dt) for n in order}
    sources = {n: flat.sources(n) for n in order}
    spiking = [
        n for n in order if hasattr(operations[n], "theta") and getattr(operations[n], "theta", None) is not None
    ]
    silent = {a: _f64(flat.nodes[a].bias) if kind(flat.nodes[a]) == "Affine" else 0.0 for a, _ in delayed}
    before: dict[str, Any] = dict(silent)
    kept: dict[str, list[Array]] = {n: [] for n in (*flat.outputs, *spiking)}
    margins: dict[str, list[Array]] = {n: [] for n in spiking}
    for t in range(len(next(iter(sequences.values())))):
        values: dict[str, Array] = {}
        for name in order:
            terms = [before[s] if (s, name) in delayed else values[s] for s in sources[name]]
            total = sequences[name][t] if name in sequences else terms[0]
            for term in terms if name in sequences else terms[1:]:
                total = total + term
            values[name] = operations[name](total)
        before = {a: values[a] for a in silent}
        for name in kept:
            kept[name].append(values[name])
        for name in spiking:
            margins[name].append(getattr(operations[name], "margin"))  # noqa: B009 - two classes share it
    stacked = {n: np.asarray(v) for n, v in kept.items()}
    return EulerRun(
        {n: stacked[n] for n in flat.outputs},
        {n: stacked[n] for n in spiking},
        {n: np.asarray(v) for n, v in margins.items()},
    )
