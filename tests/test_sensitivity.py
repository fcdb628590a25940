"""What each weight bears alone: equal to pruning it by hand, and a proposal that holds as a whole."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

import sparsecirc
from sparsecirc import interpret, prune, sensitivity
from sparsecirc._prune import named
from sparsecirc._sensitivity import LEVELS
from sparsecirc._sensitivity._draw import sparkline
from sparsecirc.cells import GRU, LIF, RNN_TANH
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.ir import Graph, Input, Linear, Recurrent, TimeReduce
from sparsecirc.patterns import n_m
from sparsecirc.testing import classifier_graph


def net(units: int = 12) -> Graph:
    return classifier_graph(GRU, 5, units, 3, 1.0)


def sequences(graph: Graph, steps: int = 7, batch: int = 4) -> np.ndarray:
    lead = (batch, steps) if graph.batch_first else (steps, batch)
    return np.random.default_rng(0).standard_normal((*lead, *graph.inputs[0].shape)).astype(np.float32)


def test_each_row_is_what_pruning_that_part_alone_does() -> None:
    graph = net()
    x = sequences(graph)
    found = sensitivity(graph, x, levels=(0.8, 0.5))
    assert found.levels == (0.5, 0.8)
    recurrent = graph.recurrent[0].name
    assert [r.name for r in found.rows if r.gate] == [f"{recurrent}.{m}.{g}" for m in ("ih", "hh") for g in "rzn"]
    want = interpret(graph, x, keep_values=True)
    for row in found.rows:
        for point in row.points:
            got = interpret(prune(graph, {row.name: point.sparsity}), x, keep_values=True)
            error = np.linalg.norm(got.y - want.y) / np.linalg.norm(want.y)
            assert point.error == pytest.approx(error, rel=1e-3)
            assert point.largest == pytest.approx(np.abs(got.y - want.y).max() / np.abs(want.y).max(), rel=1e-3)
            state, other = (r.values[f"{recurrent}.h"].reshape(7, -1) for r in (want, got))
            size = np.sqrt((state**2).sum(axis=1).mean())
            np.testing.assert_allclose(point.drift, np.linalg.norm(other - state, axis=1) / size, rtol=1e-3)
            assert (point.drift_last, point.drift_largest) == (point.drift[-1], max(point.drift))
            assert point.drift_of == f"{recurrent}.h"


def test_the_proposal_holds_as_a_whole_and_alone_may_not() -> None:
    graph = net()
    x = sequences(graph)
    found = sensitivity(graph, x, tolerance=0.15)
    assert found.proposed is not None
    assert found.recipe() == found.proposal
    want, got = interpret(graph, x).y, interpret(prune(graph, found.recipe()), x).y
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert error == pytest.approx(found.proposed.error, rel=1e-3)
    assert 0 < error <= 0.15
    for row in found.rows:
        safe = [found.loss(p) <= 0.15 for p in row.points]
        count = safe.index(False) if False in safe else len(safe)
        assert row.safe == (found.levels[count - 1] if count else 0)
    alone = found.recipe(alone=True)
    assert all(alone[name] >= value for name, value in found.proposal.items())
    pruned = prune(graph, found.proposal)
    size = sum(r.shape[0] * r.shape[1] for r in found.leaves)
    live = sum(v.pattern.nnz for v in pruned.weights() if v.name.startswith(graph.recurrent[0].name))
    assert 1 - live / size == pytest.approx(found.proposed_sparsity, abs=0.01)


def test_labels_make_it_accuracy() -> None:
    graph = net()
    x = sequences(graph, batch=40)
    labels = interpret(graph, x).y.argmax(axis=1)
    labels[:4] = (labels[:4] + 1) % 3
    found = sensitivity(graph, x, labels=labels, levels=(0.9,), tolerance=0.05)
    assert found.accuracy == 0.9
    hh = next(r for r in found.rows if r.name.endswith(".hh"))
    guess = interpret(prune(graph, {hh.name: 0.9}), x).y.argmax(axis=1)
    assert hh.points[0].accuracy == np.mean(guess == labels)
    assert found.loss(hh.points[0]) == max(0.0, 0.9 - np.mean(guess == labels))
    assert "accuracy lost from 90.00%" in found.table()
    with pytest.raises(UsageError, match=r"labels have shape \(3,\).*expected 40 whole numbers"):
        sensitivity(graph, x, labels=[0, 1, 2])


def two_layers() -> Graph:
    rng = np.random.default_rng(1)

    def array(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.5).astype(np.float32)

    back = Recurrent("back", ("x",), {"ih": array(6, 3), "hh": array(6, 6)}, cell=RNN_TANH, units=6, reverse=True)
    top = Recurrent("top", ("back",), {"ih": array(4, 6), "hh": array(4, 4)}, cell=RNN_TANH, units=4)
    last = TimeReduce("last", ("top",), feature_shape=(4,))
    head = Linear("fc", ("last",), {"weight": array(2, 4)})
    return Graph((Input("x", shape=(3,)), back, top, last, head), {"y": "fc"})


def test_only_layers_that_can_change_drift_and_backward_ones_in_their_own_order() -> None:
    graph = two_layers()
    x = sequences(graph)
    rows = {r.name: r for r in sensitivity(graph, x, levels=(0.7,)).rows}
    assert rows["top.ih"].points[0].drift_of == "top.h"
    first = rows["back.hh"].points[0]
    want, got = (interpret(g, x, keep_values=True).values for g in (graph, prune(graph, {"back.hh": 0.7})))
    curve = np.linalg.norm((got["back.h"] - want["back.h"]).reshape(7, -1), axis=1)
    if first.drift_of == "back.h":
        assert first.drift[0] == 0 < first.drift[-1]
        np.testing.assert_allclose(np.array(first.drift) / max(first.drift), curve[::-1] / curve.max(), atol=1e-3)
    lengths = [7, 0, 3, 1]
    short = sensitivity(graph, x, levels=(0.7,), lengths=lengths)
    want, got = (interpret(g, x, lengths=lengths).y for g in (graph, prune(graph, {"top.hh": 0.7})))
    row = next(r for r in short.rows if r.name == "top.hh")
    assert row.points[0].error == pytest.approx(np.linalg.norm(got - want) / np.linalg.norm(want), rel=1e-3)


def test_spikes_nothing_to_see_and_what_is_dead_already() -> None:
    rng = np.random.default_rng(4)
    vectors = {"beta": np.full(8, 0.9, np.float32), "threshold": np.ones(8, np.float32)}
    weights = {"hh": rng.standard_normal((8, 8)).astype(np.float32), **vectors}
    fc = Linear("fc", ("x",), {"weight": rng.standard_normal((8, 3)).astype(np.float32)})
    graph = Graph((Input("x", shape=(3,)), fc, Recurrent("lif", ("fc",), weights, cell=LIF, units=8)), {"y": "lif"},
                  dt=1e-3)  # fmt: skip
    x = sequences(graph)
    points = next(r for r in sensitivity(graph, x).rows if r.name == "lif.hh").points
    assert points[-1].drift_of in ("lif.spk", "lif.mem")
    still = sensitivity(graph, np.zeros_like(x))
    assert all(p.error == 0 and p.drift_largest == 0 for r in still.rows for p in r.points)
    assert still.proposal == {r.name: LEVELS[-1] for r in still.leaves}
    pruned = prune(graph, {"lif.hh": 0.75})
    row = next(r for r in sensitivity(pruned, x, levels=(0.5, 0.75, 0.9)).rows if r.name == "lif.hh")
    assert [p.error for p in row.points[:2]] == [0, 0]


def test_an_empty_input_is_refused_and_what_is_not_finite_is_never_safe() -> None:
    graph = net()
    for size in ({"steps": 0}, {"batch": 0}):
        with pytest.raises(UsageError, match="expected at least one of each"):
            sensitivity(graph, sequences(graph, **size))
    x = sequences(graph)
    x[0, 0] = np.nan
    found = sensitivity(graph, x, levels=(0.9,))
    assert all(p.error == p.largest == np.inf for r in found.rows for p in r.points)
    assert all(r.safe == 0 for r in found.rows)
    assert found.proposed is None
    assert json.loads(found.to_json_text())["rows"][0]["points"][0]["loss"] is None
    ElementTree.fromstring(found.svg())


def test_what_cannot_be_asked() -> None:
    graph = net()
    x = sequences(graph)
    for levels in ((), (0.0, 0.5), (1.0,)):
        with pytest.raises(UsageError, match=r"sparsity|levels"):
            sensitivity(graph, x, levels=levels)
    with pytest.raises(UsageError, match="tolerance -1"):
        sensitivity(graph, x, tolerance=-1)
    with pytest.raises(UsageError):
        sensitivity(graph, x, pattern=n_m(2, 4))
    with pytest.raises(NothingMatchedError, match="Skipped"):
        sensitivity(graph, x, select=lambda _: False)
    strict = sensitivity(graph, x, tolerance=0.0, select=named("*.hh"))
    assert strict.proposed is None
    with pytest.raises(NothingMatchedError, match="larger tolerance"):
        strict.recipe()
    assert "no proposal" in strict.table()


def test_table_picture_and_progress() -> None:
    graph = net()
    steps: list[str] = []
    found = sensitivity(graph, sequences(graph), progress=lambda n, name: steps.extend([name] * n))
    assert len(steps) == len(found.rows) * len(LEVELS)
    lines = str(found).splitlines()
    assert len(lines) == 1 + len(found.rows) + len(found.notes())
    picture = ElementTree.fromstring(found.svg())
    assert len(picture.findall(".//{*}polyline")) == len(found.rows)
    assert len(picture.findall(".//{*}title")) == len(found.rows) * len(LEVELS)
    assert json.loads(found.to_json_text()) == json.loads(json.dumps(found.to_json()))
    again = sparsecirc.sensitivity(graph, sequences(graph))
    assert again == found
    assert sparkline([0, 1, float("inf"), 2]) == "▁▄██"
    assert sparkline([0.0, 0.0]) == "▁▁"
