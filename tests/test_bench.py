"""`bench`: every peer computes what the interpreter does, wrong ones are thrown out, and numbers are what they say."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib import util
from typing import Any

import numpy as np
import pytest

from sparsecirc._bench import ENGINES, BenchReport, CannotRun, Engine, Host, bench, engines_named, example_input
from sparsecirc._bench._bench import _job
from sparsecirc._bench._measure import interleaved
from sparsecirc._bench._threads import pinned_threads
from sparsecirc._pattern import Pattern
from sparsecirc._target import Target
from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import MismatchError, UsageError
from sparsecirc.ir import (
    Add,
    Affine,
    Concat,
    Conv,
    Elementwise,
    Embedding,
    Flatten,
    Graph,
    Input,
    Linear,
    Multiply,
    Pool,
    Recurrent,
    Repeat,
    TimeReduce,
    interpret,
)

ONNX = ("onnxruntime", "openvino")
PEERS = [e for e in ENGINES.values() if e.name not in ("sparsecirc", *ONNX) and util.find_spec(e.package)]


@dataclass
class Clock:
    """Time that passes only when a test says so: a busy machine changes no figure."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("sparsecirc._bench._measure.time", clock)
    return clock


@dataclass
class Interpreted:
    """Stands in for a compiled program where the test is about bench, not about kernels."""

    graph: Graph
    target: Target = field(default_factory=Target)
    error: float = 0.0
    seconds: float = 0.0
    clock: Clock | None = None
    tolerance: float = 1e-5

    def run(self, x: Any) -> Any:
        if self.clock is not None:
            self.clock.now += self.seconds
        result = interpret(self.graph, x, dtype=np.float32)
        return replace(result, outputs={k: v + self.error for k, v in result.outputs.items()})


def _uniform(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.uniform(-1, 1, shape) * 0.5).astype(np.float32)


def layer(
    cell: str,
    name: str = "rnn",
    source: str = "x",
    *,
    inputs: int = 6,
    units: int = 8,
    without: str = "",
    options: Options | None = None,
    **attrs: Any,
) -> Recurrent:
    """A sparse recurrent layer with everything but the roles in ``without``."""
    rng, c = np.random.default_rng(3), CELLS[cell]
    rows = c.n_gates * units
    params = {"ih": _uniform(rng, rows, inputs), "bias_ih": _uniform(rng, rows), "bias_hh": _uniform(rng, rows)}
    params["hh"] = _uniform(rng, rows, attrs.pop("projected", units))
    if "hr" in attrs:
        params["hr"] = attrs.pop("hr")
    for role, value in {"beta": 0.9, "alpha": 0.7, "threshold": 0.4}.items():
        if role in c.vectors:
            params[role] = np.full(units, value, np.float32)
    params = {k: v for k, v in params.items() if k not in without.split()}
    patterns = {
        k: Pattern.from_mask(rng.random(v.shape) < 0.4)
        for k, v in params.items()
        if k in ("ih", "hh") and k not in without
    }
    return Recurrent(name, (source,), params, patterns, cell=c, units=units, options=options or Options(), **attrs)


def one(node: Recurrent, *more: Any, outputs: dict[str, str] | None = None, batch_first: bool = False) -> Graph:
    width = node.params["ih"].shape[1] if "ih" in node.params else node.cell.n_gates * node.units
    return Graph((Input("x", shape=(width,)), node, *more), outputs or {"y": node.name}, batch_first=batch_first)


def _resets() -> dict[str, Graph]:
    graphs = {}
    for reset in Reset:
        for delay in (True, False):
            for cell in ("lif", "synaptic"):
                graphs[f"{cell} {reset.value} {'delayed' if delay else 'at once'}"] = one(
                    layer(cell, options=Options(reset, delay))
                )
    return graphs


