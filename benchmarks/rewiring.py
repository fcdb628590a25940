"""What training on live connections and rewiring cost, beside dense torch of the same width: time and peak memory.

    python -m benchmarks.rewiring                   # a table; one thread, times of the processor
    python -m benchmarks.rewiring --json out.json

A network of three hidden layers, 784 - N - N - N - 10 with ReLU, Adam with weight decay, batch 256. Both networks train
in turns in one process; gradients are compared first. Peak memory is that of a process of its own that trains ten
steps, above what it held before it made the network. The rewiring step is that of one layer of N x N, over the training
step of that same layer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparsecirc.errors import MismatchError
from sparsecirc.nn import SparseLinear
from sparsecirc.rules import G2G, SET, DeepR, Rewire, RigL

BATCH = 256
RULES: dict[str, Callable[[nn.Module, torch.optim.Optimizer], Rewire]] = {
    "SET, 30 %": lambda model, optimizer: SET(model, optimizer, every=1),
    "G2G, 2.5 %": lambda model, optimizer: G2G(model, optimizer, every=1),
    "RigL, 30 %": lambda model, optimizer: RigL(model, optimizer, steps=10**6, every=1),
    "Deep R": lambda model, optimizer: DeepR(model, optimizer),
}


def network(width: int, density: float) -> nn.Sequential:
    """The network; dense torch layers at density 1."""
    torch.manual_seed(0)
    sides = [(784, width), (width, width), (width, width)]
    make = [nn.Linear(a, b) if density == 1 else SparseLinear(a, b, density=density) for a, b in sides]
    return nn.Sequential(*(layer for m in make for layer in (m, nn.ReLU())), nn.Linear(width, 10))


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Adam with weight decay."""
    return torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One optimizer step."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def prove(model: nn.Sequential, x: torch.Tensor, y: torch.Tensor) -> None:
    """Gradients of the live connections are those of the same weights as dense layers, to 1e-3 of the largest.

    With tanh in place of ReLU: rounding may put the input of a ReLU on the other side of 0, and then they differ.

    Raises:
        MismatchError: they are not.
    """
    smooth = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in model))
    dense = nn.Sequential(*(m.to_dense() if isinstance(m, SparseLinear) else m for m in smooth))
    for m in (smooth, dense):
        m.zero_grad()
        nn.functional.cross_entropy(m(x), y).backward()  # type: ignore[no-untyped-call]
    for mine, other in zip(smooth, dense, strict=True):
        if isinstance(mine, SparseLinear):
            assert mine.weight.values.grad is not None
            assert isinstance(other, nn.Linear)
            assert other.weight.grad is not None
            truth = mine.weight.live(other.weight.grad)
            if float((mine.weight.values.grad - truth).abs().max()) > 1e-3 * float(truth.abs().max()):
                raise MismatchError("gradients of the sparse network differ from those of dense torch")


def interleaved(actions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of the processor of each action, in turns."""
    took: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, times in zip(actions, took, strict=True):
            begun = time.thread_time()
            action()
            times.append(time.thread_time() - begun)
    return [float(np.median(t)) for t in took]


def speed(width: int, density: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of a training step, and peak memory, of both."""
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    models = [network(width, density), network(width, 1.0)]
    prove(models[0], x, y)
    optimizers = [optimizer_of(m) for m in models]
    actions = [lambda m=m, o=o: step(m, o, x, y) for m, o in zip(models, optimizers, strict=True)]
    interleaved(actions, 2)
    mine, dense = interleaved(actions, rounds)
    peaks = [_peak_of(width, d) for d in (density, 1.0)]
    return {
        "case": "training", "width": width, "density": density, "batch": BATCH, "ms": 1e3 * mine,
        "ms_dense": 1e3 * dense, "speed_up": dense / mine, "peak_mb": peaks[0], "peak_mb_dense": peaks[1],
    }  # fmt: skip


def rewiring(name: str, width: int, density: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of a rewiring step of one layer of width x width, and of its training step."""
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(width, width, density=density), nn.ReLU())
    optimizer = optimizer_of(model)
    rule = RULES[name](model, optimizer)
    x, y = torch.randn(BATCH, width), torch.randint(width, (BATCH,))
    actions: list[Callable[[], object]] = [lambda: step(model, optimizer, x, y), rule.step]
    interleaved(actions, 2)
    train, rewire = interleaved(actions, rounds)
    rule.remove()
    return {
        "case": "rewiring", "rule": name, "width": width, "density": density, "batch": BATCH, "ms": 1e3 * rewire,
        "ms_training": 1e3 * train, "training_steps": rewire / train,
    }  # fmt: skip


def _peak_of(width: int, density: float) -> float:
    command = [sys.executable, "-m", "benchmarks.rewiring", "--peak", str(width), str(density)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def peak(width: int, density: float) -> float:
    """Megabytes that training ten steps added to the most that this process held."""
    torch.set_num_threads(1)
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    small = network(64, density)
    for _ in range(2):  # libraries have loaded what they load
        step(small, optimizer_of(small), x, y)
    before = _high_water()
    model = network(width, density)
    optimizer = optimizer_of(model)
    for _ in range(10):
        step(model, optimizer, x, y)
    return _high_water() - before


def _high_water() -> float:
    """Most megabytes that this process has held; of Linux."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rewiring", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--widths", default="512,1024,2048", metavar="N,N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peak", nargs=2, metavar=("WIDTH", "DENSITY"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.peak:
        print(peak(int(args.peak[0]), float(args.peak[1])))
        return 0
    torch.set_num_threads(1)
    widths = [int(w) for w in args.widths.split(",")]
    rows = [speed(width, density, args.rounds) for width in widths for density in (0.25, 0.1)]
    print("| width | live | ms per step | dense torch | times faster | peak MB | dense torch |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for r in rows:
        print(f"| {r['width']} | {r['density']:.0%} | {r['ms']:.1f} | {r['ms_dense']:.1f} | {r['speed_up']:.1f} | "
              f"{r['peak_mb']:.0f} | {r['peak_mb_dense']:.0f} |")  # fmt: skip
    steps = [rewiring(name, widths[-1], 0.1, args.rounds) for name in RULES]
    print("\n| rule | width | ms per rewiring | ms per training step | training steps |")
    print("|---|---:|---:|---:|---:|")
    for r in steps:
        print(f"| {r['rule']} | {r['width']} | {r['ms']:.1f} | {r['ms_training']:.1f} | {r['training_steps']:.1f} |")
    if args.json is not None:
        args.json.write_text(json.dumps(rows + steps, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
