"""Spiking networks written for simulators that this project did not write, with a runner that needs only those."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecirc._verify import VerifyReport, compare
from sparsecirc.errors import UnsupportedError, UsageError
from sparsecirc.export import Export
from sparsecirc.export._export import density_note, gzip_bytes, write_files
from sparsecirc.hardware._bundle import bundle
from sparsecirc.hardware._chips import LOIHI1, XYLO_AUDIO2, Chip
from sparsecirc.hardware._loihi import LoihiNetwork, stock_neurons
from sparsecirc.hardware._network import Network, network, one_threshold, with_ones
from sparsecirc.hardware._quantise import quantise
from sparsecirc.hardware._xylo import XyloNetwork
from sparsecirc.ir import Graph, Result, interpret

SCRIPTS = Path(__file__).parent / "scripts"
PYNN_HEADER = '# columns = ["i", "j", "weight", "delay"]\n'


def export_brian2(graph: Graph, folder: str | os.PathLike[str]) -> Export:
    """Write a spiking network for Brian2: ``net.npz`` and ``run_brian2.py``, which needs Brian2 and numpy only.

    Every cell and every reset is exact in float64, without a lag between layers: ``python run_brian2.py INPUT.npy
    OUTPUT.npz`` (``--device cpp`` compiles it) gives the spikes of `interpret`.

    Args:
        graph: spiking layers, and weighted sums of spikes between them.
        folder: where the two files go; made where it is missing.

    Raises:
        UnsupportedError: something between the layers is no weighted sum of spikes; named.
    """
    net = network(graph)
    notes = ("spikes act in the same step on the layers behind, as in the graph: no lag per layer",)
    return _write(graph, net, folder, "run_brian2.py", "brian2", {"net.npz": bundle(net)}, notes)


def export_lava(graph: Graph, folder: str | os.PathLike[str], *, chip: Chip | None = None) -> Export:
    """Write a spiking network for Lava's CPU simulation: ``net.npz`` and ``run_lava.py``, which needs lava-nc only.

    Its ``Sparse`` connections and ``LIF`` neurons are set to zero by a spike and have one decay and one threshold per
    layer. In floating point the spikes are those of `interpret`; with ``chip``, Loihi or Loihi 2, the network is stored
    in its integers and run by Lava's bit-accurate models, whose spikes are those of `quantise`.

    Args:
        graph: spiking layers that reset to zero, and weighted sums between them; inputs are spikes.
        folder: where the two files go; made where it is missing.
        chip: `LOIHI1` or `LOIHI2` for integers.

    Raises:
        UnsupportedError: a layer that Lava's neurons cannot be; named, with the cure.
    """
    if chip is None:
        net = one_threshold(with_ones(network(graph)))
        stock_neurons(net)
        data = bundle(net, more={"integers": False})
    else:
        net, data = _loihi(graph, chip)
        stock_neurons(net)
    notes = ("inputs are spikes; its records are moved back by the step that each connection takes",)
    form = "floating point" if chip is None else f"integers of {chip.title}"
    return replace(_write(graph, net, folder, "run_lava.py", "lava", {"net.npz": data}, notes), form=form)


def export_nengo_loihi(graph: Graph, folder: str | os.PathLike[str], *, chip: Chip = LOIHI1) -> Export:
    """Write a spiking network in Loihi's integers for nengo-loihi's emulator: ``net.npz`` and ``run_nengo_loihi.py``.

    What the runner gives is what ``quantise(graph, chip).run(x)`` says, spike by spike.

    Args:
        graph: layers that a spike sets to zero, and weighted sums between them; inputs are spikes.
        folder: where the two files go; made where it is missing.
        chip: `LOIHI1`, or `LOIHI2`, whose arithmetic is the same.

    Raises:
        UnsupportedError: a layer that Loihi cannot store, or a connection between neurons that skips a layer; named.
    """
    net, data = _loihi(graph, chip)
    inner = {p.name for p in net.neurons}
    skipping = next((c for c in net.projections if c.pre in inner and net.delay(c) > 1), None)
    if skipping is not None:
        raise UnsupportedError(
            f"weight '{skipping.name}' skips a layer, but in the emulator every connection takes one step: use Lava"
        )
    notes = ("inputs are spikes; records are moved back by the step that each connection takes",)
    made = _write(graph, net, folder, "run_nengo_loihi.py", "nengo-loihi", {"net.npz": data}, notes)
    return replace(made, form=f"integers of {chip.title}")


def _loihi(graph: Graph, chip: Chip) -> tuple[Network, bytes]:
    """A network in Loihi's integers, and its file."""
    stored = quantise(graph, chip).integers
    if not isinstance(stored, LoihiNetwork):
        raise UnsupportedError(f"{chip.title} is no Loihi: pass LOIHI1 or LOIHI2")
    vectors = {name: vars(n) for name, n in stored.neurons.items()}
    more = {"integers": True, "exponents": dict(stored.exponents)}
    return stored.net, bundle(stored.net, weights=stored.weights, vectors=vectors, more=more)


