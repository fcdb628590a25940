"""Does the order of a lattice give the kernels better tiles? `python -m benchmarks.lattice_tiles`.

Units of a pruned recurrent layer are renumbered by several orders, all gates alike, and the padding and the time of the
product are measured for the formats that pack tiles.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._networks import gated
from sparsecirc import Graph, Pattern, Target, compile, prune
from sparsecirc._bench import Host
from sparsecirc._files import write_atomic
from sparsecirc._lattice import acyclic_order, cut, forward, pack, preorder
from sparsecirc._native import resolve_isa
from sparsecirc._prune import named
from sparsecirc.cells import GRU, LSTM
from sparsecirc.formats import every_format
from sparsecirc.ir import Recurrent
from sparsecirc.patterns import lattice, unstructured
from sparsecirc.scores import magnitude

FORMATS = ("lookup", "mantissa", "csr")
REPEATS = 3
"""Measurements of which the fastest counts: other work on the machine only ever adds time."""
Permutation = NDArray[np.intp]
Order = Callable[[NDArray[Any]], Permutation]
"""From the strengths of the live connections, (units, units), to the units in their new order."""


def as_trained(strengths: NDArray[Any]) -> Permutation:
    """No change."""
    return np.arange(len(strengths))


def shuffled(strengths: NDArray[Any]) -> Permutation:
    """At random."""
    return np.random.default_rng(0).permutation(len(strengths))


def by_fan_in(strengths: NDArray[Any]) -> Permutation:
    """By the number of inputs."""
    return np.argsort(np.count_nonzero(strengths, axis=1), kind="stable")


def cuthill_mckee(strengths: NDArray[Any]) -> Permutation:
    """Reverse Cuthill-McKee: a small bandwidth of the symmetric pattern."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    return np.asarray(reverse_cuthill_mckee(csr_matrix(strengths > 0)), dtype=np.intp)


def acyclic(strengths: NDArray[Any]) -> Permutation:
    """The line of the greedy feedback arc set: most weight lies below the diagonal."""
    return np.argsort(acyclic_order(strengths), kind="stable")


def levels(strengths: NDArray[Any]) -> Permutation:
    """Topological levels of the acyclic orientation: units of a level do not act on each other."""
    position = acyclic_order(strengths)
    order = preorder(cut(forward(strengths, position), 0.0))
    return np.lexsort((position, order.level[order.component]))


def components(strengths: NDArray[Any]) -> Permutation:
    """Strongly connected components from below: block triangular."""
    order = preorder(pack(strengths > 0))
    return np.argsort(order.component, kind="stable")


ORDERS: tuple[Order, ...] = (as_trained, shuffled, by_fan_in, cuthill_mckee, acyclic, levels, components)


@dataclass(frozen=True)
class TileRow:
    """One network, order and format: stored values per live one, and microseconds of a product (``None``: not run)."""

    network: str
    order: str
    format: str
    padding: float
    us: float | None


def permuted(graph: Graph, name: str, order: Permutation) -> Graph:
    """The graph with the units of a layer renumbered; its outputs are renumbered too."""
    node = graph.node(name)
    assert isinstance(node, Recurrent)
    rows = (np.arange(node.cell.n_gates)[:, None] * node.units + order).ravel()
    params = {k: (v[rows] if k != "hh" else v[rows][:, order]) for k, v in node.params.items()}
    patterns = {"hh": node.patterns["hh"].permute(rows, order)}
    return graph.replace_nodes(Recurrent(name, node.inputs, params, patterns, cell=node.cell, units=node.units))


def strengths_of(graph: Graph, name: str) -> NDArray[Any]:
    """Largest live |w| over the gates, (units, units), zero on the diagonal."""
    node = graph.node(name)
    hh = np.abs(node.weight("hh"))
    s: NDArray[Any] = hh.reshape(-1, hh.shape[1], hh.shape[1]).max(axis=0).astype(np.float64)
    np.fill_diagonal(s, 0.0)
    return s


def trained_lstm() -> Graph:
    """The layer of demo:mnist-lstm, dense; without its input weights, which do not matter here."""
    from sparsecirc.demo import load_trained

    state = load_trained("mnist-lstm", lambda line: print(line, file=sys.stderr)).model.state_dict()
    base = gated(LSTM, 128, 1.0)
    node = base.node("rnn")
    hh = state["rnn.weight_hh_l0"].numpy()
    return base.replace_nodes(node.with_params(hh=hh).with_patterns(hh=Pattern.full(*hh.shape)))


def networks(quick: bool) -> dict[str, Graph]:
    """Layers that are measured."""
    hh, lstm = named("*.hh"), trained_lstm()
    both = lattice(keep="both", ranked=True, quantile=0.9)
    cover = lattice(adjacency="continuous", keep="cover", cuts=32)
    made = {
        "trained LSTM 128, magnitude 90 %": prune(lstm, 0.9, select=hh),
        "trained LSTM 128, lattice cover 90 %": prune(lstm, 0.9, pattern=cover, select=hh),
        "trained LSTM 128, lattice both 90 %": prune(lstm, 0.9, pattern=both, select=hh),
        "trained LSTM 128, one mask for all gates 97 %": prune(lstm, None, pattern=lattice(keep="cover"), select=hh),
    }
    if not quick:
        wide = gated(GRU, 512, 1.0)
        made["random GRU 512, magnitude 90 %"] = prune(wide, 0.9, pattern=unstructured, score=magnitude, select=hh)
        made["random GRU 512, lattice cover 90 %"] = prune(wide, 0.9, pattern=cover, select=hh)
    return made


def measure(name: str, graph: Graph, order: Order) -> list[TileRow]:
    """Padding of every tiled format, and the time of those that can run, under one order."""
    new = permuted(graph, "rnn", order(strengths_of(graph, "rnn")))
    node = new.node("rnn")
    known = every_format(resolve_isa(Target.cpu()))
    times = [
        next(c for c in compile(new, cache=None).explain().rows if c.weight == "rnn.hh").candidates
        for _ in range(REPEATS)
    ]
    rows = []
    for format_ in FORMATS:
        us = [value for t in times if isinstance(value := t.get(format_), float)]
        packed = known[format_].pack(node.patterns["hh"], node.weight("hh"))
        rows.append(TileRow(name, order.__name__, format_, packed.padding, min(us) if us else None))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lattice_tiles", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="the small layers only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    args = parser.parse_args(argv)
    rows: list[TileRow] = []
    for name, graph in networks(args.quick).items():
        print(name)
        for order in ORDERS:
            made = measure(name, graph, order)
            rows += made
            shown = "  ".join(f"{r.format} {r.padding:.2f}x {'-' if r.us is None else f'{r.us:.2f} us'}" for r in made)
            print(f"  {order.__name__:<16}{shown}", flush=True)
    print(Host.here(1).line())
    if args.json is not None:
        write_atomic(args.json, json.dumps([asdict(r) for r in rows], indent=1).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
