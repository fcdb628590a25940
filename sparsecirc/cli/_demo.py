"""``sparsecirc demo``: the main job from training to exports, on data that needs no download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecirc.cli._command import Command
from sparsecirc.cli._console import Out


def demo(
    out: Out,
    output: Annotated[Path, typer.Option("-o", "--output", help="Directory to write.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller networks and fewer epochs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Train, prune, compile, verify, measure and export a GRU and a spiking network; write a report."""
    from sparsecirc.cli._outputs import staged, write_manifest
    from sparsecirc.demo import run_demo

    with staged(output, force=force) as stage:
        result = run_demo(stage, quick=quick, say=out.say, shown=output)
        for folder in sorted(p.parent for p in stage.glob("*/graph.safetensors")):
            # The quick networks are smaller than the built-in ones, so there is no torch module to go back to.
            write_manifest(folder, "prune", origin={} if quick else {"model": f"demo:{folder.name}"})
        write_manifest(stage, "demo")
    out.data(result.to_json(), str(result))
    out.say(f"written to {output}: open {output / 'report.html'}")
    out.suggest(f"sparsecirc inspect {output / 'gru'} --per-gate")


COMMAND = Command(demo, ("sparsecirc demo", "sparsecirc demo --quick -o runs/quick --force"), model=False)
