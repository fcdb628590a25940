"""What cannot be converted is named, with the line of the model and the cure."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from frontend_models import Classifier
from torch import nn

import sparsecirc.frontends._snntorch as snntorch_frontend
from sparsecirc._pattern import Pattern
from sparsecirc.errors import MismatchError, MissingExtraError, UnsupportedError, UsageError
from sparsecirc.frontends import from_snntorch, from_torch, to_graph


class Net(nn.Module):
    """``body(self, x)`` around a few layers."""

    def __init__(self, body):
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True)
        self.cell = nn.GRUCell(3, 5)
        self.fc = nn.Linear(5, 2)
        self.h0 = nn.Parameter(torch.randn(1, 1, 5))
        self.body = body

    def forward(self, x):
        return self.body(self, x)


def _steps(self, x, order):
    h = None
    for t in order:
        h = self.cell(x[:, t], h)
    return h


BODIES = {
    "learned state": (lambda s, x: s.rnn(x, s.h0.expand(1, x.size(0), 5))[0], "learned state 'h0'.*start at zero"),
    "other state": (lambda s, x: s.rnn(x, torch.ones(1, x.size(0), 5))[0], "not zero.*pass the state with state="),
    "packed": (
        lambda s, x: s.rnn(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4] * x.size(0)), batch_first=True))[1],
        "packs a sequence; .* pass lengths=",
    ),
    "index tensor": (
        lambda s, x: s.rnn(x)[0][torch.arange(x.size(0)), torch.zeros(x.size(0), dtype=torch.long)],
        r"return x\[:, -1\] here and pass lengths=",
    ),
    "second to last": (lambda s, x: s.fc(s.rnn(x)[0][:, -2]), "step"),
    "every other step": (lambda s, x: s.rnn(x[:, ::2])[0], r"takes \[.*\] of axis 1"),
    "features": (lambda s, x: s.rnn(x)[0][..., :2], "takes features 0:2 of 'rnn.l0'"),
    "random dropout": (lambda s, x: F.dropout(s.rnn(x)[0]), "training=self.training"),
    "noise": (lambda s, x: s.rnn(x)[0] + torch.randn_like(x[..., :1]), "random|features"),
    "value": (lambda s, x: s.rnn(x)[0] if x.sum() > 0 else x, "values|which is not time"),
    "item": (lambda s, x: s.rnn(x)[0] * s.rnn(x)[0].amax(1).clone()[0].item(), "values|takes"),
    "softmax over time": (lambda s, x: torch.softmax(s.rnn(x)[0], dim=1), "give it dim=-1"),
    "sum of everything": (lambda s, x: s.rnn(x)[0].sum(), "only the sum over time"),
    "concatenation over time": (lambda s, x: torch.cat([s.rnn(x)[0]] * 2, dim=1), "concatenate with dim=-1"),
    "ratio": (lambda s, x: s.rnn(x)[0] / (1 + s.rnn(x)[0]), "only division by a constant"),
    "reciprocal": (lambda s, x: 1 / s.rnn(x)[0], "only division by a constant|reciprocal"),
    "attention": (lambda s, x: s.rnn(x)[0] @ s.rnn(x)[0].transpose(1, 2), "use nn.Linear"),
    "fold time into batch": (lambda s, x: s.fc(s.rnn(x)[0].reshape(-1, 5)), "time and batch stay as they are"),
    "arg max": (lambda s, x: s.rnn(x)[0].argmax(-1), "'argmax' is not among the operations"),
    "arg max over time": (lambda s, x: s.rnn(x)[0].max(1).indices, "the step of the max"),
    "backwards": (lambda s, x: _steps(s, x, reversed(range(x.size(1)))), r"loop over the steps 0, 1, 2"),
    "twice a step": (lambda s, x: _steps(s, x, [0, 0, 1, 2, 3]), r"loop over the steps 0, 1, 2"),
    "no state": (lambda s, x: torch.stack([s.cell(x[:, t]) for t in range(x.size(1))], 1), "zero|loop over the steps"),
    "single steps of a whole layer": (lambda s, x: s.rnn(x[:, 0].unsqueeze(1))[0], "nn.LSTMCell"),
    "constant output": (lambda s, x: torch.ones(2), "does not depend on the input"),
    "static beside sequence": (lambda s, x: s.rnn(x)[0] + s.rnn(x)[1][0].unsqueeze(1), "no time axis"),
    "positions": (lambda s, x: s.rnn(x + torch.arange(x.size(1))[None, :, None])[0], "one entry per feature"),
    "spread": (lambda s, x: torch.zeros(4, 1, 1, 1) + s.rnn(x)[0], "spreads"),
    "spread features": (lambda s, x: s.rnn(x)[0] * nn.functional.linear(x, torch.ones(1, 3)), "one shape"),
    "text": (lambda s, x: "done", "returns a str"),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_forward_that_cannot_be_converted(name):
    body, message = BODIES[name]
    with pytest.raises(UnsupportedError, match=message) as caught:
        from_torch(Net(body), example=torch.rand(2, 4, 3))
    assert "\n" not in str(caught.value)
    if name not in ("constant output", "text", "second to last"):  # found at the end of the run, not at a line
        assert "test_frontend_refusals.py:" in str(caught.value)


LAYERS = {
    "LayerNorm": (nn.LayerNorm(3), "nn.BatchNorm1d"),
    "GELU": (nn.GELU(), "nn.ReLU, nn.Tanh or nn.Sigmoid"),
    "TransformerEncoderLayer": (nn.TransformerEncoderLayer(3, 1, 4), "replace it"),
    "Softmax": (nn.Softmax(dim=0), "dim=-1"),
    "Conv1d": (nn.Conv1d(4, 4, 2, padding="same"), "odd kernel size"),
    "BatchNorm1d": (nn.BatchNorm1d(3, track_running_stats=False), "track running statistics"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_cannot_be_converted_is_named(name):
    layer, cure = LAYERS[name]
    model = nn.Sequential(nn.Sequential(layer))
    shape = (2, 4, 3) if isinstance(layer, (nn.Conv1d, nn.TransformerEncoderLayer)) else (2, 3)
    with pytest.raises(UnsupportedError, match=rf"layer '0.0' \({name}\).*{cure}"):
        from_torch(model, example=torch.rand(shape))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.MaxPool2d(2, padding=1), (2, 1, 5, 5)),
        (nn.MaxPool1d(2, ceil_mode=True), (2, 1, 5)),
        (nn.AvgPool2d(2, divisor_override=3), (2, 1, 5, 5)),
        (nn.AdaptiveAvgPool1d(2), (2, 1, 5)),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), (2, 1, 5, 5)),
    ],
)
def test_options_of_layers_that_cannot_be_converted(model, shape):
    with pytest.raises(UnsupportedError, match=type(model).__name__):
        from_torch(model, example=torch.rand(shape))


def test_an_input_that_cannot_be_inferred_asks_for_an_example():
    with pytest.raises(UnsupportedError, match="pass example="):
        from_torch(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    with pytest.raises(UnsupportedError, match="pass example="):
        from_torch(Net(lambda s, x: s.rnn(x.view(2, 7, 3))[0]))


def test_an_example_that_does_not_fit():
    with pytest.raises(UsageError, match=r"does not run on an input of shape \(2, 4, 7\)"):
        from_torch(nn.Sequential(nn.Linear(3, 2)), example=torch.rand(2, 4, 7))
    with pytest.raises(UsageError, match="non-empty batch"):
        from_torch(nn.GRU(3, 2), example=torch.rand(0, 4, 3))
    with pytest.raises(UsageError, match=r"expected a torch.nn.Module"):
        to_graph({"weight": torch.zeros(2)})


def test_nan_weights():
    model = nn.GRU(3, 4)
    with torch.no_grad():
        model.weight_hh_l0[1, 2] = float("nan")
    with pytest.raises(UsageError, match=r"'gru.l0.hh'.*NaN"):
        from_torch(model)


def test_a_model_that_changes_from_run_to_run_is_no_graph():
    class Drifts(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.fc(x) * self.calls

    with pytest.raises(MismatchError, match="does not compute what the model does: output 'y' differs"):
        from_torch(Drifts())


def test_masks_that_do_not_fit():
    model = nn.GRU(3, 4)

    def masks(patterns):
        return type("Masks", (), {"patterns": patterns})()

    with pytest.raises(UsageError, match=r"no weight 'gru.l0.zz'"):
        from_torch(model, masks=masks({"gru.l0.zz": Pattern.full(12, 4)}))
    with pytest.raises(UsageError, match="shape"):
        from_torch(model, masks=masks({"gru.l0.hh": Pattern.full(4, 4)}))
    with pytest.raises(UsageError, match="48 non-zero entries where its mask is dead"):
        from_torch(model, masks=masks({"gru.l0.hh": Pattern.empty(12, 4)}))


def test_snntorch_is_optional(monkeypatch):
    monkeypatch.setattr(snntorch_frontend, "snn", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsecirc\[torch\]'"):
        from_snntorch(nn.Linear(3, 2))


def test_a_wrong_layout_is_explained():
    model = Classifier(lambda out, h: out[:, -1], batch_first=True)
    with pytest.raises(UnsupportedError, match=r"axes \(T, B, f0\) where it takes \(B, T, f0\).*batch_first"):
        from_torch(model, example=torch.rand(2, 4, 3), batch_first=False)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_models_without_their_python_code_and_models_that_cannot_be_copied():
    with pytest.raises(UnsupportedError, match="pass the nn"):
        from_torch(torch.jit.trace(nn.Linear(3, 2), torch.rand(1, 3)))
    model = nn.Linear(3, 2)
    model.lock = threading.Lock()
    with pytest.raises(UnsupportedError, match="Linear cannot be copied"):
        from_torch(model)
