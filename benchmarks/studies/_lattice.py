"""Lattice pruning on MNIST rows, beside magnitude, random and gradient scores at the same number of connections.

Reproduces what Sengupta 2025 (arXiv:2502.16525) reports for an LSTM on MNIST (binary adjacency: about 50 % sparsity at
over 98 % accuracy; continuous adjacency: near-total sparsity with a visible loss), adds the curve from 50 to 99 %,
variants of the lattice, and a two-layer network with top-down feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies._lattice_page import Sizes, page
from benchmarks.studies._mnist import FeedbackReader, RowReader, Trained, load, trained
from benchmarks.studies._study import Row, Setting, Study, Task
from sparsecirc import Pattern
from sparsecirc._prune import Criteria, Named, named, plan_weights
from sparsecirc.data import Dataset
from sparsecirc.patterns import LatticeExplanation, PatternMaker, lattice, unstructured
from sparsecirc.scores import Score, magnitude, random
from sparsecirc.scores import lattice as lattice_score

NAME = "lattice"
PUBLISHED_BINARY = 0.98
Plan = Callable[[Trained, Named, float | None], Mapping[str, Pattern]]
"""Patterns of the selected weights at a sparsity, or at the method's own where that is ``None``."""


def gradient(net: Trained, weight: NDArray[Any], name: str) -> NDArray[Any]:
    """|w g|, the first-order change of the loss without a connection (SNIP, Lee et al. 2019; Molchanov et al. 2017)."""
    return np.abs(weight * net.gradients[name])


def score_method(make: Callable[[Trained], Score]) -> Plan:
    """Ranking by a score, the same number per gate."""

    def plan(net: Trained, select: Named, sparsity: float | None) -> Mapping[str, Pattern]:
        return plan_weights(net.weights, sparsity, Criteria(make(net), unstructured, select=select)).patterns

    return plan


def by_magnitude(_net: Trained) -> Score:
    """|w|."""
    return magnitude


def lattice_method(maker: PatternMaker, score: Callable[[Trained], Score] = by_magnitude) -> Plan:
    """A lattice, whose strengths are |w| or another score."""

    def plan(net: Trained, select: Named, sparsity: float | None) -> Mapping[str, Pattern]:
        return plan_weights(net.weights, sparsity, Criteria(score(net), maker, select=select)).patterns

    return plan


def mixed(weight: NDArray[Any], name: str) -> NDArray[Any]:
    """|w| / max |w| plus the persistence of the connection as a cover, an order for each gate."""
    per_gate = lattice(adjacency="continuous", keep="cover", per_gate=True)
    return np.asarray(np.abs(weight) / np.abs(weight).max() + lattice_score(per_gate)(weight, name))


def weighted(weight: NDArray[Any], name: str) -> NDArray[Any]:
    """|w| times the persistence of the less irreducible end."""
    persistence = lattice_score(lattice(adjacency="continuous", keep="both"))(weight, name)
    return np.asarray(np.abs(weight) * persistence)


def critical(net: Trained) -> NDArray[np.bool_]:
    """Meet-irreducible units of the LSTM's recurrence."""
    how = Criteria(pattern=lattice(keep="both"), select=SCOPES["h2h"])
    explained = plan_weights(net.weights, None, how).explanations[0]
    assert isinstance(explained, LatticeExplanation)
    return explained.critical()["rnn.l0"]


def largest(net: Trained, count: int) -> NDArray[np.bool_]:
    """Units with the largest recurrent weights out of them."""
    hh = next(w.value for w in net.weights if w.role == "hh")
    norm = np.linalg.norm(hh, axis=0)
    return np.asarray(norm >= np.sort(norm)[-count])


def drawn(net: Trained, count: int) -> NDArray[np.bool_]:
    """Units at random."""
    keep = np.random.default_rng(net.seed).permutation(next(w.value for w in net.weights if w.role == "hh").shape[1])
    return keep < count