def _glue() -> Graph:
    rng = np.random.default_rng(5)
    x = Input("x", shape=(2, 6, 6))
    conv = Conv(
        "conv", ("x",), {"weight": _uniform(rng, 3, 2, 3, 3), "bias": _uniform(rng, 3)}, {}, (1, 1), (1, 1), (1, 1)
    )
    pool = Pool("pool", ("conv",), {}, {}, "max", (2, 2), (2, 2))
    fire = layer("lif", "fire", "pool", units=27, without="ih hh bias_ih bias_hh", feature_shape=(3, 3, 3))
    flat = Flatten("flat", ("fire",), {}, {}, 3)
    gru = layer("gru", "rnn", "flat", inputs=27)
    gain = Affine("gain", ("rnn",), {"scale": _uniform(rng, 8), "shift": _uniform(rng, 8)})
    act = [Elementwise(f, ("gain",), {}, {}, f) for f in ("relu", "tanh", "sigmoid", "softmax", "log_softmax")]
    add = Add("add", ("relu", "tanh", "sigmoid"))
    multiply = Multiply("multiply", ("add", "softmax"))
    concat = Concat("concat", ("multiply", "log_softmax"))
    over = Conv("over", ("concat",), {"weight": _uniform(rng, 4, 16, 3)}, {}, (1,), (1,), (1,), over_time=True)
    reduced = [TimeReduce(how, ("over",), {}, {}, how, (4,)) for how in ("last", "first", "mean", "sum", "max")]
    head = Linear("head", ("mean",), {"weight": _uniform(rng, 5, 4), "bias": _uniform(rng, 5)})
    head = head.with_patterns(weight=Pattern.from_mask(rng.random((5, 4)) < 0.3))
    outputs = {n: n for n in ("head", "last", "first", "sum", "max", "over")}
    return Graph((x, conv, pool, fire, flat, gru, gain, *act, add, multiply, concat, over, *reduced, head), outputs)


def _direct() -> Graph:
    rng = np.random.default_rng(6)
    table = Embedding("table", ("word",), {"weight": _uniform(rng, 9, 6)})
    static = Input("context", shape=(6,), time=False)
    lif = layer("lif", "lif", "again")
    return Graph(
        (Input("word", shape=(), time=False), static, table, Add("both", ("table", "context")),
         Repeat("again", ("both",), {}, {}, 7), lif, TimeReduce("rate", ("lif",), {}, {}, "mean", (8,))),
        {"rate": "rate"},
    )  # fmt: skip


