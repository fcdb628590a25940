"""From which density does training on live connections pay? `python -m benchmarks.training_densities`.

Forward and backward of one recurrent layer (64 dense inputs, pruned recurrence, one thread) beside torch's on the same
weights, for several densities and batches. Outputs and gradients are compared before anything is timed. Times are those
of the processor, so that other jobs on the machine count less; speed-ups are medians of quotients within a round.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from sparsecirc._bench._measure import interleaved
from sparsecirc.errors import MismatchError
from sparsecirc.masks import Masks
from sparsecirc.nn._recurrent import SparseRNNBase

FEATURES, STEPS, ROUNDS = 64, 50, 7
DENSITIES, BATCHES = (0.5, 0.3, 0.2, 0.1, 0.05), (1, 16, 64)
KINDS = {"RNN": nn.RNN, "GRU": nn.GRU, "LSTM": nn.LSTM}
TOLERANCE = 1e-3
"""Largest difference of an output or gradient, relative to its largest value."""


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Forward and backward of the sum of squares; returns the output."""

    def run() -> torch.Tensor:
        layer.zero_grad()
        x.grad = None
        out: torch.Tensor = layer(x)[0]
        out.square().sum().backward()  # type: ignore[no-untyped-call]
        return out.detach()

    return run


def speed_up(kind: str, units: int, density: float, batch: int, seconds: float) -> float:
    """How many times faster the sparse layer takes a step than torch's."""
    torch.manual_seed(0)
    dense = KINDS[kind](FEATURES, units)
    masks = Masks.prune(dense, 1 - density)
    sparse = SparseRNNBase.from_dense(dense, masks, kind.lower())
    x, y = (torch.randn(STEPS, batch, FEATURES, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    runs = {"sparse": step(sparse, x.requires_grad_()), "dense": step(dense, y.requires_grad_())}
    outs = [run() for run in runs.values()]
    same("outputs", *outs)
    assert x.grad is not None
    assert y.grad is not None
    same("gradients", x.grad, y.grad)
    found = interleaved(runs, min_seconds=seconds, rounds=ROUNDS, clock=time.process_time)
    return float(np.median(found["dense"] / found["sparse"]))


def same(what: str, one: torch.Tensor, other: torch.Tensor) -> None:
    """Refuse tensors that differ by more than rounding."""
    diff = float((one - other).abs().max() / other.abs().max())
    if not diff <= TOLERANCE:
        raise MismatchError(f"{what} differ by {diff:.2g} of the largest value")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of speed-ups."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_densities", description=__doc__.split("\n")[0])
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--kind", choices=[*KINDS], action="append", help="measure only this; may be repeated")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each figure")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"{options.units} units, {FEATURES} inputs, {STEPS} steps; speed-up over torch {torch.__version__}")
    print(f"{'layer':6}{'batch':>6}" + "".join(f"{d:>8.0%}" for d in DENSITIES))
    for kind in options.kind or KINDS:
        for batch in BATCHES:
            figures = [speed_up(kind, options.units, d, batch, options.seconds) for d in DENSITIES]
            print(f"{kind:6}{batch:>6}" + "".join(f"{f:>7.2f}x" for f in figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
