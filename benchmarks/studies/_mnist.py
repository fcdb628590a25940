"""Networks that read MNIST digits row by row, their training, and pruning with fine-tuning."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.studies._study import Setting
from sparsecirc import Masks, Pattern
from sparsecirc._files import write_atomic
from sparsecirc._prune import WeightInfo
from sparsecirc._torch_layers import weight_refs
from sparsecirc.data import Dataset, mnist
from sparsecirc.masks import Attachment

BATCH = 128
TUNING_RATE = 1e-3


class RowReader(nn.Module):
    """28 rows of 28 pixels into an LSTM, and a read-out of its last step."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(28, units, batch_first=True)
        self.fc = nn.Linear(units, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of images (B, 28, 28)."""
        scores: torch.Tensor = self.fc(self.rnn(x)[0][:, -1])
        return scores


class FeedbackReader(nn.Module):
    """Two tanh layers; the lower one also sees what the upper one said a step ago (top-down feedback).

    ``bottom.ih`` has 28 columns of pixels and then one per unit of the upper layer.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.bottom = nn.RNNCell(28 + units, units)
        self.top = nn.RNNCell(units, units)
        self.fc = nn.Linear(units, 10)
        for cell in (self.bottom, self.top):  # a tanh network of 28 steps needs a recurrence near the identity
            nn.init.orthogonal_(cell.weight_hh)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of images (B, 28, 28)."""
        low = high = x.new_zeros(len(x), self.top.hidden_size)
        for row in x.unbind(1):
            low = self.bottom(torch.cat([row, high], dim=1), low)
            high = self.top(low, high)
        scores: torch.Tensor = self.fc(high)
        return scores


def load(quick: bool) -> Dataset:
    """MNIST; a fifth of it where it only has to run.

    Raises:
        UsageError: the files are neither in $SPARSECIRC_DATA nor cached, and cannot be downloaded.
    """
    data = mnist()
    return data.head(12000, 2000) if quick else data


def train(model: nn.Module, data: Dataset, epochs: int, rate: float, seed: int, masks: Masks | None = None) -> None:
    """Adam with a cosine schedule; with masks, dead connections stay dead and clipping sees live gradients only."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    steps = max(1, epochs * math.ceil(len(y) / BATCH))
    schedule: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=rate / 100)
    hooks: list[Attachment] = [] if masks is None else [masks.attach(optimizer), masks.mask_gradients()]
    model.train()
    for _ in range(epochs):
        for index in _batches(torch.randperm(len(y)), BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    for hook in hooks:
        hook.remove()
    model.eval()


def _batches(x: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    parts: tuple[torch.Tensor, ...] = x.split(size)  # type: ignore[no-untyped-call]
    return parts


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset) -> float:
    """Share of the test part."""
    guess = torch.cat([model(part).argmax(1) for part in _batches(torch.from_numpy(data.x_test), 1000)])
    return float((guess.numpy() == data.y_test).mean())


@dataclass
class Trained:
    """A dense network and what scores may need of it.

    Attributes:
        model: never changed.
        data: it was trained on.
        seed: of its weights and of the order of the data.
        dense: its accuracy.
        tuning: epochs of fine-tuning.
    """

    model: nn.Module
    data: Dataset
    seed: int
    dense: float
    tuning: int

    @cached_property
    def weights(self) -> list[WeightInfo]:
        """Its weights as the planner sees them."""
        return Masks(self.model, {}).weights()

    @cached_property
    def gradients(self) -> Mapping[str, NDArray[np.float64]]:
        """Gradient of the loss over 2560 training images by weight name."""
        model = copy.deepcopy(self.model)
        torch.manual_seed(self.seed)
        index = torch.randperm(len(self.data.y_train))[:2560]
        for part in _batches(index, BATCH):
            x, y = torch.from_numpy(self.data.x_train)[part], torch.from_numpy(self.data.y_train)[part]
            (nn.functional.cross_entropy(model(x), y) * len(part) / len(index)).backward()  # type: ignore[no-untyped-call]
        found = {}
        for ref in weight_refs(model):
            grad = ref.parameter(model).grad
            assert grad is not None
            found[ref.name] = grad.double().numpy().reshape(len(grad), -1)
        return found

    def prune(self, patterns: Mapping[str, Pattern]) -> tuple[float, float]:
        """Accuracy right after pruning a copy, and after fine-tuning it."""
        model = copy.deepcopy(self.model)
        masks = Masks(model, patterns)
        masks.apply()
        before = accuracy(model, self.data)
        train(model, self.data, self.tuning, TUNING_RATE, 1000 + self.seed, masks)
        masks.check()
        return before, accuracy(model, self.data)


def trained(
    name: str,
    build: Callable[[], nn.Module],
    data: Dataset,
    epochs: tuple[int, int],
    rate: float,
    seed: int,
    setting: Setting,
) -> Trained:
    """The dense network of a seed, from the work folder or trained now; ``epochs`` of training and of fine-tuning."""
    file = setting.kept(f"{name}-{seed}.pt")
    torch.manual_seed(seed)
    model = build()
    if file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        model.eval()
    else:
        setting.say(f"training {name} dense, seed {seed}")
        train(model, data, epochs[0], rate, seed)
        buffer = io.BytesIO()
        torch.save(model.state_dict(), buffer)
        write_atomic(file, buffer.getvalue())
    return Trained(model, data, seed, accuracy(model, data), epochs[1])
