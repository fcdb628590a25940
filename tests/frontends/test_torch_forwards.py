"""Models with a ``forward`` of their own, as people write them, against torch in float64."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import frontend_models as models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from frontend_models import Classifier, agrees, prune_
from torch import nn
from torch.nn.utils import prune

from sparsecirc.frontends import from_torch, with_zero_patterns
from sparsecirc.ir import Add, Affine, Recurrent, TimeReduce, interpret, load_graph, save_graph

TAKES = {
    "out[:, -1]": (lambda out, h: out[:, -1], {"batch_first": True}),
    "out[:, -1, :]": (lambda out, h: out[:, -1, :], {"batch_first": True}),
    "out[-1]": (lambda out, h: out[-1], {}),
    "out.select(1, -1)": (lambda out, h: out.select(1, -1), {"batch_first": True}),
    "out[:, 0]": (lambda out, h: out[:, 0], {"batch_first": True, "bidirectional": True}),
    "out.transpose(0, 1)[-1]": (lambda out, h: out.transpose(0, 1)[-1], {"batch_first": True}),
    "out.permute(1, 0, 2)[:, -1]": (lambda out, h: out.permute(1, 0, 2)[:, -1], {}),
    "out": (lambda out, h: out, {"batch_first": True}),
    "relu(out)": (lambda out, h: F.relu(out), {}),
    "out.mean(1)": (lambda out, h: out.mean(1), {"batch_first": True}),
    "mean(dim=[0])": (lambda out, h: torch.mean(out, dim=[0]), {}),
    "sum": (lambda out, h: out.sum(dim=0), {}),
    "max": (lambda out, h: out.max(dim=1).values, {"batch_first": True}),
    "max()[0]": (lambda out, h: torch.max(out, 1)[0], {"batch_first": True}),
    "amax keepdim": (lambda out, h: out.amax(dim=1, keepdim=True).squeeze(1), {"batch_first": True}),
    "adaptive max pool": (lambda out, h: F.adaptive_max_pool1d(out.mT, 1).squeeze(-1), {"batch_first": True}),
    "h[-1]": (lambda out, h: h[-1], {"num_layers": 2, "batch_first": True}),
    "h[0]": (lambda out, h: h[0], {"num_layers": 2}),
    "h.squeeze(0)": (lambda out, h: h.squeeze(0), {}),
    "cat(h[-2], h[-1])": (
        lambda out, h: torch.cat((h[-2, :, :], h[-1, :, :]), dim=1),
        {"bidirectional": True, "num_layers": 2, "batch_first": True},
    ),
    "h by batch": (lambda out, h: h.permute(1, 0, 2).reshape(h.size(1), -1), {"bidirectional": True}),
    "both directions' ends": (
        lambda out, h: torch.cat([out[:, -1, :5], out[:, 0, 5:]], dim=-1), {"bidirectional": True, "batch_first": True},
    ),
    "dropout, tanh": (lambda out, h: torch.tanh(F.dropout(out[-1], 0.5, training=False)), {}),
    "unsqueeze and back": (lambda out, h: out[:, -1].unsqueeze(1)[:, 0], {"batch_first": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_ways_to_take_the_result_of_a_recurrent_layer(name, pruned):
    torch.manual_seed(1)
    take, options = TAKES[name]
    model = Classifier(take, **options)
    if pruned:
        prune_(model)
    graph = from_torch(model)
    x = torch.randn((2, 7, 3) if options.get("batch_first") else (7, 2, 3), dtype=torch.float64)
    agrees(graph, model, x)


def test_cell_state_of_an_lstm():
    model = Classifier(lambda out, state: torch.cat((state[0][-1], state[1][-1]), 1), rnn=nn.LSTM, width=10)
    agrees(from_torch(model), model, torch.randn(1, 4, 3, dtype=torch.float64))


def test_the_linear_layer_after_the_last_step_runs_once():
    graph = from_torch(Classifier(lambda out, h: out[:, -1], batch_first=True))
    assert [n.name for n in graph.nodes] == ["x", "rnn.l0", "rnn.l0_last", "fc"]
    graph = from_torch(models.CellLoop())
    assert [n.name for n in graph.nodes] == ["x", "cell", "cell_last", "fc"]
    assert not graph.specs["fc"].time


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("every", [False, True], ids=["last", "every step"])
@pytest.mark.parametrize("pruned", [False, True], ids=["dense", "pruned"])
def test_a_cell_in_a_loop_over_time(cell, every, pruned):
    model = models.CellLoop(cell, every)
    if pruned:
        prune_(model)
    graph = from_torch(model)
    assert graph.batch_first
    for steps in (1, 2, 9):
        agrees(graph, model, torch.randn(3, steps, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        pytest.param(models.Residual(), (2, 5, 3), id="residual"),
        pytest.param(models.Frames(), (2, 6, 1, 8, 8), id="frames"),
        pytest.param(models.OverTime(padding=1), (2, 6, 3), id="convolution over time"),
        pytest.param(models.OverTime(stride=2), (2, 11, 3), id="convolution that shortens time"),
        pytest.param(models.Buffered(), (5, 2, 3), id="preallocated output"),
        pytest.param(models.Flat(), (2, 2, 7, 7), id="images"),
    ],
)
def test_other_forms(model, shape):
    graph = from_torch(model, example=torch.randn(shape))
    agrees(graph, model, torch.randn(shape[0], shape[1] + (len(shape) == 3), *shape[2:], dtype=torch.float64))


def test_tokens():
    model = models.Tokens()
    graph = from_torch(model)
    agrees(graph, model, torch.randint(0, 11, (9, 3)))


def test_a_user_class_on_top_of_a_layer_is_followed_into():
    class Scaled(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 3

    model = nn.Sequential(Scaled(3, 2))
    graph = from_torch(model)
    assert any(isinstance(n, Affine) for n in graph.nodes)
    assert graph.nodes[1].name == "0"  # the name that masks use
    agrees(graph, model, torch.randn(4, 3, dtype=torch.float64))


def test_functional_weights_and_products():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4, bias=False)
            self.W = nn.Parameter(torch.randn(4, 2))

        def forward(self, x):
            y = F.linear(x, self.fc.weight)
            y += 1
            return 2 - (y @ self.W) / 3

    model = Net()
    graph = from_torch(model, example=torch.randn(2, 3))
    assert graph.nodes[1].name == "fc"
    agrees(graph, model, torch.randn(5, 3, dtype=torch.float64))


def test_several_inputs_and_named_outputs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)
            self.side = nn.Linear(2, 4)

        def forward(self, series, facts):
            last = self.rnn(series)[1][-1]
            return {"joint": last + torch.relu(self.side(facts)), "last": last}

    model = Net()
    graph = from_torch(model, example=(torch.randn(2, 5, 3), torch.randn(2, 2)))
    assert [n.name for n in graph.inputs] == ["series", "facts"]
    assert list(graph.outputs) == ["joint", "last"]
    series, facts = torch.randn(3, 7, 3), torch.randn(3, 2)
    got = interpret(graph, {"series": series.numpy(), "facts": facts.numpy()}).outputs
    wanted = model(series, facts)
    assert all(np.allclose(got[k], v.detach().numpy(), atol=1e-6) for k, v in wanted.items())


def test_a_layer_used_twice_becomes_two_nodes_with_one_pattern():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(torch.tanh(self.fc(x)))

    model = prune_(Net())
    graph = from_torch(model)
    assert [n.name for n in graph.nodes if n.kind == "linear"] == ["fc", "fc_2"]
    agrees(graph, model, torch.randn(2, 4, dtype=torch.float64))

    masked = from_torch(model, masks=SimpleNamespace(patterns={"fc.weight": graph.node("fc").patterns["weight"]}))
    assert masked.node("fc_2").patterns["weight"].nnz == graph.node("fc").patterns["weight"].nnz < 16


def test_float32_casts_and_int_images_do_not_disturb_the_comparison():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 3)

        def forward(self, x):
            return self.fc(x.float().flatten(1) / 255)

    model = Net()
    graph = from_torch(model, example=torch.randint(0, 256, (2, 3, 4), dtype=torch.uint8))
    x = torch.randint(0, 256, (5, 3, 4), dtype=torch.uint8)
    assert np.allclose(interpret(graph, x.numpy()).y, model(x).detach().numpy(), atol=1e-6)


def test_outputs_take_the_layout_of_the_input():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0].transpose(0, 1)

    model = Net()
    graph = from_torch(model)
    assert graph.batch_first
    agrees(graph, model, torch.randn(2, 5, 3, dtype=torch.float64), swap=True)


def test_a_squeezed_feature_stays_an_axis_of_the_graph():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)
            self.fc = nn.Linear(4, 1)

        def forward(self, x):
            return self.fc(self.rnn(x)[0][:, -1]).squeeze(-1)

    model = Net()
    graph = from_torch(model)
    x = torch.randn(3, 5, 3)
    assert np.allclose(interpret(graph, x.numpy()).y[:, 0], model(x).detach().numpy(), atol=1e-6)


def test_the_run_is_noted_in_the_graph():
    graph = from_torch(models.CellLoop(), dt=0.004)
    assert graph.dt == 0.004
    assert graph.meta["source"] == "torch"
    assert graph.meta["verified"]["max_abs_diff"] < 1e-12
    assert len(graph.meta["verified"]["steps"]) == 2
    assert "fixed_steps" not in graph.meta


def test_a_loop_of_a_fixed_length_is_noted():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 4)
            for t in range(6):
                h = self.cell(x[:, t], h)
            return h

    assert from_torch(Net(), example=torch.randn(2, 6, 3)).meta["fixed_steps"] == 6


def test_sums_that_a_loop_builds():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 4)
            total = torch.zeros(x.shape[0], 4)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                total = total + h
            return total / x.shape[1]

    model = Net()
    graph = from_torch(model)
    assert [n.how for n in graph.nodes if isinstance(n, TimeReduce)] == ["mean"]
    assert not any(isinstance(n, Add) for n in graph.nodes)
    agrees(graph, model, torch.randn(2, 9, 3, dtype=torch.float64))


def test_in_place_forms():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 4)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 4)
            total = torch.zeros(x.shape[0], 4)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                total += h
            y = total.clone()
            y.mul_(2).tanh_()
            y -= 0.5
            return F.relu(y, inplace=True)

    model = Net()
    agrees(from_torch(model), model, torch.randn(2, 9, 3, dtype=torch.float64))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_wrappers_of_torch_are_taken_off():
    model = nn.GRU(3, 4)
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        assert from_torch(wrapped).node("gru.l0").units == 4


def test_the_graph_file_holds_all_of_it(tmp_path):
    model = models.Residual()
    graph = from_torch(model)
    save_graph(graph, tmp_path / "net.scg")
    again = load_graph(tmp_path / "net.scg")
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    assert np.array_equal(interpret(again, x).y, interpret(graph, x).y)


def test_masks_put_their_patterns_into_the_graph():
    model = prune_(nn.GRU(3, 4))
    free = from_torch(model)
    pattern = free.node("gru.l0").patterns["hh"]

    node = from_torch(model, masks=SimpleNamespace(patterns={"gru.l0.hh": pattern})).node("gru.l0")
    assert isinstance(node, Recurrent)
    assert set(node.patterns) == {"hh"}
    assert node.patterns["hh"].nnz == pattern.nnz


@pytest.mark.parametrize("removed", [False, True], ids=["attached", "removed"])
def test_a_model_pruned_by_torch_keeps_its_sparsity(removed):
    model = models.Classifier(lambda out, h: out[:, -1], batch_first=True)
    prune.l1_unstructured(model.fc, "weight", amount=0.5)
    if removed:
        prune.remove(model.fc, "weight")
    graph = from_torch(model)
    assert graph.node("fc").patterns["weight"].nnz == 5
    wanted = model(torch.ones(2, 4, 3)).detach().numpy()
    assert np.allclose(interpret(graph, np.ones((2, 4, 3), np.float32)).y, wanted, atol=1e-6)


def test_zeros_become_patterns_without_masks():
    dense = from_torch(nn.GRU(3, 4))
    assert not dense.node("gru.l0").patterns
    zeroed = dense.replace_nodes(dense.node("gru.l0").with_params(hh=np.eye(12, 4)))
    assert with_zero_patterns(zeroed).node("gru.l0").patterns["hh"].nnz == 4


HIDDEN = """
import sys
sys.modules["snntorch"] = None
from torch import nn
from sparsecirc.errors import MissingExtraError
from sparsecirc.frontends import from_snntorch, from_torch, to_graph
assert to_graph(nn.GRU(2, 3)).node("gru.l0").units == 3
try:
    from_snntorch(nn.GRU(2, 3))
except MissingExtraError as error:
    assert "sparsecirc[torch]" in str(error)
else:
    raise SystemExit("snntorch was not missed")
"""


def test_snntorch_need_not_be_installed():
    subprocess.run([sys.executable, "-c", HIDDEN], check=True)
