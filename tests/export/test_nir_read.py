"""Reading NIR graphs of other hands, the judge against loops written out, and layers without spikes."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecirc._pattern import Pattern
from sparsecirc.cells import LIF, SYNAPTIC, Options, Reset
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.ir import (
    Add,
    Graph,
    Input,
    Linear,
    Recurrent,
    interpret,
)

nir = pytest.importorskip("nir", reason="the package 'nir' is not installed")

from sparsecirc.export.nir import euler, export_nir  # noqa: E402
from sparsecirc.frontends._nir import from_nir  # noqa: E402

DT = 1e-4
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.random((40, 2, 4)) < 0.4, RNG.standard_normal((40, 2, 4))], axis=1).astype(float)


def full(value: float, *shape: int) -> np.ndarray[Any, Any]:
    return np.full(shape or (4,), value)


def chain(*nodes: Any, shape: tuple[int, ...] = (4,), out: tuple[int, ...] = (4,)) -> Any:
    """Input -> nodes -> Output, with names in order."""
    every = [nir.Input(np.array(shape)), *nodes, nir.Output(np.array(out))]
    named = {f"{k}_{type(n).__name__}": n for k, n in enumerate(every)}
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)), type_check=False)


def agree(graph: Any, x: np.ndarray[Any, Any] = X) -> np.ndarray[Any, Any]:
    """What is read computes what the judge computes."""
    want = next(iter(euler(graph, x).outputs.values()))
    np.testing.assert_allclose(interpret(from_nir(graph), x).y, want, rtol=1e-9, atol=1e-12)
    return want


def lif(**more: Any) -> Any:
    return nir.LIF(
        **{"tau": full(1e-3), "r": full(10.0), "v_leak": full(0), "v_threshold": full(1.0), "v_reset": full(0)} | more
    )


# ---- the judge, against its definition ---------------------------------------------------------------------------
def test_the_judge_runs_lif_as_written() -> None:
    node = lif(r=full(7.0), v_leak=full(0.3), v_reset=full(-0.2))
    v, want = np.full((4, 4), -0.2), []
    for x in 2 * X:
        v = v + DT / 1e-3 * (0.3 - v + 7.0 * x)
        z = v > 1.0
        want.append(z)
        v = np.where(z, -0.2, v)
    got = euler(chain(node), 2 * X)
    assert np.sum(want) > 50
    np.testing.assert_array_equal(next(iter(got.outputs.values())), want)


def test_the_judge_updates_the_synapse_before_the_membrane() -> None:
    node = nir.CubaLIF(
        tau_syn=full(5e-4), tau_mem=full(1e-3), r=full(9.0), v_leak=full(0), v_threshold=full(1), w_in=full(3)
    )
    i, v, want = np.zeros((4, 4)), np.zeros((4, 4)), []
    for x in X:
        i = i + DT / 5e-4 * (-i + 3 * x)
        v = v + DT / 1e-3 * (-v + 9 * i)
        want.append(v > 1)
        v = np.where(v > 1, 0, v)
    assert np.sum(want) > 50
    np.testing.assert_array_equal(next(iter(euler(chain(node), X).outputs.values())), want)


def test_the_judge_delays_the_edge_that_closes_a_cycle() -> None:
    weight, bias = RNG.standard_normal((4, 4)), RNG.standard_normal(4)
    nodes = {"a": nir.Input(np.array([4])), "b": lif(), "c": nir.Output(np.array([4])), "w": nir.Affine(weight, bias)}
    graph = nir.NIRGraph(nodes, [("a", "b"), ("b", "c"), ("b", "w"), ("w", "b")])
    v, z, want = np.zeros((4, 4)), np.zeros((4, 4)), []
    for x in X:
        v = 0.9 * v + x + z @ weight.T + bias
        z = (v > 1).astype(float)
        want.append(z)
        v = v * (1 - z)
    assert np.sum(want) > 50
    np.testing.assert_array_equal(agree(graph), want)


def test_a_leak_answers_a_step_as_an_exponential_sum() -> None:
    y = next(iter(euler(chain(nir.LI(full(1e-3), full(2.0), full(0))), np.ones((30, 1, 4))).outputs.values()))
    np.testing.assert_allclose(y[:, 0, 0], 2 * (1 - 0.9 ** np.arange(1, 31)), rtol=1e-12)


def test_a_delay_waits() -> None:
    y = next(iter(euler(chain(nir.Delay(full(3e-4))), X).outputs.values()))
    np.testing.assert_array_equal(y[3:], X[:-3])
    assert not y[:3].any()
    y = next(iter(euler(chain(nir.Delay(np.array([0, 1e-4, 3e-4, 1]))), X).outputs.values()))
    np.testing.assert_array_equal(y[..., 0], X[..., 0])
    np.testing.assert_array_equal(y[1:, :, 1], X[:-1, :, 1])
    np.testing.assert_array_equal(y[3:, :, 2], X[:-3, :, 2])
    assert not y[..., 3].any()
    assert not y[0, :, 1].any()


# ---- primitives of other hands -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "node",
    [
        lif(),
        lif(r=full(1.0), v_threshold=full(0.1)),
        lif(tau=np.array([1e-3, 2e-3, 3e-4, 1e-4]), v_threshold=np.array([1, 0.5, 2, 0.2])),
        nir.IF(r=full(1e4), v_threshold=full(2.0)),
        nir.IF(r=full(3.0), v_threshold=full(6e-4)),
        nir.CubaLIF(full(5e-4), full(1e-3), full(4.0), full(0), full(1), w_in=full(3)),
        nir.LI(full(1e-3), full(3.0), full(0)),
        nir.I(full(2.0)),
        nir.CubaLI(full(5e-4), full(1e-3), full(4.0), full(0), w_in=full(3)),
        nir.Threshold(full(0.5)),
        nir.Scale(np.array([1, -2, 0.5, 0])),
        nir.Linear(RNG.standard_normal((4, 4))),
        nir.Affine(RNG.standard_normal((4, 4)), RNG.standard_normal(4)),
        nir.Delay(full(0.0)),
        nir.Delay(full(3e-4)),
        nir.Delay(np.array([0, 5e-4, 1e-4, 2e-4])),
        lif(v_leak=full(0.6)),
        lif(v_reset=full(-0.7)),
        lif(v_leak=full(-65.0), v_reset=full(-65.0), v_threshold=full(-64.0)),
        lif(v_leak=np.array([0.3, 0, -0.4, 0.9]), v_reset=np.array([0.2, -1, 0.5, 0]), r=full(6.0)),
        nir.IF(r=full(3e3), v_threshold=full(0.4), v_reset=np.array([-0.2, 0, 0.1, -1])),
        nir.CubaLIF(full(5e-4), full(1e-3), full(4.0), full(-0.5), full(0.5), v_reset=full(-0.5), w_in=full(3)),
        nir.LI(full(1e-3), full(3.0), full(0.5)),
        nir.CubaLI(full(5e-4), full(1e-3), full(4.0), np.array([0.5, 0, -1, 2]), w_in=full(3)),
    ],
    ids=lambda n: type(n).__name__,
)
def test_each_primitive_is_read(node: Any) -> None:
    assert np.any(agree(chain(node)))


def test_a_synapse_may_leak_towards_a_value() -> None:
    agree(chain(nir.LI(full(5e-4), full(1.0), np.array([0.1, -0.2, 0, 0.3])), lif(r=full(6.0))))
    resting = lif(v_leak=full(0.4), v_reset=full(0.4), v_threshold=full(0.9))
    agree(chain(nir.LI(full(5e-4), full(1.0), full(0.1)), resting))


def test_chains_of_leaks() -> None:
    leak = nir.LI(full(1e-3), full(3.0), full(0))
    read = from_nir(chain(leak, lif()))
    assert [n.cell for n in read.recurrent] == [SYNAPTIC]
    for nodes in ((leak, leak), (leak, leak, leak), (leak, lif()), (leak, leak, lif()), (leak, nir.Threshold(full(1)))):
        assert np.any(agree(chain(*nodes)))


def test_flat_and_nested_recurrence_are_the_same_layer() -> None:
    w = RNG.standard_normal((4, 4)) * 0.5
    flat = nir.NIRGraph(
        {"a": nir.Input(np.array([4])), "n": lif(), "w": nir.Linear(w), "z": nir.Output(np.array([4]))},
        [("a", "n"), ("n", "w"), ("w", "n"), ("n", "z")],
    )
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([4])), "n": lif(), "output": nir.Output(np.array([4])), "w": nir.Linear(w)},
        [("input", "n"), ("n", "w"), ("w", "n"), ("n", "output")],
    )
    np.testing.assert_array_equal(agree(flat), agree(chain(inner)))
    assert "hh" in from_nir(flat).recurrent[0].params
    diagonal = nir.NIRGraph({**flat.nodes, "w": nir.Linear(np.diag(w[0]))}, flat.edges)
    assert "hh_diag" in from_nir(diagonal).recurrent[0].params
    agree(diagonal)


def test_several_edges_into_a_node_are_summed() -> None:
    shape = np.array([4])
    graph = nir.NIRGraph(
        {"a": nir.Input(shape), "b": nir.Linear(RNG.standard_normal((4, 4))), "c": lif(), "d": nir.Output(shape)},
        [("a", "b"), ("a", "c"), ("b", "c"), ("c", "d"), ("a", "d")],
    )
    assert sum(isinstance(n, Add) for n in from_nir(graph).nodes) == 2
    agree(graph)


def test_convolutions_and_pools_are_read() -> None:
    image = RNG.standard_normal((6, 2, 2, 6, 6))
    for groups, stride, padding, dilation in ((1, 1, 0, 1), (2, (2, 1), (1, 0), 1), (1, 1, (2, 2), 2)):
        weight = RNG.standard_normal((4, 2 // groups, 3, 3))
        conv = nir.Conv2d(None, weight, stride, padding, dilation, groups, RNG.standard_normal(4))
        assert agree(chain(conv, shape=(2, 6, 6), out=(4, 4, 4)), image).shape[:3] == (6, 2, 4)
    assert agree(chain(nir.Conv2d((6, 6), weight, 1, "same", 1, 1, full(0)), shape=(2, 6, 6)), image).shape[-1] == 6
    line = nir.Conv1d(6, RNG.standard_normal((3, 4, 3)), 1, 1, 1, 1, np.zeros(3))
    agree(chain(line, shape=(4, 6), out=(3, 6)), RNG.standard_normal((5, 2, 4, 6)))
    for pool in (nir.SumPool2d, nir.AvgPool2d):
        agree(chain(pool(np.array([2, 3]), np.array([2, 1]), np.array([0, 0])), shape=(2, 6, 6)), image)


@pytest.mark.parametrize("pool", ["SumPool2d", "AvgPool2d"])
def test_zeros_around_a_pool_count_as_values(pool: str) -> None:
    node = getattr(nir, pool)(np.array([3, 2]), np.array([2, 1]), np.array([1, 1]))
    agree(chain(node, shape=(2, 6, 5), out=(2, 3, 6)), RNG.standard_normal((4, 2, 2, 6, 5)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # of torch, for speed
@pytest.mark.parametrize("kernel", [(2, 3), (4, 2), (1, 4)])
def test_even_kernels_keep_the_size(kernel: tuple[int, int]) -> None:
    weight = RNG.standard_normal((3, 2, *kernel))
    node = nir.Conv2d((6, 5), weight, 1, "same", 1, 1, RNG.standard_normal(3))
    x = RNG.standard_normal((4, 2, 2, 6, 5))
    assert agree(chain(node, shape=(2, 6, 5), out=(3, 6, 5)), x).shape == (4, 2, 3, 6, 5)
    torch = pytest.importorskip("torch", reason="the package 'torch' is not installed")
    want = torch.nn.functional.conv2d(
        torch.from_numpy(x[0]), torch.from_numpy(weight), torch.from_numpy(node.bias), padding="same"
    )
    np.testing.assert_allclose(interpret(from_nir(chain(node, shape=(2, 6, 5), out=(3, 6, 5))), x).y[0], want)


@pytest.mark.parametrize("seed", range(3))
def test_whole_networks_with_leaks_resets_and_delays(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = {"a": nir.Input(np.array([4])), "z": nir.Output(np.array([3]))}
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([6])),
            "lif": nir.LIF(
                rng.uniform(5e-4, 2e-3, 6), full(9.0, 6), rng.normal(0, 0.4, 6), full(1.0, 6), rng.normal(0, 0.4, 6)
            ),
            "w_rec": nir.Affine(rng.normal(0, 0.3, (6, 6)), rng.normal(0, 0.1, 6)),
            "output": nir.Output(np.array([6])),
        },
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )
    graph = nir.NIRGraph(
        {
            **ends,
            "b": nir.Affine(rng.normal(0, 1, (6, 4)), rng.normal(0, 0.1, 6)),
            "c": inner,
            "d": nir.Delay(rng.integers(0, 9, 6) * 1e-4),
            "e": nir.Linear(rng.normal(0, 1, (3, 6))),
            "f": nir.LI(full(1e-3, 3), full(2.0, 3), rng.normal(0, 1, 3)),
        },
        [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "z")],
    )
    assert np.std(agree(graph)) > 0.01


def test_a_flatten_that_counts_the_batch_is_understood_where_the_next_layer_tells() -> None:
    after = nir.Linear(RNG.standard_normal((4, 72)))
    image = RNG.standard_normal((6, 2, 2, 6, 6))
    for start in (0, 1):
        flat = nir.Flatten({"input": np.array([2, 6, 6])}, start, -1)
        graph = chain(flat, after, shape=(2, 6, 6))
        want = interpret(from_nir(graph), image).y
        np.testing.assert_allclose(want, image.reshape(6, 2, 72) @ after.weight.T)
    with pytest.raises(UnsupportedError, match="joins axes 1 to 2"):
        from_nir(chain(nir.Flatten({"input": np.array([2, 6, 6])}, 1, -1), shape=(2, 6, 6), out=(2, 36)))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (nir.CubaLIF(full(5e-4), full(1e-3), full(4.0), full(0.5), full(1)), "v_leak that no constant input gives"),
        (lif(tau=full(2e-5)), "pass the step"),
        (lif(r=full(-1.0)), "gain <= 0"),
        (nir.Delay(full(1.5e-4)), "expected whole steps"),
        (nir.Delay(full(-1e-4)), "expected whole steps"),
        (nir.Delay(full(1e3)), "at most 4096 are held"),
        (nir.Conv2d((4, 4), np.zeros((1, 1, 2, 2)), 1, "same", 3, 1, np.zeros(1)), "no dilated kernel"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_no_cell_can_hold_is_refused_by_name(node: Any, words: str) -> None:
    shape = (1, 4, 4) if "2d" in type(node).__name__ else (4,)
    with pytest.raises(UnsupportedError, match=words) as caught:
        from_nir(chain(node, shape=shape))
    assert "'1_" in str(caught.value)


def test_unknown_cycles_and_loose_nodes_are_refused() -> None:
    shape = np.array([4])
    ends = {"a": nir.Input(shape), "z": nir.Output(shape)}
    w = nir.Linear(np.eye(4))
    two = nir.NIRGraph(
        {**ends, "b": lif(), "c": w, "d": lif(), "e": w},
        [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "b"), ("d", "z")],
    )
    with pytest.raises(UnsupportedError, match="cycle through"):
        from_nir(two)
    euler(two, X)  # the judge runs it all the same
    waiting = nir.NIRGraph(
        {**ends, "b": lif(), "c": nir.Delay(full(2e-4)), "d": w},
        [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("b", "z")],
    )
    with pytest.raises(UnsupportedError, match="cycle through"):
        from_nir(waiting)
    half = nir.NIRGraph(
        {
            **ends,
            "b": nir.LI(full(1e-3), full(10.0), full(0)),
            "c": nir.Threshold(full(1)),
            "d": nir.Linear(-0.5 * np.ones((4, 4))),
        },
        [("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"), ("c", "z")],
    )
    assert from_nir(half).recurrent[0].options.reset is Reset.NONE  # not a reset: an inhibiting connection
    agree(half)
    graph = nir.NIRGraph({**ends, "b": lif()}, [("a", "b"), ("b", "z")])
    graph.nodes["loose"] = lif()
    with pytest.raises(UnsupportedError, match="'loose' is not reached"):
        from_nir(graph)
    graph.nodes.pop("loose")
    graph.edges.append(("b", "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        from_nir(graph)


def test_dt_scales_the_time_constants() -> None:
    graph = chain(lif(tau=full(1e-2), r=full(10.0)))
    read = from_nir(graph, dt=1e-3)
    assert read.dt == 1e-3
    np.testing.assert_allclose(read.recurrent[0].params["beta"], 0.9)
    np.testing.assert_array_equal(interpret(read, X).y, next(iter(euler(graph, X, dt=1e-3).outputs.values())))
    assert from_nir(graph).dt == 1e-4


def test_the_callers_graph_is_not_changed(tmp_path: Path) -> None:
    graph = spiking()
    export_nir(graph, tmp_path / "a.nir")
    read = nir.read(tmp_path / "a.nir")
    before = copy.deepcopy(read.to_dict())
    from_nir(read)
    euler(read, X)
    np.testing.assert_equal(read.to_dict(), before)


# ---- metadata: a hint, never the truth ---------------------------------------------------------------------------
def spiking(*, reset: Reset = Reset.ZERO) -> Graph:
    rng = np.random.default_rng(3)
    fc = Linear("in.fc", ("x",), {"weight": rng.standard_normal((6, 4)).astype(np.float32)})
    hh = rng.standard_normal((6, 6)).astype(np.float32)
    params = {"beta": np.full(6, 0.9, np.float32), "threshold": np.full(6, 0.7, np.float32), "hh": hh}
    pattern = Pattern.from_mask(rng.random((6, 6)) < 0.4, "block 2x1")
    node = Recurrent("a.lif", ("in.fc",), params, {"hh": pattern}, cell=LIF, units=6, options=Options(reset))
    return Graph((Input("x", shape=(4,)), fc, node), {"class": "a.lif"}, dt=2e-3)


def edit(node: Any, **changes: Any) -> None:
    node.metadata["sparsecirc"] = json.dumps(json.loads(node.metadata.get("sparsecirc", "{}")) | changes)


def test_metadata_name_the_layer_and_its_connections(tmp_path: Path) -> None:
    graph = spiking()
    export_nir(graph, tmp_path / "a.nir")
    read = nir.read(tmp_path / "a.nir")
    told = json.loads(read.metadata["sparsecirc"])
    assert (told["dt"], told["file_dt"], told["profile"]) == (2e-3, 1e-4, "dialect")
    assert told["version"]
    inner = next(n for n in read.nodes.values() if type(n).__name__ == "NIRGraph")
    assert set(inner.nodes) == {"input", "lif", "output", "w_rec"}
    assert inner.edges[-1] == ("lif", "output"), "norse returns the node that the last edge leads to"
    told = json.loads(inner.nodes["lif"].metadata["sparsecirc"])
    assert (told["name"], told["cell"], told["reset"], told["delay"]) == ("a.lif", "lif", "zero", True)
    weight = inner.nodes["w_rec"].weight
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, graph.recurrent[0].weight("hh"))
    assert not np.any(weight[~graph.recurrent[0].patterns["hh"].mask()]), "dead connections are exact zeros"
    back = from_nir(tmp_path / "a.nir")
    assert back.dt == 2e-3
    assert [n.name for n in back.nodes] == [n.name for n in graph.nodes]
    assert list(back.outputs) == ["class"]
    assert back.recurrent[0].patterns["hh"] == graph.recurrent[0].patterns["hh"]
    assert back.recurrent[0].patterns["hh"].origin == "block 2x1"


@pytest.mark.parametrize("reset", [Reset.ZERO, Reset.SUBTRACT])
def test_wrong_metadata_change_no_spike(reset: Reset, tmp_path: Path) -> None:
    graph = spiking(reset=reset)
    export_nir(graph, tmp_path / "a.nir")
    want = interpret(graph, X).y
    assert want.sum() > 100
    lies: list[dict[str, Any]] = [
        {"beta": {"dtype": "float32", "values": 0.2}, "threshold": {"dtype": "float32", "values": 5.0}},
        {"beta": {"dtype": "nonsense", "values": "x"}, "reset": "subtract", "delay": False, "cell": "synaptic"},
        {"reset": "zero_update", "delay": True, "part": "mem"},
        {"beta": 3, "threshold": None, "reset": 7, "name": 5, "role": "hh_diag"},
        {"pattern": {"shape": [6, 6], "indptr": "eJw=", "indices": "!!", "origin": "x"}},
        {"pattern": {"shape": [2, 2]}, "name": "", "dt": -1.0},
        {"pattern": 3, "dt": "soon", "beta": {"dtype": "float32", "values": [1.0, 2.0]}},
    ]
    for lie in lies:
        read = nir.read(tmp_path / "a.nir")
        every = [*read.nodes.values()]
        for node in (read, *every, *(n for g in every if type(g).__name__ == "NIRGraph" for n in g.nodes.values())):
            edit(node, **lie)
        np.testing.assert_array_equal(interpret(from_nir(read), X).y, want)
        for node in every:
            node.metadata["sparsecirc"] = "not json"
        read.metadata.clear()
        np.testing.assert_array_equal(interpret(from_nir(read), X).y, want)
