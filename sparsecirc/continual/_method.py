"""`Method`: what all methods of continual learning share; by itself it is plain fine-tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsecirc.continual._scenario import Scenario
from sparsecirc.errors import UsageError


@dataclass(frozen=True)
class Batch:
    """A mini-batch.

    Attributes:
        x: samples (B, ...).
        y: labels (B,).
        head: read-out of each sample, one number or (B,).
        allowed: labels that may be predicted, bool (outputs,); ``None`` for all.
    """

    x: Tensor
    y: Tensor
    head: int | Tensor = 0
    allowed: Tensor | None = None

    def heads(self) -> Tensor:
        """Read-out of each sample (B,)."""
        return torch.full((len(self.y),), self.head) if isinstance(self.head, int) else self.head

    def and_(self, x: Tensor, y: Tensor, head: Tensor) -> Batch:
        """The same with more samples behind."""
        heads = torch.cat([self.heads(), head])
        same = bool((heads == heads[0]).all())
        return replace(self, x=torch.cat([self.x, x]), y=torch.cat([self.y, y]), head=int(heads[0]) if same else heads)


def masked(logits: Tensor, batch: Batch) -> Tensor:
    """Logits with labels that may not be predicted at minus infinity."""
    return logits if batch.allowed is None else logits.masked_fill(~batch.allowed, float("-inf"))


def memory_index(samples: int, count: int, seed: int, task: int) -> Tensor:
    """Up to ``count`` different sample numbers, drawn for a task."""
    generator = torch.Generator().manual_seed(1009 * seed + task)
    return torch.randperm(samples, generator=generator)[:count]


class Method:
    """Plain fine-tuning: the hooks of a method, none of which does anything.

    One task goes: ``before_task``, then for each mini-batch ``batch``, forward, ``loss``, backward, ``after_backward``,
    the optimizer's step, ``after_step``, then ``after_task``.
    """

    name = "finetune"

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """Called once, before anything else."""
        self.model, self.scenario = model, scenario
        self.task = -1

    def tasks(self, task: int) -> Sequence[int]:
        """Tasks whose data are trained on in the place of ``task``."""
        return (task,)

    def before_task(self, task: int, steps: int = 0) -> None:
        """A task of so many training steps begins."""
        self.task = task

    def batch(self, batch: Batch) -> Batch:
        """The mini-batch that is trained on."""
        return batch

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross entropy."""
        return functional.cross_entropy(masked(logits, batch), batch.y)

    def after_backward(self) -> None:
        """Gradients are there."""

    def after_step(self) -> None:
        """The optimizer made its step."""

    def after_task(self, task: int) -> None:
        """A task is over."""

    def testing(self, task: int) -> AbstractContextManager[None]:
        """Around a test on ``task``."""
        return nullcontext()

    def capacity(self) -> dict[str, tuple[int, int]]:
        """Per layer: what is used up, and what there is."""
        return {}

    def detach(self) -> None:
        """Leave the model without hooks."""

    def state_dict(self) -> dict[str, Any]:
        """What the method keeps; tensors, numbers, strings, lists and dicts only."""
        return {"task": self.task}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self.task = int(state["task"])


def has_loss(method: Method) -> bool:
    """Whether a method has a loss of its own, beside the cross entropy."""
    if isinstance(method, Combined):
        return any(has_loss(p) for p in method.parts)
    return type(method).loss is not Method.loss


class Finetune(Method):
    """Trains on one task after the other and does nothing against forgetting: the lower bound."""


class Joint(Method):
    """Trains on the data of all tasks so far: the upper bound, which breaks the rules of the game."""

    name = "joint"

    def tasks(self, task: int) -> Sequence[int]:
        """All up to ``task``."""
        return range(task + 1)


class Combined(Method):
    """Several methods at once: batches, gradients and steps go through each in turn.

    Each may but add samples in ``batch``, so `Combined(HLOP(), Replay())` is HLOP with replay. The loss is that of the
    one part which has its own, else the cross entropy.

    Raises:
        UsageError: several parts have a loss of their own.
    """

    def __init__(self, *parts: Method) -> None:
        own = [p for p in parts if has_loss(p)]
        if len(own) > 1:
            names = " and ".join(p.name for p in own)
            raise UsageError(f"{names} have a loss of their own: expected at most one such method in a combination")
        self.parts = parts
        self._loss = own[0] if own else Method()
        self.name = "+".join(p.name for p in parts)

    def attach(self, model: nn.Module, scenario: Scenario) -> None:
        """All parts."""
        super().attach(model, scenario)
        for part in self.parts:
            part.attach(model, scenario)

    def tasks(self, task: int) -> Sequence[int]:
        """Tasks of all parts."""
        return sorted({t for part in self.parts for t in part.tasks(task)})

    def before_task(self, task: int, steps: int = 0) -> None:
        """All parts."""
        super().before_task(task, steps)
        for part in self.parts:
            part.before_task(task, steps)

    def batch(self, batch: Batch) -> Batch:
        """Through all parts."""
        for part in self.parts:
            batch = part.batch(batch)
        return batch

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Of the part that has its own, or the cross entropy."""
        return self._loss.loss(logits, batch)

    def after_backward(self) -> None:
        """All parts."""
        for part in self.parts:
            part.after_backward()

    def after_step(self) -> None:
        """All parts."""
        for part in self.parts:
            part.after_step()

    def after_task(self, task: int) -> None:
        """All parts."""
        for part in self.parts:
            part.after_task(task)

    @contextmanager
    def testing(self, task: int) -> Iterator[None]:
        """Around a test, in all parts."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.testing(task))
            yield

    def capacity(self) -> dict[str, tuple[int, int]]:
        """Of all parts."""
        return {name: use for part in self.parts for name, use in part.capacity().items()}

    def detach(self) -> None:
        """All parts."""
        for part in self.parts:
            part.detach()

    def state_dict(self) -> dict[str, Any]:
        """States of all parts."""
        return super().state_dict() | {"parts": [p.state_dict() for p in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """States of all parts."""
        super().load_state_dict(state)
        for part, kept in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(kept)