GRAPHS: dict[str, Graph] = {
    **{cell: one(layer(cell)) for cell in ("rnn_tanh", "rnn_relu", "gru", "lstm")},
    **_resets(),
    "gru backwards": one(layer("gru", reverse=True), batch_first=True),
    "gru without recurrence": one(layer("gru", without="hh bias_hh")),
    "gru without biases": one(layer("gru", without="bias_ih bias_hh")),
    "gru with one bias": one(layer("gru", without="bias_ih")),
    "gru on a ready drive": one(layer("gru", without="ih bias_ih")),
    "lstm with its cell state": one(layer("lstm"), outputs={"y": "rnn", "c": "rnn.c"}),
    "lstm with a projection": one(layer("lstm", projected=3, hr=_uniform(np.random.default_rng(1), 3, 8))),
    "lif membrane": one(layer("lif", without="hh bias_hh"), outputs={"mem": "rnn.mem"}),
    "lif one to one": one(layer("lif", without="hh").with_params(hh_diag=_uniform(np.random.default_rng(2), 8))),
    "two layers": one(layer("gru"), layer("lstm", "second", "rnn", inputs=8), outputs={"y": "second"}),
    "glue": _glue(),
    "direct coding": _direct(),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_peer_computes_the_network(name, batch):
    pytest.importorskip("torch", reason="needs torch (extra 'torch')")
    pytest.importorskip("scipy", reason="needs scipy (extra 'bench')")
    pytest.importorskip("snntorch", reason="needs snntorch (extra 'torch')")
    graph = GRAPHS[name]
    x = example_input(graph, batch=batch, steps=9, seed=1)
    expected = list(interpret(graph, x).outputs.values())
    assert max(float(np.abs(y).max()) for y in expected) > 1e-3, "the test input leaves the network silent"
    ran = []
    for engine in PEERS:
        job = _job(Interpreted(graph), x, None, None, None)
        try:
            got = list(engine.prepare(job)())
        except CannotRun:
            continue
        ran.append(engine.name)
        if name in UNLIKE.get(engine.name, ()):
            assert any(np.abs(have - want).max() > 0.1 for have, want in zip(got, expected, strict=True))
            continue
        for have, want in zip(got, expected, strict=True):
            assert have.shape == want.shape
            assert np.abs(have - want).max() < 2e-5, engine.name
    assert {"torch_dense", "torch_csr", "scipy_csr"} <= set(ran)
    assert ("snntorch" in ran) == (graph.spiking and name != "lif one to one")
    for peer in {"norse", "spikingjelly"} & {e.name for e in PEERS}:
        assert (peer in ran) == (name in RESETS_AT_ONCE), peer


# Networks whose spikes are those of neurons that reset at the spike itself, norse's and SpikingJelly's.
RESETS_AT_ONCE = {"lif zero delayed", "lif zero at once", "lif subtract at once"}

# bench drops an engine that differs. snntorch's layers have no such resets; norse and SpikingJelly subtract again and
# again from a membrane that is above its threshold even after a reset, which these strong inputs bring about.
UNLIKE = {
    "snntorch": {"lif zero delayed", "synaptic zero delayed", "synaptic zero at once", "synaptic zero_update at once"},
    "norse": {"lif subtract at once"},
    "spikingjelly": {"lif subtract at once"},
}


@pytest.mark.parametrize("engine", ["norse", "spikingjelly"])
def test_simulators_that_subtract_at_the_spike(engine):
    if util.find_spec(engine) is None:
        pytest.skip(f"needs {engine}")
    node = layer("lif", options=Options(Reset.SUBTRACT, False))
    graph = one(node.with_params(threshold=np.full(8, 2.0, np.float32)))
    x = example_input(graph, batch=4, steps=30, seed=1)
    expected = interpret(graph, x).y
    assert expected.mean() > 0.02
    job = _job(Interpreted(graph), x, None, None, None)
    assert np.array_equal(ENGINES[engine].prepare(job)()[0], expected)


def test_a_wrong_engine_is_listed_and_not_timed():
    graph = GRAPHS["gru"]

    def wrong(job):
        truth = interpret(job.graph, job.inputs).y
        truth[-1, 0, 0] += 3e-4
        return lambda: [truth]

    def nan(job):
        return lambda: [np.full_like(interpret(job.graph, job.inputs).y, np.nan)]

    engines = [Engine("wrong", True, "", wrong, ""), Engine("nan", True, "", nan, "")]
    report = bench(Interpreted(graph), example_input(graph, steps=5), engines=engines, min_seconds=0.01, rounds=3)
    assert [e.name for e in report.engines] == ["sparsecirc"]
    assert "differs from the interpreter by 0.0003 in 1 of 40" in report.skipped[0].reason
    assert "differs" in report.skipped[1].reason
    assert report.best_dense == ""
    assert np.isnan(report.speedup)
    assert report.to_json()["speedup"] is None


def test_a_wrong_program_is_an_error():
    graph = GRAPHS["lstm"]
    with pytest.raises(MismatchError, match="does not compute its own graph"):
        bench(Interpreted(graph, error=1e-3), example_input(graph, steps=5), engines=[], min_seconds=0.01, rounds=3)


def test_speed_is_measured_per_step_and_the_speedup_is_a_quotient(clock):
    graph = GRAPHS["gru"]

    def slow(job):
        program = Interpreted(graph, seconds=0.02, clock=clock)
        return lambda: list(program.run(job.inputs).outputs.values())

    engines = [Engine("slow", True, "", slow, "")]
    fast = Interpreted(graph, seconds=0.005, clock=clock)
    report = bench(fast, example_input(graph, steps=5), engines=engines, min_seconds=0.05, rounds=5)
    assert report.us_per_step["slow"] * 5 == pytest.approx(20e3)
    assert report.best_dense == "slow"
    assert report.us_per_step["sparsecirc"] * 5 == pytest.approx(5e3)
    assert report.speedup == pytest.approx(4)
    assert report.speedup_low == pytest.approx(4) == report.speedup_high
    assert [e.name for e in report.engines] == ["sparsecirc", "slow"]
    assert report.engines[0].speedup == 1
    table = report.table()
    assert "speed-up over the best dense engine (slow)" in table
    assert report.host.line() in table
    read = json.loads(json.dumps(report.to_json()))
    assert read["engines"][1]["name"] == "slow"
    assert read["steps"] == 5
    assert read["host"]["cores"] >= 1


def test_a_spiking_engine_that_differs_is_proven_before_the_first_tie():
    node = layer("lif", without="hh bias_hh bias_ih", units=1, inputs=1)
    node = node.with_params(ih=np.ones((1, 1), np.float32), beta=np.zeros(1), threshold=np.ones(1, np.float32))
    graph = one(replace(node, patterns={}))
    x = np.array([0.5, 2.0, 0.2, 1.0 + 1e-7, 0.3, 5.0]).reshape(6, 1, 1)  # a tie at step 3

    def flips(job):
        spikes = interpret(job.graph, job.inputs).y
        spikes[3:4] = 1 - spikes[3:4]
        return lambda: [spikes]

    def wrong(job):
        spikes = 1 - interpret(job.graph, job.inputs).y
        return lambda: [spikes]

    engines = [Engine("flips", True, "", flips, ""), Engine("wrong", True, "", wrong, "")]
    report = bench(Interpreted(graph), x, engines=engines, min_seconds=0.01, rounds=3)
    by_name = {e.name: e for e in report.engines}
    assert by_name["flips"].note.startswith("equal up to step 3")
    assert [s.name for s in report.skipped] == ["wrong"]
    clear = bench(Interpreted(graph), x[:3], engines=[engines[1]], min_seconds=0.01, rounds=3)
    assert [s.name for s in clear.skipped] == ["wrong"]


def test_a_tie_at_the_first_step_proves_nothing():
    node = layer("lif", without="hh bias_hh bias_ih", units=1, inputs=1)
    node = node.with_params(ih=np.ones((1, 1), np.float32), beta=np.zeros(1), threshold=np.ones(1, np.float32))
    graph = one(replace(node, patterns={}))

    def flips(job):
        spikes = 1 - interpret(job.graph, job.inputs).y
        return lambda: [spikes]

    engine = Engine("flips", True, "", flips, "")
    x = np.array([1.0 + 1e-7, 0.2]).reshape(2, 1, 1)
    report = bench(Interpreted(graph), x, engines=[engine], min_seconds=0.01, rounds=2)
    assert [s.name for s in report.skipped] == ["flips"]


def test_threads_are_held_and_the_table_says_how_many(monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="needs threadpoolctl (extra 'bench')")
    graph, seen = GRAPHS["gru"], []

    def counts(job):
        program = Interpreted(graph)

        def run():
            np.ones((8, 8)) @ np.ones((8, 8))
            seen.extend(pool["num_threads"] for pool in threadpoolctl.threadpool_info())
            return list(program.run(job.inputs).outputs.values())

        return run

    engine = Engine("counts", True, "", counts, "")
    report = bench(Interpreted(graph), example_input(graph, steps=3), engines=[engine], min_seconds=0.01, rounds=2)
    assert set(seen) == {1}
    assert ", 1 thread, median of 2 rounds" in report.table()
    assert "not held" not in report.table()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sparsecirc._bench._threads.usable_cores", lambda: 4)
    monkeypatch.setattr("sparsecirc._bench._threads.util.find_spec", lambda name: None)
    with pinned_threads(1) as unpinned:
        assert "pip install threadpoolctl" in unpinned
    shown = replace(report, unpinned=unpinned)
    assert "not held to 1 thread: dense products of numpy" in shown.table()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pinned_threads(1) as unpinned:
        assert unpinned == ""


def test_an_absent_package_is_named():
    graph = GRAPHS["gru"]
    absent = Engine("peer", True, "a_package_that_is_not_there", lambda job: list, "")
    report = bench(Interpreted(graph), example_input(graph, steps=4), engines=[absent], min_seconds=0.01, rounds=2)
    assert report.skipped[0].reason == "the package 'a_package_that_is_not_there' is not installed"
    assert "skipped: the package" in report.table()


def test_the_users_model_is_run_and_left_as_it_was():
    torch = pytest.importorskip("torch", reason="needs torch (extra 'torch')")
    from sparsecirc.frontends import from_torch

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(5, 7, batch_first=True)
            self.drop = torch.nn.Dropout(0.5)
            self.fc = torch.nn.Linear(7, 3)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.fc(self.drop(self.rnn(x)[0][:, -1]))

    torch.manual_seed(0)
    model = Net().train()
    graph = from_torch(model)
    model.calls = 0
    before = torch.get_num_threads()
    report = bench(
        Interpreted(graph),
        example_input(graph, batch=2, steps=6),
        model=model,
        engines=engines_named("torch_dense"),
        min_seconds=0.01,
        rounds=3,
    )
    assert {e.name for e in report.engines} == {"sparsecirc", "torch_dense"}, report.table()
    assert model.calls > 3
    assert model.training
    assert model.drop.training
    assert torch.get_num_threads() == before
    with torch.no_grad():
        model.fc.weight += 0.1
    report = bench(
        Interpreted(graph), example_input(graph, steps=6), model=model, engines=engines_named("torch-dense"),
        min_seconds=0.01, rounds=2,
    )  # fmt: skip
    assert [s.name for s in report.skipped] == ["torch_dense"], "a model with other weights must not be timed"


@pytest.mark.parametrize("engine", ONNX)
@pytest.mark.parametrize("name", ["gru", "lstm", "rnn_tanh", "lif subtract delayed"])
def test_runtimes_run_the_exported_network(name, engine):
    pytest.importorskip("onnx", reason="needs onnx (extra 'onnx')")
    if util.find_spec(engine) is None:
        pytest.skip(f"needs {engine}")
    graph = GRAPHS[name]
    job = _job(Interpreted(graph), example_input(graph, batch=2, steps=6), None, None, None)
    got = list(ENGINES[engine].prepare(job)())
    assert np.abs(got[0] - interpret(graph, job.inputs).y).max() < 2e-5


def test_batch_and_length_are_repeated_or_cut():
    graph = one(layer("gru"), batch_first=True)
    x = example_input(graph, batch=2, steps=3)["x"]
    report = bench(Interpreted(graph), x, engines=[], batch=5, seq_len=2, min_seconds=0.01, rounds=2)
    assert (report.batch, report.steps) == (5, 2)
    job = _job(Interpreted(graph), x, None, 3, 4)
    assert np.array_equal(job.inputs["x"][2], job.inputs["x"][0])
    assert np.array_equal(job.inputs["x"][:2, 3], x[:, 0])
    assert job.bound["x"].shape == (4, 3, 6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"min_seconds": 0}, "min_seconds is 0"),
        ({"rounds": 0}, "rounds 0"),
        ({"batch": 0}, "expected at least 1"),
        ({"seq_len": -1}, "expected at least 1"),
    ],
)
def test_arguments_that_make_no_sense(kwargs, message):
    graph = GRAPHS["gru"]
    with pytest.raises(UsageError, match=message):
        bench(Interpreted(graph), example_input(graph, steps=4), engines=[], **kwargs)


