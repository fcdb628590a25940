"""Recurrent networks wired like random graphs, and what of the graph goes with accuracy (Darji 2021, arXiv:2407.20601).

Barabási-Albert (n, n // 10) and connected Watts-Strogatz (n, n // 5, p = 1) graphs, links from the lower to the higher
index, layers of longest paths, every skip a recurrent layer of its own. The thesis has graphs of 10 to 50 nodes, this
study of 10 to 30, and its batches hold strings of similar length: both for the time that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.studies._page import grouped, markdown, scatter, spread
from benchmarks.studies._strings import KINDS, GraphReader, accuracy, strings, train
from benchmarks.studies._study import Page, Row, Setting, Study, Task
from sparsecirc.structures import STATISTICS, LayeredGraph, barabasi_albert, layered, statistics, watts_strogatz

NAME = "structures"
FAMILIES: Mapping[str, Callable[..., object]] = {"barabasi_albert": barabasi_albert, "watts_strogatz": watts_strogatz}
FIGURE = "structures-betweenness.svg"
NODES = (10, 31)
PUBLISHED_ACCURACY = {
    ("rnn_tanh", "barabasi_albert"): 0.842,
    ("rnn_tanh", "watts_strogatz"): 0.893,
    ("rnn_relu", "barabasi_albert"): 0.728,
    ("rnn_relu", "watts_strogatz"): 0.829,
    ("lstm", "barabasi_albert"): 0.915,
    ("lstm", "watts_strogatz"): 0.976,
    ("gru", "barabasi_albert"): 0.928,
    ("gru", "watts_strogatz"): 0.984,
}
PUBLISHED_CORRELATION = {
    "source_nodes": {"rnn_tanh": 0.35, "rnn_relu": 0.47, "lstm": 0.57, "gru": 0.74},
    "closeness_var": {"rnn_tanh": -0.46, "rnn_relu": -0.39, "lstm": -0.51, "gru": -0.67},
    "node_betweenness_var": {"rnn_tanh": -0.49, "rnn_relu": -0.41, "lstm": -0.56, "gru": -0.52},
}


@dataclass(frozen=True)
class Sizes:
    """What a setting trains."""

    cells: tuple[str, ...]
    graphs: int
    epochs: int


FULL = Sizes(tuple(KINDS), 8, 15)
QUICK = Sizes(("rnn_tanh", "gru"), 2, 2)


def sizes(setting: Setting) -> Sizes:
    """Of the full or the quick study."""
    return QUICK if setting.quick else FULL


def drawn(family: str, number: int) -> LayeredGraph:
    """Graph ``number`` of a family: its size and its links, always the same."""
    rng = np.random.default_rng([number, sorted(FAMILIES).index(family)])
    return layered(FAMILIES[family](int(rng.integers(*NODES)), seed=int(rng.integers(2**31))))


def tasks(setting: Setting) -> Iterator[Task]:
    """Each graph with each cell. The seeds of the setting are those of the weights; a graph has a number of its own."""
    size = sizes(setting)
    for number in range(size.graphs):
        for family in FAMILIES:
            for cell in size.cells:
                for seed in setting.seeds:
                    key = f"{cell} {family} graph {number} seed {seed}"
                    yield Task(key, partial(_one, setting, cell, family, number, seed))


def _one(setting: Setting, cell: str, family: str, number: int, seed: int) -> list[Row]:
    graph = drawn(family, number)
    data = strings(setting.quick)
    torch.manual_seed(seed)
    model = GraphReader(cell, graph)
    train(model, data, sizes(setting).epochs, 128, seed)
    a = graph.to_networkx().number_of_nodes()
    dead = 1 - graph.n_edges / (a * (a - 1) / 2)
    published = PUBLISHED_ACCURACY[cell, family]
    return [Row(NAME, cell, family, f"graph {number}", round(dead, 6), seed, accuracy(model, data), None, published)]


def page(rows: Sequence[Row], setting: Setting) -> Page:
    """Mean accuracy by family, and correlations with every statistic."""
    size = sizes(setting)
    by = grouped(rows, lambda r: (r.cell, r.method))
    table = []
    for cell, family in PUBLISHED_ACCURACY:
        found = [r.accuracy_before for r in by.get((cell, family), [])]
        if found:
            table.append((f"{cell}, {family}", spread(found), f"{100 * PUBLISHED_ACCURACY[cell, family]:.1f}"))
    text = [
        (__doc__ or "").split("\n\n")[1].strip().replace("\n", " "),
        f"{size.graphs} graphs of each family, {size.epochs} epochs of batches of 128; the sparsity of a row is the "
        "share of absent links. Deviations are over graphs and seeds.",
        "## Accuracy",
        markdown(("network", "here", "published"), table),
        f"![accuracy over the variance of node betweenness]({FIGURE})",
        "## Correlation of accuracy with the graph",
        "Pearson's r over all graphs of both families, published numbers in parentheses; R² is that of a linear fit on "
        f"the three statistics that the thesis found strongest. From {size.graphs * len(FAMILIES)} graphs a cell, |r| "
        f"below {2 / max(size.graphs * len(FAMILIES), 1) ** 0.5:.2f} may be chance.",
        _correlations(rows, size),
    ]
    return Page("\n\n".join(text) + "\n", {FIGURE: _figure(rows, size)})


def _figure(rows: Sequence[Row], size: Sizes) -> str:
    """Accuracy over one of the three statistics that the thesis found strongest, the one that differs most here."""
    series = {}
    for family in FAMILIES:
        for cell in size.cells:
            found = [r for r in rows if (r.cell, r.method) == (cell, family)]
            numbers = [int(r.scope.split()[-1]) for r in found]
            series[f"{cell}, {family}"] = [
                (statistics(drawn(family, k))["node_betweenness_var"], 100 * r.accuracy_before)
                for k, r in zip(numbers, found, strict=True)
            ]
    return scatter(series, x_label="variance of node betweenness", y_label="accuracy, %", y_range=(45.0, 100.0))


def _correlations(rows: Sequence[Row], size: Sizes) -> str:
    known = {(f, k): statistics(drawn(f, k)) for f in FAMILIES for k in range(size.graphs)}
    columns: dict[str, dict[str, float]] = {}
    fits = {}
    for cell in size.cells:
        found = grouped([r for r in rows if r.cell == cell], lambda r: (r.method, int(r.scope.split()[-1])))
        mean = np.array([np.mean([r.accuracy_before for r in rs]) for rs in found.values()])
        facts = {name: np.array([known[key][name] for key in found]) for name in STATISTICS}
        columns[cell] = {name: _pearson(values, mean) for name, values in facts.items()}
        fits[cell] = _fit(np.stack([facts[name] for name in PUBLISHED_CORRELATION], 1), mean)
    body = []
    for name in STATISTICS:
        cells = []
        for cell in size.cells:
            quoted = PUBLISHED_CORRELATION.get(name, {}).get(cell)
            value = columns[cell][name]
            text = "-" if np.isnan(value) else f"{value:+.2f}"
            cells.append(text if quoted is None else f"{text} ({quoted:+.2f})")
        body.append((name, *cells))
    body.append(("R² of the fit", *("-" if np.isnan(fits[c]) else f"{fits[c]:.2f}" for c in size.cells)))
    return markdown(("statistic", *size.cells), body)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _fit(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y that a linear fit on standardised x explains; NaN with too few points."""
    if len(y) <= x.shape[1] + 1 or np.ptp(y) == 0:
        return float("nan")
    spread_of = np.where(x.std(0) > 0, x.std(0), 1.0)
    design = np.column_stack([np.ones(len(y)), (x - x.mean(0)) / spread_of])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return float(1 - residual.var() / y.var())


STRUCTURES = Study(
    NAME,
    "Recurrent networks wired like random graphs",
    "Darji 2021, Sparsity in recurrent neural networks, arXiv:2407.20601",
    tasks,
    page,
    version=2,
)
