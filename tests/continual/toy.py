"""A stream of small tasks that a network forgets in seconds."""

from __future__ import annotations

import torch

from sparsecirc.continual import Increment, Scenario, SpikingNet, from_tasks, mlp, permuted


def toy(tasks: int = 3, *, train: int = 640, features: int = 40, seed: int = 0) -> Scenario:
    """Four noisy prototypes with the features in another order for each task."""
    g = torch.Generator().manual_seed(seed)
    centres = 2.0 * torch.randn(4, features, generator=g)
    y, y_test = torch.randint(0, 4, (train,), generator=g), torch.randint(0, 4, (200,), generator=g)
    x = centres[y] + torch.randn(train, features, generator=g)
    x_test = centres[y_test] + torch.randn(200, features, generator=g)
    return permuted(x, y, x_test, y_test, tasks, seed=seed, name="toy")


def clashing(tasks: int = 3, *, train: int = 960, features: int = 60, rank: int = 6, seed: int = 0) -> Scenario:
    """Tasks in a few directions each, with the same labels on other directions: a shared read-out forgets quickly."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(tasks):
        axes = torch.linalg.qr(torch.randn(features, rank, generator=g)).Q
        split = torch.randn(rank, 2, generator=g)
        arrays = []
        for count in (train, 300):
            z = 3.0 * torch.randn(count, rank, generator=g)
            arrays += [z @ axes.T + 0.5, ((z @ split) > 0).long() @ torch.tensor([1, 2])]
        made.append((arrays[0], arrays[1], arrays[2], arrays[3]))
    return from_tasks(made, name="clashing", increment=Increment.DOMAIN)


def net(scenario: Scenario, hidden: int = 80, **settings: object) -> SpikingNet:
    """A network for a scenario of vectors, the same at each call."""
    torch.manual_seed(0)
    return mlp(scenario.features[-1], [hidden, hidden], scenario.outputs, heads=scenario.heads, **settings)  # type: ignore[arg-type]
