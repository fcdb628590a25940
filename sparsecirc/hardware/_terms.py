"""A network in NeuroBench's terms (Yik et al. 2025, Nature Communications 16:1545), counted on our graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.ir import Context, Conv, Embedding, Graph, Linear, Node, Recurrent, interpret

Array = NDArray[Any]


@dataclass(frozen=True)
class Terms:
    """What NeuroBench reports of a network, besides its accuracy.

    Attributes:
        footprint: bytes of every parameter, zeros too. The package also counts buffers of its framework, which a graph
            does not have.
        connection_sparsity: zeros among all entries of all weights; of gated layers biases count as weights, as there.
        activation_sparsity: zeros among all outputs of spiking layers, over steps and samples.
        effective_macs: multiplications per sample whose weight and input are both not 0, where an input of that step is
            none of -1, 0, 1; biases do not count.
        effective_acs: the same where all inputs of the step are -1, 0 or 1.
        dense: connections per sample, zeros too, whatever the input.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    effective_macs: float
    effective_acs: float
    dense: float

    def table(self) -> str:
        """One line."""
        return (
            f"footprint {self.footprint:,} bytes, connection sparsity {self.connection_sparsity:.4f}, activation "
            f"sparsity {self.activation_sparsity:.4f}, per sample {self.effective_macs:,.0f} effective MACs, "
            f"{self.effective_acs:,.0f} effective ACs, {self.dense:,.0f} dense"
        )

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def __str__(self) -> str:
        return self.table()


def terms(graph: Graph, x: ArrayLike | Mapping[str, ArrayLike]) -> Terms:
    """Count on one input; NeuroBench does so on a data set.

    Args:
        graph: any network. The package counts the gates of cells too and refuses nn.RNN, nn.GRU and nn.LSTM; here
            every matrix product of a layer counts, and nothing else.
        x: an input in the layout of the graph.
    """
    result = interpret(graph, x, keep_values=True)
    values = result.values
    batch = next(iter(values.values())).shape[1 if graph.inputs[0].time else 0]
    zeros = entries = 0
    macs = acs = dense = 0.0
    for node in graph.nodes:
        for role in node.matrix_roles:
            if role not in node.params or isinstance(node, Embedding):
                continue
            weight = node.weight(role)
            zeros, entries = zeros + int(np.count_nonzero(weight == 0)), entries + weight.size
            mac, ac, whole = _operations(graph, node, role, values)
            macs, acs, dense = macs + mac, acs + ac, dense + whole
        if isinstance(node, Recurrent) and node.cell.n_gates > 1:
            for role in ("bias_ih", "bias_hh"):
                if role in node.params:
                    bias = node.params[role]
                    zeros, entries = zeros + int(np.count_nonzero(bias == 0)), entries + bias.size
    fired = [values[f"{n.name}.spk"] for n in graph.recurrent if n.cell.spiking]
    outputs = sum(v.size for v in fired)
    return Terms(
        sum(int(v.nbytes) for n in graph.nodes for v in n.params.values()),
        round(zeros / entries, 4) if entries else 0.0,
        1 - sum(int(np.count_nonzero(v)) for v in fired) / outputs if outputs else 0.0,
        macs / max(batch, 1),
        acs / max(batch, 1),
        dense / max(batch, 1),
    )


def _operations(graph: Graph, node: Node, role: str, values: Mapping[str, Array]) -> tuple[float, float, float]:
    """MACs, ACs and dense operations of one weight over the whole input."""
    source = node.inputs[0]
    if isinstance(node, Recurrent) and role in ("hh", "hh_diag"):
        fed = values[f"{node.name}.{node.cell.feedback}"]
        x = np.concatenate([np.zeros_like(fed[:1]), fed[:-1]])  # the spikes of the step before
        if node.reverse:
            x = np.concatenate([fed[1:], np.zeros_like(fed[:1])])
    elif isinstance(node, Recurrent) and role == "hr":
        return 0.0, 0.0, float(node.params["hr"].size * np.prod(values[source].shape[:2]))
    else:
        x = values[source]
    timed = graph.specs[source].time
    steps = x if timed else x[None]  # [T or 1, B, ...]
    spiking = np.all((steps == 0) | (np.abs(steps) == 1), axis=tuple(range(1, steps.ndim)))
    weight = node.weight(role)
    live = _count(node, role, (steps != 0).astype(np.float64), (weight != 0).astype(np.float64))
    whole = _count(node, role, np.ones(steps.shape), np.ones(weight.shape))
    return float(live[~spiking].sum()), float(live[spiking].sum()), float(whole.sum())


def _count(node: Node, role: str, x: Array, weight: Array) -> Array:
    """Products per step of 0/1 inputs and 0/1 weights, summed over samples and outputs."""
    if isinstance(node, Conv):
        params = {"weight": weight, "bias": np.zeros(len(weight))}
        made = Conv(node.name, node.inputs, params, stride=node.stride, padding=node.padding, dilation=node.dilation,
                    groups=node.groups)  # fmt: skip
        out, _ = made.compute([x], {}, Context(np.float64, None))
        return np.asarray(out[""].sum(axis=tuple(range(1, out[""].ndim))))
    if role == "hh_diag":
        return np.asarray((x * weight).sum(axis=tuple(range(1, x.ndim))))
    if isinstance(node, Linear | Recurrent):
        return np.asarray((x @ weight.sum(axis=0)).sum(axis=tuple(range(1, x.ndim - 1))))
    raise NotImplementedError(node.kind)
