"""The three trained spiking networks of NeuroBench, spike by spike in float64."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("snntorch", reason="snntorch is not installed")

from sparsecirc.frontends import to_graph
from sparsecirc.ir import interpret

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def directory() -> Path:
    root = os.environ.get("SPARSECIRC_DATA")
    if not root:
        pytest.skip("SPARSECIRC_DATA is not set: it has to point at the folder of trained models")
    folder = Path(root) / "models" / "neurobench"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: SPARSECIRC_DATA has no models/neurobench")
    return folder


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "neurobench_models.py"
    spec = importlib.util.spec_from_file_location("neurobench_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_float64(model, x):
    """The model in float64; snntorch's spikes are float32, so they are widened."""
    model = model.double()
    for module in model.modules():
        fire = getattr(module, "spike_grad", None)
        if fire is not None:
            module.spike_grad = lambda v, fire=fire: fire(v).to(v.dtype)
    with torch.no_grad():
        out = model(x.double())
    return [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("motor_imagery", ["x", "fc1", "lif1", "fc2", "lif2", "fc3", "lif3"]),
        (
            "activity",
            ["x", "conv1", "max1", "leaky1", "conv2", "max2", "leaky2", "flatten", "linear", "leaky3"],
        ),
        ("reaching", ["x", "fc1", "lif1", "fc2", "lif2", "fc3", "lif3", "lif3.mem_last", "scale"]),
    ],
)
def test_a_trained_network_gives_the_same_spikes(name, nodes, directory, networks):
    torch.set_num_threads(1)
    model = getattr(networks, f"load_{name}")(directory)
    x = networks.example_inputs(seed=5)[type(model).__name__]
    if name == "reaching":
        x = model.prepare(x).detach()
    graph = to_graph(model, example=x[:2] if name != "reaching" else x[:, :2])
    assert [n.name for n in graph.nodes] == nodes
    assert graph.dt == 1e-3
    result = interpret(graph, x.numpy(), keep_values=True)
    for neurons in graph.recurrent[:2]:  # a silent layer would prove nothing
        assert 0 < result.values[neurons.name].mean() < 1
    for got, wanted in zip(result.outputs.values(), in_float64(model, x), strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-12 * max(1, np.abs(wanted).max())
