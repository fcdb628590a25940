"""Networks that tell Reber strings from others, and their training."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.studies._study import Setting
from sparsecirc import Masks
from sparsecirc._files import write_atomic
from sparsecirc.data import Dataset, reber
from sparsecirc.nn import GraphRNN
from sparsecirc.nn._recurrent import SparseRNNBase
from sparsecirc.structures import LayeredGraph

LETTERS, FEATURES, CLIP = 128, 50, 5.0
KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn_tanh": lambda *a, **k: nn.RNN(*a, nonlinearity="tanh", **k),
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class Reader(nn.Module):
    """Embedding(128, 50), three recurrent layers of 50 units, and a read-out of each string's last letter."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, FEATURES)
        self.rnn: Any = KINDS[cell](FEATURES, 50, 3, batch_first=True)
        self.fc = nn.Linear(50, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 2) of codes (B, T) with their lengths."""
        packed = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        state = self.rnn(packed)[1]
        last = state[0] if isinstance(state, tuple) else state
        scores: torch.Tensor = self.fc(last[-1])
        return scores


class GraphReader(nn.Module):
    """The same around a network that is wired like a graph."""

    def __init__(self, cell: str, graph: LayeredGraph) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, FEATURES)
        self.rnn = GraphRNN(cell, FEATURES, graph, batch_first=True)
        self.fc = nn.Linear(self.rnn.output_size, 2)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 2) of codes (B, T) with their lengths."""
        out = self.rnn(self.embed(x))
        scores: torch.Tensor = self.fc(out[torch.arange(len(x)), lengths - 1])
        return scores


@lru_cache(maxsize=1)
def strings(quick: bool) -> Dataset:
    """All 25,000, or few of them."""
    return reber(3000, 1000) if quick else reber()


def tensors(data: Dataset, part: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (N, T), lengths and classes of ``"train"`` or ``"test"``."""
    x, y = (torch.from_numpy(getattr(data, f"{name}_{part}")) for name in ("x", "y"))
    return x[..., 0].long(), torch.from_numpy(getattr(data, f"lengths_{part}")), y


def train(
    model: Reader | GraphReader, data: Dataset, epochs: int, batch: int, seed: int, masks: Masks | None = None
) -> None:
    """Adam at 1e-3 with gradients clipped at 5; dead connections stay dead where there are masks.

    Recurrent layers are trained by the package's own kernels, on their live connections, and are torch's again
    afterwards: the same arithmetic at less than half the time for layers this small.
    """
    torch.manual_seed(seed)
    x, lengths, y = tensors(data, "train")
    if isinstance(model, Reader):
        model.rnn = SparseRNNBase.from_dense(model.rnn, {} if masks is None else masks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(epochs):
        order = torch.randperm(len(y))
        for index in of_similar_length(order, lengths, batch) if isinstance(model, GraphReader) else cut(order, batch):
            n = lengths[index]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index, : int(n.max())], n), y[index]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
    if isinstance(model, Reader):
        model.rnn = model.rnn.to_dense()


def cut(order: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Pieces of ``size``, the last one of what is left."""
    return [order[k : k + size] for k in range(0, len(order), size)]


def of_similar_length(order: torch.Tensor, lengths: torch.Tensor, batch: int, together: int = 20) -> list[torch.Tensor]:
    """Batches, in random order, each of strings that ``together`` batches in ``order`` hold and that are equally long.

    A network that is wired like a graph runs over the padding too: half of all steps, where lengths are mixed.
    """
    batches: list[torch.Tensor] = []
    for stretch in cut(order, together * batch):
        batches += cut(stretch[lengths[stretch].argsort()], batch)
    return [batches[k] for k in torch.randperm(len(batches)).tolist()]


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset) -> float:
    """Share of the test strings."""
    x, lengths, y = tensors(data, "test")
    right = 0
    for k in range(0, len(y), 1000):
        right += int((model(x[k : k + 1000], lengths[k : k + 1000]).argmax(1) == y[k : k + 1000]).sum())
    return right / len(y)


def trained(cell: str, data: Dataset, epochs: int, batch: int, seed: int, setting: Setting) -> Reader:
    """The dense network of a seed, from the work folder or trained now."""
    file = setting.kept(f"{cell}-{seed}.pt")
    torch.manual_seed(seed)
    model = Reader(cell)
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        return model
    setting.say(f"training {cell} dense, seed {seed}")
    train(model, data, epochs, batch, seed)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    write_atomic(file, buffer.getvalue())
    return model
