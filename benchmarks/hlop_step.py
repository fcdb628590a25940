"""What a training step of `HLOP` costs beside a plain one, on the networks of permuted MNIST.

    python -m benchmarks.hlop_step                   # a table; one thread, times of the processor
    python -m benchmarks.hlop_step --json out.json

Steps are those of the second task, batches of 64; networks train in turns in one process. The weights' answers to the
first task's rows are compared with what they were when it ended, before anything is timed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.rewiring import interleaved
from sparsecirc import continual as cl
from sparsecirc.errors import MismatchError

BATCH, TASK = 64, 60
NETWORKS = {"784-400-400-10, T = 5": ([400, 400], 5), "784-800-800-10, T = 6": ([800, 800], 6)}
METHODS: dict[str, Callable[[], cl.Method]] = {
    "finetune": cl.Finetune,
    "hlop, trace": lambda: cl.HLOP(cl.PERMUTED_MNIST, mode=cl.Mode.TRACE),
    "hlop, grad": lambda: cl.HLOP(cl.PERMUTED_MNIST, mode=cl.Mode.GRAD),
    "hlop, delta": lambda: cl.HLOP(cl.PERMUTED_MNIST, mode=cl.Mode.DELTA),
}


def learner(make: Callable[[], cl.Method], hidden: Sequence[int], steps: int) -> cl.Learner:
    """A run that stands in its second task; images are random and as sparse as digits."""
    torch.manual_seed(0)
    x = torch.rand(BATCH * TASK, 784) * (torch.rand(BATCH * TASK, 784) < 0.2)
    y = torch.randint(10, (BATCH * TASK,))
    network = cl.mlp(784, hidden, 10, steps=steps)
    scenario = cl.permuted(x, y, x[:BATCH], y[:BATCH], tasks=2)
    made = cl.Learner(network, scenario, make(), cl.Setting(optimizer=cl.sgd(), batch_size=BATCH))
    made.run(TASK)
    return made


def prove(made: cl.Learner) -> None:
    """Steps leave the answers of the weights to the rows of the first task as they were.

    Raises:
        MismatchError: they do not, to 1e-4 of the largest.
    """
    method = made.method
    if not isinstance(method, cl.HLOP):
        made.run(5)
        return
    before = [s.matrix(s.tensors()) @ method.basis(s)[0].T for s in method.sites]
    made.run(5)
    for site, was in zip(method.sites, before, strict=True):
        now = site.matrix(site.tensors()) @ method.basis(site)[0].T
        if float((now - was).abs().max()) > 1e-4 * float(was.abs().max()):
            raise MismatchError(f"{method.mode.value}: layer '{site.name}' changed its answers to the first task")


def rows(hidden: Sequence[int], steps: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of a step for each method."""
    made = [learner(make, hidden, steps) for make in METHODS.values()]
    for one in made:
        prove(one)
    per_call = 2
    actions: list[Callable[[], object]] = [lambda one=one: one.run(per_call) for one in made]  # type: ignore[misc]
    ms = [1e3 * t / per_call for t in interleaved(actions, rounds)]
    return [
        {"hidden": list(hidden), "steps": steps, "method": name, "ms": t, "over_plain": t / ms[0]}
        for name, t in zip(METHODS, ms, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.hlop_step``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hlop_step", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="two steps each (default 20, 25 at most)")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args(argv)
    if not 1 <= args.rounds <= 25:
        parser.error(f"--rounds {args.rounds}: expected 1 to 25, the second task has {TASK} steps")
    torch.set_num_threads(1)
    found = []
    for name, (hidden, steps) in NETWORKS.items():
        print(name)
        for row in rows(hidden, steps, args.rounds):
            found.append(row)
            print(f"  {row['method']:<12} {row['ms']:7.2f} ms   {row['over_plain']:.2f} x a plain step")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