def export_xylo(graph: Graph, folder: str | os.PathLike[str], *, chip: Chip = XYLO_AUDIO2) -> Export:
    """Write a spiking network in Xylo's integers: ``net.npz`` and ``run_xylo.py``, which needs xylosim only.

    What the runner gives is what ``quantise(graph, chip).integers.on_chip(x)`` says, bit by bit.

    Args:
        graph: synaptic layers that reset by subtraction, and weighted sums between them; inputs are spike counts.
        folder: where the two files go; made where it is missing.
        chip: which Xylo.

    Raises:
        UnsupportedError: a layer that Xylo cannot store; named, with the cure.
    """
    stored = quantise(graph, chip).integers
    if not isinstance(stored, XyloNetwork):
        raise UnsupportedError(f"xylosim runs Xylo, not {chip.title}: pass XYLO_AUDIO2, XYLO_AUDIO3 or XYLO_IMU")
    vectors = {name: vars(n) for name, n in stored.neurons.items()}
    data = bundle(stored.net, weights=stored.weights, vectors=vectors, more={"shifts": dict(stored.shifts)})
    notes = ("what neurons send takes a step: a layer of depth d fires d - 1 steps late",)
    made = _write(graph, stored.net, folder, "run_xylo.py", "xylosim", {"net.npz": data}, notes)
    return replace(made, form=f"integers of {chip.title}")


def export_pynn(graph: Graph, folder: str | os.PathLike[str]) -> Export:
    """Write plain connection lists: one text file per projection, rows of (pre, post, weight, delay in ms).

    The files are what PyNN's ``FromFileConnector`` reads, so that SpiNNaker, BrainScaleS, NEST and Brian2 do through
    PyNN; ``populations.json`` names sizes, decays, thresholds, biases and resets, in steps and in units of the weights.
    Every connection takes one step, one that skips layers as many more, so that a layer of depth d is d steps late.

    Args:
        graph: spiking layers, and weighted sums of spikes between them, with ``dt``.
        folder: where the files go; made where it is missing.

    Raises:
        UnsupportedError: something between the layers is no weighted sum of spikes; named.
        UsageError: the graph has no ``dt``, so that delays have no unit.
    """
    net = network(graph)
    if net.dt is None:
        raise UsageError("the graph has no dt: delays need one, pass dt= when you read the model, e.g. 1e-3")
    files: dict[str, bytes] = {}
    listed: list[dict[str, Any]] = []
    for k, c in enumerate(net.projections):
        pre, post, weight = c.connections
        delay = net.delay(c) * net.dt * 1e3
        rows = "".join(f"{i}\t{j}\t{w!r}\t{delay:g}\n" for i, j, w in zip(pre, post, weight.tolist(), strict=True))
        name = f"connections_{k}.txt"
        files[name] = (PYNN_HEADER + rows).encode()
        listed.append({"file": name, "weight": c.name, "pre": c.pre, "post": c.post, "connections": len(pre)})
    populations = [
        {"name": p.name, "size": p.units, "kind": p.kind, "depth": net.depths[p.name]}
        | {"reset": p.options.reset.value, "delay": p.options.delay, "bias": p.bias.tolist()}
        | {k: v.tolist() for k, v in p.vectors.items()}
        for p in net.populations
    ]
    described = {"dt_ms": net.dt * 1e3, "populations": populations, "projections": listed}
    files = {"populations.json": json.dumps(described, indent=1).encode(), **files}
    notes = ("rows are (pre, post, weight, delay in ms); a layer of depth d fires d steps late",)
    return _write(graph, net, folder, "", "pynn", files, notes)


