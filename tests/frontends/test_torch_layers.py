"""Every layer of torch that can be converted, with its options, against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from frontend_models import agrees, close, prune_
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsecirc.frontends import from_torch
from sparsecirc.ir import Recurrent, interpret

KINDS = [
    pytest.param(nn.RNN, {}, id="rnn_tanh"),
    pytest.param(nn.RNN, {"nonlinearity": "relu"}, id="rnn_relu"),
    pytest.param(nn.GRU, {}, id="gru"),
    pytest.param(nn.LSTM, {}, id="lstm"),
    pytest.param(nn.LSTM, {"proj_size": 2}, id="lstm_proj"),
]


@pytest.mark.parametrize(("cls", "extra"), KINDS)
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.4},
        {"bias": False, "num_layers": 3},
    ],
    ids=["plain", "deep_bidirectional", "deep_without_bias"],
)
def test_a_bare_layer_with_its_final_states(cls, extra, pruned, options):
    torch.manual_seed(0)
    model = cls(3, 4, **extra, **options)
    if pruned:
        prune_(model)
    graph = from_torch(model)
    assert graph.batch_first == model.batch_first
    x = torch.randn(5, 7, 3, dtype=torch.float64)
    result = interpret(graph, x.numpy())
    out, state = model.double().eval()(x)
    close(result.y, out)
    for port, tensor in zip("hc", state if isinstance(state, tuple) else (state,), strict=False):
        names = [f"{n.name}.{port}" for n in graph.nodes if isinstance(n, Recurrent)]
        close(np.stack([result.state[n] for n in names]), tensor)
    assert (graph.density < 0.5) == pruned


@given(
    kind=st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]),
    sizes=st.tuples(*[st.integers(1, 17)] * 2),
    steps=st.integers(1, 6),
    batch=st.integers(1, 5),
    bidirectional=st.booleans(),
    batch_first=st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_odd_sizes_and_lengths_other_than_the_example(kind, sizes, steps, batch, bidirectional, batch_first):
    model = kind(*sizes, bidirectional=bidirectional, batch_first=batch_first)
    example = torch.randn((2, 1, sizes[0]) if batch_first else (1, 2, sizes[0]))
    graph = from_torch(model, example=example)
    x = torch.randn((batch, steps, sizes[0]) if batch_first else (steps, batch, sizes[0]), dtype=torch.float64)
    close(interpret(graph, x.numpy()).y, model.double()(x)[0])


@pytest.mark.parametrize("cls", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_bare_cell_runs_over_a_sequence(cls, batch_first):
    model = cls(3, 5)
    graph = from_torch(model, batch_first=batch_first)
    assert [n.name for n in graph.nodes] == ["x", cls.__name__.lower()]
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    state, wanted = None, []
    for x_t in x:
        state = model.double()(x_t, state)
        wanted.append(state[0] if isinstance(state, tuple) else state)
    got = interpret(graph, x.transpose(0, 1).numpy() if batch_first else x.numpy()).y
    close(got, torch.stack(wanted, dim=1 if batch_first else 0))


STATIC = [
    pytest.param(nn.Linear(3, 5), (2, 3), id="linear"),
    pytest.param(nn.Linear(1, 17, bias=False), (1, 1), id="linear_without_bias"),
    pytest.param(nn.Conv1d(2, 4, 3, stride=2, padding=1, dilation=2), (3, 2, 9), id="conv1d"),
    pytest.param(nn.Conv1d(2, 4, 3, padding="same"), (3, 2, 9), id="conv1d_same"),
    pytest.param(nn.Conv2d(2, 4, (3, 2), padding=(1, 0), groups=2), (3, 2, 6, 7), id="conv2d"),
    pytest.param(nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, stride=1)), (2, 1, 6, 6), id="max_pool2d"),
    pytest.param(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d((2, 1))), (2, 1, 6, 6), id="avg_pool2d"),
    pytest.param(nn.Sequential(nn.Conv1d(1, 2, 3), nn.MaxPool1d(2)), (2, 1, 7), id="max_pool1d"),
    pytest.param(nn.Sequential(nn.Conv1d(1, 2, 3), nn.AvgPool1d(3, 2)), (2, 1, 9), id="avg_pool1d"),
    pytest.param(nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 1, 6, 6), id="adaptive"),
    pytest.param(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU()), (4, 3), id="batch_norm"),
    pytest.param(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(), nn.Identity()), (4, 3), id="tanh_dropout"),
    pytest.param(nn.Sequential(nn.Linear(3, 5), nn.Sigmoid(), nn.Softmax(dim=-1)), (4, 3), id="softmax"),
    pytest.param(nn.Sequential(nn.Linear(3, 5), nn.LogSoftmax(dim=1)), (4, 3), id="log_softmax"),
    pytest.param(nn.Sequential(nn.Sequential(nn.Linear(3, 5), nn.ReLU()), nn.Linear(5, 2)), (4, 3), id="nested"),
]


@pytest.mark.parametrize(("model", "shape"), STATIC)
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_layers_without_time(model, shape, pruned):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d):
            nn.init.uniform_(m.running_mean), nn.init.uniform_(m.running_var, 0.5, 2)
            nn.init.uniform_(m.weight), nn.init.uniform_(m.bias)
    if pruned:
        prune_(model)
    graph = from_torch(model, example=torch.randn(shape))
    assert not graph.inputs[0].time
    agrees(graph, model, torch.randn(shape[0] + 3, *shape[1:], dtype=torch.float64))


def test_a_recurrent_layer_inside_sequential_hands_on_its_output():
    model = nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5, batch_first=True), nn.ReLU(), nn.Linear(5, 2))
    graph = from_torch(model)
    assert [n.name for n in graph.nodes] == ["x", "0", "1.l0", "2", "3"]
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    model.double()
    close(interpret(graph, x.numpy()).y, model[3](model[2](model[1](model[0](x))[0])))


def test_integers_index_an_embedding():
    model = nn.Sequential(nn.Embedding(7, 4), nn.LSTM(4, 3))
    graph = from_torch(model)
    x = torch.randint(0, 7, (5, 2))
    model.double()
    close(interpret(graph, x.numpy()).y, model[1](model[0](x))[0])


def test_weights_keep_the_models_precision():
    for model, dtype in ((nn.GRU(2, 3), np.float32), (nn.GRU(2, 3).double(), np.float64)):
        graph = from_torch(model)
        assert {p.dtype for n in graph.nodes for p in n.params.values()} == {np.dtype(dtype)}
        assert np.array_equal(graph.node("gru.l0").params["hh"], model.weight_hh_l0.detach().numpy())


def test_the_models_own_mode_states_and_weights_stay():
    model = nn.Sequential(nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2), nn.Dropout()).train()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    from_torch(model)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.get_default_dtype() == torch.float32
    assert not any("forward" in vars(m) for m in model.modules())
