"""What exported C takes of emulated boards: sections, state, stack and instructions, by options and core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.studies._boards import BOARDS, missing_tools, run_board
from benchmarks.studies._export_c import DENSE
from benchmarks.studies._export_models import MODELS, gru
from benchmarks.studies._page import grouped, markdown
from benchmarks.studies._study import Page, Setting, Study, Task
from sparsecirc import Graph
from sparsecirc._bench import example_input
from sparsecirc.errors import SparsecircError
from sparsecirc.export.c import Activations, Arithmetic, COptions, Index, Neurons, Weights, export_c, footprint_c

INT8, BY_8, FAST = Weights.INT8, Arithmetic.INT8, Activations.FAST
STEPS = 20
GATED = (
    DENSE,
    COptions(),
    COptions(index=Index.GAPS),
    COptions(activations=FAST),
    COptions(Weights.INT16),
    COptions(INT8),
    COptions(INT8, arithmetic=BY_8),
    COptions(INT8, arithmetic=BY_8, activations=FAST),
)
SPIKING = (
    DENSE,
    COptions(),
    COptions(Weights.INT16),
    COptions(INT8),
    COptions(Weights.INT16, neurons=Neurons.FIXED),
    COptions(INT8, neurons=Neurons.FIXED),
    COptions(INT8, arithmetic=BY_8, neurons=Neurons.FIXED),
)
GOAL = "gru_128"
GOALS = {"flash": 11.0, "instructions": 3.0}
"""How much less than the dense float32 code, on a Cortex-M4F at 90 % sparsity."""


def _of_study(name: str) -> Graph:
    return MODELS[name]().graph


NETWORKS: Mapping[str, tuple[str, Callable[[], Graph]]] = {
    GOAL: ("GRU of 128 units with 16 inputs, 90 % of all weights pruned", partial(_of_study, "gru_128")),
    "gru_128_4x1": ("the same in blocks of 4x1", partial(gru, 128, 16, 0.1, 4)),
    "demo_snn": ("256 RLeaky and a leaky read-out, 90 % pruned", partial(_of_study, "demo_snn")),
    "neurobench_eeg": ("three layers of Leaky (NeuroBench), 80 % pruned", partial(_of_study, "neurobench_eeg")),
}


@dataclass(frozen=True)
class FootprintRow:
    """A network with one choice of options on one core; bytes without the C library and the application.

    Attributes:
        model: name of the network.
        core: of the board.
        form: the options.
        text: machine code.
        rodata: constants.
        data: variables with a value.
        bss: variables without.
        state: the caller's state struct.
        stack: that a step reaches in the emulator, with the functions of the C library that it calls.
        stack_bound: of the deepest chain of calls, as the compiler tells it, without the C library.
        instructions: of a step, counted by the emulator.
        note: why it was not run.
    """

    model: str
    core: str
    form: str
    text: int | None = None
    rodata: int | None = None
    data: int | None = None
    bss: int | None = None
    state: int | None = None
    stack: int | None = None
    stack_bound: int | None = None
    instructions: float | None = None
    note: str = ""

    @property
    def flash(self) -> int:
        """Code and constants."""
        return (self.text or 0) + (self.rodata or 0) + (self.data or 0)

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """Flash and instructions, or why it did not run."""
        return self.note or f"{self.form}: {self.flash:,} bytes, {self.instructions:,.0f} instructions"


def tasks(setting: Setting) -> Iterator[Task]:
    """Every network on every core."""
    for name in NETWORKS:
        for core in BOARDS:
            if not setting.quick or core == "Cortex-M4F":
                yield Task(f"{name} {core}", partial(_measure, name, core))


def _measure(name: str, core: str) -> list[FootprintRow]:
    if missing_tools():
        return [FootprintRow(name, core, "", note=f"not run: {' '.join(missing_tools())} is not on the path")]
    try:
        graph = NETWORKS[name][1]()
    except SparsecircError as error:
        return [FootprintRow(name, core, "", note=f"not run: {error}")]
    return [_row(name, core, graph, options) for options in (SPIKING if graph.spiking else GATED)]


def _row(name: str, core: str, graph: Graph, options: COptions) -> FootprintRow:
    x = example_input(graph, batch=1, steps=STEPS, seed=3)[graph.inputs[0].name]
    with tempfile.TemporaryDirectory(prefix="sparsecirc-boards-") as folder:
        made = export_c(graph, Path(folder) / "net", options=options)
        sizes = footprint_c(made, core)
        ran = run_board(made, x, core, Path(folder) / "board")
    form = made.form.removeprefix("c99 ").replace("index none", "dense")
    return FootprintRow(
        name, core, form, sizes.text, sizes.rodata, sizes.data, sizes.bss, sizes.state, ran.stack, sizes.stack,
        ran.instructions,
    )  # fmt: skip


HEAD = ("core", "options", "text", "rodata", "data", "bss", "state", "stack", "bound", "instr./step")


def _cells(row: FootprintRow) -> tuple[str, ...]:
    sizes = (row.text, row.rodata, row.data, row.bss, row.state, row.stack, row.stack_bound, row.instructions)
    return row.core, row.form, *(f"{v or 0:,.0f}" for v in sizes)


def table(rows: Sequence[FootprintRow]) -> str:
    """Rows as aligned text."""
    body = [("network", *HEAD), *((r.model, *_cells(r)) for r in rows if r.form)]
    widths = [max(len(line[k]) for line in body) for k in range(len(body[0]))]
    lines = [
        "  ".join(c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in body
    ]
    return "\n".join([*lines, *(f"{r.model} on {r.core}: {r.note}" for r in rows if r.note), *goals(rows)])


def goals(rows: Sequence[FootprintRow]) -> list[str]:
    """The goals beside what was measured, a line for each choice of options that stores integers."""
    here = {(r.model, r.form): r for r in rows if r.core == "Cortex-M4F" and r.form}
    dense = here.get((GOAL, "float32, dense"))
    lines = []
    for (model, form), row in here.items():
        if dense is None or model not in (GOAL, f"{GOAL}_4x1") or form == "float32, dense" or not row.instructions:
            continue
        flash, fewer = dense.flash / row.flash, (dense.instructions or 0) / row.instructions
        met = flash >= GOALS["flash"] and fewer >= GOALS["instructions"]
        line = f"{model}, {form}: {flash:.1f}x less flash, {fewer:.1f}x fewer instructions"
        lines.append(line if met else f"{line} (below the goal)")
    return lines


def page(rows: Sequence[FootprintRow], setting: Setting) -> Page:
    """A table per network, and the goals."""
    parts = [
        "Bytes of the network alone, compiled with `-O2`: neither the C library nor the application is counted. "
        "*state* is the struct that the caller owns. *stack* is what a step reaches in the emulator, library functions "
        "like `tanhf` included; *bound* is the deepest chain of calls as the compiler tells it, without the library. "
        "An emulator counts instructions and knows no cycles.",
        f"The goal, on a Cortex-M4F: at least {GOALS['flash']:g}x less flash and {GOALS['instructions']:g}x fewer "
        "instructions than the dense float32 code of the same network.",
        "\n".join(f"- {line}" for line in goals(rows)),
    ]
    for model, here in grouped([r for r in rows if r.form], lambda r: r.model).items():
        what = NETWORKS[model][0]
        parts += [f"## {model}", f"{what[0].upper()}{what[1:]}.", markdown(HEAD, [_cells(r) for r in here])]
    parts += [f"{r.model} on {r.core}: {r.note}." for r in rows if r.note]
    return Page("\n\n".join(filter(None, parts)) + "\n", {})


FOOTPRINT = Study(
    "footprint",
    "What exported C takes of a microcontroller",
    "no paper; boards emulated by QEMU",
    tasks,
    page,
    row=FootprintRow,
    table=table,
)
