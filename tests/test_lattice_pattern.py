"""Lattice patterns: what is kept follows from the order, in one layer, in stacks, with feedback, and is explained."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecirc import Graph, prune, scores
from sparsecirc._lattice import acyclic_order, concept_lattice, cut, forward, meet_irreducible, preorder
from sparsecirc._prune import Criteria, Scope, graph_weights, named, plan, plan_weights
from sparsecirc.cells import GRU, LIF, LSTM, RNN_TANH
from sparsecirc.errors import UsageError
from sparsecirc.ir import Concat, Elementwise, Input, Linear, Recurrent
from sparsecirc.patterns import Joint, Keep, Wired, block, combined_digest, gate_norm, lattice

HH = named("*.hh")


def layer(name, source, width, units, rng, cell=LSTM, **roles):
    rows = cell.n_gates * units
    params = {"ih": rng.standard_normal((rows, width)), "hh": rng.standard_normal((rows, units)), **roles}
    return Recurrent(name, (source,), {k: v.astype(np.float32) for k, v in params.items()}, cell=cell, units=units)


def lstm(units=24, features=5, seed=0, cell=LSTM) -> Graph:
    rng = np.random.default_rng(seed)
    return Graph((Input("x", shape=(features,)), layer("rnn", "x", features, units, rng, cell)), {"y": "rnn"})


def stack(seed=0) -> Graph:
    rng = np.random.default_rng(seed)
    nodes = (
        Input("x", shape=(3,)),
        layer("low", "x", 3, 10, rng, GRU),
        layer("back", "x", 3, 10, rng, GRU),
        Concat("both", ("low", "back")),
        Elementwise("act", ("both",), fn="tanh"),
        layer("high", "act", 20, 8, rng, GRU),
        Linear("fc", ("high",), {"weight": rng.standard_normal((4, 8)).astype(np.float32)}),
    )
    return Graph(nodes, {"y": "fc"})


def strengths(graph: Graph) -> np.ndarray:
    hh = np.abs(graph.node("rnn").params["hh"])
    s = hh.reshape(-1, hh.shape[1], hh.shape[1]).max(axis=0).astype(float)
    np.fill_diagonal(s, 0)
    return s


def mask_of(graph: Graph, pattern, sparsity=None, select=HH, name="rnn.hh") -> np.ndarray:
    return plan(graph, sparsity, pattern=pattern, select=select).patterns[name].mask()


# What is kept --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_connections_are_kept_by_their_ends(quantile):
    graph = lstm()
    s = strengths(graph)
    threshold = np.quantile(s[~np.eye(24, dtype=bool)], quantile)
    dag = forward(s * (s > threshold), acyclic_order(s * (s > threshold)))
    order = preorder(cut(dag, 0.0))
    critical = np.array(meet_irreducible(order))
    either = mask_of(graph, lattice(quantile=quantile)).reshape(4, 24, 24)
    both = mask_of(graph, lattice(quantile=quantile, keep=Keep.BOTH)).reshape(4, 24, 24)
    cover = mask_of(graph, lattice(quantile=quantile, keep="cover")).reshape(4, 24, 24)
    below = order.matrix() & ~np.eye(24, dtype=bool)
    hasse = below & ~((below.astype(int) @ below.astype(int)) > 0)
    for gate in range(4):
        assert np.array_equal(either[gate], critical[:, None] | critical)
        assert np.array_equal(both[gate], critical[:, None] & critical)
        assert np.array_equal(cover[gate], hasse | np.eye(24, dtype=bool))


def test_small_layers_agree_with_the_concept_lattice():
    for seed in range(20):
        graph = lstm(8, seed=seed, cell=RNN_TANH)
        s = strengths(graph)
        dag = forward(s * (s > 0.8), acyclic_order(s * (s > 0.8)))
        critical = np.array(concept_lattice(preorder(cut(dag, 0.0)).matrix()).meet_irreducible())
        assert np.array_equal(mask_of(graph, lattice(threshold=0.8, keep="both")), critical[:, None] & critical)


def test_neurons_on_a_cycle_keep_the_connections_between_them():
    w = np.zeros((6, 6), dtype=np.float32)
    w[[1, 2, 0, 3, 4, 5], [0, 1, 2, 2, 3, 3]] = 1.0  # 0 -> 1 -> 2 -> 0, 2 -> 3, 3 -> 4, 3 -> 5
    w[4, 2] = 1.0  # implied by 2 -> 3 -> 4
    found = lattice(order="scc", keep="cover", threshold=0.5)(w).mask()
    expected = w > 0
    expected[4, 2] = False
    assert np.array_equal(found, expected | np.eye(6, dtype=bool))


def test_one_component_is_refused_with_the_cure():
    with pytest.raises(UsageError, match=r"one component holds .* of the 24 neurons.*higher threshold.*'acyclic'"):
        prune(lstm(), None, pattern=lattice(order="scc", target_degree=8), select=HH)


def test_unrolled_in_time_neurons_are_judged_by_their_inputs():
    w = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 0]], dtype=float)
    np.fill_diagonal(w, 0)
    critical = np.array(concept_lattice(w > 0.5).meet_irreducible())
    found = lattice(order="time", keep="both", threshold=0.5)(w).mask()
    assert np.array_equal(found, critical[:, None] & critical)
    dual = np.array(concept_lattice((w > 0.5).T).meet_irreducible())
    found = lattice(order="time", keep="both", threshold=0.5, join=True)(w).mask()
    assert np.array_equal(found, dual[:, None] & dual)


@pytest.mark.parametrize("options", [{}, {"keep": "both"}, {"keep": "cover", "adjacency": "continuous"},
                                     {"order": "time", "adjacency": "continuous"}, {"order": "scc"},
                                     {"join": True, "keep": "both"}, {"per_gate": True, "keep": "both"}])  # fmt: skip
def test_relabelling_units_relabels_the_mask(options):
    graph = lstm(16)
    p = np.random.default_rng(1).permutation(16)
    rows = (np.arange(4)[:, None] * 16 + p).ravel()
    node = graph.node("rnn")
    moved = node.with_params(ih=node.params["ih"][rows], hh=node.params["hh"][rows][:, p])
    made = lattice(target_density=0.4, ranked=True, **options)
    assert np.array_equal(mask_of(graph.replace_nodes(moved), made), mask_of(graph, made)[rows][:, p])


def test_central_neurons_are_critical_too_where_centrality_weighs_enough():
    graph = lstm(40)
    plain, light, heavy = (mask_of(graph, lattice(keep="both", centrality=c)) for c in (0.0, 0.5, 2.0))
    assert np.array_equal(plain, light)
    assert heavy.sum() > plain.sum()
    assert np.all(heavy[plain])


def test_an_order_per_gate_gives_each_gate_its_own_mask():
    graph = lstm()
    found = mask_of(graph, lattice(keep="both", per_gate=True)).reshape(4, 24, 24)
    assert len({m.tobytes() for m in found}) == 4
    for k in range(4):
        alone = lattice(keep="both")(np.abs(graph.node("rnn").params["hh"].reshape(4, 24, 24)[k]))
        assert np.array_equal(found[k], alone.mask())


def test_gates_are_joined_by_a_callable():
    graph = lstm()
    hh = graph.node("rnn").params["hh"].astype(float).reshape(4, 24, 24)
    norm = np.sqrt((hh**2).sum(axis=0))
    found = mask_of(graph, lattice(keep="both", aggregate=gate_norm))
    assert np.array_equal(found[:24], lattice(keep="both")(norm).mask())


# How much is kept ----------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.floats(0, 0.98), st.sampled_from(["either", "both", "cover"]), st.sampled_from(["acyclic", "scc", "time"]))
def test_a_continuous_lattice_meets_any_sparsity_exactly(sparsity, keep, order):
    graph = lstm()
    made = lattice(adjacency="continuous", keep=keep, order=order, cuts=32)
    found = mask_of(graph, made, sparsity).reshape(4, -1)
    assert found.sum(axis=1).tolist() == [round((1 - sparsity) * 24 * 24)] * 4


def test_a_ranked_lattice_keeps_the_largest_of_what_it_chose_first():
    graph = lstm()
    chosen = mask_of(graph, lattice(keep="both"))
    w = np.abs(graph.node("rnn").params["hh"])
    for sparsity in (0.1, 0.9):
        found = mask_of(graph, lattice(keep="both", ranked=True), sparsity)
        for k in range(4):
            rows = slice(24 * k, 24 * (k + 1))
            score = np.where(chosen[rows], 100.0, 0.0) + w[rows]
            best = np.sort(score.ravel())[::-1][: round((1 - sparsity) * 576)]
            assert np.array_equal(found[rows], score >= best[-1])


@pytest.mark.parametrize(("keep", "wanted"), [("both", 0.5), ("both", 0.8), ("either", 0.97), ("cover", 0.05)])
def test_a_threshold_is_searched_for_a_density(keep, wanted):
    report = plan(lstm(32), None, pattern=lattice(keep=keep, target_density=wanted), select=HH)
    assert report.density == pytest.approx(wanted, abs=0.05)
    assert plan(lstm(32), 1 - wanted, pattern=lattice(keep=keep), select=HH).patterns == report.patterns


def test_a_density_out_of_reach_is_refused_with_what_can_be_reached():
    with pytest.raises(UsageError, match=r"keeps 'cover' reaches densities from 0\.0\d+ to 0\.\d+, asked for 0\.9"):
        plan(lstm(32), 0.1, pattern=lattice(keep="cover"), select=HH)


def test_a_degree_sets_the_threshold():
    graph = lstm(50)
    explained = plan(graph, None, pattern=lattice(target_degree=1.5), select=HH).explanations[0].to_json()
    s = strengths(graph)
    assert (s > explained["settings"]["threshold"]).sum() == pytest.approx(75, abs=1)


@pytest.mark.parametrize(
    ("options", "sparsity", "message"),
    [
        ({"keep": "some"}, None, "keep is 'some': expected one of either, both, cover"),
        ({"quantile": 0.5, "threshold": 1.0}, None, "threshold and quantile both set"),
        ({"adjacency": "continuous", "quantile": 0.5}, None, "quantile is for a binary"),
        ({"target_density": 0.0}, None, "target_density is 0.0"),
        ({"target_density": 0.5}, 0.9, "contradict each other"),
        ({"threshold": 0.5}, 0.9, "threshold already decides"),
        ({"quantile": 1.5}, None, "quantile is 1.5"),
        ({"threshold": -1.0}, None, "threshold is -1.0"),
        ({"centrality": float("nan")}, None, "centrality is nan"),
    ],
)
def test_bad_options_are_refused(options, sparsity, message):
    with pytest.raises(UsageError, match=message):
        plan(lstm(), sparsity, pattern=lattice(**options), select=HH)


def test_different_sparsities_cannot_be_judged_together():
    with pytest.raises(UsageError, match=r"judged together.*expected one"):
        plan(lstm(), {"*.hh": 0.5, "*.ih": 0.6}, pattern=lattice(ranked=True))


def test_negative_scores_are_refused():
    with pytest.raises(UsageError, match=r"scores of weight 'rnn\.hh' are negative"):
        plan(lstm(), 0.5, score=lambda w, name: w, pattern=lattice(), select=HH)


# Whole networks ------------------------------------------------------------------------------------------------------


def block_matrix(graph: Graph) -> tuple[np.ndarray, dict[str, slice]]:
    """Adjacency of `stack` by hand: inputs, two low layers, the high one."""
    where = {"x": slice(0, 3), "low": slice(3, 13), "back": slice(13, 23), "high": slice(23, 31)}
    s = np.zeros((31, 31))

    def put(target, source, weight):
        units = where[target].stop - where[target].start
        s[where[target], source] = np.abs(weight).reshape(-1, units, weight.shape[1]).max(axis=0)

    for name in ("low", "back", "high"):
        node = graph.node(name)
        put(name, where[name], node.params["hh"])
        put(name, where["x"] if name != "high" else slice(3, 23), node.params["ih"])
    np.fill_diagonal(s, 0)
    return s, where


def test_stacked_layers_are_one_adjacency():
    graph = stack()
    s, where = block_matrix(graph)
    dag = forward(s * (s > 1.5), acyclic_order(s * (s > 1.5)))
    critical = np.array(meet_irreducible(preorder(cut(dag, 0.0))))
    judged = np.arange(31) >= 3
    ok = critical | ~judged
    kept = ok[:, None] & ok
    found = plan(graph, None, pattern=lattice(keep="both", threshold=1.5)).patterns
    assert set(found) == {f"{n}.{r}" for n in ("low", "back", "high") for r in ("ih", "hh")}
    for name in ("low", "back", "high"):
        source = where["x"] if name != "high" else slice(3, 23)
        assert np.array_equal(found[f"{name}.hh"].mask(), np.tile(kept[where[name], where[name]], (3, 1)))
        assert np.array_equal(found[f"{name}.ih"].mask(), np.tile(kept[where[name], source], (3, 1)))


def test_a_read_out_is_in_the_order_but_not_judged():
    report = plan(stack(), None, pattern=lattice(keep="both", quantile=0.8), select=lambda info: True)
    reasons = {n.name: n for n in report.explanations[0].neurons}
    assert not reasons["fc[0]"].judged
    assert not reasons["x[0]"].judged
    assert reasons["high[0]"].judged
    dead = ~report.patterns["fc.weight"].mask().any(axis=0)
    assert {f"high[{k}]" for k in np.flatnonzero(dead)} == {
        n for n, r in reasons.items() if n.startswith("high") and r.irreducible == 0
    }


def test_feedback_from_above_closes_cycles_only_without_time():
    rng = np.random.default_rng(0)
    up, down = rng.random((6, 4)) + 1, rng.random((4, 6)) + 1
    matrices = [
        Wired("top.ih", up, (), "top", (("bottom", 4),)),
        Wired("bottom.fb", down, (), "bottom", (("top", 6),)),
    ]
    with pytest.raises(UsageError, match="one component holds 10 of the 10"):
        lattice(order="scc", threshold=0.5).joint(matrices)
    for order in ("acyclic", "time"):
        made, why = lattice(order=order, threshold=0.5, keep="both").joint(matrices)
        assert [p.shape for p in made] == [(6, 4), (4, 6)]
        assert len(why[0].neurons) == 10


def test_wiring_can_be_said_where_the_model_does_not_say_it():
    graph = lstm()
    infos = [i for i in graph_weights(graph) if i.role == "ih"]
    own = lattice(keep="both", quantile=0.7, wiring={"rnn.ih": [("top", 2), ("pixels", 3)]})
    report = plan_weights(infos, None, Criteria(pattern=own, select=lambda i: True))
    assert {n.layer for n in report.explanations[0].neurons} == {"top", "pixels", "rnn"}
    with pytest.raises(UsageError, match=r"sources of weight 'rnn.ih' have 4 neurons: expected 5"):
        plan(graph, None, pattern=lattice(wiring={"rnn.ih": [("top", 4)]}))
    with pytest.raises(UsageError, match=r"'rnn' has .* neurons for weight .* wiring="):
        plan(graph, None, pattern=lattice(wiring={"rnn.ih": [("rnn", 5)]}))


def test_spiking_recurrence_and_its_input_are_one_layer():
    rng = np.random.default_rng(0)
    fixed = {"beta": np.full(20, 0.9, np.float32), "threshold": np.ones(20, np.float32)}
    drive = Linear("fc1", ("x",), {"weight": rng.standard_normal((20, 6)).astype(np.float32)})
    lif = Recurrent("lif", ("fc1",), {"hh": rng.standard_normal((20, 20)).astype(np.float32), **fixed}, cell=LIF,
                    units=20)  # fmt: skip
    out = Linear("fc2", ("lif",), {"weight": rng.standard_normal((3, 20)).astype(np.float32)})
    graph = Graph((Input("x", shape=(6,)), drive, lif, out), {"y": "fc2"}, dt=1e-3)
    report = plan(graph, None, pattern=lattice(keep="both", quantile=0.8))
    assert {n.layer for n in report.explanations[0].neurons} == {"x", "lif"}
    cut_neurons = [int(n.name[4:-1]) for n in report.explanations[0].neurons if n.judged and not n.kept]
    assert cut_neurons
    for name in ("fc1.weight", "lif.hh"):
        assert not report.patterns[name].mask()[cut_neurons].any()


def test_feed_forward_weights_alone_are_judged_at_both_ends():
    w = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    graph = Graph((Input("x", shape=(20,)), Linear("a", ("x",), {"weight": w})), {"y": "a"})
    report = plan(graph, None, pattern=lattice(keep="both", quantile=0.9), select=lambda info: True)
    assert all(n.judged for n in report.explanations[0].neurons)
    assert 0 < report.patterns["a.weight"].nnz < w.size


def test_the_projection_of_an_lstm_is_a_layer_of_its_own():
    rng = np.random.default_rng(0)
    params = {"ih": (48, 3), "hh": (48, 5), "hr": (5, 12)}
    node = Recurrent("rnn", ("x",), {k: rng.standard_normal(s).astype(np.float32) for k, s in params.items()},
                     cell=LSTM, units=12)  # fmt: skip
    graph = Graph((Input("x", shape=(3,)), node), {"y": "rnn"})
    report = plan(graph, None, pattern=lattice(keep="both"))
    sizes: dict[str, int] = {}
    for n in report.explanations[0].neurons:
        sizes[n.layer] = sizes.get(n.layer, 0) + 1
    assert sizes == {"x": 3, "rnn": 12, "rnn.hr": 5}


# Around it -----------------------------------------------------------------------------------------------------------


def test_dead_connections_stay_dead_and_do_not_act():
    graph = prune(lstm(), 0.5, select=HH)
    again = prune(graph, 0.9, pattern=lattice(adjacency="continuous"), select=HH)
    old, new = graph.node("rnn").patterns["hh"], again.node("rnn").patterns["hh"]
    assert new.intersect(old) == new
    assert new.nnz == 4 * 58


def test_it_is_a_joint_maker_and_scopes_do_not_matter():
    made = lattice(keep="both")
    assert isinstance(made, Joint)
    digests = {combined_digest(plan(lstm(), None, pattern=made, scope=scope, select=HH).patterns) for scope in Scope}
    assert len(digests) == 1


def test_the_mask_hash_is_the_same_in_every_process():
    code = (
        "import numpy as np; from sparsecirc.patterns import lattice\n"
        "w = np.abs(np.random.default_rng(0).standard_normal((60, 60)))\n"
        "for kw in ({'keep': 'both'}, {'adjacency': 'continuous', 'target_density': 0.2}, {'order': 'scc'}):\n"
        "    print(lattice(**kw)(w).digest)\n"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.split()) == 3


@pytest.mark.parametrize("n", [0, 1, 2])
def test_tiny_layers(n):
    w = np.ones((n, n))
    for keep in Keep:
        assert lattice(keep=keep)(w).shape == (n, n)
        assert lattice(keep=keep, adjacency="continuous", target_density=1.0)(w).nnz == n * n


def test_persistence_is_a_score_for_any_pattern():
    graph = lstm(16)
    found = plan(graph, 0.75, score=scores.lattice(), select=HH).patterns["rnn.hh"].mask()
    own = plan(graph, 0.75, pattern=lattice(adjacency="continuous", keep="cover"), select=HH).patterns["rnn.hh"].mask()
    assert np.array_equal(found, own)
    tiles = plan(graph, 0.75, score=scores.lattice(), pattern=block(4, 1), select=HH).patterns["rnn.hh"]
    assert tiles.block_shape(((4, 1),)) == (4, 1)
    assert tiles.nnz == 256
    per_gate = scores.lattice(lattice(adjacency="continuous", keep="both", per_gate=True))
    w = graph.node("rnn").params["hh"]
    assert per_gate(w, "rnn.hh").shape == w.shape
    assert scores.lattice()(graph.node("rnn").params["ih"], "rnn.ih").shape == (64, 5)
    assert scores.lattice()(np.zeros((4, 4)), "a.hh").tolist() == np.diag(np.ones(4)).tolist()


# Explanations --------------------------------------------------------------------------------------------------------


def test_every_neuron_has_a_reason():
    w = np.zeros((6, 6))
    w[1, 0] = w[2, 0] = w[3, 1] = w[3, 2] = w[4, 3] = 1.0  # a diamond 0 < 1, 2 < 3, then 4 on top; 5 apart
    explained = lattice(threshold=0.5, keep="both").joint([Wired("hh", w, (), "u", (("u", 6),))])[1][0]
    why = {n.name: n for n in explained.neurons}
    assert why["u[0]"].reason == "reducible: the meet of u[1], u[2]"
    assert why["u[1]"].reason == "irreducible: one neuron right above it"
    assert why["u[1]"].upper_covers == ("u[3]",)
    assert why["u[4]"].reason == "irreducible: nothing above it, and it is not the greatest element"
    assert [why[f"u[{k}]"].level for k in range(6)] == [0, 1, 1, 2, 3, 0]
    assert [n.kept for n in explained.neurons] == [False, True, True, True, True, True]
    joined = lattice(threshold=0.5, keep="both", join=True).joint([Wired("hh", w, (), "u", (("u", 6),))])[1][0]
    assert {n.name: n.reason for n in joined.neurons}["u[3]"] == "reducible: the join of the 2 below it"


def test_a_witness_is_named_where_several_neurons_lie_above():
    w = np.zeros((4, 4))
    w[1, 0] = w[2, 0] = w[1, 3] = w[2, 3] = 1.0  # 0 and 3 both below 1 and 2
    explained = lattice(threshold=0.5).joint([Wired("hh", w, (), "u", (("u", 4),))])[1][0]
    assert explained.neurons[0].reason == "irreducible: u[3] is below all 2 right above it, and not below it"


@pytest.mark.parametrize("options", [{}, {"adjacency": "continuous", "target_density": 0.3}, {"order": "time"},
                                     {"order": "scc"}, {"per_gate": True}, {"join": True}])  # fmt: skip
@pytest.mark.parametrize("units", [12, 90])
def test_explanations_are_tables_json_and_drawings(options, units):
    graph = lstm(units)
    report = plan(graph, None, pattern=lattice(**options), select=HH)
    mask = report.patterns["rnn.hh"].mask().reshape(4, units, units)
    assert len(report.explanations) == (4 if options.get("per_gate") else 1)
    for k, explained in enumerate(report.explanations):
        own = mask if len(report.explanations) == 1 else mask[k : k + 1]
        found = json.loads(json.dumps(explained.to_json()))
        assert [n["live_in"] for n in found["neurons"]] == own.sum(axis=(0, 2)).tolist()
        assert [n["live_out"] for n in found["neurons"]] == own.sum(axis=(0, 1)).tolist()
        assert len(explained.table().splitlines()) == units + 2
        root = ET.fromstring(explained.svg())
        boxes = root.findall("{http://www.w3.org/2000/svg}g")
        elements = len(found["hasse"]["nodes"])
        assert len(boxes) == elements if elements <= 60 else len(boxes) < 40
        assert root.attrib["aria-label"] == f"Hasse diagram of {elements} elements"


def test_lines_of_a_drawing_lead_upwards():
    explained = plan(lstm(30), None, pattern=lattice(), select=HH).explanations[0]
    for line in ET.fromstring(explained.svg()).findall("{http://www.w3.org/2000/svg}line"):
        assert float(line.attrib["y2"]) < float(line.attrib["y1"])
