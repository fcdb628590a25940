"""What a continual run is judged by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsecirc._mean import Mean
from sparsecirc.continual._connect import patches
from sparsecirc.continual._learning import BPTT, RECURRENT
from sparsecirc.continual._network import SpikingNet
from sparsecirc.continual._sites import Site, Tap, firing_rate, sites
from sparsecirc.nn import SparseLinear
from sparsecirc.nn._neurons import SparseNeurons


@dataclass(frozen=True)
class Activity:
    """What one sample costs, on average over some test samples of one task.

    Attributes:
        spikes: spikes of all hidden neurons.
        synaptic_ops: additions that spikes cause: each spike times the live connections that leave its neuron.
        macs: multiplications with inputs that are no spikes.
    """

    spikes: float
    synaptic_ops: float
    macs: float


@dataclass(frozen=True)
class Result:
    """One run over a scenario.

    Attributes:
        scenario: its name.
        method: name of the method.
        seed: of the run.
        accuracy: R (tasks, tasks): R[i, j] is the share of task j's test samples that are right after task i; NaN where
            it was not measured.
        untrained: the same before any training (tasks,).
        activity: per task, on its own test samples, right after it was learned.
        capacity: after each task, per layer: directions or weights used, and how many there are.
        overlap: per layer, (tasks, tasks): how much the final activity of two tasks shares.
        seconds: of processor time, tests included.
    """

    scenario: str
    method: str
    seed: int
    accuracy: NDArray[np.float64]
    untrained: NDArray[np.float64]
    activity: tuple[Activity, ...] = ()
    capacity: tuple[Mapping[str, tuple[int, int]], ...] = ()
    overlap: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def acc(self) -> float:
        """Mean of R[T - 1, :]."""
        return float(self.accuracy[-1].mean())

    @property
    def learning_accuracy(self) -> float:
        """Mean of the diagonal: how well each task was learned when it came (Riemer et al. 2019)."""
        return float(np.diag(self.accuracy).mean())

    @property
    def bwt(self) -> float:
        """Backward transfer, mean over j < T - 1 of R[T - 1, j] - R[j, j] (Lopez-Paz & Ranzato 2017); else 0."""
        change = (self.accuracy[-1] - np.diag(self.accuracy))[:-1]
        return float(change.mean()) if len(change) else 0.0

    @property
    def fwt(self) -> float:
        """Forward transfer, mean over j >= 1 of R[j - 1, j] minus the untrained network's; 0 for one task."""
        above = np.diag(self.accuracy, 1) - self.untrained[1:]
        return float(above.mean()) if len(above) else 0.0

    @property
    def forgetting(self) -> float:
        """Mean over j < T - 1 of max over i < T - 1 of R[i, j] minus R[T - 1, j] (Chaudhry et al. 2018)."""
        r = self.accuracy
        lost = [float(np.nanmax(r[j:-1, j]) - r[-1, j]) for j in range(len(r) - 1)]
        return float(np.mean(lost)) if lost else 0.0

    @property
    def rank_used(self) -> dict[str, int]:
        """Per layer, at the end."""
        return {name: used for name, (used, _) in self.capacity[-1].items()} if self.capacity else {}

    def row(self) -> dict[str, Any]:
        """The figures of one line of a table."""
        return {
            "scenario": self.scenario, "method": self.method, "seed": self.seed, "acc": self.acc, "bwt": self.bwt,
            "fwt": self.fwt, "forgetting": self.forgetting, "seconds": self.seconds, "rank_used": self.rank_used,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Everything, with ``None`` for what was not measured."""
        return self.row() | {
            "learning_accuracy": self.learning_accuracy,
            "accuracy": [[None if math.isnan(v) else v for v in line] for line in self.accuracy.tolist()],
            "untrained": self.untrained.tolist(),
            "activity": [asdict(a) for a in self.activity],
            "capacity": [{n: list(u) for n, u in c.items()} for c in self.capacity],
            "overlap": {name: m.tolist() for name, m in self.overlap.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Result:
        """Inverse of :meth:`to_json`."""
        return cls(
            found["scenario"], found["method"], found["seed"],
            np.array(found["accuracy"], dtype=np.float64), np.array(found["untrained"], dtype=np.float64),
            tuple(Activity(**a) for a in found["activity"]),
            tuple({n: (u[0], u[1]) for n, u in c.items()} for c in found["capacity"]),
            {name: np.array(m) for name, m in found["overlap"].items()}, found["seconds"],
        )  # fmt: skip

    def table(self) -> str:
        """R in percent, a line per task learned, and the figures below it."""
        head = "after      " + "".join(f"{f'task {j}':>8}" for j in range(len(self.accuracy)))
        lines = [
            f"{f'task {i}':<11}" + "".join(f"{'-' if math.isnan(v) else f'{100 * v:.1f}':>8}" for v in line)
            for i, line in enumerate(self.accuracy)
        ]
        used = ", ".join(f"{n} {u}/{of}" for n, (u, of) in self.capacity[-1].items()) if self.capacity else ""
        facts = (
            f"{self.scenario}, {self.method}: ACC {100 * self.acc:.2f} %, BWT {100 * self.bwt:+.2f}, FWT "
            f"{100 * self.fwt:+.2f}, forgetting {100 * self.forgetting:.2f}, {self.seconds:.1f} s"
        )
        return "\n".join([head, *lines, facts, *([f"used: {used}"] if used else [])])


def summary(results: Sequence[Result]) -> dict[str, Mean]:
    """ACC, BWT, FWT, forgetting and learning accuracy over the seeds of one method."""
    names = ("acc", "bwt", "fwt", "forgetting", "learning_accuracy")
    return {name: Mean.of([getattr(r, name) for r in results]) for name in names}


@torch.no_grad()
def activity(model: SpikingNet, x: Tensor, head: int = 0) -> Activity:
    """Spikes, synaptic operations and multiplications per sample, on samples (B, ...).

    The linear read-out is counted step by step, as hardware runs it, though its products are taken of the mean.
    """
    spikes = ops = macs = 0.0
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def neurons(module: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
        nonlocal spikes, ops
        spikes += float(out[0].sum())
        if isinstance(module, RECURRENT):
            fan_out = torch.bincount(module.recurrent.indices.long(), minlength=module.linear_features)
            ops += float((out[0][:-1].sum((0, 1)) * fan_out).sum())

    def connection(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal ops, macs
        seen = args[0]
        if bool(((seen == 0) | (seen == 1)).all()):
            ops += _products(module, seen)
        else:
            macs += _products(module, seen) * (model.steps / len(seen) if seen.ndim == 3 else 1.0)

    def readout(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal ops
        assert isinstance(module, (nn.Linear, SparseLinear))
        ops += float(args[0].sum()) * model.steps * module.out_features

    for name, module in model.named_modules():
        if isinstance(module, SparseNeurons):
            handles.append(module.register_forward_hook(neurons))
        elif name.startswith("readouts."):
            handles.append(module.register_forward_pre_hook(readout))
        elif isinstance(module, (nn.Linear, SparseLinear, nn.Conv2d)):
            handles.append(module.register_forward_pre_hook(connection))
    learning, model.learning = model.learning, BPTT()  # the same spikes, each product once
    try:
        model(x, head)
    finally:
        model.learning = learning
        for handle in handles:
            handle.remove()
    return Activity(spikes / len(x), ops / len(x), macs / len(x))


def _products(module: nn.Module, seen: Tensor) -> float:
    """Products of inputs that are not zero with live connections."""
    if isinstance(module, nn.Conv2d):
        rows = patches(seen.flatten(0, 1) if seen.ndim == 5 else seen, module)
        return float(rows.count_nonzero()) * module.out_channels / module.groups
    live = seen.flatten(0, -2).count_nonzero(0)
    if isinstance(module, SparseLinear):
        return float((live * torch.bincount(module.weight.indices.long(), minlength=module.in_features)).sum())
    assert isinstance(module, nn.Linear)
    return float((live * module.weight.count_nonzero(0)).sum())


@torch.no_grad()
def overlap(
    model: nn.Module,
    inputs: Sequence[Callable[[], object]],
    watched: Sequence[Site] | None = None,
    energy: float = 0.95,
) -> dict[str, NDArray[np.float64]]:
    """How much the activity of tasks shares, per layer: (tasks, tasks), 1 on the diagonal, 0 for orthogonal tasks.

    ``|U_i^T U_j|_F^2 / min(r_i, r_j)``, where U_i holds the fewest directions with ``energy`` of the layer's uncentred
    input on task i (our definition; it is 1 where the smaller space lies inside the larger).

    Args:
        model: the network, in evaluation mode.
        inputs: per task, something that runs the model on some of its samples.
        watched: layers; by default those that `sites` finds.
        energy: share of the activity.
    """
    chosen = sites(model) if watched is None else list(watched)
    steps = model.steps if isinstance(model, SpikingNet) else 1
    tap = Tap(model, chosen, testing=True)
    spaces: dict[str, list[Tensor]] = {s.name: [] for s in chosen}
    try:
        for run in inputs:
            run()
            for site in chosen:
                seq = tap.rows(site, steps)
                assert seq is not None
                spaces[site.name].append(_principal(firing_rate(seq), energy))
            tap.clear()
    finally:
        tap.remove()
    return {name: _shared(found) for name, found in spaces.items()}


def _principal(rows: Tensor, energy: float) -> Tensor:
    _, strength, axes = torch.linalg.svd(rows.double(), full_matrices=False)
    power = strength.square()
    before = power.cumsum(0) - power
    chosen: Tensor = axes[: max(1, int((before < energy * power.sum()).sum()))]
    return chosen


def _shared(spaces: Sequence[Tensor]) -> NDArray[np.float64]:
    made = np.eye(len(spaces))
    for i, a in enumerate(spaces):
        for j, b in enumerate(spaces[:i]):
            made[i, j] = made[j, i] = float((a @ b.T).square().sum()) / min(len(a), len(b))
    return made
