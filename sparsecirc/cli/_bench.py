"""``sparsecirc bench``: the compiled program beside every engine that is installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecirc.cli._choices import Clock
from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out
from sparsecirc.errors import PerformanceError, UsageError

if TYPE_CHECKING:
    from sparsecirc._program import Program
    from sparsecirc.cli._models import Loaded


def program_of(loaded: Loaded) -> Program:
    """The program of a model, compiled now where it brings none."""
    if loaded.program is not None:
        return loaded.program
    from sparsecirc._compile import compile as compile_graph

    return compile_graph(loaded.graph)


def bench(
    out: Out,
    spec: ModelSpec,
    engines: Annotated[str | None, typer.Option("--engines", help="Names with commas; default: all installed.")] = None,
    batch: Annotated[int, typer.Option("--batch", help="Samples per call.")] = 1,
    steps: Annotated[int, typer.Option("--seq-len", help="Time steps per call.")] = 100,
    min_secs: Annotated[float, typer.Option("--min-secs", help="Least seconds to measure each engine.")] = 0.3,
    clock: Annotated[
        Clock | None,
        typer.Option("--clock", help="Seconds of the processor, or on the wall; the wall with several threads."),
    ] = None,
    fail_if_slower: Annotated[
        float | None,
        typer.Option("--fail-if-slower", metavar="X", help="Exit 5 below X times the speed of the best dense engine."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the input where the model brings none.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Also write the JSON document here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Measure microseconds per time step of the program and of each engine, on the same input."""
    from sparsecirc._bench import ENGINES, engines_named
    from sparsecirc._bench import bench as measure
    from sparsecirc.cli._facts import mask_hash
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free, record, write_json

    if min_secs <= 0:
        raise UsageError(f"min-secs is {min_secs}: expected seconds above 0")
    if output is not None:
        check_free(output, force)
    chosen = None if engines is None else engines_named(engines)
    loaded = load(spec, out)
    x = loaded.input(batch=batch, steps=steps, seed=seed)
    program = program_of(loaded)
    # Other jobs hardly change processor time; of several threads it is the sum, which nobody waits for.
    counted = clock or (Clock.PROCESSOR if program.target.threads == 1 else Clock.WALL)
    with out.progress("bench", len(ENGINES) if chosen is None else len(chosen)) as advance:
        report = measure(
            program,
            x,
            model=loaded.model,
            engines=chosen,
            min_seconds=min_secs,
            progress=lambda name: advance(1, name),
            clock=time.process_time if counted is Clock.PROCESSOR else None,
        )
    document = {
        "model": spec.text,
        "mask_hash": mask_hash(loaded.graph, loaded.origin),
        "input": loaded.input_note,
        "clock": counted.value,
        **report.to_json(),
    }
    record(loaded.directory, "bench.json", document)
    if output is not None:
        write_json(output, document)
    said = "processor time" if counted is Clock.PROCESSOR else "time on the wall"
    out.data(document, f"{report}\nmeasured in {said}")
    if fail_if_slower is not None and not report.speedup >= fail_if_slower:
        reached = f"{report.speedup:.2f} times {report.best_dense}" if report.best_dense else "no dense engine ran"
        raise PerformanceError(f"too slow: {reached}, --fail-if-slower asks for {fail_if_slower:g}")
    out.suggest(f"sparsecirc export {spec.text} --format onnx")


COMMAND = Command(
    bench,
    (
        "sparsecirc bench demo:gru",
        "sparsecirc bench runs/gru --engines torch_dense,scipy_csr --batch 1 --seq-len 100",
        "sparsecirc bench runs/gru --fail-if-slower 1.5 --json",
    ),
)
