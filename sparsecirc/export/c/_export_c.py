"""`export_c`: a graph as C99 source files."""

from __future__ import annotations

import os
from pathlib import Path

from numpy.typing import ArrayLike

from sparsecirc.export._export import Export, density_note, gzip_bytes, write_files
from sparsecirc.export.c._exported import as_exported
from sparsecirc.export.c._fixed import merge_linear
from sparsecirc.export.c._golden import make_golden, test_program_text
from sparsecirc.export.c._options import COptions
from sparsecirc.export.c._plan import Plan, make_plan
from sparsecirc.export.c._source import header_text, source_text, state_bytes
from sparsecirc.export.c._text import check_name, snippet
from sparsecirc.ir import Graph

_MARK = "# Written by sparsecirc"


def export_c(
    graph: Graph,
    directory: str | os.PathLike[str],
    *,
    name: str = "net",
    golden: ArrayLike | None = None,
    options: COptions | None = None,
) -> Export:
    """Write ``name.h``, ``name.c``, ``name_test.c`` and a ``Makefile`` into ``directory``.

    The code is C99 (and C++) without allocation: the caller owns a ``name_state``, ``name_init`` clears it,
    ``name_step`` takes one step, ``name_run`` many. Each weight matrix gets the layout with the fewest bytes: dense;
    runs of columns that groups of rows share, which is next to no index for block-diagonal and modular matrices; its
    live connections with u8 columns up to 256 columns, u8 distances or wider columns beyond; the same by tiles of
    16, 8 or 4 rows where the pattern consists of them. The header lists the choices. Products with spikes go by
    columns and skip the silent ones. Every sum runs over ascending columns, so that spikes do not depend on the layout.

    ``bytes`` of the result counts the constants, ``bytes_dense`` the same with dense matrices, ``bytes_gzip`` the
    constants after gzip; machine code (a few kB) comes on top. A ``Makefile`` that sparsecirc did not write stays.

    Args:
        graph: one input; no layer that runs backwards in time, no convolution over time.
        directory: made where it is missing.
        name: of files, functions and types.
        golden: input of the test program, in the layout of ``interpret``; pseudo-random where absent.
        options: number type of the weights, index, arithmetic, activations; exact in float32 where absent. What the
            code then computes is `as_exported(graph, options)`.

    Raises:
        UnsupportedError: the graph cannot go step by step in C; names the node and the cure.
        UsageError: a bad ``name``, a ``golden`` that does not fit, or weights beyond single precision.
    """
    from sparsecirc import __version__

    check_name(name)
    options = options or COptions()
    graph = merge_linear(graph) if options.fixed else graph
    plan = make_plan(graph, name, options)
    data = make_golden(as_exported(graph, options), plan, golden)
    folder = Path(directory)
    texts = {
        folder / f"{name}.h": header_text(graph, plan, name, __version__),
        folder / f"{name}.c": source_text(plan, name, __version__),
        folder / f"{name}_test.c": test_program_text(plan, name, data, __version__),
    }
    makefile = folder / "Makefile"
    notes = [*_notes(graph, plan), *data.notes]
    if makefile.exists() and not makefile.read_text(encoding="utf-8", errors="replace").startswith(_MARK):
        notes.append("the folder has a Makefile of its own, which was left alone: compile with -ffp-contract=off")
    else:
        texts[makefile] = snippet("Makefile", version=__version__)
    paths = write_files({path: text.encode("utf-8") for path, text in texts.items()})
    b = plan.builder
    packed = gzip_bytes(*(c.data.tobytes() for c in b.constants))
    return Export("c", paths, b.constant_bytes, b.dense_bytes, packed, options.form, tuple(notes))


def _notes(graph: Graph, plan: Plan) -> list[str]:
    b = plan.builder
    return [
        density_note(graph),
        f"{b.constant_bytes:,} bytes of constants, {state_bytes(plan):,} bytes of state, {b.carried_bytes:,} of them "
        "live from step to step",
        *(str(m) for m in b.matrices),
    ]
