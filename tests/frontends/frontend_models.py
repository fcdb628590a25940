"""Hand-written models of the forms that people write, and helpers to compare a graph with its model."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sparsecirc.ir import Graph, interpret


def prune_(model: nn.Module, keep: float = 0.3, seed: int = 0) -> nn.Module:
    """Zero most entries of every matrix, as a pruned model has them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(torch.rand(p.shape, generator=generator) < keep)
    return model


def close(got: np.ndarray, wanted: torch.Tensor, tolerance: float = 1e-12) -> None:
    wanted = wanted.detach().numpy()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max(initial=0) <= tolerance * max(1, np.abs(wanted).max(initial=0))


def agrees(graph: Graph, model: nn.Module, *inputs: torch.Tensor, swap: bool = False) -> None:
    """``interpret`` gives what the model gives; ``swap`` where the model's outputs have the other layout."""
    twin = copy.deepcopy(model).double().eval()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            wanted = twin(*inputs)
    finally:
        torch.set_default_dtype(before)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    fed = {n.name: x.numpy() for n, x in zip(graph.inputs, inputs, strict=True)}
    outputs = list(interpret(graph, fed).outputs.values())
    assert len(outputs) == len(wanted)
    for got, reference in zip(outputs, wanted, strict=True):
        close(got, reference.transpose(0, 1) if swap else reference)


class Classifier(nn.Module):
    """A recurrent layer, one way of taking its result, a linear layer."""

    def __init__(self, take, *, rnn=nn.GRU, width=None, **options):
        super().__init__()
        self.rnn = rnn(3, 5, **options)
        directions = 2 if options.get("bidirectional") else 1
        self.fc = nn.Linear(width or 5 * directions, 2)
        self.take = take

    def forward(self, x):
        return self.fc(self.take(*self.rnn(x)))


class CellLoop(nn.Module):
    """An nn.LSTMCell or its like over time by hand."""

    def __init__(self, cell=nn.LSTMCell, every=False):
        super().__init__()
        self.cell = cell(3, 5)
        self.fc = nn.Linear(5, 2)
        self.every = every

    def forward(self, x):
        h = torch.zeros(x.size(0), 5, dtype=x.dtype)
        state = (h, h.clone()) if isinstance(self.cell, nn.LSTMCell) else h
        outs = []
        for t in range(x.size(1)):
            state = self.cell(x[:, t], state)
            h = state[0] if isinstance(state, tuple) else state
            if self.every:
                outs.append(torch.tanh(self.fc(h)))
        return torch.stack(outs, dim=1) if self.every else self.fc(h)


class Residual(nn.Module):
    """Two layers with a residual sum, a gate, a concatenation and constants."""

    def __init__(self):
        super().__init__()
        self.inp = nn.Linear(3, 5)
        self.rnn = nn.GRU(5, 5, batch_first=True)
        self.gate = nn.Linear(5, 5)
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(10, 4)
        self.gain = nn.Parameter(torch.rand(5))
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        a = F.relu(self.inp(x)) * self.gain - 0.25
        out, _ = self.rnn(a)
        out = self.drop(out) + a
        g = torch.sigmoid(self.gate(out))
        out = g * out + (1 - g) * a
        out = self.norm(out.transpose(1, 2)).transpose(1, 2)
        both = torch.cat([out, -torch.tanh(out) / 2], dim=-1)
        return F.log_softmax(self.out(both.mean(dim=1)), dim=-1)


class Frames(nn.Module):
    """A small convolution net on each frame in turn, then a cell."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.cell = nn.GRUCell(3 * 2 * 2, 5)

    def forward(self, x):
        h = torch.zeros(x.shape[0], 5, dtype=x.dtype)
        for frame in x.unbind(1):
            z = F.max_pool2d(F.relu(self.conv(frame)), 2)
            z = F.adaptive_avg_pool2d(z, (2, 2)).flatten(1)
            h = self.cell(z, h)
        return h


class OverTime(nn.Module):
    """A convolution over time in front of a recurrent layer, the keyword-spotting form."""

    def __init__(self, **options):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3, **options)
        self.rnn = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x):
        z = torch.relu(self.conv(x.transpose(1, 2)))
        _, (h, c) = self.rnn(z.transpose(1, 2))
        return torch.cat((h[-1], c.squeeze(0)), dim=1)


class Tokens(nn.Module):
    """An embedding in front of a recurrent layer; scores at every step."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4, padding_idx=0)
        self.rnn = nn.RNN(4, 6, nonlinearity="relu")
        self.fc = nn.Linear(6, 11)

    def forward(self, x):
        return self.fc(self.rnn(self.emb(x))[0])


class Buffered(nn.Module):
    """Steps written into a preallocated tensor, over a (T, B, F) input."""

    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(3, 5)

    def forward(self, x):
        h = x.new_zeros(x.size(1), 5)
        out = torch.empty(x.size(0), x.size(1), 5, dtype=x.dtype)
        for t, x_t in enumerate(x):
            h = self.cell(x_t, h)
            out[t] = h
        return out


class Flat(nn.Module):
    """A model without time on images."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, groups=2, padding="valid", bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.pool(self.bn(self.conv(x)).relu())
        return self.fc(x.view(x.size(0), -1)).softmax(-1)
