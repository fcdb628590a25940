"""A spiking network of snntorch that learns its wiring from which neurons fire together, or one before the other.

    python examples/rewire_snntorch.py            # minutes on one core
    python examples/rewire_snntorch.py --quick    # a part of the data, under half a minute

snntorch's own neurons and its loop over time steps, with a fifth of the connections. Connections grow by Hebb's rule:
between units whose spikes of the same step, whose traces, or whose timing (pre before post) agree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import snntorch
import torch
from common import must, run, table
from snntorch import surrogate
from torch import nn

import sparsecirc as sc
from sparsecirc.data import Dataset, mnist
from sparsecirc.rules import G2G, Rewire, Signals, Stdp, Traces
from sparsecirc.scores import random

BATCH = 100
Make = Callable[[sc.Masks, torch.optim.Optimizer], Rewire]
RULES: dict[str, Make | None] = {
    "kept": None,
    "same step": lambda masks, optimizer: G2G(masks, optimizer, every=15, fraction=0.1),
    "traces": lambda masks, optimizer: G2G(
        masks, optimizer, every=15, fraction=0.1, signals=Signals(masks, window=Traces(0.8))
    ),
    "pre before post": lambda masks, optimizer: G2G(
        masks, optimizer, every=15, fraction=0.1, signals=Signals(masks, window=Stdp(0.8, 0.8))
    ),
}


class Net(nn.Module):
    """A hidden layer of recurrent spiking neurons that see the image in every step, and a read-out of their spikes."""

    def __init__(self, neurons: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fc = nn.Linear(784, neurons)
        self.lif = snntorch.RLeaky(beta=0.9, linear_features=neurons, spike_grad=surrogate.fast_sigmoid(5))
        self.out = nn.Linear(neurons, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (B, 10) of images (B, 784): the read-out of the mean number of spikes."""
        spk, mem = self.lif.init_rleaky()
        total = torch.zeros(())
        for _ in range(self.steps):
            spk, mem = self.lif(self.fc(x), spk, mem)
            total = total + spk
        scores: torch.Tensor = self.out(total / self.steps)
        return scores


def train(model: Net, data: Dataset, epochs: int, make: Make | None) -> sc.Masks:
    """An ordinary loop; the lines that rewire are marked."""
    x, y = torch.from_numpy(data.x_train).flatten(1), torch.from_numpy(data.y_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    masks = sc.Masks.prune(model, 0.8, score=random(1))  # 1
    rule = None if make is None else make(masks, optimizer)  # 2
    if rule is None:
        masks.attach(optimizer)
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(BATCH)[: len(y) // BATCH]:  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if rule is not None:
                rule.step()  # 3
    return masks


@torch.no_grad()
def accuracy(model: Net, data: Dataset) -> float:
    """Share of the test part."""
    guess = model(torch.from_numpy(data.x_test).flatten(1)).argmax(1)
    return float((guess.numpy() == data.y_test).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train one network per rule and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--neurons", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="a part of the data, one epoch")
    args = parser.parse_args(argv)
    data = mnist()
    data = data.head(6000, 1000) if args.quick else data.head(20000, 10000)
    rows = []
    for name, make in RULES.items():
        torch.manual_seed(0)
        model = Net(args.neurons, 6)
        masks = train(model, data, args.epochs or (1 if args.quick else 3), make)
        masks.check()
        rows.append((name, f"{masks.density:.1%}", f"{100 * accuracy(model, data):.2f} %", masks.digest[:8]))
        print(f"{name}: done", file=sys.stderr, flush=True)
    must(len({r[3] for r in rows}) == len(rows), "two rules ended with the same connections")
    print(table(("connections grow by", "alive", "accuracy", "digest"), rows))
    print("every weight has as many connections as it began with")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
