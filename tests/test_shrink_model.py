"""Smaller torch models: ordinary modules that compute what the smaller graph computes, and train on."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import sparsecirc as sc
from sparsecirc._prune import named, plan
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.patterns import lattice

torch = pytest.importorskip("torch", reason="torch is not installed")


class Net(torch.nn.Module):
    def __init__(self, layer, **options):
        super().__init__()
        self.rnn = layer(5, 12, batch_first=True, **options)
        wide = (options.get("proj_size") or 12) * (2 if options.get("bidirectional") else 1)
        self.hidden = torch.nn.Linear(wide, 7)
        self.fc = torch.nn.Linear(7, 3)

    def forward(self, x):
        return self.fc(torch.tanh(self.hidden(self.rnn(x)[0][:, -1])))


def net(layer=torch.nn.LSTM, **options):
    torch.manual_seed(0)
    return Net(layer, **options).eval()


@pytest.mark.parametrize("layer", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
def test_units_that_nobody_reads_leave_the_module(layer, options):
    model = net(layer, **options)
    names = [n[len("weight_hh_"):] for n, _ in model.rnn.named_parameters() if n.startswith("weight_hh")]  # fmt: skip
    with torch.no_grad():
        for suffix in names:
            getattr(model.rnn, f"weight_hh_{suffix}")[:, 3:] = 0
            if suffix.startswith("l1"):
                getattr(model.rnn, f"weight_ih_{suffix}")[:, 3:12] = 0
        for k in range(model.hidden.in_features // 12):
            model.hidden.weight[:, 12 * k + 3 : 12 * (k + 1)] = 0
    small = sc.shrink_model(model)
    assert small.rnn.hidden_size == 3
    assert small.hidden.in_features == 3 * (2 if options.get("bidirectional") else 1)
    x = torch.randn(4, 6, 5)
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)
    assert model.rnn.hidden_size == 12
    small.train()
    optimizer = torch.optim.Adam(small.parameters())
    small(x).square().mean().backward()
    optimizer.step()
    again = pickle.loads(pickle.dumps(copy.deepcopy(small.eval())))
    torch.testing.assert_close(again(x), small(x))
    fresh = Net(layer, **options)
    fresh.rnn = layer(5, 3, batch_first=True, **options)
    fresh.hidden = torch.nn.Linear(small.hidden.in_features, 7)
    fresh.load_state_dict(small.state_dict())
    torch.testing.assert_close(fresh.eval()(x), small(x))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_shrink_on_both_sides():
    model = net(proj_size=6)
    with torch.no_grad():
        model.rnn.weight_hr_l0[:, [2, 5]] = 0
        model.rnn.weight_hh_l0[:, 1] = 0
        model.hidden.weight[:, 1] = 0
    small = sc.shrink_model(model)
    assert (small.rnn.hidden_size, small.rnn.proj_size, small.hidden.in_features) == (10, 5, 5)
    x = torch.randn(4, 6, 5)
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)


def test_reducible_neurons_leave_and_training_goes_on():
    model = net()
    why = plan(sc.to_graph(model), None, pattern=lattice(keep="both"), select=named("*.hh")).explanations[0]
    keep = why.critical()
    small = sc.shrink_model(model, keep)
    count = int(keep["rnn.l0"].sum())
    assert 0 < count < 12
    assert small.rnn.hidden_size == count
    rows = torch.from_numpy(np.tile(keep["rnn.l0"], 4))
    assert torch.equal(small.rnn.weight_ih_l0, model.rnn.weight_ih_l0[rows])
    masks = sc.Masks.prune(small, 0.5)
    assert masks["rnn.l0.hh"].shape == (4 * count, count)


def test_masked_connections_count_as_zeros():
    model = net()
    readers = np.ones((7, 12), dtype=bool)
    readers[:, 4] = False
    hh = np.tile(np.arange(12) != 4, (48, 1))
    masks = sc.Masks(model, {"rnn.l0.hh": sc.Pattern.from_mask(hh), "hidden.weight": sc.Pattern.from_mask(readers)})
    assert sc.shrink_model(model).rnn.hidden_size == 12
    masks.apply()
    assert sc.shrink_model(model).rnn.hidden_size == 11


def test_layers_of_one_module_have_one_size():
    with pytest.raises(UnsupportedError, match=r"'rnn' would have 5 and 12 units: a LSTM has one size"):
        sc.shrink_model(net(num_layers=2), {"rnn.l0": range(5)})
    small = sc.shrink_model(net(num_layers=2), {"rnn.l0": range(5), "rnn.l1": range(2, 7), "hidden": [0, 6]})
    assert (small.rnn.hidden_size, small.hidden.out_features, small.fc.in_features) == (5, 2, 2)


def test_spiking_layers():
    snntorch = pytest.importorskip("snntorch", reason="snntorch is not installed")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 10),
        snntorch.RLeaky(beta=torch.rand(10), linear_features=10, init_hidden=True),
        torch.nn.Linear(10, 3),
        snntorch.Leaky(beta=0.8, init_hidden=True, output=True),
    )
    example = torch.rand(8, 2, 6)
    small = sc.shrink_model(model, {"1": [0, 2, 3, 7]}, example=example, dt=1e-3)
    assert small[0].out_features == small[1].recurrent.in_features == small[2].in_features == 4
    assert torch.equal(small[1].beta, model[1].beta[[0, 2, 3, 7]])
    graph = sc.remove_units(sc.to_graph(model, example=example, dt=1e-3), {"1": [0, 2, 3, 7]})
    x = np.random.default_rng(0).random((9, 2, 6))
    np.testing.assert_allclose(
        sc.interpret(sc.to_graph(small, example=example, dt=1e-3), x).y, sc.interpret(graph, x).y, atol=1e-6
    )


def test_what_cannot_shrink_is_named():
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2)).eval()
    with pytest.raises(UnsupportedError, match=r"units of '1' cannot be taken out of the torch module"):
        sc.shrink_model(model, {"0": [0, 1]}, example=torch.randn(3, 4))
    with pytest.raises(UsageError, match="no layer 'nothing'"):
        sc.shrink_model(net(), {"nothing": [0]})
