"""`python -m benchmarks.sweeps`: how the cost changes with size, sparsity, batch, length, spike rate and growth."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import _curves as curves
from benchmarks import _machine as machine
from benchmarks import _networks as networks
from benchmarks import _results as results
from benchmarks._forward import CLOCK, Budget, measure
from benchmarks._rows import Measured, Setting, bytes_of, noise, rows_of_report, table
from sparsecirc import bench, compile
from sparsecirc._bench import ENGINES, Host
from sparsecirc._files import write_atomic
from sparsecirc.cells import GRU
from sparsecirc.errors import SparsecircError

FAN_IN = 32
"""Live connections of a unit in a growing network."""
DENSE_UP_TO = 4096
"""Units above which dense engines are left out: a matrix of 16384 x 16384 takes 1 GiB in each of them."""
Point = tuple[float, Measured]


def sizes(budget: Budget) -> Iterator[Point]:
    """A GRU of 128 to 2048 units."""
    for n in (128, 256, 512, 1024) if budget.quick else (64, 128, 256, 512, 1024, 2048):
        graph = networks.gated(GRU, n, 0.1)
        yield n, measure(Setting.of("sweep_size", graph, 1, 50), graph, networks.gated_input(50, 1), budget)


def sparsities(budget: Budget) -> Iterator[Point]:
    """A GRU of 512 units, 50 to 99 % sparse."""
    for sparsity in (0.5, 0.7, 0.9, 0.99) if budget.quick else (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99):
        yield sparsity, _sparse(512, sparsity, budget)


def break_even(budget: Budget) -> Iterator[Point]:
    """The same at other sizes: only where sparse and dense engines cross."""
    for n in () if budget.quick else (128, 256, 1024):
        for sparsity in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95):
            yield sparsity, _sparse(n, sparsity, budget)


def _sparse(n: int, sparsity: float, budget: Budget) -> Measured:
    graph = networks.gated(GRU, n, 1 - sparsity)
    return measure(Setting.of("sweep_sparsity", graph, 1, 50), graph, networks.gated_input(50, 1), budget)


def batches(budget: Budget) -> Iterator[Point]:
    """A GRU of 512 units at batch 1 to 128."""
    graph = networks.gated(GRU, 512, 0.1)
    for batch in (1, 8, 64) if budget.quick else (1, 2, 4, 8, 16, 32, 64, 128):
        yield (
            batch,
            measure(Setting.of("sweep_batch", graph, batch, 20), graph, networks.gated_input(20, batch), budget),
        )


def lengths(budget: Budget) -> Iterator[Point]:
    """A GRU of 512 units, 1 to 500 steps a call."""
    graph = networks.gated(GRU, 512, 0.1)
    for steps in (1, 10, 100) if budget.quick else (1, 2, 5, 10, 20, 50, 100, 200, 500):
        yield steps, measure(Setting.of("sweep_length", graph, 1, steps), graph, networks.gated_input(steps, 1), budget)


def rates(budget: Budget) -> Iterator[Point]:
    """1024 recurrent LIF neurons of which 1 to 30 % spike per step, and as many of their inputs."""
    for rate in (0.02, 0.1) if budget.quick else (0.01, 0.02, 0.05, 0.1, 0.2, 0.3):
        graph, x = networks.spiking(1024, 0.1, 100, 1, rate=rate)
        yield rate, measure(Setting.of("sweep_rate", graph, 1, 100), graph, x, budget)


def growth(budget: Budget) -> Iterator[Point]:
    """One tanh layer with 32 live connections a unit, 512 to 16384 units: the work is linear in units."""
    for n in (512, 2048) if budget.quick else (512, 1024, 2048, 4096, 8192, 16384):
        graph = networks.grown(n, FAN_IN)
        setting = Setting.of("sweep_growth", graph, 1, 20)
        if n <= DENSE_UP_TO:
            yield n, measure(setting, graph, networks.gated_input(20, 1), budget)
            continue
        program = compile(graph, budget.target, cache=None)
        engines = [e for e in ENGINES.values() if not e.dense]
        report = bench(
            program,
            networks.gated_input(20, 1),
            engines=engines,
            min_seconds=budget.seconds,
            rounds=budget.rounds,
            clock=CLOCK,
            progress=lambda name, n=n: budget.say(f"sweep_growth N={n}: {name}"),  # type: ignore[misc]
        )
        bytes_ = {e.name: bytes_of(graph, e.name) for e in engines} | {"sparsecirc": program.packed_bytes}
        kernel = next(c for c in program.choices.values() if c.weight.endswith(".hh")).kernel
        rows = rows_of_report(setting, report, bytes_)  # without a dense engine there is no speed-up to state
        yield n, Measured(tuple(replace(r, speedup_vs_best_dense=0.0) for r in rows), (f"recurrent kernel {kernel}",))


SWEEPS: dict[str, Callable[[Budget], Iterator[Point]]] = {
    "size": sizes,
    "sparsity": sparsities,
    "break_even": break_even,
    "batch": batches,
    "length": lengths,
    "rate": rates,
    "growth": growth,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON and pictures; Ctrl-C keeps what was measured so far."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=(__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="few points of each, about 2 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows, each with its sweep and its x")
    parser.add_argument("--sweep", action="append", choices=SWEEPS, help="only this; may be repeated")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="write the pictures as SVG")
    parser.add_argument("--results", action="store_true", help=f"keep rows and pictures under {results.RESULTS}")
    args = parser.parse_args(argv)
    folder = results.folder_of(Host.here(1)) if args.results else None
    plots = args.plots or folder
    for path in (args.json, folder and folder / "sweeps.json", plots and plots / "size.svg"):
        if path is not None and (why := results.writable(path)):
            parser.error(why)
    import torch

    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {line}", file=sys.stderr, flush=True)

    budget = Budget(args.quick, 0.05 if args.quick else 0.2, 7 if args.quick else 15, say)
    points: list[tuple[str, float, Measured]] = []
    command = results.command_of("benchmarks.sweeps", {"quick": args.quick})
    code = 0
    try:
        for name in args.sweep or SWEEPS:
            points.extend((name, x, found) for x, found in SWEEPS[name](budget))
            if folder is not None:  # after every sweep: what is killed later has not been in vain
                named = [(f"{name}:{x:g}", found) for name, x, found in points]
                whole = results.with_earlier(folder / "sweeps.json", named, list(SWEEPS))
                results.write(folder / "sweeps.json", "sweeps", command, whole)
    except KeyboardInterrupt:
        print("interrupted: what follows was measured before", file=sys.stderr)
        code = 130
    except SparsecircError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    measured = [found for _, _, found in points]
    print(table(measured))
    print(f"one core reads {machine.described(machine.levels())}")
    print(Host.here(1).line())
    if warning := noise(measured):
        print(warning)
    if args.json is not None:
        rows = [{"sweep": name, "x": x, **row.to_record()} for name, x, found in points for row in found.rows]
        write_atomic(args.json, json.dumps(rows, indent=1, allow_nan=False).encode())
    if plots is not None:
        for name, picture in curves.pictures(points, Host.here(1)).items():
            write_atomic(plots / f"{name}.svg", picture.encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
