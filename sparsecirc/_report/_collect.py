"""What lies in an output directory, read into one record per network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsecirc._choice import Explanation
from sparsecirc._program import Program
from sparsecirc.errors import FileFormatError, UnsupportedError
from sparsecirc.ir import Graph, load_graph


@dataclass(frozen=True)
class Run:
    """One network and what is known about it; every part but the graph may be absent.

    Attributes:
        title: for the page.
        where: the directory, as the user named it.
        graph: pruned network.
        dense: the network before pruning.
        explanation: kernel choices.
        packed: bytes of packed weights and of the same weights dense.
        row: the demo's record of this network (accuracies, exports, ...).
        bench: content of ``bench.json``.
        verify: content of ``verify.json``.
        raster: content of ``raster.json``: layer, steps, units, events as (step, unit).
        notes: what could not be read, and why.
        drawings: SVG files that say why, by name.
    """

    title: str
    where: str
    graph: Graph
    dense: Graph | None = None
    explanation: Explanation | None = None
    packed: tuple[int, int] | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    bench: Mapping[str, Any] | None = None
    verify: Mapping[str, Any] | None = None
    raster: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    drawings: Mapping[str, bytes] = field(default_factory=dict)


def collect(directory: Path, shown: Path | None = None) -> list[Run]:
    """The networks of one output directory of ``demo``, ``prune`` or ``compile``.

    Args:
        directory: where the files are now.
        shown: where they will be for the reader, if they are to be moved; the page names this one.

    Raises:
        FileFormatError: it is missing, or holds no network of ours.
    """
    if not directory.is_dir():
        raise FileFormatError(f"{directory} is not a directory: expected an output directory of sparsecirc")
    report = _json(directory / "report.json") or {}
    shown = shown or directory
    if "models" in report:
        return [_run(directory / m["name"], shown / m["name"], m["name"], m) for m in report["models"]]
    return [_run(directory, shown, directory.name, report)]


def _run(directory: Path, shown: Path, title: str, row: Mapping[str, Any]) -> Run:
    path = directory / "graph.safetensors"
    if not path.is_file():
        raise FileFormatError(
            f"{directory} holds no graph.safetensors: expected an output directory of 'sparsecirc prune' or 'demo'"
        )
    dense = directory / "dense.safetensors"
    program, notes = _program(directory / "program.safetensors")
    return Run(
        title=title,
        where=str(shown),
        graph=load_graph(path),
        dense=load_graph(dense) if dense.is_file() else None,
        explanation=None if program is None else program.explain(),
        packed=None if program is None else (program.packed_bytes, program.dense_bytes),
        row=row,
        bench=_json(directory / "bench.json"),
        verify=_json(directory / "verify.json"),
        raster=_json(directory / "raster.json"),
        notes=notes,
        drawings={p.name: p.read_bytes() for p in sorted(directory.glob("why*.svg"))},
    )


def _program(path: Path) -> tuple[Program | None, tuple[str, ...]]:
    if not path.is_file():
        return None, ()
    try:
        return Program.load(path), ()
    except UnsupportedError as error:  # made on another machine: the rest of the page still stands
        return None, (str(error),)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{path} is not valid JSON ({error}): run the command that writes it again") from error
    return data if isinstance(data, dict) else None
