"""Methods that keep samples of earlier tasks: replay and DER++."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecirc.continual._method import Batch, Method, masked, memory_index
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._scenario import Scenario


class Replay(Method):
    """Experience replay (Chaudhry et al. 2019): each mini-batch gets as many samples from a memory of earlier tasks.

    Args:
        per_task: samples kept of each task, drawn at random.
        seed: of what is kept and drawn.
    """

    name = "replay"

    def __init__(self, per_task: int = 100, *, seed: int = 0) -> None:
        self.per_task, self.seed = per_task, seed
        self._generator = torch.Generator().manual_seed(seed)

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """An empty memory."""
        super().attach(model, scenario)
        self.x, self.y, self.head = torch.zeros(0, *scenario.features), torch.zeros(0).long(), torch.zeros(0).long()

    def batch(self, batch: Batch) -> Batch:
        """With as many samples of the memory."""
        return self._drawn(batch, len(batch.y))[0]

    def _drawn(self, batch: Batch, count: int) -> tuple[Batch, Tensor]:
        if not len(self.y):
            return batch, self.y
        index = torch.randint(len(self.y), (count,), generator=self._generator)
        return batch.and_(self.x[index], self.y[index], self.head[index]), index

    def after_task(self, task: int) -> None:
        """Keep some samples."""
        chosen = self.scenario.tasks[task]
        x, y = chosen.train(memory_index(len(chosen.y_train), self.per_task, self.seed, task))
        self.x, self.y = torch.cat([self.x, x]), torch.cat([self.y, y])
        self.head = torch.cat([self.head, torch.full((len(y),), chosen.head)])

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        kept = {"x": self.x, "y": self.y, "head": self.head, "generator": self._generator.get_state()}
        return super().state_dict() | kept

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        self.x, self.y, self.head = state["x"], state["y"], state["head"]
        self._generator.set_state(state["generator"])


class DERpp(Replay):
    """Dark experience replay++ (Buzzega et al., NeurIPS 2020): the memory holds logits too.

    ``CE(batch) + alpha |logits - kept logits|^2 + beta CE(memory)``, the two terms on two draws; the square is the mean
    over samples and outputs. Logits are kept at the end of a task, not along its stream.

    Args:
        alpha: weight of the logits.
        beta: weight of the labels.
        per_task: samples kept of each task.
        seed: of what is kept and drawn.
    """

    name = "derpp"

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, *, per_task: int = 100, seed: int = 0) -> None:
        super().__init__(per_task, seed=seed)
        self.alpha, self.beta = alpha, beta
        self._index = torch.zeros(0).long()

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """An empty memory."""
        super().attach(model, scenario)
        self.logits = torch.zeros(0, scenario.outputs)

    def batch(self, batch: Batch) -> Batch:
        """With two draws behind."""
        count = len(batch.y)
        batch, self._index = self._drawn(batch, count)
        return self._drawn(batch, count)[0]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of the three parts."""
        count = len(self._index)
        if not count:
            return super().loss(logits, batch)
        now, dark, memory = logits[: -2 * count], logits[-2 * count : -count], logits[-count:]
        labels, memory_labels = batch.y[: len(now)], batch.y[-count:]
        loss = functional.cross_entropy(masked(now, batch), labels)
        loss = loss + self.alpha * functional.mse_loss(dark, self.logits[self._index])
        return loss + self.beta * functional.cross_entropy(masked(memory, batch), memory_labels)

    @torch.no_grad()
    def after_task(self, task: int) -> None:
        """Keep some samples and what the network says of them."""
        first = len(self.y)
        super().after_task(task)
        self.model.eval()
        head, x = self.scenario.tasks[task].head, self.x[first:]
        said = self.model(x, head) if isinstance(self.model, SpikingNet) else self.model(x)
        self.logits = torch.cat([self.logits, said])
        self.model.train()

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return super().state_dict() | {"logits": self.logits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        self.logits = state["logits"]
