"""The main job, end to end: train, prune, compile, verify, measure, export, run the exports, report."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save as encode

from sparsecirc._bench import BenchReport, bench
from sparsecirc._compile import compile as compile_graph
from sparsecirc._files import write_atomic
from sparsecirc._prune import Sparsity
from sparsecirc._report import render
from sparsecirc._verify import verify
from sparsecirc.data import Dataset, digits
from sparsecirc.demo._models import network
from sparsecirc.demo._report import DemoReport, ExportRow, ModelRow
from sparsecirc.demo._train import Trainer
from sparsecirc.errors import MissingExtraError, UnsupportedError
from sparsecirc.export import Export
from sparsecirc.export.c import check_c, export_c
from sparsecirc.export.nir import check_nir, export_nir
from sparsecirc.export.onnx import check_onnx, export_onnx
from sparsecirc.frontends import to_graph
from sparsecirc.ir import Graph, interpret, save_graph

Say = Callable[[str], None]

STREAM_STEPS = 96
"""Steps of a timed call: a dozen digits one after the other."""

VERIFY_SAMPLES = 64


@dataclass(frozen=True)
class Plan:
    """One network of the demo."""

    name: str
    title: str
    spiking: bool
    units: int
    train_epochs: int
    prune_epochs: int
    sparsity: Sparsity


PLANS = (
    Plan("gru", "GRU classifier", False, 256, 25, 25, {"*.hh": 0.92, "*.ih": 0.5}),
    Plan("snn", "recurrent spiking classifier", True, 256, 20, 25, {"*.hh": 0.92, "fc1.weight": 0.5}),
)
"""The recurrent weights are nearly all there is; with the input weights about 90 % of the connections go."""

QUICK = (
    Plan("gru", "GRU classifier", False, 64, 6, 6, {"*.hh": 0.92, "*.ih": 0.5}),
    Plan("snn", "recurrent spiking classifier", True, 64, 4, 4, {"*.hh": 0.92, "fc1.weight": 0.5}),
)


def run_demo(
    directory: Path, *, seed: int = 0, quick: bool = False, say: Say = lambda _: None, shown: Path | None = None
) -> DemoReport:
    """Run the main job on a gated and a spiking network and write everything below ``directory``.

    Args:
        directory: receives ``report.json``, ``report.html`` and a folder per network: weights, masks, graphs, program,
            bench and verify results, exports.
        seed: of initial weights, sample order and noise.
        quick: smaller networks and fewer epochs; the accuracy then means little.
        say: told what goes on, a line each.
        shown: where ``directory`` will be in the end, for the commands on the page; ``directory`` itself by default.

    Raises:
        MissingExtraError: scikit-learn, torch or snntorch is absent.
    """
    started = time.monotonic()
    dataset = digits()
    rows, host = [], {}
    for plan in QUICK if quick else PLANS:
        row, measured = _one(plan, dataset, directory / plan.name, seed, say)
        rows.append(row)
        host = measured.host.to_json()
    report = DemoReport(host, tuple(rows), time.monotonic() - started)
    _write_json(directory / "report.json", report.to_json())
    write_atomic(directory / "report.html", render([directory], shown=[shown or directory]).encode())
    return report


def _one(plan: Plan, dataset: Dataset, directory: Path, seed: int, say: Say) -> tuple[ModelRow, BenchReport]:
    def progress(phase: str, epoch: int, epochs: int, loss: float) -> None:
        if epoch % 5 == 0 or epoch == epochs:
            say(f"{plan.title}: {phase} epoch {epoch}/{epochs}, loss {loss:.3f}")

    model = network(plan.name, plan.units, seed)
    trainer = Trainer(model, dataset, plan.spiking, seed, progress)
    trainer.train(plan.train_epochs)
    accuracy_dense = _share(trainer.predictions(), dataset)
    x_test = trainer.inputs(dataset.x_test)
    example = x_test[:, :1] if plan.spiking else x_test[:1]
    dt = 1e-3 if plan.spiking else None
    save_graph(to_graph(model, example=example, dt=dt), directory / "dense.safetensors")
    masks = trainer.prune(plan.sparsity, plan.prune_epochs)
    graph = to_graph(model, example=example, masks=masks, dt=dt)
    masks.save(directory / "masks.safetensors")
    write_atomic(directory / "model.safetensors", encode(model.state_dict()))
    save_graph(graph, directory / "graph.safetensors")

    say(f"{plan.title}: compile, verify, measure")
    program = compile_graph(graph)
    program.save(directory / "program.safetensors")
    accuracy = _share(program.run(x_test).y.argmax(axis=-1), dataset)
    part = x_test[:, :VERIFY_SAMPLES] if plan.spiking else x_test[:VERIFY_SAMPLES]
    verified = verify(program, part, reference=graph)
    _write_json(directory / "verify.json", verified.to_json())
    if plan.spiking:
        _write_json(directory / "raster.json", _raster(graph, example))
    measured = bench(program, example, model=model, seq_len=STREAM_STEPS)
    _write_json(directory / "bench.json", measured.to_json())

    say(f"{plan.title}: export and run what was written")
    exports = _exports(graph, directory / "exports", part)
    return (
        ModelRow(
            name=plan.name,
            kind="spiking" if plan.spiking else "gated",
            density=masks.density,
            accuracy_dense=accuracy_dense,
            accuracy_pruned=accuracy,
            us_per_step=measured.us_per_step,
            speedup_vs_best_dense=measured.speedup if measured.best_dense else None,
            best_dense=measured.best_dense,
            verify={
                "ok": verified.ok,
                "max_abs_diff": verified.max_abs_diff,
                "spike_mismatches": verified.spike_mismatches,
                "spikes": verified.spikes,
                "ties": len(verified.ties),
            },
            bytes_packed=program.packed_bytes,
            bytes_dense=program.dense_bytes,
            exports=exports,
        ),
        measured,
    )


def _share(guess: np.ndarray, dataset: Dataset) -> float:
    return float((guess == dataset.y_test).mean())


def _write_json(path: Path, data: Any) -> None:
    write_atomic(path, json.dumps(data, indent=2).encode())


def _raster(graph: Graph, x: np.ndarray) -> dict[str, Any]:
    """Spikes of the first spiking layer on one sample."""
    layer = next(n for n in graph.recurrent if n.cell.spiking)
    spikes = interpret(graph, x, keep_values=True).values[f"{layer.name}.spk"][:, 0]
    events = [[int(t), int(u)] for t, u in np.argwhere(spikes > 0)]
    return {"layer": layer.name, "steps": len(spikes), "units": layer.units, "events": events}


def _exports(graph: Graph, directory: Path, x: np.ndarray) -> dict[str, ExportRow]:
    """Every format that the network has, written, run and compared; what cannot be run says why."""
    rows = {}
    onnx = export_onnx(graph, directory / "net.onnx")
    rows["onnx"] = _row(onnx, lambda: _onnx_check(graph, onnx, x))
    c = export_c(graph, directory / "c")
    rows["c"] = _row(c, lambda: _c_check(graph, c, x))
    if graph.spiking:
        nir = export_nir(graph, directory / "net.nir")
        rows["nir"] = _row(nir, lambda: _nir_check(graph, nir, x))
    return rows


def _onnx_check(graph: Graph, made: Export, x: np.ndarray) -> tuple[float, int, str]:
    found = check_onnx(graph, made, x)
    version = importlib.metadata.version("onnxruntime")
    return max(found.max_abs_diff.values()), sum(found.spike_mismatches.values()), f"onnxruntime {version}"


def _c_check(graph: Graph, made: Export, x: np.ndarray) -> tuple[float, int, str]:
    found = check_c(graph, made, x)
    return found.max_abs_diff, found.spike_mismatches, found.ran_with


def _nir_check(graph: Graph, made: Export, x: np.ndarray) -> tuple[float, int, str]:
    found = check_nir(graph, made, x)
    return (
        found.max_abs_diff,
        found.spike_mismatches,
        f"nir {importlib.metadata.version('nir')} and a float64 Euler run",
    )


def _row(made: Export, check: Callable[[], tuple[float, int, str]]) -> ExportRow:
    try:
        diff, mismatches, ran_with = check()
    except (MissingExtraError, UnsupportedError) as error:
        return ExportRow(made.bytes, made.bytes_dense, made.bytes_gzip, None, 0, f"nothing: {error}")
    return ExportRow(made.bytes, made.bytes_dense, made.bytes_gzip, diff, mismatches, ran_with)