def test_nothing_to_time():
    graph = GRAPHS["gru"]
    with pytest.raises(UsageError, match="at least one of each"):
        bench(Interpreted(graph), np.zeros((0, 1, 6), np.float32), engines=[])
    with pytest.raises(UsageError, match="empty and cannot be repeated"):
        bench(Interpreted(graph), np.zeros((0, 1, 6), np.float32), engines=[], seq_len=4)
    with pytest.raises(UsageError, match="expected"):
        bench(Interpreted(graph), np.zeros((4, 1, 5), np.float32), engines=[])


def test_engine_names_of_the_command_line():
    assert [e.name for e in engines_named("torch-dense, scipy_csr,torch_dense")] == ["torch_dense", "scipy_csr"]
    for bad in ("", "torch_dense,fast"):
        with pytest.raises(UsageError, match="is unknown: expected some of sparsecirc, torch_dense"):
            engines_named(bad)


def test_interleaved_takes_turns(clock):
    order = []

    def call(name, seconds):
        order.append(name)
        clock.now += seconds

    runs = {"a": lambda: call("a", 0.012), "b": lambda: call("b", 0.002)}
    seconds = interleaved(runs, min_seconds=0.03, rounds=3)
    assert "".join(order).endswith("abbbbb" * 3)  # a fast call is repeated until its sample is as long
    assert seconds["a"] == pytest.approx(np.full(3, 0.012))
    assert seconds["b"] == pytest.approx(np.full(3, 0.002))


def test_a_clock_of_ones_own():
    now = {"here": 0.0, "there": 0.0}

    class Elsewhere:
        def __call__(self):
            now["there"] += 0.005

        def clock(self):
            return now["there"]

    def here():
        now["here"] += 0.002

    runs = {"here": here, "there": Elsewhere()}
    seconds = interleaved(runs, min_seconds=0.01, rounds=2, clock=lambda: now["here"])
    assert seconds["here"] == pytest.approx(np.full(2, 0.002))
    assert seconds["there"] == pytest.approx(np.full(2, 0.005))


def test_the_host_is_described():
    host = Host.here(2)
    assert host.versions["sparsecirc"]
    assert "2 threads" in host.line()
    assert host.isa in ("scalar", "neon", "avx2", "avx512")
    assert json.dumps(host.to_json())


def test_reports_are_frozen():
    graph = GRAPHS["gru"]
    report = bench(Interpreted(graph), example_input(graph, steps=3), engines=[], min_seconds=0.01, rounds=2)
    assert isinstance(report, BenchReport)
    assert str(report) == report.table()
    with pytest.raises(AttributeError):
        report.speedup = 9.0
