"""Our counts in NeuroBench's terms against those of its package, on the same torch networks.

Runs in the environment `peers`, which has the package: make test-emulators.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the package 'torch' is not installed")
snn = pytest.importorskip("snntorch", reason="the package 'snntorch' is not installed")
pytest.importorskip("neurobench", reason="the package 'neurobench' is not installed here: make test-emulators")

from sparsecirc.frontends import to_graph  # noqa: E402
from sparsecirc.hardware import terms  # noqa: E402
from sparsecirc.masks import Masks  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
STEPS, BATCH = 12, 3


def measured(net: Any, x: Any) -> dict[str, Any]:
    """What the package says of a network of one step on (B, T, features)."""
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel

    with contextlib.redirect_stdout(io.StringIO()):
        model = SNNTorchModel(net)
        model.register_hooks()
        operations, sparsity = SynapticOperations(), ActivationSparsity()
        preds = model(x)
        data = (x, torch.zeros(len(x)))
        found = {
            "footprint": Footprint()(model),
            "connection_sparsity": ConnectionSparsity()(model),
            "activation_sparsity": sparsity(model, preds, data),
            **operations(model, preds, data),
        }
        model.cleanup_hooks()
    return found


def buffers(net: Any) -> int:
    """Bytes that the package counts and a graph does not have: buffers and parameters of the neurons themselves."""
    return sum(
        t.numel() * t.element_size()
        for m in net.modules()
        if isinstance(m, snn.SpikingNeuron)
        for t in [*m.parameters(recurse=False), *m.buffers(recurse=False)]
    )


@pytest.mark.parametrize("spikes", [True, False], ids=["spikes", "currents"])
@pytest.mark.parametrize("kind", ["feed-forward", "recurrent", "images"])
def test_counts_agree(kind: str, spikes: bool) -> None:
    torch.manual_seed(0)
    last = snn.Leaky(beta=0.8, init_hidden=True, output=True)
    shape: tuple[int, ...] = (16,)
    if kind == "images":
        shape = (2, 6, 6)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(2, 4, 3, padding=1, stride=2), snn.Leaky(beta=0.9, init_hidden=True, threshold=0.3),
            torch.nn.Flatten(), torch.nn.Linear(36, 5), last,
        )  # fmt: skip
    else:
        inner = snn.RLeaky(beta=0.9, linear_features=24, init_hidden=True, threshold=0.4)
        middle = inner if kind == "recurrent" else snn.Leaky(beta=0.9, init_hidden=True, threshold=0.4)
        net = torch.nn.Sequential(torch.nn.Linear(16, 24), middle, torch.nn.Linear(24, 5), last)
    Masks.prune(net, 0.6)
    x = torch.rand(BATCH, STEPS, *shape)
    x = (x < 0.4).float() if spikes else x * 2
    want = measured(net, x)
    graph = to_graph(net, example=x.transpose(0, 1)[:, :1], dt=1e-3)
    got = terms(graph, x.transpose(0, 1).numpy())
    assert got.connection_sparsity == pytest.approx(want["connection_sparsity"], abs=1e-4)
    assert got.activation_sparsity == pytest.approx(want["activation_sparsity"], abs=1e-9)
    assert 0.2 < got.activation_sparsity < 1
    assert got.effective_acs == pytest.approx(float(want["Effective_ACs"]), rel=1e-6)
    assert got.effective_macs == pytest.approx(float(want["Effective_MACs"]), rel=1e-6)
    assert got.dense == pytest.approx(float(want["Dense"]), rel=1e-6)
    assert (got.effective_macs == 0) == spikes
    vectors = sum(n.params[v].nbytes for n in graph.recurrent for v in n.cell.vectors)
    assert got.footprint - vectors == want["footprint"] - buffers(net)
    assert np.isfinite(want["footprint"])
