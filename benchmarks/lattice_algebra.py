"""How long the order theory of lattice pruning takes, step by step: `python -m benchmarks.lattice_algebra`.

Random strengths between n neurons, in one of three relations: an acyclic orientation of everything above a threshold, a
sparse relation with cycles, and the raw relation of one step in time. Processor time, and the most memory that a step
takes on top, in matrices of n^2 bits.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsecirc import _lattice
from sparsecirc._bench import Host
from sparsecirc._files import write_atomic
from sparsecirc._lattice import Preorder

GOALS = {1024: 2.0, 4096: 60.0}
"""Seconds that all steps of a size may take together."""


class Clock:
    """Runs steps and keeps their processor time and the memory that numpy took at most."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.rows: list[dict[str, Any]] = []

    def __call__(self, step: str, work: Callable[[], Any]) -> Any:
        """The result of ``work``, timed as ``step``."""
        tracemalloc.start()
        begin = time.process_time()
        made = work()
        seconds = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        bits = self.n * self.n / 8
        self.rows.append({"n": self.n, "step": step, "seconds": seconds, "peak_over_bit_matrix": peak / bits})
        return made


def measure(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """A row for each step."""
    rng = np.random.default_rng(seed)
    strengths = np.abs(rng.standard_normal((n, n), dtype=np.float32))
    clock = Clock(n)
    dag = clock("acyclic orientation", lambda: _lattice.forward(strengths, _lattice.acyclic_order(strengths)))
    relation = _lattice.cut(dag, 1.0)
    order: Preorder = clock("closure and Hasse diagram", lambda: _lattice.preorder(relation))
    clock("meet-irreducible neurons", lambda: _lattice.meet_irreducible(order))
    clock("join-irreducible neurons", lambda: _lattice.join_irreducible(order))
    sparse = _lattice.pack(rng.random((n, n)) < 2.0 / n)
    cyclic: Preorder = clock("components, closure, degree 2", lambda: _lattice.preorder(sparse))
    clock("their irreducible neurons", lambda: _lattice.meet_irreducible(cyclic))
    raw = _lattice.cut(strengths, 2.5)
    clock("irreducible attributes of one step", lambda: _lattice.attribute_irreducible(raw, n))
    return clock.rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and say whether the goals are met; exit code 5 where one is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lattice_algebra", description=(__doc__ or "").strip())
    parser.add_argument("--neurons", default="1024,4096", metavar="N,N", help="default 1024,4096")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    args = parser.parse_args(argv)
    rows, missed = [], False
    print(f"{'neurons':>8}  {'step':<38}{'seconds':>9}{'peak, bit matrices':>20}")
    for n in map(int, args.neurons.split(",")):
        found = measure(n)
        for r in found:
            print(f"{n:>8}  {r['step']:<38}{r['seconds']:>9.3f}{r['peak_over_bit_matrix']:>20.1f}")
        total = sum(r["seconds"] for r in found)
        goal = GOALS.get(n)
        missed |= goal is not None and total > goal
        print(f"{n:>8}  {'together':<38}{total:>9.3f}" + ("" if goal is None else f"   goal {goal:g} s"))
        rows += found
    print(Host.here(1).line())
    if args.json is not None:
        write_atomic(args.json, json.dumps({"host": Host.here(1).line(), "rows": rows}, indent=1).encode())
    return 5 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
