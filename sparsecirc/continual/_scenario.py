"""Scenarios: streams of tasks, made of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparsecirc.data import Dataset
from sparsecirc.errors import UsageError


class Increment(Enum):
    """What a network is told, and has to tell (van de Ven & Tolias 2019)."""

    TASK = "task"
    """Each task has a read-out of its own, and is named at test time."""
    DOMAIN = "domain"
    """The tasks share one read-out, whose labels mean the same in each; the task is not named."""
    CLASS = "class"
    """One read-out holds the classes of all tasks; the task is not named."""


def same(x: Tensor) -> Tensor:
    """The input as it is."""
    return x


@dataclass(frozen=True)
class Moved:
    """Features in another order: ``x[..., order]``."""

    order: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(B, ..., n) -> the same shape."""
        return x[..., self.order]


@dataclass(frozen=True)
class Turned:
    """Square images turned by ``degrees``, bilinear, with zeros from outside."""

    degrees: float

    def __call__(self, x: Tensor) -> Tensor:
        """(B, side * side) or (B, C, side, side) -> the same shape."""
        side = round(x.shape[-1] ** 0.5) if x.ndim == 2 else x.shape[-1]
        images = x.reshape(len(x), -1, side, side)
        angle = torch.deg2rad(torch.tensor(self.degrees, dtype=x.dtype))
        c, s, zero = torch.cos(angle), torch.sin(angle), torch.zeros((), dtype=x.dtype)
        theta = torch.stack([torch.stack([c, -s, zero]), torch.stack([s, c, zero])]).expand(len(x), 2, 3)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False).reshape(x.shape)


