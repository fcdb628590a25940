"""An LSTM that reads MNIST digits row by row: trained, pruned to 90 % while it trains on, compiled, proved, measured.

    python examples/mnist_lstm.py            # 40 s on two idle cores
    python examples/mnist_lstm.py --quick    # fewer samples and epochs; accuracies mean little

Prints the accuracy of the dense, the pruned and the compiled network on the test images, the proof that the compiled
program computes the pruned network, and its time beside every engine that is installed.

On one core of an AMD EPYC with AVX-512: dense 98.48 %, pruned to 90 % 98.50 %, compiled 98.50 %, with bfloat16 weights
98.50 %, int16 weights and states 98.50 %, int8 98.47 %. Batch 1: 1.7 us a step, 1.7x onnxruntime and 3.6x torch; at 128
units the gates cost as much as the product, so larger layers gain more (docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import must, run, table
from torch import nn

import sparsecirc as sc
from sparsecirc.data import Dataset, mnist
from sparsecirc.rules import Cubic

BATCH = 128


class RowReader(nn.Module):
    """28 rows of 28 pixels into an LSTM, and a read-out of its last step."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(28, units, batch_first=True)
        self.fc = nn.Linear(units, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (B, 10) of images (B, 28, 28)."""
        scores: torch.Tensor = self.fc(self.rnn(x)[0][:, -1])
        return scores


def train(model: nn.Module, data: Dataset, epochs: int, optimizer: torch.optim.Optimizer, rule: Cubic | None) -> None:
    """Epochs over the training images; with a rule, the masks are updated after every optimizer step."""
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    steps = epochs * math.ceil(len(y) / BATCH)
    schedule: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps), eta_min=1e-5)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for index in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(index)
            if rule is not None:
                rule.step()
        phase = "train" if rule is None else "prune and fine-tune"
        print(f"{phase}: epoch {epoch + 1}/{epochs}, loss {total / len(y):.4f}", file=sys.stderr, flush=True)
    model.eval()


@torch.no_grad()
def scores_of(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """Class scores of images by torch."""
    return np.concatenate([model(part).numpy() for part in torch.from_numpy(x).split(1000)])


def few_at_a_time(program: sc.Program, x: np.ndarray) -> np.ndarray:
    """Scores of all images, four to a call: in larger batches the state of an integer program stays float32."""
    return np.concatenate([program.run(x[k : k + 4]).y for k in range(0, len(x), 4)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="of each phase: dense training, then pruning (default 4; quick 3)")
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="12000 training and 1000 test images")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    data = mnist()
    if args.quick:
        data = data.head(12000, 1000)
    epochs = args.epochs or (3 if args.quick else 4)

    model = RowReader(args.units)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    train(model, data, epochs, optimizer, None)
    dense = scores_of(model, data.x_test)

    steps = epochs * math.ceil(len(data.y_train) / BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    rule = Cubic(model, args.sparsity, begin=1, end=max(2, steps // 2), every=10)
    with rule.masks.attach(optimizer), rule.masks.mask_gradients():  # the second so that clipping sees live gradients
        train(model, data, epochs, optimizer, rule)
    print(rule.masks.table())

    graph = sc.to_graph(model, example=data.x_test[:1], masks=rule.masks)
    program = sc.compile(graph)
    narrow = {dtype: sc.compile(graph, sc.Target.cpu(dtype=dtype)) for dtype in ("bf16", "int16", "int8")}
    print(program.explain())
    verified = sc.verify(program, data.x_test[:256], reference=graph).check()
    print(verified)
    for other in narrow.values():
        sc.verify(other, data.x_test[:4]).check()

    pruned, compiled = scores_of(model, data.x_test), program.run(data.x_test).y
    change = float(np.abs(compiled - pruned).max())
    must(change <= 1e-3 * float(np.abs(pruned).max()), f"compiled scores differ from torch's by {change:.3g}")
    measured = sc.bench(program, data.x_test[:1], model=model)
    print(measured.table())
    answers = (
        ("torch, dense", dense, program.dense_bytes),
        (f"torch, {args.sparsity:.0%} pruned", pruned, program.dense_bytes),
        ("compiled", compiled, program.packed_bytes),
        *((f"compiled, {dtype}", few_at_a_time(p, data.x_test), p.packed_bytes) for dtype, p in narrow.items()),
    )
    rows = [(name, f"{100 * np.mean(y.argmax(1) == data.y_test):.2f} %", f"{size}") for name, y, size in answers]
    print(table(("network", f"accuracy ({len(data.y_test)} images)", "bytes of weights"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
