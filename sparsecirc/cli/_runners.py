"""Run what an export wrote, or the torch model, and compare it with the interpreter."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.cli._choices import Format
from sparsecirc.cli._compare import TOLERANCE, Row, compare
from sparsecirc.ir import Graph, Result, TimeReduce, interpret

if TYPE_CHECKING:
    from sparsecirc.cli._models import Loaded
    from sparsecirc.export import Export
    from sparsecirc.export.c import COptions

Inputs = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


SIMULATORS = (Format.BRIAN2, Format.LAVA, Format.NENGO_LOIHI, Format.XYLO, Format.PYNN)
"""Formats for simulators, which run in an environment of their own."""


def why_not(format_: Format, python: Path | None = None) -> str | None:
    """Why an artefact of this format cannot be run here; ``None`` where it can."""
    if format_ is Format.PYNN:
        return "connection lists are read by PyNN"
    if format_ in (Format.XYLO, Format.NENGO_LOIHI):
        return "integers give spikes of their own: the runner beside them runs them, quantise measures what they cost"
    if format_ in SIMULATORS and python is None:
        return f"give --python, an interpreter that has {format_.value}"
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


def run_artefact(graph: Graph, format_: Format, made: Export, x: Inputs) -> tuple[Graph, Outputs]:
    """Run a written artefact on ``x``.

    Returns:
        the graph to compare with, which is ``graph`` but for the last reduction over time that NIR leaves out, and the
        outputs.
    """
    if format_ is Format.ONNX:
        from sparsecirc.export.onnx import run_onnx

        return graph, run_onnx(made.paths[0], x)
    source = x[graph.inputs[0].name]
    if format_ is Format.C:
        from sparsecirc.export.c import run_c

        return graph, run_c(made, source)
    from sparsecirc.frontends import from_nir

    read = from_nir(made.paths[0])
    swap = graph.batch_first
    outputs = interpret(read, np.swapaxes(source, 0, 1) if swap else source).outputs
    return unreduced(graph), {k: np.swapaxes(v, 0, 1) if swap else v for k, v in outputs.items()}


def unreduced(graph: Graph) -> Graph:
    """The same network with the sequences put out that its outputs are reductions of."""
    nodes = {n.name: n for n in graph.nodes}

    def source(value: str) -> str:
        node = nodes.get(value)
        return node.inputs[0] if isinstance(node, TimeReduce) else value

    return replace(graph, outputs={name: source(value) for name, value in graph.outputs.items()})


def check_artefact(
    loaded: Loaded, format_: Format, made: Export, python: Path | None = None, c: COptions | None = None
) -> dict[str, Any]:
    """Run a written artefact on an input of 4 samples and 24 steps and compare it with the interpreter.

    Simulators are run by ``python``, on one sample. C with integers is compared with the network that its words stand
    for; ``rounding`` then says how far that one is from the original.
    """
    reason = why_not(format_, python)
    if reason is not None:
        return {"ok": True, "ran_with": None, "why": reason, "outputs": []}
    if format_ in SIMULATORS:
        return _check_simulator(loaded, made, str(python))
    x = loaded.input(batch=4, steps=24)
    graph, got = run_artefact(loaded.graph, format_, made, x)
    moved: dict[str, float] = {}
    tolerance = TOLERANCE
    if c is not None and c.inexact:
        from sparsecirc.export.c import GOLDEN_TOLERANCE, as_exported

        original, graph = interpret(graph, x).outputs, as_exported(graph, c)
        tolerance = GOLDEN_TOLERANCE[c.arithmetic]
        moved = {"rounding": max(float(np.abs(got[n] - v).max(initial=0.0)) for n, v in original.items())}
    rows = compare(graph, format_.value, interpret(graph, x, keep_values=True), got, tolerance)
    return {"ran_with": runner_name(format_), "why": None, **summary(rows), **moved}


def _check_simulator(loaded: Loaded, made: Export, python: str) -> dict[str, Any]:
    from sparsecirc.hardware import check_simulator, run_simulator

    x = loaded.input(batch=1, steps=24)[loaded.graph.inputs[0].name]
    if made.format == "lava":
        x = (x > np.median(x)).astype(np.float32)  # it takes spikes only
    x = np.swapaxes(x, 0, 1) if loaded.graph.batch_first else x
    found = run_simulator(made, x, python=python)
    report = check_simulator(loaded.graph, x, found)
    return {
        "ran_with": str(found["runner"]),
        "why": None,
        "ok": report.ok,
        "max_abs_diff": report.max_abs_diff,
        "tolerance": 0.0,
        "spike_mismatches": report.spike_mismatches,
        "ties": len(report.ties),
        "outputs": [asdict(o) for o in report.outputs],
    }


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


def run_torch(model: Any, graph: Graph, x: Inputs, reference: Result) -> Outputs:
    """Outputs of the torch module in float32, by the graph's names and in its layout.

    A model of one time step is called once per step, with its states cleared before the first. Where its code does not
    tell whether it loops by itself, both are tried, and the one nearer to ``reference`` is how it is meant.
    """
    import torch

    from sparsecirc.frontends._neurons import clear_states
    from sparsecirc.frontends._run import batch_major, whole

    inputs = [torch.from_numpy(np.ascontiguousarray(x[n.name])) for n in graph.inputs]
    best: tuple[float, Outputs] = (np.inf, {})
    for call in _calls(model):
        step = batch_major(call) if graph.batch_first and call is not whole else call
        clear_states(model)
        with torch.no_grad():
            result = tensors(step(model, *inputs))
        found = {
            name: _in_layout(t.numpy(), reference.outputs[name]) for name, t in zip(graph.outputs, result, strict=False)
        }
        distance = max((_distance(got, reference.outputs[name]) for name, got in found.items()), default=np.inf)
        if not best[1] or distance < best[0]:
            best = distance, found
    return best[1]


def _calls(model: Any) -> list[Any]:
    """The ways in which the forward of ``model`` may be meant."""
    from torch import nn

    from sparsecirc.frontends._neurons import is_neuron
    from sparsecirc.frontends._run import bare_cell, bare_neuron, per_step, plain_sequential, whole

    hidden = [bool(m.init_hidden) for m in model.modules() if is_neuron(m)]
    if isinstance(model, nn.RNNCellBase):
        return [bare_cell]
    if is_neuron(model) and not all(hidden):
        return [bare_neuron]
    if hidden and (is_neuron(model) or plain_sequential(model)):
        return [per_step]
    return [whole, per_step] if hidden and all(hidden) else [whole]


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    return float(np.abs(got - want).max(initial=0.0)) if got.shape == want.shape else np.inf


def _in_layout(got: NDArray[Any], want: NDArray[Any]) -> NDArray[Any]:
    """``got`` with time and batch where ``want`` has them, if that is all that differs."""
    if got.shape == want.shape:
        return got
    if got.ndim > 1 and np.swapaxes(got, 0, 1).shape == want.shape:
        return np.swapaxes(got, 0, 1)
    return got.reshape(want.shape) if got.size == want.size else got


def tensors(result: Any) -> list[Any]:
    """Tensors of a module's result, in order, whatever tuples, lists and dicts they are in."""
    if isinstance(result, Mapping):
        return [t for v in result.values() for t in tensors(v)]
    if isinstance(result, (tuple, list)):
        return [t for v in result for t in tensors(v)]
    return [result] if hasattr(result, "detach") else []
