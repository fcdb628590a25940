"""Emulated Cortex-M boards and foreign hosts that run exported C; the applications are those of ``export/boards``."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecirc.errors import SparsecircError
from sparsecirc.export import Export
from sparsecirc.export.c._host import as_samples, input_file, read_manifest, read_outputs, run_c

SOURCES = Path(__file__).parents[2] / "export" / "boards"
BOARDS = {
    "Cortex-M3": "mps2-an385",
    "Cortex-M4F": "mps2-an386",
    "Cortex-M7": "mps2-an500",
    "Cortex-M33": "mps2-an505",
    "Cortex-M55": "mps3-an547",
}
"""The emulator's name of a board by core. The Cortex-M3 has no floating-point unit."""
LARGE = {"Cortex-M3": "mps2-large.ld", "Cortex-M4F": "mps2-large.ld", "Cortex-M7": "mps2-large.ld",
         "Cortex-M55": "mps3-an547-large.ld"}  # fmt: skip
"""Linker scripts that put the constants of a network into external memory."""
LIMIT_S = 120


@dataclass(frozen=True)
class Host:
    """A machine with an operating system, for ``run_c``.

    Attributes:
        compile_with: command of the compiler.
        run_with: what runs its programs; nothing on the host itself.
        count_with: an emulator that can count its instructions.
    """

    compile_with: tuple[str, ...]
    run_with: tuple[str, ...] = ()
    count_with: str = ""

    @property
    def missing(self) -> list[str]:
        """Programs that are not installed."""
        return [c[0] for c in (self.compile_with, self.run_with) if c and shutil.which(c[0]) is None]


HOSTS = {
    "gcc x86": Host(("gcc",), (), "qemu-x86_64"),
    "clang x86": Host(("clang",)),
    "qemu aarch64": Host(("aarch64-linux-gnu-gcc", "-static"), ("qemu-aarch64",), "qemu-aarch64"),
    "qemu riscv64": Host(("riscv64-linux-gnu-gcc", "-static"), ("qemu-riscv64",), "qemu-riscv64"),
}


@dataclass(frozen=True)
class BoardRun:
    """What a board made of an input.

    Attributes:
        outputs: by name, in the layout of ``interpret``.
        instructions: per step.
        flash: bytes of code and constants of the network, without the C library.
        stack: bytes of a step, with the functions of the C library that it calls.
        external: whether the constants lie in external memory, because they do not fit into the core's own.
    """

    outputs: dict[str, Any]
    instructions: float
    flash: int
    stack: int
    external: bool = False


COUNTED = 1_000_000
"""Instructions that are counted at most, or one step; each is a line in the emulator's log."""


def count_instructions(host: Host, export: Export, x: Any, folder: Path, flags: Sequence[str]) -> float | None:
    """Instructions of a step on ``host``, with reading its input and writing its output; ``None`` without an emulator.

    Args:
        host: one of `HOSTS`.
        export: what ``export_c`` returned.
        x: one sample, in the layout of ``interpret``; steps are taken from its start.
        folder: for the count.
        flags: of the compiler.
    """
    if not host.count_with or shutil.which(host.count_with) is None:
        return None
    data = read_manifest(next(p for p in export.paths if p.suffix == ".h"))
    _, length = as_samples(data, x)
    count = folder / "count.txt"
    emulate = f'{host.count_with} -singlestep -d exec,nochain -D /dev/stdout "$@" | grep -c ^Trace > {count}'

    def counted(steps: int) -> int:
        part = (x[:, :steps] if data["batch_first"] else x[:steps]) if data["input"]["time"] else x
        run_c(export, part, flags=flags, steps=steps, compile_with=(host.compile_with[0], "-static"),
              run_with=("sh", "-c", emulate, "sh"))  # fmt: skip
        return int(count.read_text())

    nothing, one = counted(0), counted(1)
    steps = min(length, COUNTED // max(one - nothing, 1))
    return float(one - nothing) if steps < 2 else (counted(steps) - nothing) / steps


def missing_tools() -> list[str]:
    """Programs that boards need and that are not installed."""
    return [c for c in ("make", "arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(c) is None]


def run_board(export: Export, x: ArrayLike, core: str, folder: Path, cflags: Sequence[str] = ()) -> BoardRun:
    """Build the application of ``export/boards`` around a network called ``net``, and run it in the emulator.

    Args:
        export: what ``export_c`` returned, with ``name="net"``.
        x: in the layout of ``interpret``; every sample starts from a fresh state.
        core: a key of `BOARDS`.
        folder: for objects, input and output.
        cflags: more flags of the compiler.

    Raises:
        SparsecircError: the build or the program fails, or takes longer than `LIMIT_S`.
    """
    header = next(p for p in export.paths if p.suffix == ".h")
    data = read_manifest(header)
    samples, length = as_samples(data, x)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x.bin").write_bytes(input_file(samples, length))
    external = False
    try:
        said = make_board(header.parent, core, folder, ("run", "size"), cflags)
    except SparsecircError as error:
        if "will not fit in region" not in str(error) or core not in LARGE:
            raise
        external = True
        said = make_board(header.parent, core, folder, (f"SCRIPT={LARGE[core]}", "run", "size"), cflags)
    count = re.search(r"instructions per step: (\d+)", said)
    stack = re.search(r"stack of a step: (\d+)", said)
    size = re.search(r"^\s*(\d+)\s+(\d+)\s+\d+\s+\d+", said, re.MULTILINE)
    if count is None or stack is None or size is None:
        raise SparsecircError(f"the application on {core} said {said[-300:]!r}: expected its instructions and sizes")
    raw = np.fromfile(folder / "y.bin", np.float32).reshape(len(samples), length, -1)
    return BoardRun(
        read_outputs(data, raw, length), float(count[1]), int(size[1]) + int(size[2]), int(stack[1]), external
    )


def make_board(
    net: Path, core: str, folder: Path, targets: Sequence[str], cflags: Sequence[str] = (), typed: str = ""
) -> str:
    """Run targets of ``export/boards/Makefile``; returns what was said.

    Args:
        net: folder of the exported network.
        core: a key of `BOARDS`.
        folder: for objects, input and output.
        targets: of the Makefile; a variable like ``APP=stream`` may be among them.
        cflags: more flags of the compiler.
        typed: what an application reads from the serial line.

    Raises:
        SparsecircError: one fails, or takes longer than `LIMIT_S`.
    """
    call = ["make", "-s", "-C", str(SOURCES), f"BOARD={BOARDS[core]}", f"NET_DIR={net.resolve()}"]
    call += [f"BUILD={folder.resolve()}", f"CFLAGS={' '.join(cflags)}", *targets]
    try:
        done = subprocess.run(call, input=typed, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise SparsecircError(f"{' '.join(targets)} on {core} took longer than {LIMIT_S} s") from None
    if done.returncode:
        raise SparsecircError(f"{' '.join(targets)} on {core} failed: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout
