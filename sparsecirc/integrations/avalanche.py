"""Methods of `sparsecirc.continual` inside Avalanche: ``Naive(..., plugins=[ContinualPlugin(HLOP())])``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecirc.continual import OTTT, Batch, Increment, Joint, Method, Scenario, SpikingNet, Task
from sparsecirc.continual._method import has_loss
from sparsecirc.errors import UsageError, missing_extra

try:
    from avalanche.models import MultiTaskModule
    from avalanche.training.plugins import SupervisedPlugin
except ModuleNotFoundError as absent:
    raise missing_extra("avalanche-lib", "avalanche", "ContinualPlugin of Avalanche") from absent


class MultiHead(MultiTaskModule):  # type: ignore[misc, unused-ignore] # untyped where avalanche is absent
    """A `SpikingNet` whose read-out Avalanche's task labels choose.

    Args:
        network: with a read-out for each task label.
    """

    def __init__(self, network: SpikingNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, task_labels: int | Tensor) -> Tensor:
        """Logits (B, outputs); ``task_labels`` is one number, or one per sample."""
        if isinstance(task_labels, Tensor) and bool((task_labels == task_labels[0]).all()):
            task_labels = int(task_labels[0])
        logits: Tensor = self.network(x, task_labels)
        return logits


@dataclass(frozen=True)
class _Experience(Task):
    """An experience as a task: its samples are read one by one, when a method asks for them."""

    data: Any = None

    def train(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Training samples of these numbers."""
        found = [self.data[int(i)] for i in index]
        return torch.stack([torch.as_tensor(f[0]) for f in found]), torch.tensor([int(f[1]) for f in found])


class ContinualPlugin(SupervisedPlugin):  # type: ignore[misc, unused-ignore] # untyped where avalanche is absent
    """Runs a method of `sparsecirc.continual` in any supervised strategy of Avalanche that trains by ``backward``.

    Experiences are tasks, in the order of their stream. What the method adds to the mini-batch (replay) comes behind
    the samples of the strategy. A method with a loss of its own (EWC, SI, DER++) replaces the strategy's loss, so that
    its criterion has to be the cross entropy and other plugins that add to the loss have to come behind this one.

    Optimizers live as long as the strategy; `sparsecirc.continual.run` makes a new one for each task. With plain SGD
    that is the same, and so are the weights.

    Args:
        method: `HLOP`, `GPM`, `EWC`, `Replay`, `MaskLedger`, `Combined` and so on; not `Joint`.

    Raises:
        UsageError: when training starts: experiences out of order, a model trained by `OTTT`, or `Joint`.
    """

    supports_distributed = False

    def __init__(self, method: Method) -> None:
        super().__init__()
        if isinstance(method, Joint):
            raise UsageError("Joint needs the data of earlier tasks: expected another method; use JointTraining")
        self.method = method
        self._own_loss = has_loss(method)
        self._waiting: Mapping[str, Any] | None = None
        self._task = -1
        self._testing: Any = None
        self._batch: Batch | None = None

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A task begins."""
        self._attach(strategy)
        self._task += 1
        position = strategy.experience.current_experience
        if position != self._task:
            raise UsageError(f"experience {position} came after {self._task - 1}: expected those of a stream in order")
        self.method.before_task(self._task, strategy.train_epochs * len(strategy.dataloader))

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The mini-batch, with what the method adds to it."""
        x, y, *rest = strategy.mbatch
        labels = rest[-1] if rest else torch.zeros(len(y), dtype=torch.long)
        head: int | Tensor = 0
        if isinstance(strategy.model, MultiTaskModule):
            head = int(labels[0]) if bool((labels == labels[0]).all()) else labels
        self._batch = self.method.batch(Batch(x, y, head))
        if len(self._batch.y) > len(y):
            behind = self._batch.heads()[len(y) :]
            more = [torch.cat([r, behind.to(r.dtype)]) if r is labels else r for r in rest]
            strategy.mbatch = [self._batch.x, self._batch.y, *more]

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The method's loss, if it has one."""
        if self._own_loss:
            assert self._batch is not None
            strategy.loss = self.method.loss(strategy.mb_output, self._batch)

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Gradients are there."""
        self.method.after_backward()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The optimizer made its step."""
        self.method.after_step()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A task is over."""
        self._batch = None
        self.method.after_task(self._task)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A test on one task begins."""
        self._testing = None
        if self._task >= 0:
            self._testing = self.method.testing(min(strategy.experience.current_experience, self._task))
            self._testing.__enter__()

    def after_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """A test is over."""
        if self._testing is not None:
            self._testing.__exit__(None, None, None)
            self._testing = None

    def state_dict(self) -> dict[str, Any]:
        """The method's state; model and optimizer have their own."""
        return {"task": self._task, "method": self.method.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last experience of `state_dict`; applied when the next one begins, to a loaded model."""
        self._waiting = state

    def _attach(self, strategy: Any) -> None:
        if self._task < 0:
            model: nn.Module = strategy.model
            if isinstance(model, MultiHead):
                model = model.network
            if isinstance(model, SpikingNet) and isinstance(model.learning, OTTT):
                raise UsageError("OTTT takes its loss in every step, Avalanche once: use BPTT or DSR")
            self.method.attach(model, _scenario(strategy))
        if self._waiting is not None:
            self._task = int(self._waiting["task"])
            self.method.load_state_dict(self._waiting["method"])
            self._waiting = None


def _scenario(strategy: Any) -> Scenario:
    """The whole stream of an experience; that of a slice like ``stream[:2]`` is the slice."""
    stream = strategy.experience.origin_stream
    stream = getattr(stream.benchmark, "streams", {}).get(stream.name, stream)
    increment = Increment.TASK if isinstance(strategy.model, MultiTaskModule) else Increment.DOMAIN
    first = torch.as_tensor(strategy.experience.dataset[0][0])
    nothing = first.new_zeros((0, *first.shape))
    tasks, outputs = [], 0
    for experience in stream:
        y = torch.as_tensor([int(t) for t in experience.dataset.targets])
        head = int(experience.task_labels[0]) if increment is Increment.TASK else 0
        name = f"{stream.name} {experience.current_experience}"
        tasks.append(_Experience(name, nothing, y, nothing, y[:0], head=head, data=experience.dataset))
        outputs = max(outputs, int(y.max()) + 1)
    return Scenario("avalanche", tuple(tasks), outputs, increment)
