"""Compile exported C on this machine, run it, and compare it with the interpreter."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc.errors import FileFormatError, MissingExtraError, SparsecircError, UsageError
from sparsecirc.export._export import Export
from sparsecirc.export.c._exported import as_exported
from sparsecirc.export.c._options import COptions
from sparsecirc.export.c._text import snippet
from sparsecirc.ir import Graph, interpret

_FLAGS = ("-std=c99", "-O2", "-ffp-contract=off")


@dataclass(frozen=True)
class CCheck:
    """How compiled C compares with the interpreter in float64.

    Attributes:
        max_abs_diff: largest difference over all outputs that are not spikes.
        spike_mismatches: spikes of output layers that differ.
        spikes: spikes the interpreter counted in those outputs.
        ran_with: the compiler's command.
    """

    max_abs_diff: float
    spike_mismatches: int
    spikes: int
    ran_with: str

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON-able values."""
        return asdict(self)


def compiler() -> list[str]:
    """Command of the host's C compiler: ``$CC``, else cc, gcc or clang.

    Raises:
        MissingExtraError: there is none.
    """
    candidates = [shlex.split(os.environ["CC"])] if os.environ.get("CC", "").strip() else [["cc"], ["gcc"], ["clang"]]
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise MissingExtraError(
        f"running exported C needs a C compiler, none of {', '.join(c[0] for c in candidates)} is on the path: install "
        "one (Debian: apt install gcc) or set CC"
    )


