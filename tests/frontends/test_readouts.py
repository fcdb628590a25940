"""Read-outs of snntorch networks: membranes that never fire become leaky integrators, with the same values."""

from __future__ import annotations

import numpy as np
import pytest

import sparsecirc as sc
from sparsecirc.cells import LI, LIF, SYNAPTIC
from sparsecirc.ir import interpret

torch = pytest.importorskip("torch", reason="needs torch")
snn = pytest.importorskip("snntorch", reason="needs snntorch")


class Net(torch.nn.Module):
    """Spikes, then a read-out whose membranes (and, asked for, spikes or currents) are returned."""

    def __init__(self, out: torch.nn.Module, *returned: str) -> None:
        super().__init__()
        self.fc1, self.lif = torch.nn.Linear(6, 20), snn.Leaky(beta=0.9)
        self.fc2, self.out = torch.nn.Linear(20, 4), out
        self.returned = returned

    def forward(self, x):
        mem1, kept = self.lif.init_leaky(), []
        states = list(self.out.reset_mem()) if isinstance(self.out, snn.Synaptic) else [self.out.init_leaky()]
        for t in range(x.shape[0]):
            spk, mem1 = self.lif(self.fc1(x[t]), mem1)
            spk2, *states = self.out(self.fc2(spk), *states)
            now = {"spk": spk2, "mem": states[-1], "syn": states[0]}
            kept.append([now[name] for name in self.returned])
        return tuple(torch.stack(each) for each in zip(*kept, strict=True))


def converted(net: Net, **more: object) -> tuple[sc.Graph, np.ndarray, list[np.ndarray]]:
    torch.manual_seed(3)
    x = 3 * torch.rand(30, 3, 6)
    with torch.no_grad():
        want = [y.numpy() for y in net.eval()(x)]
    return sc.from_snntorch(net, example=x, **more), x.numpy(), want


@pytest.mark.parametrize("beta", [0.8, torch.linspace(0.5, 0.95, 4)], ids=["one", "per unit"])
def test_a_leaky_that_never_resets_is_an_integrator(beta) -> None:
    graph, x, want = converted(Net(snn.Leaky(beta=beta, reset_mechanism="none"), "mem"))
    assert [n.cell for n in graph.recurrent] == [LIF, LI]
    assert list(graph.outputs) == ["mem"]
    got = interpret(graph, x).outputs["mem"]
    assert np.abs(got - want[0]).max() < 1e-5 * np.abs(want[0]).max()
    report = sc.verify(sc.compile(graph, kernel={"*": "dense"}), x)
    assert report.ok, str(report)


def test_a_synaptic_that_never_resets_is_two() -> None:
    graph, x, want = converted(Net(snn.Synaptic(alpha=0.7, beta=0.9, reset_mechanism="none"), "mem", "syn"))
    assert [(n.name, n.cell) for n in graph.recurrent] == [("lif", LIF), ("out.syn", LI), ("out", LI)]
    got = interpret(graph, x).outputs
    assert list(got) == ["mem", "syn"]
    for value, exact in zip(got.values(), want, strict=True):
        assert np.abs(value - exact).max() < 1e-5 * np.abs(exact).max()
    assert sc.verify(sc.compile(graph, kernel={"*": "dense"}), x).ok


@pytest.mark.parametrize("returned", [("spk",), ("mem", "spk")])
def test_where_its_spikes_are_read_it_stays_a_neuron(returned: tuple[str, ...]) -> None:
    graph, _, _ = converted(Net(snn.Leaky(beta=0.8, reset_mechanism="none"), *returned))
    assert [n.cell for n in graph.recurrent] == [LIF, LIF]
    if "mem" in returned:
        graph, _, _ = converted(Net(snn.Leaky(beta=0.8, reset_mechanism="none"), *returned), outputs=["mem"])
        assert [n.cell for n in graph.recurrent] == [LIF, LI]


def test_where_it_resets_it_stays_a_neuron() -> None:
    for mode in ("subtract", "zero"):
        graph, _, _ = converted(Net(snn.Leaky(beta=0.8, reset_mechanism=mode), "mem"))
        assert [n.cell for n in graph.recurrent] == [LIF, LIF]
    net = snn.RSynaptic(alpha=0.5, beta=0.8, linear_features=6, reset_mechanism="none", init_hidden=True)
    graph = sc.to_graph(torch.nn.Sequential(torch.nn.Linear(6, 6), net))
    assert [n.cell for n in graph.recurrent] == [SYNAPTIC]
