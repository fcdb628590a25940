"""Penalties on moving weights that matter: EWC and SI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecirc.continual._method import Batch, Method, memory_index
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._scenario import Scenario


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class EWC(Method):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017): ``strength / 2 sum F (w - w*)^2`` over all tasks.

    F is the diagonal of the Fisher information, from ``samples`` single training samples with labels drawn from the
    network's own answers. The sum over tasks is kept as two vectors, not as one pair per task.

    Args:
        strength: weight of the penalty.
        samples: per task.
        seed: of samples and labels.
    """

    name = "ewc"

    def __init__(self, strength: float = 100.0, *, samples: int = 500, seed: int = 0) -> None:
        self.strength, self.samples, self.seed = strength, samples, seed

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Nothing matters yet."""
        super().attach(model, scenario)
        self.fisher = {n: torch.zeros_like(p) for n, p in trained(model).items()}
        self.pull = {n: torch.zeros_like(p) for n, p in trained(model).items()}

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy plus the penalty, up to a constant."""
        loss = super().loss(logits, batch)
        if self.task == 0:
            return loss
        parameters = dict(self.model.named_parameters())
        terms = [(f * parameters[n].square() / 2 - self.pull[n] * parameters[n]).sum() for n, f in self.fisher.items()]
        return loss + self.strength * torch.stack(terms).sum()

    def after_task(self, task: int) -> None:
        """Add the task's Fisher information."""
        chosen = self.scenario.tasks[task]
        index = memory_index(len(chosen.y_train), self.samples, self.seed, task)
        generator = torch.Generator().manual_seed(self.seed + task)
        x, _ = chosen.train(index)
        parameters = {n: p for n, p in self.model.named_parameters() if n in self.fisher}
        found = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self.model.eval()
        for sample in x.unsqueeze(1):
            head = chosen.head
            logits = self.model(sample, head) if isinstance(self.model, SpikingNet) else self.model(sample)
            logits = logits if chosen.classes is None else logits[:, list(chosen.classes)]
            label = torch.multinomial(logits.detach().softmax(1)[0], 1, generator=generator)
            grads = torch.autograd.grad(
                functional.cross_entropy(logits, label), list(parameters.values()), allow_unused=True
            )
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    found[name].addcmul_(grad, grad, value=1 / len(x))
        self.model.train()
        for name, f in found.items():
            self.fisher[name] += f
            self.pull[name] += f * parameters[name].detach()

    def state_dict(self) -> dict[str, Any]:
        """Fisher information and where it pulls to."""
        return super().state_dict() | {"fisher": dict(self.fisher), "pull": dict(self.pull)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        self.fisher = {n: f.clone() for n, f in state["fisher"].items()}
        self.pull = {n: f.clone() for n, f in state["pull"].items()}


class SI(Method):
    """Synaptic intelligence (Zenke et al., ICML 2017): ``strength sum O (w - w*)^2``, O found along the way.

    ``O += w / ((change over the task)^2 + damping)`` with w the sum of ``-g dw`` over the task's steps, g the gradient
    of the whole loss.

    Args:
        strength: weight of the penalty.
        damping: xi.
    """

    name = "si"

    def __init__(self, strength: float = 0.1, *, damping: float = 0.1) -> None:
        self.strength, self.damping = strength, damping

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Nothing matters yet."""
        super().attach(model, scenario)
        self.matters = {n: torch.zeros_like(p) for n, p in trained(model).items()}
        self.path = {n: torch.zeros_like(p) for n, p in trained(model).items()}
        self.start = {n: p.detach().clone() for n, p in trained(model).items()}
        self._before: dict[str, Tensor] = {}

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy plus the penalty."""
        loss = super().loss(logits, batch)
        if self.task == 0:
            return loss
        parameters = dict(self.model.named_parameters())
        terms = [(m * (parameters[n] - self.start[n]).square()).sum() for n, m in self.matters.items()]
        return loss + self.strength * torch.stack(terms).sum()

    @torch.no_grad()
    def after_backward(self) -> None:
        """Remember the weights."""
        parameters = dict(self.model.named_parameters())
        self._before = {n: parameters[n].detach().clone() for n in self.path}

    @torch.no_grad()
    def after_step(self) -> None:
        """Add to the path integral."""
        parameters = dict(self.model.named_parameters())
        for name, path in self.path.items():
            grad = parameters[name].grad
            if grad is not None:
                path -= grad * (parameters[name] - self._before[name])

    @torch.no_grad()
    def after_task(self, task: int) -> None:
        """What mattered in the task."""
        parameters = dict(self.model.named_parameters())
        for name, path in self.path.items():
            moved = parameters[name] - self.start[name]
            self.matters[name] += (path / (moved.square() + self.damping)).clamp_min(0)
            self.start[name] = parameters[name].detach().clone()
            path.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Importances, path integrals and the weights at the start of the task."""
        kept = {"matters": dict(self.matters), "path": dict(self.path), "start": dict(self.start)}
        return super().state_dict() | kept

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of a task."""
        super().load_state_dict(state)
        self.matters, self.path, self.start = (
            {n: t.clone() for n, t in state[k].items()} for k in ("matters", "path", "start")
        )
