"""Training of the demo networks on scikit-learn's handwritten digits, dense and while pruning."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from sparsecirc._prune import Sparsity
from sparsecirc.data import Dataset
from sparsecirc.demo._models import currents
from sparsecirc.masks import Masks
from sparsecirc.rules import Cubic

BATCH = 64
LEARNING_RATE = 2e-3
NOISE = 0.1
"""Standard deviation of the noise added to inputs while training, against overfitting 1347 samples."""


@dataclass
class Trainer:
    """One network and its data.

    Attributes:
        model: trained in place.
        dataset: rows of digits, (N, 8, 8).
        spiking: whether the network takes currents (T, N, 8) instead.
        seed: of the order of samples and the noise.
        progress: told the phase, the epoch, the number of epochs and the loss after each epoch.
    """

    model: nn.Module
    dataset: Dataset
    spiking: bool
    seed: int
    progress: Callable[[str, int, int, float], None]
    _generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)
        self._y = torch.from_numpy(self.dataset.y_train)
        self._x = torch.from_numpy(self.inputs(self.dataset.x_train))
        self._batch_axis = 1 if self.spiking else 0

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """Digits in the layout that the network takes."""
        return currents(images) if self.spiking else np.ascontiguousarray(images, np.float32)

    def train(self, epochs: int) -> None:
        """Dense training."""
        self._phase("train", epochs, None)

    def prune(self, sparsity: Sparsity, epochs: int) -> Masks:
        """Gradual pruning over the first half of ``epochs``, fine-tuning over the rest."""
        steps = epochs * math.ceil(len(self._y) / BATCH)
        rule = Cubic(self.model, sparsity, begin=1, end=max(2, steps // 2), every=10)
        with rule.masks.attach(self._optimizer):
            self._phase("prune", epochs, rule)
        return rule.masks

    def _phase(self, name: str, epochs: int, rule: Cubic | None) -> None:
        threads = torch.get_num_threads()
        # The matrices are too small for two threads to gain more than a tenth, and on a busy machine the second one
        # waits in a spin for its turn: minutes instead of seconds.
        torch.set_num_threads(1)
        try:
            self._epochs(name, epochs, rule)
        finally:
            torch.set_num_threads(threads)

    def _epochs(self, name: str, epochs: int, rule: Cubic | None) -> None:
        per_epoch = math.ceil(len(self._y) / BATCH)
        self.model.train()
        done = 0
        for epoch in range(epochs):
            order = torch.randperm(len(self._y), generator=self._generator)
            for index in torch.split(order, BATCH):
                for group in self._optimizer.param_groups:  # half a cosine per phase
                    group["lr"] = LEARNING_RATE * (0.51 + 0.49 * math.cos(math.pi * done / (epochs * per_epoch)))
                x = self._x.index_select(self._batch_axis, index)
                x = x + NOISE * torch.randn(x.shape, generator=self._generator)
                self._optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(x), self._y[index])
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                done += 1
                if rule is not None:
                    rule.step()
            self.progress(name, epoch + 1, epochs, float(loss.detach()))
        self.model.eval()

    def predictions(self) -> np.ndarray:
        """Classes that the torch model gives the test part."""
        with torch.no_grad():
            scores = self.model(torch.from_numpy(self.inputs(self.dataset.x_test)))
        return np.asarray(scores.argmax(dim=-1))
