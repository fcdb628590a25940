"""`Learner`: a model, a method and a scenario, trained task by task; it can stop anywhere and go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from sparsecirc._files import write_atomic
from sparsecirc.continual._method import Batch, Finetune, Method, masked
from sparsecirc.continual._metrics import Activity, Result, activity, overlap
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._scenario import Increment, Scenario
from sparsecirc.errors import FileFormatError, UsageError

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]
LOOKED_AT = 256
"""Test samples per task that activity and overlap are measured on."""


def sgd(rate: float = 0.1, momentum: float = 0.0, decay: float = 0.0) -> MakeOptimizer:
    """Plain SGD, anew for each task."""
    return lambda parameters: SGD(parameters, rate, momentum=momentum, weight_decay=decay)


def adam(rate: float = 1e-3) -> MakeOptimizer:
    """Adam, anew for each task."""
    return lambda parameters: Adam(parameters, rate)


@dataclass(frozen=True)
class Setting:
    """How a network is trained.

    Attributes:
        optimizer: makes the optimizer of a task.
        epochs: passes over each task.
        batch_size: samples per step.
        seed: of the order of the samples.
        test_batch: samples per forward pass in tests.
        all_tasks: test on all tasks after each; otherwise on those learned and the next one.
        look: measure activity and overlap too.
    """

    optimizer: MakeOptimizer = field(default_factory=sgd)
    epochs: int = 1
    batch_size: int = 64
    seed: int = 0
    test_batch: int = 1000
    all_tasks: bool = False
    look: bool = True

    def batches(self, samples: int) -> int:
        """Mini-batches, and so optimizer steps, of one pass over so many samples."""
        return -(-samples // self.batch_size)


@dataclass(frozen=True)
class Step:
    """Where a run stands.

    Attributes:
        task: number of the task.
        done: steps of it.
        total: steps of it in all.
        loss: of the last mini-batch.
        accuracy: row of R, after the last step of a task.
    """

    task: int
    done: int
    total: int
    loss: float
    accuracy: tuple[float, ...] | None = None


class Learner:
    """Trains a model on a scenario with a method.

    The order of the samples depends on the seed, the task and the epoch alone, so a run that was stopped in the middle
    of a task, saved and loaded goes on with the same numbers as one that was not.

    Args:
        model: a `SpikingNet`, or any module from samples (B, ...) to logits (B, outputs).
        scenario: the tasks.
        method: what it does against forgetting; `Finetune` does nothing.
        setting: how it is trained.

    Raises:
        UsageError: the model has fewer read-outs than the scenario has.
    """

    def __init__(
        self, model: nn.Module, scenario: Scenario, method: Method | None = None, setting: Setting | None = None
    ) -> None:
        self.model, self.scenario = model, scenario
        self.method = Finetune() if method is None else method
        self.setting = Setting() if setting is None else setting
        if isinstance(model, SpikingNet) and len(model.readouts) < scenario.heads:
            raise UsageError(
                f"scenario '{scenario.name}' needs {scenario.heads} read-outs, the network has {len(model.readouts)}: "
                f"pass heads={scenario.heads}"
            )
        count = len(scenario.tasks)
        self.accuracy = np.full((count, count), np.nan)
        self.untrained = np.full(count, np.nan)
        self.activity: list[Activity] = []
        self.capacity: list[dict[str, tuple[int, int]]] = []
        self.task, self.position, self.seconds = 0, 0, 0.0
        self._optimizer: Optimizer | None = None
        self.method.attach(model, scenario)

    @property
    def done(self) -> bool:
        """Whether all tasks were learned."""
        return self.task >= len(self.scenario.tasks)

    def run(self, steps: int | None = None, progress: Callable[[Step], None] | None = None) -> Result | None:
        """Train to the end, or for so many steps.

        Args:
            steps: at most, over task boundaries; ``None`` for all.
            progress: told after every step.

        Returns:
            the result once all tasks were learned, else ``None``.
        """
        left = float("inf") if steps is None else steps
        started = time.process_time()
        if np.isnan(self.untrained).all():
            self.untrained[:] = [self._test(j) for j in range(len(self.scenario.tasks))]
        while not self.done and left > 0:
            batches = self._batches()
            if self._optimizer is None:
                self._begin(batches[0])
            for batch in batches[1]:
                loss = self._step(batch)
                self.position += 1
                left -= 1
                if progress is not None and self.position < batches[0]:
                    progress(Step(self.task, self.position, batches[0], loss))
                if left <= 0:
                    break
            if self.position == batches[0]:
                self._end()
                if progress is not None:
                    row = tuple(self.accuracy[self.task - 1].tolist())
                    progress(Step(self.task - 1, batches[0], batches[0], loss, row))
        self.seconds += time.process_time() - started
        return self.result() if self.done else None

    def result(self) -> Result:
        """What was measured."""
        shared = {}
        if self.setting.look and isinstance(self.model, SpikingNet):
            self.model.eval()
            shared = overlap(self.model, [partial(self._look, j) for j in range(len(self.scenario.tasks))])
        return Result(
            self.scenario.name, self.method.name, self.setting.seed, self.accuracy.copy(), self.untrained.copy(),
            tuple(self.activity), tuple(self.capacity), shared, self.seconds,
        )  # fmt: skip

    def _look(self, task: int) -> Tensor:
        chosen = self.scenario.tasks[task]
        logits: Tensor = self.model(chosen.test(slice(0, LOOKED_AT))[0], chosen.head)
        return logits

    def _begin(self, steps: int) -> None:
        self.model.train()
        self.method.before_task(self.task, steps)
        self._optimizer = self.setting.optimizer([p for p in self.model.parameters() if p.requires_grad])

    def _step(self, batch: Batch) -> float:
        assert self._optimizer is not None
        batch = self.method.batch(batch)
        self._optimizer.zero_grad(set_to_none=True)
        outputs = self._outputs(batch)
        loss = torch.stack([self.method.loss(o, batch) for o in outputs]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.method.after_backward()
        self._optimizer.step()
        self.method.after_step()
        return float(loss.detach())

    def _outputs(self, batch: Batch) -> Tensor:
        """(S, B, outputs)."""
        if isinstance(self.model, SpikingNet):
            return self.model.outputs(batch.x, batch.head)
        logits: Tensor = self.model(batch.x)
        return logits.unsqueeze(0)

    def _end(self) -> None:
        self.method.after_task(self.task)
        self._optimizer = None
        tasks = len(self.scenario.tasks)
        last = tasks if self.setting.all_tasks else min(self.task + 2, tasks)
        for j in range(last):
            self.accuracy[self.task, j] = self._test(j)
        if self.setting.look and isinstance(self.model, SpikingNet):
            chosen = self.scenario.tasks[self.task]
            self.activity.append(activity(self.model, chosen.test(slice(0, LOOKED_AT))[0], chosen.head))
        self.capacity.append(self.method.capacity())
        self.task += 1
        self.position = 0

    def _allowed(self, tasks: int) -> Tensor | None:
        if self.scenario.increment is not Increment.CLASS:
            return None
        allowed = torch.zeros(self.scenario.outputs, dtype=torch.bool)
        allowed[list(self.scenario.seen(tasks))] = True
        return allowed

    @torch.no_grad()
    def _test(self, task: int) -> float:
        """Share of right answers on the test part of a task."""
        self.model.eval()
        chosen = self.scenario.tasks[task]
        allowed = self._allowed(max(self.task, task) + 1)
        right = 0
        for low in range(0, len(chosen.y_test), self.setting.test_batch):
            x, y = chosen.test(slice(low, low + self.setting.test_batch))
            with self.method.testing(task):
                logits = self.model(x, chosen.head) if isinstance(self.model, SpikingNet) else self.model(x)
            right += int((masked(logits, Batch(x, y, allowed=allowed)).argmax(1) == y).sum())
        return right / max(1, len(chosen.y_test))

    def _batches(self) -> tuple[int, Iterator[Batch]]:
        """Steps of the present task in all, and the mini-batches that are still to come."""
        chosen = [self.scenario.tasks[t] for t in self.method.tasks(self.task)]
        counts = [len(t.y_train) for t in chosen]
        starts = np.concatenate([[0], np.cumsum(counts)])
        size, epochs = self.setting.batch_size, self.setting.epochs
        per_epoch = self.setting.batches(sum(counts))
        allowed = self._allowed(self.task + 1)

        def batches() -> Iterator[Batch]:
            for epoch in range(self.position // per_epoch, epochs):
                order = self._order(epoch, sum(counts))
                for k in range(self.position % per_epoch if epoch == self.position // per_epoch else 0, per_epoch):
                    part = order[k * size : (k + 1) * size]
                    made: Batch | None = None
                    for task, low, high in zip(chosen, starts, starts[1:], strict=False):
                        index = part[(part >= low) & (part < high)] - low
                        if len(chosen) > 1 and not len(index):
                            continue
                        x, y = task.train(index)
                        heads = torch.full((len(y),), task.head)
                        made = Batch(x, y, task.head, allowed) if made is None else made.and_(x, y, heads)
                    assert made is not None
                    yield made

        return per_epoch * epochs, batches()

    def _order(self, epoch: int, count: int) -> Tensor:
        number = (self.setting.seed * 1009 + self.task) * 1009 + epoch
        return torch.randperm(count, generator=torch.Generator().manual_seed(number))

    def state_dict(self) -> dict[str, Any]:
        """Everything a run goes on from, in the middle of a task too; loads with ``torch.load(weights_only=True)``."""
        return {
            "scenario": self.scenario.name,
            "method_name": self.method.name,
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
            "accuracy": self.accuracy.tolist(),
            "untrained": self.untrained.tolist(),
            "activity": [[a.spikes, a.synaptic_ops, a.macs] for a in self.activity],
            "capacity": [{n: list(u) for n, u in c.items()} for c in self.capacity],
            "place": [self.task, self.position],
            "seconds": self.seconds,
            "random": torch.get_rng_state(),
            "coding": self.model.generator.get_state() if isinstance(self.model, SpikingNet) else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`; scenario, model, method and setting are those of the first run.

        Raises:
            UsageError: the state of another scenario or method.
        """
        if state["scenario"] != self.scenario.name or state["method_name"] != self.method.name:
            raise UsageError(
                f"the state is of '{state['scenario']}' with {state['method_name']}: expected '{self.scenario.name}' "
                f"with {self.method.name}"
            )
        self.model.load_state_dict(state["model"])
        self.accuracy = np.array(state["accuracy"], dtype=np.float64)
        self.untrained = np.array(state["untrained"], dtype=np.float64)
        self.activity = [Activity(*a) for a in state["activity"]]
        self.capacity = [{n: (u[0], u[1]) for n, u in c.items()} for c in state["capacity"]]
        self.task, self.position = state["place"]
        self.seconds = state["seconds"]
        self.model.train()
        self.method.load_state_dict(state["method"])
        if state["optimizer"] is not None:
            self._optimizer = self.setting.optimizer([p for p in self.model.parameters() if p.requires_grad])
            self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if isinstance(self.model, SpikingNet):
            self.model.generator.set_state(state["coding"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state, atomically."""
        buffer = BytesIO()
        torch.save(self.state_dict(), buffer)
        write_atomic(Path(path), buffer.getvalue())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file of :meth:`save`.

        Raises:
            FileFormatError: there is none, or it is of another kind.
            UsageError: it is of another scenario or method.
        """
        if not Path(path).is_file():
            raise FileFormatError(f"{path} is not a file: expected what Learner.save wrote")
        state = torch.load(path, weights_only=True)
        if not isinstance(state, dict) or "place" not in state:
            raise FileFormatError(f"{path} holds no state of a continual run: expected what Learner.save wrote")
        self.load_state_dict(state)


def run(model: nn.Module, scenario: Scenario, method: Method | None = None, setting: Setting | None = None) -> Result:
    """Train ``model`` on all tasks with ``method``; see `Learner`."""
    learner = Learner(model, scenario, method, setting)
    result = learner.run()
    learner.method.detach()
    assert result is not None
    return result
