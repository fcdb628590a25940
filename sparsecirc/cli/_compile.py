"""``sparsecirc compile``: choose a layout and a kernel per weight and write the program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sparsecirc.cli._choices import Dtype, IsaName
from sparsecirc.cli._command import Command, ModelSpec
from sparsecirc.cli._console import Out, human_bytes

if TYPE_CHECKING:
    from sparsecirc._program import Program
    from sparsecirc.cli._models import Loaded


def compile_(
    out: Out,
    spec: ModelSpec,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Program file. Default: program.safetensors in MODEL's directory."),
    ] = None,
    isa: Annotated[
        IsaName | None, typer.Option("--isa", help="Force an instruction set; default: the best here.")
    ] = None,
    kernel: Annotated[
        str | None, typer.Option("--kernel", help="Force a kernel by name, or fail with its reason.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Number type of the packed weights.")] = Dtype.F32,
    threads: Annotated[int, typer.Option("--threads", help="Most threads the program may use.")] = 1,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Measure now, whatever was measured before, and keep nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")] = False,
) -> None:
    """Compile a model to sparse kernels; prints the kernel of every weight and why it was chosen."""
    from sparsecirc._compile import compile as compile_graph
    from sparsecirc._target import Target
    from sparsecirc._tuning import USER_CACHE
    from sparsecirc.cli._facts import mask_hash
    from sparsecirc.cli._models import load
    from sparsecirc.cli._outputs import check_free

    loaded = load(spec, out)
    path = program_path(loaded, output)
    if path is not None:
        check_free(path, force)
    target = Target.cpu(None if isa is None else isa.value, dtype=dtype.value, threads=threads)
    program = compile_graph(loaded.graph, target, kernel=kernel, cache=None if no_cache else USER_CACHE)
    for note in loaded.notes:
        out.say(note)
    if path is not None:
        _save(program, path, loaded)
    explained = program.explain()
    document = {
        "model": spec.text,
        "program": path,
        "packed_bytes": program.packed_bytes,
        "density": loaded.graph.density,
        "mask_hash": mask_hash(loaded.graph, loaded.origin),
        "explain": explained.to_json(),
    }
    out.data(document, str(explained), f"packed weights: {human_bytes(program.packed_bytes)}")
    if path is None:
        out.say("nothing was written: pass -o FILE to keep the program")
        out.suggest(f"sparsecirc bench {spec.text}")
    else:
        out.say(f"program written to {path}")
        out.suggest(f"sparsecirc verify {loaded.directory or path}")


def program_path(loaded: Loaded, output: Path | None) -> Path | None:
    """Where the program goes; ``None`` where nothing is written."""
    from sparsecirc.cli._models import PROGRAM_FILE

    if output is None:
        return None if loaded.directory is None else loaded.directory / PROGRAM_FILE
    if output.is_dir():
        return output / PROGRAM_FILE
    return output if output.suffix else output.with_name(f"{output.name}.safetensors")


def _save(program: Program, path: Path, loaded: Loaded) -> None:
    from sparsecirc.cli._outputs import refresh_manifest, staged_files

    with staged_files(path, force=True) as stage:
        program.save(stage / path.name)
    if loaded.directory is not None and path.parent.samefile(loaded.directory):
        refresh_manifest(loaded.directory)


COMMAND = Command(
    compile_,
    (
        "sparsecirc compile runs/gru",
        "sparsecirc compile demo:snn -o snn.safetensors --isa avx2",
        "sparsecirc compile runs/gru --kernel csr --force --json",
    ),
)
