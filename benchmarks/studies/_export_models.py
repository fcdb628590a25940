"""The networks of the study of exports: demos, published ones, and the cases that the goals name."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._networks import gated, wavernn
from benchmarks.studies._export_job import Absent, Array, Model
from sparsecirc import Graph, Pattern, prune
from sparsecirc._bench import example_input
from sparsecirc.cells import GRU
from sparsecirc.ir import Input, Recurrent
from sparsecirc.patterns import block

STEPS, BATCH = 23, 2
TIMED = 100


def _model(graph: Graph, steps: int = STEPS, timed: int = TIMED) -> Model:
    name = graph.inputs[0].name
    x = example_input(graph, batch=BATCH, steps=steps, seed=3)[name]
    return Model(graph, x, example_input(graph, batch=1, steps=timed, seed=4)[name])


def _demo(name: str) -> Model:
    from sparsecirc.demo import build
    from sparsecirc.frontends import to_graph

    built = build(name)
    return _model(prune(to_graph(built.model, example=built.example, dt=1e-3 if name == "snn" else None), 0.9))


def _neurons(kind: str) -> Model:
    """A recurrent layer of snntorch's neurons with its default reset, and a spiking read-out; spikes and membranes."""
    import snntorch
    import torch
    from torch import nn

    from sparsecirc.frontends import to_graph

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        options = {"linear_features": 64, "init_hidden": True}
        layer = snntorch.RLeaky(beta=0.9, **options) if kind == "rleaky" else snntorch.RSynaptic(0.8, 0.9, **options)
        first, second = nn.Linear(16, 64), nn.Linear(64, 10)
        with torch.no_grad():
            for linear in (first, second):
                linear.weight.mul_(2)
        net = nn.Sequential(first, layer, second, snntorch.Leaky(beta=0.9, init_hidden=True, output=True))
    return _model(prune(to_graph(net.eval(), example=torch.rand(9, 1, 16), dt=1e-3), 0.8), timed=50)


def gru(units: int, features: int, density: float, height: int) -> Graph:
    """A GRU pruned in blocks of ``height`` rows: all its weights, or with 64 features the recurrent ones alone."""
    if features == 64:
        return gated(GRU, units, density, block(height, 1))
    rng = np.random.default_rng(0)
    graph = _one_gru(units, rng.normal(0, 0.5 / np.sqrt(features), (3 * units, features)), rng)
    return prune(graph, 1 - density, pattern=block(height, 1))


def _gru(units: int, features: int, density: float, height: int) -> Model:
    return _model(gru(units, features, density, height))


def _one_gru(units: int, ih: Array, rng: np.random.Generator, patterns: Mapping[str, Pattern] | None = None) -> Graph:
    live = patterns or {}
    fan_in = live["hh"].nnz / (3 * units) if "hh" in live else units / 10
    params = {
        "ih": ih,
        "hh": rng.normal(0, 0.7 / np.sqrt(fan_in), (3 * units, units)),
        "bias_ih": rng.normal(0, 0.1, 3 * units),
        "bias_hh": rng.normal(0, 0.1, 3 * units),
    }
    single = {k: v.astype(np.float32) for k, v in params.items()}
    layer = Recurrent("rnn", ("x",), single, live, cell=GRU, units=units)
    return Graph((Input("x", shape=(ih.shape[1],)), layer), {"y": "rnn"})


def _diagonal(units: int, parts: int) -> Model:
    """A GRU whose recurrent gates are block-diagonal."""
    rng = np.random.default_rng(5)
    gate = np.kron(np.eye(parts, dtype=bool), np.ones((units // parts, units // parts), bool))
    pattern = Pattern.from_mask(np.tile(gate, (3, 1)))
    return _model(_one_gru(units, rng.normal(0, 0.06, (3 * units, 64)), rng, {"hh": pattern}))


def _wavernn() -> Model:
    graph, x = wavernn(50)
    return Model(graph, np.tile(x[:STEPS], (1, BATCH, 1)), x)


def neurobench(name: str, batch: int, seed: int = 0) -> tuple[Graph, Array, Array]:
    """A network of NeuroBench as it was published, random inputs of its task's range, and one sample of them.

    Raises:
        Absent: the weights are not in $SPARSECIRC_DATA.
    """
    from sparsecirc.frontends import to_graph

    root = os.environ.get("SPARSECIRC_DATA", "")
    folder = Path(root) / "models" / "neurobench"
    if not root or not folder.is_dir():
        raise Absent("SPARSECIRC_DATA has no models/neurobench")
    path = Path(__file__).parents[2] / "examples" / "neurobench_models.py"
    spec = importlib.util.spec_from_file_location("neurobench_models", path)
    assert spec is not None
    assert spec.loader is not None
    networks: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    net = {"eeg": networks.load_motor_imagery, "activity": networks.load_activity, "reaching": networks.load_reaching}[
        name
    ](folder)
    x = networks.example_inputs(batch, seed)[type(net).__name__]
    x = net.prepare(x).detach() if name == "reaching" else x
    one = x[:, :1] if name == "reaching" else x[:1]
    return to_graph(net, example=one, dt=1e-3), x.numpy(), one.numpy()


def _neurobench(name: str) -> Model:
    graph, x, one = neurobench(name, BATCH)
    return Model(prune(graph, 0.8), x, one)


MODELS: Mapping[str, Callable[[], Model]] = {
    "demo_gru": partial(_demo, "gru"),
    "demo_lstm": partial(_demo, "lstm"),
    "demo_rnn": partial(_demo, "rnn"),
    "demo_snn": partial(_demo, "snn"),
    "rleaky": partial(_neurons, "rleaky"),
    "rsynaptic": partial(_neurons, "rsynaptic"),
    "gru_128": partial(_gru, 128, 16, 0.1, 1),
    "gru_1024_blocks": partial(_gru, 1024, 64, 0.1, 16),
    "gru_1024_blocks_95": partial(_gru, 1024, 64, 0.05, 16),
    "gru_1024_diagonal": partial(_diagonal, 1024, 8),
    "wavernn_768": _wavernn,
    "neurobench_eeg": partial(_neurobench, "eeg"),
    "neurobench_activity": partial(_neurobench, "activity"),
    "neurobench_reaching": partial(_neurobench, "reaching"),
}
"""Networks by name, made when they are asked for. Demos and RSynaptic nets are untrained; demos are pruned by 90 % of
every gate, spiking ones by 80 %; `gru_128` is the case of the microcontroller goals, 90 % in all its matrices."""