@dataclass(frozen=True)
class Task:
    """One task: samples, what is done to them when they are read, and the part of the output that is theirs.

    Attributes:
        name: for tables.
        x_train: samples (N, ...); shared between tasks where they differ by ``view`` alone.
        y_train: labels (N,), int64, as the read-out counts them.
        x_test: as ``x_train``.
        y_test: as ``y_train``.
        view: applied to each batch.
        head: which read-out.
        classes: labels that occur; ``None`` where all of the read-out do.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    view: Callable[[Tensor], Tensor] = same
    head: int = 0
    classes: tuple[int, ...] | None = None

    def train(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Training samples of these numbers."""
        return self.view(self.x_train[index]), self.y_train[index]

    def test(self, index: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Test samples."""
        return self.view(self.x_test[index]), self.y_test[index]


@dataclass(frozen=True)
class Scenario:
    """A stream of tasks.

    Attributes:
        name: for tables.
        tasks: in the order in which they come.
        outputs: labels of each read-out.
        increment: what is told and asked.
    """

    name: str
    tasks: tuple[Task, ...]
    outputs: int
    increment: Increment

    @property
    def heads(self) -> int:
        """Number of read-outs."""
        return max(t.head for t in self.tasks) + 1

    @property
    def features(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return tuple(self.tasks[0].x_train.shape[1:])

    def head(self, train: int, test: int) -> Scenario:
        """The same tasks with at most ``train`` and ``test`` samples each."""
        cut = [
            replace(
                t, x_train=t.x_train[:train], y_train=t.y_train[:train], x_test=t.x_test[:test], y_test=t.y_test[:test]
            )
            for t in self.tasks
        ]
        return replace(self, tasks=tuple(cut))

    def first(self, tasks: int) -> Scenario:
        """The first tasks alone."""
        return replace(self, tasks=self.tasks[:tasks])

    def seen(self, tasks: int) -> tuple[int, ...]:
        """Labels that occur in the first tasks."""
        chosen = [t.classes or tuple(range(self.outputs)) for t in self.tasks[:tasks]]
        return tuple(sorted({c for classes in chosen for c in classes}))


def from_tasks(
    tasks: Sequence[tuple[Any, Any, Any, Any]], *, name: str = "tasks", increment: Increment = Increment.DOMAIN
) -> Scenario:
    """Tasks given as (x_train, y_train, x_test, y_test); labels of a class-incremental stream differ between tasks."""
    if not tasks:
        raise UsageError("no task was given: expected at least one (x_train, y_train, x_test, y_test)")
    made = []
    for k, arrays in enumerate(tasks):
        x, y, x_test, y_test = _arrays(*arrays)
        classes = tuple(sorted(set(y.tolist()))) if increment is Increment.CLASS else None
        head = k if increment is Increment.TASK else 0
        made.append(Task(f"{name} {k}", x, y, x_test, y_test, head=head, classes=classes))
    outputs = max(int(t.y_train.max()) for t in made) + 1
    return Scenario(name, tuple(made), outputs, increment)


def permuted(
    x_train: Any, y_train: Any, x_test: Any, y_test: Any, tasks: int = 5, *, seed: int = 0, name: str = "permuted"
) -> Scenario:
    """The same data with the features in another random order for each task (Goodfellow et al. 2014).

    Args:
        x_train: (N, n), or (N, T, n) for sequences, whose steps stay where they are.
        y_train: (N,) labels from 0.
        x_test: like ``x_train``.
        y_test: like ``y_train``.
        tasks: how many.
        seed: of the orders.
        name: of the scenario.

    Raises:
        UsageError: no task, or arrays of different lengths.
    """
    x, y, x_test, y_test = _arrays(x_train, y_train, x_test, y_test)
    _count(tasks)
    generator = torch.Generator().manual_seed(seed)
    views = [Moved(torch.randperm(x.shape[-1], generator=generator)) for _ in range(tasks)]
    made = [Task(f"order {k}", x, y, x_test, y_test, view) for k, view in enumerate(views)]
    return Scenario(name, tuple(made), int(y.max()) + 1, Increment.DOMAIN)


def rotated(
    x_train: Any, y_train: Any, x_test: Any, y_test: Any, tasks: int = 5, *, most: float = 180.0, name: str = "rotated"
) -> Scenario:
    """The same square images, turned by 0 to ``most`` degrees in equal steps (Lopez-Paz & Ranzato 2017).

    Raises:
        UsageError: no task, arrays of different lengths, or images that are not square.
    """
    x, y, x_test, y_test = _arrays(x_train, y_train, x_test, y_test)
    _count(tasks)
    square = round(x.shape[-1] ** 0.5) ** 2 == x.shape[-1] if x.ndim == 2 else x.shape[-1] == x.shape[-2]
    if not square:
        raise UsageError(f"samples have shape {tuple(x.shape[1:])}: only square images can be turned")
    made = []
    for k in range(tasks):
        degrees = most * k / max(tasks - 1, 1)
        made.append(Task(f"{degrees:g} degrees", x, y, x_test, y_test, Turned(degrees) if k else same))
    return Scenario(name, tuple(made), int(y.max()) + 1, Increment.DOMAIN)


def split(
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    tasks: int = 5,
    *,
    increment: Increment = Increment.TASK,
    name: str = "split",
) -> Scenario:
    """The classes of one data set in equal groups, one group per task (Zenke et al. 2017).

    Labels count within the task, but for `Increment.CLASS`. With 10 classes and `Increment.DOMAIN`, 5 tasks ask whether
    a digit is even or odd.

    Raises:
        UsageError: the classes do not divide into so many groups, or arrays of different lengths.
    """
    x, y, x_test, y_test = _arrays(x_train, y_train, x_test, y_test)
    _count(tasks)
    classes = int(y.max()) + 1
    if classes % tasks:
        raise UsageError(f"{classes} classes do not divide into {tasks} equal tasks: choose a divisor")
    width = classes // tasks
    made = []
    for k in range(tasks):
        low = k * width
        shift = 0 if increment is Increment.CLASS else low
        inside, inside_test = (y // width) == k, (y_test // width) == k
        made.append(
            Task(
                f"classes {low}-{low + width - 1}",
                x[inside], y[inside] - shift, x_test[inside_test], y_test[inside_test] - shift,
                head=k if increment is Increment.TASK else 0,
                classes=tuple(range(low, low + width)) if increment is Increment.CLASS else None,
            )
        )  # fmt: skip
    return Scenario(name, tuple(made), classes if increment is Increment.CLASS else width, increment)


def flat(data: Dataset, *, standardise: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x_train, y_train, x_test, y_test) of a data set with each sample as one vector.

    ``standardise`` subtracts the mean of the training part and divides by its standard deviation, both one number.
    """
    x, y, x_test, y_test = _arrays(data.x_train, data.y_train, data.x_test, data.y_test)
    x, x_test = x.flatten(1), x_test.flatten(1)
    if standardise:
        mean, spread = x.mean(), x.std()
        x, x_test = (x - mean) / spread, (x_test - mean) / spread
    return x, y, x_test, y_test


def sequences(data: Dataset, *, standardise: bool | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x_train, y_train, x_test, y_test) of a data set whose samples are sequences (N, T, features).

    Args:
        data: series, spectra or binned events; what lies behind the end of a shorter sequence stays zero.
        standardise: subtract each feature's mean over the training part and divide by its standard deviation; by
            default where the values are no spikes, that is not all 0 or 1.
    """
    x, y, x_test, y_test = _arrays(data.x_train, data.y_train, data.x_test, data.y_test)
    if standardise is None:
        standardise = not bool(((x == 0) | (x == 1)).all())
    if not standardise:
        return x, y, x_test, y_test
    inside, inside_test = _valid(x, data.lengths_train), _valid(x_test, data.lengths_test)
    seen = x[inside]
    mean, spread = seen.mean(0), seen.std(0).clamp_min(1e-6)
    made = [((part - mean) / spread) * valid[..., None] for part, valid in ((x, inside), (x_test, inside_test))]
    return made[0], y, made[1], y_test


def _valid(x: Tensor, lengths: Any) -> Tensor:
    """Which steps of (N, T, ...) lie inside their sequence, bool (N, T)."""
    if lengths is None:
        return torch.ones(x.shape[:2], dtype=torch.bool)
    return torch.arange(x.shape[1])[None] < torch.as_tensor(lengths)[:, None]


def _arrays(x: Any, y: Any, x_test: Any, y_test: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = (_float(x), torch.as_tensor(y).long(), _float(x_test), torch.as_tensor(y_test).long())
    if len(made[0]) != len(made[1]) or len(made[2]) != len(made[3]) or len(made[0]) == 0:
        raise UsageError(
            f"{len(made[0])} and {len(made[2])} samples with {len(made[1])} and {len(made[3])} labels: expected one "
            "label per sample and at least one training sample"
        )
    return made


def _float(x: Any) -> Tensor:
    tensor = torch.as_tensor(x)
    return tensor if tensor.dtype.is_floating_point else tensor.float()


def _count(tasks: int) -> None:
    if tasks < 1:
        raise UsageError(f"{tasks} tasks: expected at least one")
