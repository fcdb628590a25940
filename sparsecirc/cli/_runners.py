"""Run what an export wrote, or the torch model, and compare it with the interpreter."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._choices import Format
from sparsecirc.cli._compare import Row, compare
from sparsecirc.ir import Graph, interpret

if TYPE_CHECKING:
    from sparsecirc.cli._models import Loaded

Inputs = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


def why_not(format_: Format) -> str | None:
    """Why an artefact of this format cannot be run here; ``None`` where it can."""
    if format_ is Format.ONNX and not _has("onnxruntime"):
        return "onnxruntime is not installed: pip install 'sparsecirc[onnx]'"
    if format_ is Format.C and not any(shutil.which(n) for n in ("cc", "gcc", "clang")):
        return "there is no C compiler: install gcc or clang"
    return None


def _has(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def run_artefact(graph: Graph, format_: Format, path: Path, x: Inputs, name: str = "net") -> tuple[Graph, Outputs]:
    """Run a written artefact on ``x``.

    Returns:
        the graph to compare with, which is ``graph`` but for parts the format leaves out, and the outputs.
    """
    if format_ is Format.ONNX:
        from sparsecirc.export.onnx import run_onnx

        return graph, run_onnx(path, x)
    if format_ is Format.NIR:
        from sparsecirc.export.nir import cut_graph, run_nir

        return cut_graph(graph), run_nir(path, graph, x)
    from sparsecirc.export.c import run_c

    return graph, run_c(path, graph, x, name=name)


def check_artefact(loaded: Loaded, format_: Format, path: Path, *, name: str = "net") -> dict[str, Any]:
    """Run a written artefact on an input of 4 samples and 24 steps and compare it with the interpreter."""
    reason = why_not(format_)
    if reason is not None:
        return {"ok": True, "ran_with": None, "why": reason, "outputs": []}
    x = loaded.input(batch=4, steps=24)
    graph, got = run_artefact(loaded.graph, format_, path, x, name)
    rows = compare(graph, format_.value, interpret(graph, x, keep_values=True), got)
    return {"ran_with": runner_name(format_), "why": None, **summary(rows)}


def runner_name(format_: Format) -> str:
    """What runs artefacts of this format here, with its version."""
    if format_ is Format.C:
        return next(n for n in ("cc", "gcc", "clang") if shutil.which(n))
    package = {Format.ONNX: "onnxruntime", Format.NIR: "nir"}[format_]
    return f"{package} {importlib.metadata.version(package)}"


def summary(rows: list[Row]) -> dict[str, Any]:
    """The worst of several rows."""
    worst = max(rows, key=lambda r: r.max_abs / r.tolerance)
    return {
        "ok": all(r.ok for r in rows),
        "max_abs_diff": worst.max_abs,
        "tolerance": worst.tolerance,
        "spike_mismatches": sum(r.mismatches for r in rows),
        "ties": sum(r.ties for r in rows),
        "outputs": [{**asdict(r), "ok": r.ok} for r in rows],
    }


def run_torch(model: Any, graph: Graph, x: Inputs) -> Outputs:
    """Outputs of the torch module in float32, by the graph's output names in the order it returns them."""
    import torch

    with torch.no_grad():
        result = model(*(torch.from_numpy(np.ascontiguousarray(x[n.name])) for n in graph.inputs))
    found = list(tensors(result))
    return {name: t.numpy() for name, t in zip(graph.outputs, found, strict=False)}


def tensors(result: Any) -> list[Any]:
    """Tensors of a module's result, in order, whatever tuples, lists and dicts they are in."""
    if isinstance(result, Mapping):
        return [t for v in result.values() for t in tensors(v)]
    if isinstance(result, (tuple, list)):
        return [t for v in result for t in tensors(v)]
    return [result] if hasattr(result, "detach") else []
