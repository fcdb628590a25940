"""A GRU that reads clothes row by row, with a tenth of its connections: which rule finds the better ones?

    python examples/rewire_gru.py            # minutes on one core
    python examples/rewire_gru.py --quick    # a part of the data, under half a minute

torch's own nn.GRU and loop. Rewiring is three lines: the masks, the rule, and its step. The random tenth that the
network starts with is either kept, or rewired by SET, RigL or Hebb's rule; the number of connections of every gate
stays. At the end the network is compiled and compared with the float64 reference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from common import must, run, table
from torch import nn

import sparsecirc as sc
from sparsecirc.data import Dataset, fashion_mnist
from sparsecirc.rules import G2G, SET, Rewire, RigL
from sparsecirc.scores import random

BATCH = 100
Make = Callable[[sc.Masks, torch.optim.Optimizer, int], Rewire]
RULES: dict[str, Make | None] = {
    "kept": None,
    "SET": lambda masks, optimizer, steps: SET(masks, optimizer, every=max(1, steps // 10), end=3 * steps // 4),
    "RigL": lambda masks, optimizer, steps: RigL(masks, optimizer, steps=steps, every=max(1, steps // 20)),
    "G2G": lambda masks, optimizer, steps: G2G(masks, optimizer, every=max(10, steps // 20)),
}


class Reader(nn.Module):
    """A GRU over 28 rows of 28 pixels, and a read-out of its last state."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(28, units)
        self.fc = nn.Linear(units, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (B, 10) of rows (28, B, 28)."""
        scores: torch.Tensor = self.fc(self.rnn(x)[0][-1])
        return scores


def train(model: Reader, data: Dataset, epochs: int, make: Make | None) -> sc.Masks:
    """An ordinary loop; the lines that rewire are marked."""
    x, y = torch.from_numpy(data.x_train).transpose(0, 1), torch.from_numpy(data.y_train)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    masks = sc.Masks.prune(model, 0.9, score=random(1))  # 1
    rule = None if make is None else make(masks, optimizer, epochs * (len(y) // BATCH))  # 2
    if rule is None:
        masks.attach(optimizer)
    for _ in range(epochs):
        for index in torch.randperm(len(y)).split(BATCH)[: len(y) // BATCH]:  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[:, index]), y[index]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if rule is not None:
                rule.step()  # 3
    return masks


@torch.no_grad()
def accuracy(model: Reader, data: Dataset) -> float:
    """Share of the test part."""
    guess = model(torch.from_numpy(data.x_test).transpose(0, 1)).argmax(1)
    return float((guess.numpy() == data.y_test).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train one network per rule, compare, compile the last one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="a part of the data, one epoch")
    args = parser.parse_args(argv)
    data = fashion_mnist()
    if args.quick:
        data = data.head(6000, 1000)
    rows = []
    for name, make in RULES.items():
        torch.manual_seed(0)
        model = Reader(args.units)
        masks = train(model, data, args.epochs or (1 if args.quick else 5), make)
        masks.check()
        rows.append((name, f"{masks.density:.1%}", f"{100 * accuracy(model, data):.2f} %", masks.digest[:8]))
        print(f"{name}: done", file=sys.stderr, flush=True)
    must(len({r[3] for r in rows}) == len(rows), "two rules ended with the same connections")
    print(table(("connections", "alive", "accuracy", "digest"), rows))
    graph = sc.to_graph(model, example=torch.from_numpy(data.x_test[:1]).transpose(0, 1), masks=masks)
    program = sc.compile(graph)
    x = data.x_test[:20].transpose(1, 0, 2).copy()
    print(sc.verify(program, x).check())
    print("every gate has as many connections as it began with")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
