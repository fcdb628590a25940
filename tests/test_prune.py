"""Pruning graphs: scopes, selections, reports, and the errors of all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc._pattern import Pattern
from sparsecirc._prune import Criteria, Scope, graph_weights, named, plan, plan_weights, prune
from sparsecirc.cells import GRU, LIF, LSTM
from sparsecirc.errors import NothingMatchedError, UsageError
from sparsecirc.ir import Affine, Conv, Embedding, Graph, Input, Linear, Recurrent, TimeReduce, interpret
from sparsecirc.patterns import block, fan_in, n_m
from sparsecirc.scores import random


def network(seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)

    def w(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    # Gates of very different scale: a common ranking would silence the small ones.
    scale = np.repeat([1.0, 10.0, 0.1, 0.01], 8).astype(np.float32)[:, None]
    nodes = (
        Input("x", shape=(), time=True),
        Embedding("emb", ("x",), {"weight": w(20, 6)}),
        Recurrent("rnn.l0", ("emb",), {"ih": w(32, 6), "hh": w(32, 5) * scale, "hr": w(5, 8)}, cell=LSTM, units=8),
        Recurrent("rnn.l1", ("rnn.l0",), {"ih": w(24, 5), "hh": w(24, 8)}, cell=GRU, units=8),
        Linear("mid", ("rnn.l1",), {"weight": w(8, 8), "bias": w(8)}),
        Recurrent(
            "lif", ("mid",), {"hh_diag": w(8), "beta": np.full(8, 0.9), "threshold": np.ones(8)}, cell=LIF, units=8
        ),
        Affine("gain", ("lif",), {"scale": w(8)}),
        Linear("head", ("gain",), {"weight": w(4, 8)}),
        TimeReduce("last", ("head",), feature_shape=(4,)),
    )
    return Graph(nodes, {"y": "last"}, dt=1e-3)


def density(graph: Graph, *, per_gate: bool = False) -> dict[str, float]:
    return {v.name: v.pattern.density for v in graph.weights(per_gate=per_gate)}


def test_default_takes_every_matrix_but_the_last_linear_embeddings_and_vectors():
    graph = network()
    found = density(prune(graph, 0.5))
    assert {n for n, d in found.items() if d == 0.5} == {
        "rnn.l0.ih", "rnn.l0.hh", "rnn.l0.hr", "rnn.l1.ih", "rnn.l1.hh", "mid.weight"
    }  # fmt: skip
    assert {n for n, d in found.items() if d == 1} == {"emb.weight", "lif.hh_diag", "head.weight"}
    assert all(d == 1 for d in density(graph).values())


def test_per_gate_gives_every_gate_its_share_where_tensor_starves_some():
    graph = network()
    shares = density(prune(graph, 0.8, select=named("rnn.l0.hh")), per_gate=True)
    assert [shares[f"rnn.l0.hh.{g}"] for g in "ifgo"] == [0.2] * 4
    starved = density(prune(graph, 0.8, select=named("rnn.l0.hh"), scope=Scope.TENSOR), per_gate=True)
    assert starved["rnn.l0.hh.f"] > 0.7
    assert starved["rnn.l0.hh.o"] == 0


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.99), st.integers(0, 50))
def test_counts_are_exact_in_every_scope(sparsity, seed):
    graph = network(seed)

    def live(scope: Scope, per_gate: bool = False) -> dict[str, tuple[int, int]]:
        pruned = prune(graph, sparsity, scope=scope)
        untouched = {"emb.weight", "lif.hh_diag", "head.weight"}
        views = pruned.weights(per_gate=per_gate)
        return {v.name: (v.pattern.nnz, v.value.size) for v in views if v.name not in untouched}

    for nnz, size in live(Scope.PER_GATE, per_gate=True).values():
        assert nnz == round((1 - sparsity) * size)
    for nnz, size in live(Scope.TENSOR).values():
        assert nnz == round((1 - sparsity) * size)
    by_layer: dict[str, list[tuple[int, int]]] = {}
    for name, pair in live(Scope.LAYER).items():
        by_layer.setdefault(name.rpartition(".")[0], []).append(pair)
    for pairs in by_layer.values():
        assert sum(n for n, _ in pairs) == round((1 - sparsity) * sum(s for _, s in pairs))
    pairs = list(live(Scope.GLOBAL).values())
    assert sum(n for n, _ in pairs) == round((1 - sparsity) * sum(s for _, s in pairs))


def test_global_compares_magnitudes_across_layers():
    pruned = prune(network(), 0.7, scope=Scope.GLOBAL)
    values = {v.name: v for v in network().weights()}
    kept, lost = [], []
    for view in pruned.weights():
        if view.name in {"emb.weight", "lif.hh_diag", "head.weight"}:
            continue
        original = np.abs(values[view.name].value)
        kept.append(original[view.pattern.mask()])
        lost.append(original[~view.pattern.mask()])
    assert np.concatenate(kept).min() >= np.concatenate(lost).max()


def test_pruned_graph_computes_with_the_zeros():
    graph = network()
    pruned = prune(graph, 0.6)
    plain = graph.replace_nodes(*(n.with_params(**{r: n.weight(r) for r in n.patterns}) for n in pruned.nodes))
    plain = replace(plain, nodes=tuple(replace(n, patterns={}) for n in plain.nodes))
    x = np.random.default_rng(0).integers(0, 20, (7, 3))
    assert np.array_equal(interpret(pruned, x).y, interpret(plain, x).y)
    assert not np.array_equal(interpret(pruned, x).y, interpret(graph, x).y)


def test_pruning_again_only_shrinks():
    once = prune(network(), 0.5, score=random(1))
    twice = prune(once, 0.8, score=random(2))
    for a, b in zip(once.weights(), twice.weights(), strict=True):
        assert b.pattern.intersect(a.pattern) == b.pattern
    back = prune(twice, 0.5, score=random(2))
    assert density(back) == density(twice)
    grown = prune(twice, 0.5, score=random(2), regrow=True)
    assert density(grown)["rnn.l1.hh"] == 0.5


def test_structure_that_older_zeros_break_is_said():
    once = prune(network(), 0.5, score=random(1), select=named("mid.weight"))
    view = {v.name: v for v in prune(once, 0.5, pattern=block(4, 2), select=named("mid.weight")).weights()}
    assert view["mid.weight"].pattern.origin == "block 4x2 within unstructured"


def test_patterns_fit_gates():
    pruned = prune(network(), 0.5, pattern=block(4, 1), select=named("rnn.l1.*"))
    views = {v.name: v for v in pruned.weights(per_gate=True)}
    assert views["rnn.l1.hh.z"].pattern.block_shape([(4, 1)]) == (4, 1)
    assert views["rnn.l1.hh.z"].pattern.origin == "block 4x1"
    half = prune(network(), None, pattern=n_m(2, 4), select=named("rnn.l1.hh"))
    assert density(half)["rnn.l1.hh"] == 0.5
    rows = prune(network(), None, pattern=fan_in(3), select=named("rnn.l1.hh")).node("rnn.l1").patterns["hh"].fan_in()
    assert np.all(rows == 3)


def test_sparsity_by_name():
    sizes = {"rnn.*": 0.5, re.compile(r"rnn\.l1\..h"): 0.75, "rnn.l1.hh.n": 0.0, "head.weight": 0.25}
    found = density(prune(network(), sizes), per_gate=True)
    assert found["rnn.l0.hh.f"] == 0.5
    assert found["rnn.l1.hh.r"] == 0.25
    assert found["rnn.l1.hh.n"] == 1.0
    assert found["head.weight"] == 0.75
    assert found["mid.weight"] == 1.0
    only = prune(network(), {"rnn.l1.hh.n": 0.5})
    assert set(only.node("rnn.l1").patterns) == {"hh"}
    assert density(only, per_gate=True)["rnn.l1.hh.r"] == 1.0
    assert not only.node("rnn.l0").patterns


def test_selection_by_name():
    chosen = named("rnn.*", "head.*", exclude=["*.ih"])
    found = density(prune(network(), 0.5, select=chosen))
    assert {n for n, d in found.items() if d < 1} == {"rnn.l0.hh", "rnn.l0.hr", "rnn.l1.hh", "head.weight"}
    by_kind = prune(network(), 0.5, select=lambda info: info.kind == "embedding")
    assert {n for n, d in density(by_kind).items() if d < 1} == {"emb.weight"}
    vector = prune(network(), 0.5, select=named("lif.hh_diag"))
    assert vector.node("lif").patterns["hh_diag"].shape == (1, 8)


def test_convolutions_are_matrices_of_out_by_the_rest():
    kernel = np.random.default_rng(0).normal(size=(4, 3, 2, 2))
    nodes = (
        Input("x", shape=(3, 5, 5)),
        Conv("conv", ("x",), {"weight": kernel}, stride=(1, 1), padding=(0, 0), dilation=(1, 1)),
    )
    pruned = prune(Graph(nodes, {"y": "conv"}), 0.75)
    assert pruned.node("conv").patterns["weight"].shape == (4, 12)
    assert pruned.node("conv").patterns["weight"].nnz == 12


def test_report():
    report = plan(network(), 0.9)
    pruned = prune(network(), 0.9)
    by_name = {r.name: r for r in report.rows}
    assert by_name["rnn.l0.hh"].nnz_before == 160
    assert by_name["rnn.l0.hh"].nnz_after == 16
    assert by_name["rnn.l0.hh.f"].shape == (8, 5)
    assert by_name["rnn.l0.hh"].digest == pruned.node("rnn.l0").patterns["hh"].digest
    size = sum(p.shape[0] * p.shape[1] for p in report.patterns.values())
    assert report.density == sum(p.nnz for p in report.patterns.values()) / size
    table = report.table()
    assert re.search(r"rnn\.l0\.hh +32x5 +160 +16 +0\.1000 +[0-9a-f]{16} +unstructured\n", table)
    assert "rnn.l0.hh.f" not in table
    assert "rnn.l0.hh.f" in report.table(per_gate=True)
    assert "skipped head.weight: last linear layer, taken for the read-out" in table
    assert "skipped gain.scale: affine parameter, not a weight matrix" in table
    data = json.loads(report.to_json())
    assert data["density"] == report.density
    assert {"name": "emb.weight", "reason": "embedding"} in data["skipped"]
    assert [w["name"] for w in data["weights"]] == [r.name for r in report.rows]


@given(st.permutations(range(9)), st.sampled_from(list(Scope)))
@settings(max_examples=20, deadline=None)
def test_order_of_weights_does_not_matter(order, scope):
    infos = graph_weights(network())
    how = Criteria(score=random(3), scope=scope)
    first = plan_weights(infos, 0.7, how)
    again = plan_weights([infos[k] for k in order], 0.7, how)
    assert {n: p.digest for n, p in first.patterns.items()} == {n: p.digest for n, p in again.patterns.items()}


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan"), 1.0, 90])
def test_impossible_sparsity(bad):
    with pytest.raises(UsageError, match=r"sparsity is .*: expected a number from 0 \(dense\)"):
        prune(network(), bad)
    with pytest.raises(UsageError, match=r"sparsity of 'rnn\.\*' is"):
        prune(network(), {"rnn.*": bad})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: prune(g, {"rnn.l0.hhh": 0.5}), r"'rnn.l0.hhh' matches no weight: did you mean 'rnn.l0.hh'\?"),
        (lambda g: prune(g, 0.5, select=named("mid.wait")), r"selection 'mid.wait' .* did you mean 'mid.weight'\?"),
        (lambda g: prune(g, 0.5, select=named(exclude=["zzz"])), r"'zzz' matches no weight: There are emb.weight"),
        (lambda g: prune(g, {"rnn.l1.hh.n": 0.5}, scope=Scope.TENSOR), r"names a gate, the scope is tensor"),
        (
            lambda g: prune(g, {"*.ih": 0.5, "*.hh": 0.6}, scope=Scope.LAYER),
            r"ranked together \(rnn.l0.ih, rnn.l0.hh\) are given different sparsities",
        ),
        (lambda g: prune(g, 0.5, pattern=block(16, 1)), r"weight 'rnn.l0.ih' of shape \(32, 6\): block 16x1 .* 8 rows"),
        (lambda g: prune(g, 0.5, pattern=n_m(2, 4), scope=Scope.GLOBAL), r"2:4 cannot be ranked across matrices"),
        (lambda g: prune(g, 0.9, pattern=n_m(1, 2), select=named("mid.*")), r"weight 'mid.weight' .* has sparsity 0.5"),
        (lambda g: prune(g, None), r"needs a sparsity"),
        (lambda g: prune(g, 0.5, score=lambda w, name: w[:1]), r"the score of 'rnn.l0.ih' has shape \(1, 6\)"),
        (lambda g: prune(g, 0.5, score=lambda w, name: w * np.nan), r"weight 'rnn.l0.ih' .* hold NaN"),
        (lambda g: prune(g, 0.5, pattern=lambda s, _: Pattern.full(8, 1)), r"has shape \(32, 1\): expected \(32, 6\)"),
    ],
)
def test_errors_name_the_weight_and_the_cure(call, words):
    with pytest.raises(UsageError, match=words) as caught:
        call(network())
    assert "\n" not in str(caught.value)


def test_nothing_matched_is_an_error():
    nodes = (Input("x", shape=(3,)), Affine("norm", ("x",), {"scale": np.ones(3)}))
    with pytest.raises(NothingMatchedError, match=r"norm\.scale \(affine parameter, not a weight matrix\)") as caught:
        prune(Graph(nodes, {"y": "norm"}), 0.5)
    assert caught.value.exit_code == 3
    nodes = (Input("x", shape=(3,)), Linear("fc", ("x",), {"weight": np.ones((3, 3))}))
    with pytest.raises(NothingMatchedError, match=r"fc\.weight \(last linear layer, taken for the read-out\)"):
        prune(Graph(nodes, {"y": "fc"}), 0.5)
    with pytest.raises(NothingMatchedError, match=r"rnn\.l0\.hh \(not selected\)"):
        prune(network(), 0.5, select=lambda info: False)
    with pytest.raises(NothingMatchedError, match="no weights"):
        prune(Graph((Input("x", shape=(3,)),), {"y": "x"}), 0.5)


def test_nan_outside_the_pattern_is_no_concern():
    weight = np.ones((4, 4))
    weight[0, 0] = np.nan
    mask = np.ones((4, 4), bool)
    mask[0, 0] = False
    nodes = (
        Input("x", shape=(4,)),
        Linear("a", ("x",), {"weight": weight}, {"weight": Pattern.from_mask(mask)}),
        Linear("b", ("a",), {"weight": np.ones((4, 4))}),
    )
    pruned = prune(Graph(nodes, {"y": "b"}), 0.5)
    assert pruned.node("a").patterns["weight"].nnz == 8
    assert not pruned.node("a").patterns["weight"].mask()[0, 0]
    info = graph_weights(pruned)[0]
    broken = replace(info, value=np.full((4, 4), np.nan))
    with pytest.raises(UsageError, match=r"weight 'a\.weight' .* holds NaN"):
        plan_weights([broken, *graph_weights(pruned)[1:]], 0.5, Criteria())


def test_works_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import sparsecirc.patterns, sparsecirc.scores, sparsecirc._prune\n"
        "print(sorted(m for m in sys.modules if m.startswith('torch')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['torch']"
