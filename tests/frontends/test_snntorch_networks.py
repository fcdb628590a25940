"""Spiking networks as people write them, spike by spike in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

snn = pytest.importorskip("snntorch", reason="snntorch is not installed")

from frontend_models import prune_  # noqa: E402
from snntorch import utils  # noqa: E402

from sparsecirc.errors import UnsupportedError, UsageError  # noqa: E402
from sparsecirc.frontends import from_snntorch, from_torch, to_graph  # noqa: E402
from sparsecirc.ir import Repeat, interpret  # noqa: E402


class Loop(nn.Module):
    """The usual time loop; ``step_input`` picks what one step sees, ``result`` what is returned."""

    def __init__(self, step_input, result, steps=None, recurrent=False):
        super().__init__()
        self.fc1 = nn.Linear(3, 8)
        self.lif1 = snn.RLeaky(0.9, linear_features=8) if recurrent else snn.Leaky(0.9)
        self.fc2 = nn.Linear(8, 4)
        self.lif2 = snn.Synaptic(0.6, 0.8)
        self.step_input, self.result, self.steps = step_input, result, steps
        with torch.no_grad():
            for p in self.parameters():
                p.mul_(3)

    def forward(self, x):
        state1 = self.lif1.reset_mem()
        state1 = state1 if isinstance(state1, tuple) else (state1,)
        syn2, mem2 = self.lif2.init_synaptic()
        spikes, membranes = [], []
        for step in range(self.steps or x.size(0)):
            cur1 = self.fc1(self.step_input(x, step))
            out1 = self.lif1(cur1, *state1)
            state1 = out1 if len(state1) > 1 else out1[1:]
            cur2 = self.fc2(out1[0])
            spk2, syn2, mem2 = self.lif2(cur2, syn2, mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return self.result(spikes, membranes)


RESULTS = {
    "stacked": lambda spk, mem: (torch.stack(spk, dim=0), torch.stack(mem, dim=0)),
    "summed": lambda spk, mem: torch.stack(spk).sum(0),
    "mean of the membrane": lambda spk, mem: torch.stack(mem).mean(dim=0),
    "maximum of the membrane": lambda spk, mem: torch.stack(mem).max(0)[0],
    "last membrane": lambda spk, mem: mem[-1],
    "rate by a running sum": lambda spk, mem: sum(spk) / len(spk),
}


def check(graph, model, *shapes, model_layout=lambda out: out):
    """The graph gives the model's outputs, which runs in float32 on inputs that float32 holds."""
    for shape in shapes:
        x = torch.randint(-8, 9, shape).float() / 4
        with torch.no_grad():
            wanted = model(x)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        got = list(interpret(graph, x.numpy(), dtype=np.float32).outputs.values())
        assert len(got) == len(wanted)
        for g, w in zip(got, wanted, strict=True):
            assert np.allclose(g, model_layout(w).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("recurrent", [False, True], ids=["forward", "recurrent"])
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_a_loop_over_the_input(name, recurrent, pruned):
    torch.manual_seed(0)
    model = Loop(lambda x, k: x[k], RESULTS[name], recurrent=recurrent)
    if pruned:
        prune_(model, 0.6)
    graph = to_graph(model)
    assert graph.dt == 1e-3
    assert graph.spiking
    assert not graph.batch_first
    assert graph.meta["verified"]["steps"][0] != graph.meta["verified"]["steps"][1]
    assert [n.name for n in graph.nodes][:5] == ["x", "fc1", "lif1", "fc2", "lif2"]
    check(graph, model, (12, 3, 3), (1, 2, 3), (30, 1, 3))


@pytest.mark.parametrize("name", RESULTS)
def test_direct_coding_repeats_a_static_input(name):
    torch.manual_seed(0)
    model = Loop(lambda x, k: x, RESULTS[name], steps=11)
    graph = from_snntorch(model, dt=2e-3)
    assert graph.dt == 2e-3
    assert not graph.inputs[0].time
    assert [n.steps for n in graph.nodes if isinstance(n, Repeat)] == [11]
    check(graph, model, (5, 3), (1, 3))


def test_a_static_skip_is_repeated_within_the_loop_and_plain_after_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(3, 8), snn.Leaky(0.9)
            self.fc2, self.lif2 = nn.Linear(8, 3), snn.Leaky(0.8, reset_mechanism="none")
            self.out = nn.Linear(3, 2)

        def forward(self, x):
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for _ in range(7):
                spk1, mem1 = self.lif1(3 * self.fc1(x), mem1)
                _, mem2 = self.lif2(self.fc2(spk1) + x, mem2)
            return self.out(mem2 - x)

    model = Net()
    graph = from_snntorch(model)
    assert [n.name for n in graph.nodes if isinstance(n, Repeat)] == ["scale_repeat", "x_repeat"]
    assert not graph.specs["out"].time
    check(graph, model, (5, 3))


def test_batch_first_steps():
    model = Loop(lambda x, k: x[:, k], RESULTS["stacked"], steps=9)
    graph = from_snntorch(model, example=torch.rand(2, 9, 3))
    assert graph.batch_first
    assert graph.meta["fixed_steps"] == 9
    check(graph, model, (4, 9, 3), model_layout=lambda out: out.transpose(0, 1))


def test_a_static_example_of_one_sample():
    model = Loop(lambda x, k: x.view(x.size(0), -1), RESULTS["stacked"], steps=5)
    graph = from_snntorch(model, example=torch.rand(1, 1, 3))
    check(graph, model, (4, 1, 3))


def test_outputs_are_named_by_their_port_and_can_be_chosen():
    model = Loop(lambda x, k: x[k], RESULTS["stacked"])
    assert dict(from_snntorch(model).outputs) == {"spk": "lif2", "mem": "lif2.mem"}
    assert list(from_snntorch(model, outputs=["mem"]).outputs) == ["mem"]
    with pytest.raises(UsageError, match="among the model's: spk, mem"):
        from_snntorch(model, outputs=["y"])


class Hidden(nn.Module):
    """Neurons that keep their state, one step per call."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.lif1 = snn.Leaky(0.8, init_hidden=True, threshold=torch.rand(3, 1, 1))
        self.fc = nn.Linear(3 * 2 * 2, 4)
        self.lif2 = snn.RLeaky(0.9, linear_features=4, init_hidden=True, output=True)

    def forward(self, x):
        z = self.lif1(torch.max_pool2d(self.conv(x), 2))
        return self.lif2(self.fc(z.flatten(1)))


def stepped(model, x):
    """A model of one step over a sequence, from fresh states."""
    for m in model.modules():
        if isinstance(m, snn.SpikingNeuron):
            m.reset_mem()
    with torch.no_grad():
        outs = [model(x_t) for x_t in x]
    outs = [o if isinstance(o, tuple) else (o,) for o in outs]
    return [torch.stack(o).numpy() for o in zip(*outs, strict=True)]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Hidden(), id="module"),
        pytest.param(
            nn.Sequential(
                nn.Conv2d(1, 3, 3), snn.Synaptic(0.5, 0.8, init_hidden=True), nn.AvgPool2d(2), nn.Flatten(),
                nn.Linear(12, 4), nn.Dropout(), snn.Leaky(0.9, init_hidden=True, reset_mechanism="zero", output=True),
            ),
            id="sequential",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["step", "sequence"])
def test_a_model_of_one_time_step(model, form):
    model.eval()
    graph = to_graph(model, example=torch.rand((2, 1, 6, 6) if form == "step" else (7, 2, 1, 6, 6)))
    assert graph.inputs[0].time
    assert len(graph.recurrent) == 2
    x = 4 * torch.randn(13, 3, 1, 6, 6)
    for got, wanted in zip(
        interpret(graph, x.numpy(), dtype=np.float32).outputs.values(), stepped(model, x), strict=True
    ):
        assert np.allclose(got, wanted, atol=1e-4)
    major = from_snntorch(model, example=torch.rand(2, 1, 6, 6), batch_first=True)
    swapped = interpret(major, x.transpose(0, 1).numpy(), dtype=np.float32).y
    assert np.allclose(np.swapaxes(swapped, 0, 1), stepped(model, x)[0], atol=1e-4)


def test_states_of_the_users_model_stay():
    model = nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True))
    model(torch.ones(2, 3))
    before = model[1].mem
    instances = list(snn.SpikingNeuron.instances)
    from_snntorch(model)
    assert model[1].mem is before
    assert all(a is b for a, b in zip(instances, snn.SpikingNeuron.instances, strict=True))


def test_utils_reset_inside_the_loop_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.lif = snn.Leaky(0.9, init_hidden=True, reset_mechanism="none")

        def forward(self, x):
            utils.reset(self)
            for step in range(x.size(0)):
                self.lif(self.fc(x[step]))
            return 2 * self.lif.mem.clone()

    graph = from_snntorch(Net())
    assert [n.name for n in graph.nodes] == ["x", "fc", "lif", "lif.mem_last", "scale"]
    assert not graph.specs["scale"].time


def test_a_layer_shared_between_two_places_keeps_two_states():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(3, 4)
            self.fc2 = nn.Linear(4, 4)
            self.lif = snn.Leaky(0.9)

        def forward(self, x):
            mem1 = self.lif.init_leaky()
            mem2 = self.lif.init_leaky()
            out = []
            for step in range(x.size(0)):
                spk1, mem1 = self.lif(self.fc1(x[step]), mem1)
                spk2, mem2 = self.lif(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)

    assert [n.name for n in from_snntorch(Net()).recurrent] == ["lif", "lif_2"]


class Skips(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 3)
        self.lif1 = snn.Leaky(0.9)
        self.odd = False

    def forward(self, x):
        mem = self.lif1.init_leaky()
        out = []
        for step in range(x.size(0)):
            cur = self.fc1(x[step])
            if self.odd and step % 2:
                cur = torch.relu(cur)
            spk, mem = self.lif1(cur, mem)
            out.append(spk)
        return torch.stack(out)


def test_steps_that_differ_are_refused():
    model = Skips()
    from_snntorch(model)
    model.odd = True
    with pytest.raises(UnsupportedError, match=r"layer 'lif1' \(Leaky\).*state"):
        from_snntorch(model)


def test_feedback_between_layers_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.back = nn.Linear(4, 4)
            self.lif = snn.Leaky(0.9)

        def forward(self, x):
            mem = self.lif.init_leaky()
            spk = torch.zeros(x.size(1), 4)
            out = []
            for step in range(x.size(0)):
                spk, mem = self.lif(self.fc(x[step]) + self.back(spk), mem)
                out.append(spk)
            return torch.stack(out)

    with pytest.raises(UnsupportedError, match=r"test_snntorch_networks.py:\d+ `spk, mem = self.lif"):
        from_snntorch(Net())


def test_encoding_inside_the_model_is_refused():
    class Net(Loop):
        def forward(self, x):
            return super().forward(torch.bernoulli(x))

    with pytest.raises(UnsupportedError, match=r"`return super\(\).forward\(torch.bernoulli\(x\)\)`.*encode the input"):
        from_snntorch(Net(lambda x, k: x[k], RESULTS["stacked"]))


def test_neurons_without_hidden_state_in_sequential_are_refused():
    with pytest.raises(UnsupportedError, match="init_hidden=True"):
        from_snntorch(nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9), nn.Linear(4, 2), snn.Leaky(0.9, init_hidden=True)))


def test_from_torch_sends_spiking_models_on():
    with pytest.raises(UnsupportedError, match="layer '1' is a neuron of snntorch: use from_snntorch"):
        from_torch(nn.Sequential(nn.Linear(3, 4), snn.Leaky(0.9, init_hidden=True)))


@pytest.mark.parametrize("dt", [0, -1.0, float("nan")])
def test_a_wrong_dt(dt):
    with pytest.raises(UsageError, match="seconds per time step"):
        from_snntorch(snn.Leaky(0.9), example=torch.rand(2, 3), dt=dt)
