"""What exported C takes of a microcontroller: sections of the object file, and stack by the compiler's call graph."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparsecirc.errors import MissingExtraError, SparsecircError, UsageError
from sparsecirc.export._export import Export

CORES: Mapping[str, tuple[str, ...]] = {
    "Cortex-M3": ("-mcpu=cortex-m3",),
    "Cortex-M4F": ("-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    "Cortex-M7": ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "Cortex-M33": ("-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    "Cortex-M55": ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
}
"""Flags of the compiler by core; the Cortex-M3 has no floating-point unit."""
_COMPILER = "arm-none-eabi-gcc"
_FLAGS = ("-mthumb", "-std=c99", "-O2", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections")
_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"
_NODE = re.compile(r'^node: \{ title: "([^"]+)"')
_OWN = re.compile(r"\\n(\d+) bytes \(([a-z,]+)\)")
_EDGE = re.compile(r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


@dataclass(frozen=True)
class Footprint:
    """Bytes that a network takes, without the C library and without the application.

    Attributes:
        core: name of the core.
        text: machine code.
        rodata: constants, in flash.
        data: variables with a value; exported code has none.
        bss: variables without; exported code has none, its memory is the caller's.
        state: the caller's state struct.
        stack: of the deepest call of an exported function, as the compiler tells it; functions of the library that
            it calls come on top.
        calls: functions of the library that the code needs.
    """

    core: str
    text: int
    rodata: int
    data: int
    bss: int
    state: int
    stack: int
    calls: tuple[str, ...]

    @property
    def flash(self) -> int:
        """Code, constants, and the start values of variables."""
        return self.text + self.rodata + self.data

    @property
    def ram(self) -> int:
        """Variables, the state and the stack."""
        return self.data + self.bss + self.state + self.stack

    def to_json(self) -> dict[str, Any]:
        """All fields, with the sums, as JSON-able values."""
        return {**asdict(self), "calls": list(self.calls), "flash": self.flash, "ram": self.ram}


def footprint_c(export: Export, core: str = "Cortex-M4F", *, flags: Sequence[str] = ()) -> Footprint:
    """Compile what ``export_c`` wrote for a core, and read sizes and stack from what the compiler says.

    Args:
        export: what ``export_c`` returned.
        core: a key of `CORES`.
        flags: more flags of the compiler, e.g. ``("-Os",)``.

    Raises:
        UsageError: a core that is not listed.
        MissingExtraError: the cross compiler is not installed.
        SparsecircError: it refuses the code.
    """
    if core not in CORES:
        raise UsageError(f"core '{core}' is unknown: expected one of {', '.join(CORES)}")
    if shutil.which(_COMPILER) is None:
        raise MissingExtraError(f"sizes for a {core} need {_COMPILER}: install it (Debian: apt install {_PACKAGES})")
    header = next(p for p in export.paths if p.suffix == ".h")
    with tempfile.TemporaryDirectory(prefix="sparsecirc-footprint-") as folder:
        target = Path(folder) / "net.o"
        call = [_COMPILER, *CORES[core], *_FLAGS, *flags, "-fcallgraph-info=su", f"-I{header.parent.resolve()}", "-c"]
        _run([*call, "-o", str(target), str(header.with_suffix(".c").resolve())], folder)
        sizes = _run(["arm-none-eabi-size", "-A", str(target)], folder)
        graph = target.with_suffix(".ci").read_text(encoding="utf-8")
    sections = {"text": 0, "rodata": 0, "data": 0, "bss": 0}
    for kind, size in re.findall(r"^\.(text|rodata|data|bss)\S*\s+(\d+)", sizes, re.MULTILINE):
        sections[kind] += int(size)
    state = re.search(r"_STATE_BYTES (\d+)u", header.read_text(encoding="utf-8"))
    stack, calls = read_call_graph(graph)
    return Footprint(core, **sections, state=int(state[1]) if state else 0, stack=stack, calls=calls)


def _run(call: list[str], folder: str) -> str:
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SparsecircError(f"'{shlex.join(call)}' failed with {done.returncode}: {done.stderr.strip()[:300]}")
    return done.stdout


def read_call_graph(text: str) -> tuple[int, tuple[str, ...]]:
    """Stack of the deepest chain of calls in a file of ``-fcallgraph-info=su``, and the functions beyond it.

    Raises:
        SparsecircError: a function calls itself, directly or through others, or takes stack without a bound.
    """
    own: dict[str, int] = {}
    beyond: set[str] = set()
    called: dict[str, set[str]] = {}
    for line in text.splitlines():
        if (node := _NODE.match(line)) is not None:
            taken = _OWN.search(line)
            if taken is None:
                beyond.add(node[1])
            elif taken[2] not in ("static", "dynamic,bounded"):
                raise SparsecircError(f"{node[1]} takes stack without a bound ({taken[2]}): expected none in C99 code")
            else:
                own[node[1]] = int(taken[1])
        elif (edge := _EDGE.match(line)) is not None:
            called.setdefault(edge[1], set()).add(edge[2])
    depth: dict[str, int] = {}

    def deepest(function: str, above: tuple[str, ...]) -> int:
        if function in above:
            raise SparsecircError(f"{function} calls itself through {' > '.join(above)}: its stack has no bound")
        if function not in depth:
            below = (deepest(f, (*above, function)) for f in called.get(function, ()))
            depth[function] = own.get(function, 0) + max(below, default=0)
        return depth[function]

    return max((deepest(f, ()) for f in own), default=0), tuple(sorted(beyond))