def inside(choose: Callable[[Trained, int], NDArray[np.bool_]]) -> Plan:
    """Magnitude, but connections between chosen units come first: tells whether it matters which units these are."""

    def make(net: Trained) -> Score:
        keep = choose(net, int(critical(net).sum()))

        def score(weight: NDArray[Any], name: str) -> NDArray[Any]:
            between = np.tile(keep[:, None] & keep, (weight.shape[0] // weight.shape[1], 1))
            return np.asarray(np.abs(weight) + 2 * np.abs(weight).max() * between)

        return score

    return score_method(make)


WIRING = {"bottom.ih": (("pixels", 28), ("top", 64)), "top.ih": (("bottom", 64),)}
BINARY = lattice_method(lattice(keep="both", wiring=WIRING))
CONTINUOUS = lattice_method(lattice(adjacency="continuous", keep="cover", wiring=WIRING))
PEERS: dict[str, Plan] = {
    "magnitude": score_method(by_magnitude),
    "random": score_method(lambda net: random(net.seed)),
    "gradient": score_method(lambda net: partial(gradient, net)),
}
CURVE: dict[str, Plan] = {
    **PEERS,
    "lattice_continuous": CONTINUOUS,
    "lattice_ranked": lattice_method(lattice(keep="both", ranked=True)),
    "lattice_cover_ranked": lattice_method(lattice(keep="cover", ranked=True)),
    "random_units_ranked": inside(drawn),
}
VARIANTS: dict[str, Plan] = {
    "lattice_per_gate": lattice_method(lattice(adjacency="continuous", keep="cover", per_gate=True)),
    "largest units, ranked": inside(largest),
    "binary both, ranked, order per gate": lattice_method(lattice(keep="both", ranked=True, per_gate=True)),
    "binary both, ranked, joins": lattice_method(lattice(keep="both", ranked=True, join=True)),
    "binary either, ranked, scc degree 1": lattice_method(lattice(order="scc", ranked=True)),
    "binary cover, ranked, scc degree 1": lattice_method(lattice(order="scc", keep="cover", ranked=True)),
    "continuous both": lattice_method(lattice(adjacency="continuous", keep="both")),
    "continuous both, degree centrality": lattice_method(lattice(adjacency="continuous", keep="both", centrality=1.0)),
    "continuous both, time": lattice_method(lattice(adjacency="continuous", keep="both", order="time")),
    "continuous cover, scc": lattice_method(lattice(adjacency="continuous", keep="cover", order="scc")),
    "continuous cover of |w g|": lattice_method(
        lattice(adjacency="continuous", keep="cover", per_gate=True), lambda net: partial(gradient, net)
    ),
    "|w| plus persistence of cover": score_method(lambda _net: mixed),
    "|w| times persistence of both": score_method(lambda _net: weighted),
}
SCOPES = {"h2h": named("*.hh"), "both": named("*.hh", "*.ih"), "neurons": named("*")}


def neurons(choose: Callable[[Trained, int], NDArray[np.bool_]]) -> Plan:
    """Whole units of the LSTM: all connections into and out of those that are not chosen, the read-out's included."""

    def plan(net: Trained, select: Named, sparsity: float | None) -> Mapping[str, Pattern]:
        keep = choose(net, int(critical(net).sum()))
        rows = np.tile(keep, 4)[:, None]
        width = next(w.pattern.shape[1] for w in net.weights if w.role == "ih")
        masks = {
            "rnn.l0.ih": np.repeat(rows, width, axis=1),
            "rnn.l0.hh": rows & keep,
            "fc.weight": np.tile(keep, (10, 1)),
        }
        return {name: Pattern.from_mask(mask, "neurons") for name, mask in masks.items()}

    return plan


NEURONS: dict[str, Plan] = {
    "lattice_binary": neurons(lambda net, _count: critical(net)),
    "magnitude": neurons(largest),
    "random": neurons(drawn),
}


FULL = Sizes(128, 64, 4, (0.5, 0.8, 0.9, 0.95, 0.99), (0.9,), tuple(VARIANTS), tuple(CURVE))
QUICK = Sizes(64, 64, 3, (0.5, 0.9), (0.9,), tuple(VARIANTS)[:4], tuple(CURVE))


def sizes(setting: Setting) -> Sizes:
    """Of the full or the quick study."""
    return QUICK if setting.quick else FULL


@lru_cache(maxsize=1)
def _data(quick: bool) -> Dataset:
    return load(quick)


@lru_cache(maxsize=2)
def _net(setting: Setting, cell: str, seed: int) -> Trained:
    size = sizes(setting)
    build: dict[str, Callable[[], Any]] = {
        "lstm": lambda: RowReader(size.units),
        "rnn_feedback": lambda: FeedbackReader(size.feedback_units),
    }
    rate = {"lstm": 3e-3, "rnn_feedback": 1e-3}[cell]
    return trained(cell, build[cell], _data(setting.quick), (size.epochs, 1), rate, seed, setting)


def tasks(setting: Setting) -> Iterator[Task]:
    """Seed by seed: dense, both points of the paper, curve, variants (first seed); then the network with feedback."""
    size = sizes(setting)
    for seed in setting.seeds:
        yield Task(f"lstm dense seed {seed}", partial(_dense, setting, "lstm", seed))
        at = partial(_task, setting, "lstm", seed)
        yield at("lattice_binary", BINARY, "h2h", None, PUBLISHED_BINARY)
        yield at("lattice_binary", BINARY, "both", None, PUBLISHED_BINARY)
        yield at("lattice_continuous", lattice_method(EXTREME), "h2h", None)
        for method in PEERS:
            yield at(method, _as_many(PEERS[method], BINARY, None), "h2h", None, note="as many as lattice_binary")
            many = _as_many(PEERS[method], lattice_method(EXTREME), None)
            yield at(method, many, "h2h", None, note="as many as lattice_continuous")
        for level in size.levels:
            for method in size.curve:
                yield at(method, CURVE[method], "h2h", level)
        for method, plan in NEURONS.items():
            yield at(method, plan, "neurons", None)
        for level in size.variant_levels if seed == setting.seeds[0] else ():
            for method in size.variants:
                yield at(method, VARIANTS[method], "h2h", level)
    for seed in setting.seeds:
        yield Task(f"rnn_feedback dense seed {seed}", partial(_dense, setting, "rnn_feedback", seed))
        at = partial(_task, setting, "rnn_feedback", seed)
        yield at("lattice_binary", BINARY, "both", None)
        for method in PEERS:
            yield at(method, _as_many(PEERS[method], BINARY, None), "both", None, note="as many as lattice_binary")
        for level in (0.9,):
            for method in (*PEERS, "lattice_continuous"):
                yield at(method, CURVE[method], "both", level)


EXTREME = lattice(adjacency="continuous", keep="cover", threshold=0.0, wiring=WIRING)
"""All that are a cover at any threshold, and nothing else: near-total sparsity."""


def _as_many(method: Plan, as_: Plan, sparsity: float | None) -> Plan:
    """``method`` at the number of connections that ``as_`` keeps."""

    def plan(net: Trained, select: Named, _none: float | None) -> Mapping[str, Pattern]:
        return method(net, select, sparsity_of(as_(net, select, sparsity)))

    return plan


def sparsity_of(patterns: Mapping[str, Pattern]) -> float:
    """Dead over all connections of the pruned weights."""
    size = sum(p.shape[0] * p.shape[1] for p in patterns.values())
    return 1.0 - sum(p.nnz for p in patterns.values()) / size


def _dense(setting: Setting, cell: str, seed: int) -> list[Row]:
    net = _net(setting, cell, seed)
    return [Row(NAME, cell, "dense", "none", 0.0, seed, net.dense, None)]


def _task(
    setting: Setting,
    cell: str,
    seed: int,
    method: str,
    plan: Plan,
    scope: str,
    sparsity: float | None,
    published: float | None = None,
    note: str = "",
) -> Task:
    def run() -> list[Row]:
        net = _net(setting, cell, seed)
        patterns = plan(net, SCOPES[scope], sparsity)
        before, after = net.prune(patterns)
        reached = round(sparsity_of(patterns), 6)
        return [Row(NAME, cell, method, scope, reached, seed, before, after, published)]

    level = note or ("its own" if sparsity is None else f"{sparsity:g}")
    return Task(f"{cell} {method} {scope} {level} seed {seed}", run)


LATTICE = Study(
    NAME,
    "Lattice pruning of recurrent networks on MNIST",
    "Sengupta 2025, arXiv:2502.16525 (published figures from its abstract)",
    tasks,
    lambda rows, setting: page(rows, setting, sizes(setting)),
)