def build(sources: Sequence[Path], target: Path, flags: Sequence[str] = (), command: Sequence[str] = ()) -> None:
    """Compile and link ``sources`` into the program ``target``.

    Raises:
        MissingExtraError: there is no compiler.
        SparsecircError: it refuses the code; carries its first error.
    """
    full = [*(command or compiler()), *(flags or _FLAGS), "-o", str(target), *map(str, sources), "-lm"]
    done = subprocess.run(full, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise SparsecircError(f"'{shlex.join(full)}' failed with {done.returncode}: {errors[0] if errors else ''}")


def read_manifest(header: Path) -> dict[str, Any]:
    """What a caller needs to know of an exported network.

    Raises:
        FileFormatError: the header is not one that ``export_c`` wrote.
    """
    for line in header.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("manifest: "):
            data: dict[str, Any] = json.loads(line.strip().removeprefix("manifest: ").removesuffix(" */"))
            return data
    raise FileFormatError(f"{header} has no manifest line: expected a header that export_c wrote")


def as_samples(data: dict[str, Any], x: ArrayLike) -> tuple[NDArray[Any], int]:
    """Input as (B, T, ...) or (B, ...), and the steps to run."""
    source = data["input"]
    array = np.asarray(x)
    lead = 2 if source["time"] else 1
    if array.ndim != lead + len(source["shape"]) or list(array.shape[lead:]) != source["shape"]:
        axes = ("(B, T" if data["batch_first"] else "(T, B") if source["time"] else "(B"
        raise UsageError(f"input has shape {array.shape}: expected {axes}{''.join(f', {n}' for n in source['shape'])})")
    if source["time"] and not data["batch_first"]:
        array = np.swapaxes(array, 0, 1)
    steps = array.shape[1] if source["time"] else (data["steps"] or 1)
    return np.ascontiguousarray(array, dtype=np.int32 if source["type"] == "int32_t" else np.float32), steps


def run_c(
    export: Export,
    x: ArrayLike,
    *,
    flags: Sequence[str] = (),
    steps: int | None = None,
    compile_with: Sequence[str] = (),
    run_with: Sequence[str] = (),
) -> dict[str, Any]:
    """Compile what :func:`export_c` wrote in a temporary folder and run every sample of ``x`` from a fresh state.

    Args:
        export: what ``export_c`` returned.
        x: in the layout of ``interpret``.
        flags: instead of ``-std=c99 -O2 -ffp-contract=off``.
        steps: steps to present a static input for, instead of those of the graph.
        compile_with: command of a cross compiler, e.g. ``("riscv64-linux-gnu-gcc", "-static")``.
        run_with: what runs its programs, e.g. ``("qemu-riscv64",)``.

    Returns:
        The outputs by name, float32, in the layout of ``interpret``.

    Raises:
        MissingExtraError: there is no C compiler.
        SparsecircError: the compiler or the program fails.
        UsageError: ``x`` does not fit.
    """
    header = next(p for p in export.paths if p.suffix == ".h")
    name, data = header.stem, read_manifest(header)
    samples, length = as_samples(data, x)
    length = length if steps is None else steps
    sequence = any(o["time"] for o in data["outputs"])
    text = snippet(
        "harness.c",
        name=name,
        NAME=name.upper(),
        time=int(data["input"]["time"]),
        sequence=int(sequence),
        input_type=data["input"]["type"],
    )
    with tempfile.TemporaryDirectory(prefix="sparsecirc-") as folder:
        work = Path(folder)
        (work / "harness.c").write_text(text, encoding="utf-8")
        program, given, got = work / "harness", work / "x.bin", work / "y.bin"
        include = f"-I{header.parent.resolve()}"
        build([work / "harness.c", header.with_suffix(".c")], program, [*(flags or _FLAGS), include], compile_with)
        given.write_bytes(input_file(samples, length))
        call = [*run_with, str(program), str(given), str(got)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SparsecircError(
                f"the compiled program of {header.with_suffix('.c')} ended with {done.returncode}: {done.stderr[:500]}"
            )
        raw = np.fromfile(got, dtype=np.float32)
    return read_outputs(data, raw.reshape(len(samples), max(length, 1) if sequence else 1, -1), length)


def input_file(samples: NDArray[Any], length: int) -> bytes:
    """Samples as the programs around an exported network read them."""
    return np.array([len(samples), length], dtype=np.uint32).tobytes() + samples.tobytes()


def read_outputs(data: dict[str, Any], table: NDArray[np.float32], length: int) -> dict[str, Any]:
    """Output structs (B, structs, floats) as arrays by name, in the layout of ``interpret``."""
    outputs = data["outputs"]
    sizes = [max(1, int(np.prod(o["shape"], dtype=np.int64))) for o in outputs]
    arrays: dict[str, Any] = {}
    starts = np.cumsum([0, *sizes])
    for o, start, stop in zip(outputs, starts[:-1], starts[1:], strict=True):
        part = table[..., start:stop].reshape(*table.shape[:2], *o["shape"])
        if o["time"]:
            part = part[:, :length]
            arrays[o["name"]] = part if data["batch_first"] else np.swapaxes(part, 0, 1)
        else:
            arrays[o["name"]] = part[:, -1]
    return arrays


def check_c(
    graph: Graph, export: Export, x: ArrayLike, *, flags: Sequence[str] = (), options: COptions | None = None
) -> CCheck:
    """Compile, run on ``x``, and compare in float64 with ``interpret(as_exported(graph, options), x)``.

    Args:
        graph: what was exported.
        export: what ``export_c`` returned.
        x: in the layout of ``interpret``.
        flags: as of :func:`run_c`.
        options: those of the export. Without them the comparison is with ``graph`` as it is, which shows what integer
            weights cost.

    Raises:
        MissingExtraError: there is no C compiler.
        SparsecircError: the compiler or the program fails.
        UsageError: ``x`` does not fit.
    """
    header = next(p for p in export.paths if p.suffix == ".h")
    spiking = {o["name"] for o in read_manifest(header)["outputs"] if o["spikes"]}
    array = np.asarray(x)
    exported = graph if options is None else as_exported(graph, options)
    expected = interpret(exported, array.astype(np.float32) if array.dtype.kind == "f" else array).outputs
    got = run_c(export, x, flags=flags)
    worst, wrong, spikes = 0.0, 0, 0
    for key, want in expected.items():
        if key in spiking:
            wrong += int(np.count_nonzero(got[key] != want))
            spikes += int(np.count_nonzero(want))
        elif want.size:
            worst = max(worst, float(np.max(np.abs(got[key] - want))))
    return CCheck(worst, wrong, spikes, shlex.join(compiler()))
