"""Lattice pruning on MNIST rows, beside magnitude, random and gradient scores at the same number of connections.

Reproduces what Sengupta 2025 (arXiv:2502.16525) reports for an LSTM on MNIST (binary adjacency: about 50 % sparsity at
over 98 % accuracy; continuous adjacency: near-total sparsity with a visible loss), adds the curve from 50 to 99 %,
variants of the lattice, and a two-layer network with top-down feedback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.studies._mnist import FeedbackReader, RowReader, Trained, load, trained
from benchmarks.studies._page import grouped, lines, markdown, spread
from benchmarks.studies._study import Page, Row, Setting, Study, Task
from sparsecirc import Pattern
from sparsecirc._prune import Criteria, Named, named, plan_weights
from sparsecirc.data import Dataset
from sparsecirc.patterns import LatticeExplanation, PatternMaker, lattice, unstructured
from sparsecirc.scores import Score, magnitude, random
from sparsecirc.scores import lattice as lattice_score

NAME = "lattice"
NEAR = 1e-3
"""Counts are whole numbers per gate, so that a sparsity is met up to this."""
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


@dataclass(frozen=True)
class Sizes:
    """What a setting trains."""

    units: int
    feedback_units: int
    epochs: int
    levels: tuple[float, ...]
    variant_levels: tuple[float, ...]
    variants: tuple[str, ...]
    curve: tuple[str, ...]


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


# The page ------------------------------------------------------------------------------------------------------------


def page(rows: Sequence[Row], setting: Setting) -> Page:
    """Tables of every part, the curves, and who is ahead of magnitude."""
    size = sizes(setting)
    lstm = [r for r in rows if r.cell == "lstm"]
    h2h = [r for r in lstm if r.scope == "h2h"]
    own = {
        name: {(r.seed, r.sparsity) for r in h2h if r.method == name and not _on(r, levels)}
        for name, levels in (("lattice_binary", ()), ("lattice_continuous", size.levels))
    }
    parts = [
        _dense_line(rows),
        "## At the sparsity that each lattice has by itself",
        "Recurrent weights only (h2h); the others keep the same number of connections. In percent of the test images, "
        "mean and standard deviation over the seeds.",
    ]
    for name, points in own.items():
        parts += [f"Beside `{name}`:", _table([r for r in h2h if (r.seed, r.sparsity) in points])]
    parts += [
        "Pruned in input and recurrent weights together:",
        _table([r for r in lstm if r.scope == "both"]),
        "## Whole neurons",
        "Reducible neurons leave the network: connections into and out of them, the read-out's included. Beside as "
        "many of the largest recurrent weight out, and at random.",
        _table([r for r in lstm if r.scope == "neurons"]),
        "## Curve",
        "Right after pruning, and after one epoch of fine-tuning:",
        "![before fine-tuning](lattice-before.svg)",
        "![after fine-tuning](lattice-after.svg)",
        _curve_table(h2h, size),
        "After fine-tuning, seed by seed:",
        _verdicts(h2h, size),
        "## Variants",
        f"Of the first seed only ({setting.seeds[0]}); the methods of the curve beside them, for the same seed.",
        *(_variants([r for r in h2h if r.seed == setting.seeds[0]], level, size) for level in size.variant_levels),
        "## Two layers with top-down feedback",
        f"Tanh layers of {size.feedback_units} units, the lower one also fed by the upper one's last state; all "
        "weights of both in one order.",
        _table([r for r in rows if r.cell == "rnn_feedback" and r.method != "dense"]),
    ]
    figures = {f"lattice-{when}.svg": _figure(h2h, size, when) for when in ("before", "after")}
    return Page("\n\n".join(p for p in parts if p) + "\n", figures)


def _on(row: Row, levels: Sequence[float]) -> bool:
    return any(abs(row.sparsity - level) < NEAR for level in levels)


def _dense_line(rows: Sequence[Row]) -> str:
    dense = grouped([r for r in rows if r.method == "dense"], lambda r: r.cell)
    return "Dense: " + "; ".join(f"{c} {spread([r.accuracy_before for r in rs])} %" for c, rs in dense.items()) + "."


def _cells(rows: Sequence[Row]) -> tuple[str, str, str]:
    after = [r.accuracy_after for r in rows if r.accuracy_after is not None]
    sparsity = 100 * float(np.mean([r.sparsity for r in rows]))
    return f"{sparsity:.1f}", spread([r.accuracy_before for r in rows]), spread(after) if after else "-"


def _table(rows: Sequence[Row]) -> str:
    """A line per method, apart below and above 70 %: a lattice's own sparsity differs from seed to seed."""
    found = grouped(rows, lambda r: (r.method, r.sparsity > 0.7))
    lines_ = [
        (str(key[0]), *_cells(rs), *(f"> {100 * rs[0].published:.0f}" if rs[0].published else "",))
        for key, rs in found.items()
        if isinstance(key, tuple)
    ]
    return markdown(("method", "sparsity", "before", "after", "published"), lines_)