def _write(
    graph: Graph,
    net: Network,
    folder: str | os.PathLike[str],
    runner: str,
    format_: str,
    files: dict[str, bytes],
    notes: Sequence[str],
) -> Export:
    every = dict(files)
    if runner:
        every[runner] = (SCRIPTS / runner).read_bytes()
        notes = (*notes, f"python {runner} INPUT.npy OUTPUT.npz needs {format_} and numpy, not sparsecirc")
    root = Path(folder)
    paths = write_files({root / name: data for name, data in every.items()})
    size = sum(len(d) for d in files.values())
    full = sum(p.weight.size for p in net.projections)
    live = sum(p.nnz for p in net.projections)
    dense = size if live == 0 else round(size * full / live)
    return Export(
        format_, paths, size, dense, gzip_bytes(*files.values()), "connections",
        (*notes, f"{density_note(graph)}; only those are written", *net.notes),
    )  # fmt: skip


def run_simulator(
    export: Export,
    x: ArrayLike,
    *,
    python: str | os.PathLike[str] = sys.executable,
    options: Sequence[str] = (),
    timeout: float = 600.0,
) -> dict[str, NDArray[Any]]:
    """Run what an exporter wrote, in the interpreter that has the simulator.

    Args:
        export: with a runner among its files.
        x: one input, (T, 1, *features).
        python: the interpreter.
        options: further arguments of the runner.
        timeout: seconds.

    Returns:
        ``"NAME.spk"`` and ``"NAME.mem"`` by layer, (T, units), and ``"runner"``, the simulator with its version.

    Raises:
        UsageError: there is no such interpreter, the export has no runner, the input is a batch, the runner took too
            long, or it failed, with the last line that it said.
    """
    runner = next((p for p in export.paths if p.suffix == ".py"), None)
    array = np.asarray(x)
    if runner is None:
        raise UsageError(f"the export '{export.format}' has no runner: read its files with a program of your own")
    if not Path(python).is_file():
        raise UsageError(f"{os.fspath(python)} is not a file: expected the Python interpreter that has the simulator")
    if array.ndim < 3 or array.shape[1] != 1:
        raise UsageError(f"the input has shape {array.shape}: expected (T, 1, features), runners take one sample")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "x.npy", Path(folder) / "y.npz"
        np.save(source, array.reshape(len(array), -1).astype(np.float64))
        command = [str(Path(python).absolute()), str(runner.resolve()), str(source), str(target), *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, cwd=folder)
        except subprocess.TimeoutExpired:
            raise UsageError(f"{runner.name} gave nothing within {timeout:g} s: pass a longer timeout") from None
        if done.returncode or not target.is_file():
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no words")
            raise UsageError(
                f"{runner.name} ended with code {done.returncode}: {last}; it was run by {os.fspath(python)}"
            )
        with np.load(target, allow_pickle=False) as file:
            return dict(file)


def check_simulator(graph: Graph, x: ArrayLike, found: dict[str, NDArray[Any]]) -> VerifyReport:
    """Compare every spike that a simulator gave with `interpret`, up to the first tie of each layer.

    Args:
        graph: what was exported, time first.
        x: the input it was run on, (T, 1, *features).
        found: what `run_simulator` returned.

    Raises:
        UsageError: the simulator gave no spikes of a layer.
    """
    layers = [n for n in graph.recurrent if n.cell.spiking]
    missing = [n.name for n in layers if f"{n.name}.spk" not in found]
    if missing:
        raise UsageError(f"the simulator gave no spikes of layer '{missing[0]}': it gave {sorted(found)}")
    shown = replace(graph, outputs={n.name: f"{n.name}.spk" for n in layers}, batch_first=False)
    truth = interpret(shown, x, keep_values=True)
    values = {
        f"{n.name}.spk": np.asarray(found[f"{n.name}.spk"], np.float64).reshape(truth.values[f"{n.name}.spk"].shape)
        for n in layers
    }
    outputs = {n.name: values[f"{n.name}.spk"] for n in layers}
    return compare(shown, truth, Result(outputs, {}, values))