def _at(rows: Sequence[Row], method: str, level: float) -> list[Row]:
    return [r for r in rows if r.method == method and abs(r.sparsity - level) < NEAR]


def _curve_table(rows: Sequence[Row], size: Sizes) -> str:
    lines_ = []
    for level in size.levels:
        for method in size.curve:
            if found := _at(rows, method, level):
                lines_.append((method, *_cells(found)))
    return markdown(("method", "sparsity", "before", "after"), lines_)


def _verdicts(rows: Sequence[Row], size: Sizes) -> str:
    """Each lattice of the curve against magnitude, and against random units, after fine-tuning and seed by seed."""
    pairs = [(method, "magnitude") for method in size.curve if method.startswith("lattice")]
    pairs.append(("lattice_ranked", "random_units_ranked"))
    return "\n".join(f"- {a} minus {b}, in points: {_gaps(rows, size, a, b)}" for a, b in pairs if a in size.curve)


def _gaps(rows: Sequence[Row], size: Sizes, method: str, other: str) -> str:
    words = []
    for level in size.levels:
        ours = {r.seed: r.accuracy_after for r in _at(rows, method, level)}
        theirs = {r.seed: r.accuracy_after for r in _at(rows, other, level)}
        gaps = [100 * (a - b) for s in ours if (a := ours[s]) is not None and (b := theirs.get(s)) is not None]
        if gaps:
            ahead = sum(g > 0 for g in gaps)
            words.append(f"{100 * level:g} %: {np.mean(gaps):+.2f} ({ahead} of {len(gaps)} seeds ahead)")
    return ", ".join(words)


def _variants(rows: Sequence[Row], level: float, size: Sizes) -> str:
    names = (*size.curve, *size.variants)
    found = [(name, _at(rows, name, level)) for name in names]
    ranked = sorted(
        ((name, rs) for name, rs in found if rs),
        key=lambda pair: -float(np.mean([r.accuracy_after or 0.0 for r in pair[1]])),
    )
    head = ("method, best first", "sparsity", "before", "after")
    return markdown(head, [(name, *_cells(rs)) for name, rs in ranked])


def _figure(rows: Sequence[Row], size: Sizes, when: str) -> str:
    series = {}
    lowest = 100.0
    for method in size.curve:
        points = []
        for level in size.levels:
            values = [
                100 * (r.accuracy_before if when == "before" else r.accuracy_after or 0.0)
                for r in _at(rows, method, level)
            ]
            if values:
                points.append((100 * level, float(np.mean(values)), float(np.std(values))))
                lowest = min(lowest, points[-1][1])
        if points:
            series[method] = points
    low = max(0.0, np.floor(lowest / 5) * 5)
    return lines(
        series,
        x_label="sparsity of the recurrent weights, %",
        y_label=f"test accuracy {'right after pruning' if when == 'before' else 'after one epoch of fine-tuning'}, %",
        ticks=[100 * level for level in size.levels],
        y_range=(float(low), 100.0),
    )


LATTICE = Study(
    NAME,
    "Lattice pruning of recurrent networks on MNIST",
    "Sengupta 2025, arXiv:2502.16525 (published figures from its abstract)",
    tasks,
    page,
)
