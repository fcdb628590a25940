"""`export_nir`: a graph to a NIR file."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from sparsecirc.cells import ALIF, LI, Reset
from sparsecirc.errors import UnsupportedError, missing_extra
from sparsecirc.export._export import Export, as_path, density_note, gzip_bytes, write_files
from sparsecirc.export.nir._check import Check, check
from sparsecirc.export.nir._emit import Builder, emit_stateless
from sparsecirc.export.nir._euler import NIR_DT
from sparsecirc.export.nir._metadata import pack
from sparsecirc.export.nir._neurons import (
    emit_adaptive,
    emit_integrator,
    emit_lost_update,
    emit_subtract,
    emit_zero,
)
from sparsecirc.export.nir._prepare import Cut, cut, expand, ports_read
from sparsecirc.export.nir._profile import Profile, check_layer, dialect_obstacle, subtract_obstacle, zero_reset
from sparsecirc.ir import Flatten, Graph, Recurrent


def nir_module(why: str) -> ModuleType:
    """The ``nir`` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import nir
    except ImportError as error:
        raise missing_extra("nir", "nir", why) from error
    module: ModuleType = nir
    return module


@dataclass(frozen=True)
class NirGraph:
    """A NIR graph made of one of ours.

    Attributes:
        graph: the ``nir.NIRGraph``.
        spikes: our spiking layer -> path of the NIR node that fires.
        outputs: our output name -> name of the NIR Output node.
        notes: what the user should know.
    """

    graph: Any
    spikes: dict[str, str]
    outputs: dict[str, str]
    notes: tuple[str, ...]


def export_nir(
    graph: Graph,
    path: str | os.PathLike[str],
    *,
    profile: Profile = Profile.AUTO,
    allow_approximate: bool = False,
    seed: int = 0,
) -> Export:
    """Write a spiking network as a NIR file that gives the same spikes, and prove it.

    NIR's neurons are differential equations; the file is exact if the forward Euler method at dt = 1e-4 s, which
    readers use, gives the spikes of :func:`sparsecirc.ir.interpret`. That is so for membranes set to zero by a spike,
    and, through the ``SUBTRACT`` profile, for every other reset of snntorch's neurons. The finished file's graph is run
    in float64 on random input and every spike of every layer compared before anything is written; notes say the count.
    The step of the network is carried as metadata; time constants in the file are in steps of 1e-4 s.

    Args:
        graph: linear, convolution, average pooling, flatten and spiking layers; a last reduction over time is left out.
        path: the file; ``.nir`` is appended where there is no suffix.
        profile: how neurons are written.
        allow_approximate: write resets that NIR cannot express as resets to zero, and say how many spikes differ.
        seed: of the input of the comparison.

    Raises:
        UnsupportedError: a layer cannot be written, or not exactly; names it, the reason and the cure.
        MissingExtraError: the package ``nir`` is not installed.
    """
    nir = nir_module("writing NIR files")
    for layer in graph.recurrent:
        check_layer(layer)
    step_graph = cut(graph)
    tries = (Profile.DIALECT, Profile.SUBTRACT) if profile is Profile.AUTO else (profile,)
    reason = ""
    for attempt in tries:
        reason = obstacles(step_graph.graph, attempt)
        if reason:
            continue
        made = build(nir, step_graph, attempt)
        result = check(made.graph, step_graph.graph, made.spikes, made.outputs, seed)
        if result.exact:
            return _write(nir, made, path, attempt.value, graph, result)
        reason = f"in the profile '{attempt.value}' {result.words()}"
    if allow_approximate:
        made = build(nir, step_graph, Profile.DIALECT)
        result = check(made.graph, step_graph.graph, made.spikes, made.outputs, seed)
        return _write(nir, made, path, "dialect, approximate", graph, result, f"not exact: {reason}")
    raise UnsupportedError(
        f"the network cannot be written to NIR with the same spikes: {reason}; or export to ONNX or "
        "C, or pass allow_approximate=True to write resets to zero instead, with a measured difference"
    )


def obstacles(graph: Graph, profile: Profile) -> str:
    """Why ``graph`` cannot be written exactly in ``profile``, for the first layer that cannot; else empty."""
    test = dialect_obstacle if profile is Profile.DIALECT else subtract_obstacle
    ports = ports_read(graph)
    for layer in graph.recurrent:
        why = test(layer, ports[layer.name])
        if why is not None:
            hint = (
                ""
                if profile is not Profile.DIALECT or subtract_obstacle(layer, ports[layer.name])
                else (" (profile=Profile.SUBTRACT holds it)")
            )
            return f"layer '{layer.name}': {why}{hint}"
    return ""


def build(nir: ModuleType, step_graph: Cut, profile: Profile) -> NirGraph:
    """The NIR graph of ``step_graph`` in a profile; in the dialect every spiking layer resets to zero.

    Raises:
        UnsupportedError: NIR has no primitive for a node.
    """
    single = profile is Profile.DIALECT
    vectors = frozenset(n.name for n in step_graph.graph.recurrent if single and n.cell.spiking and not n.feature_shape)
    graph = expand(step_graph.graph, vectors)
    ports = ports_read(graph)
    builder = Builder(nir, len(str(8 * len(graph.nodes))), single)
    notes = list(step_graph.notes)
    for node in graph.nodes:
        if not isinstance(node, Recurrent):
            emit_stateless(builder, node, graph)
            continue
        sources = builder.values[node.inputs[0]]
        if node.cell in (LI, ALIF):
            if single and node.cell is ALIF:
                raise UnsupportedError(
                    f"layer '{node.name}': {dialect_obstacle(node, ports[node.name])}, so that not even an "
                    "approximation with a reset to zero is written; export to ONNX or C"
                )
            (emit_integrator if node.cell is LI else emit_adaptive)(builder, node, ports[node.name], sources)
        elif single or zero_reset(node):
            if single and (read := ports[node.name] - {"spk"}):
                raise UnsupportedError(
                    f"layer '{node.name}': its '{min(read)}' is read, but a NIR neuron puts out spikes only; use its "
                    "spikes or export to ONNX or C"
                )
            notes += emit_zero(builder, node, ports[node.name], sources)
        elif node.options.reset is Reset.ZERO_UPDATE:
            emit_lost_update(builder, node, sources)
        else:
            emit_subtract(builder, node, ports[node.name], sources)
    outputs: dict[str, str] = {}
    for name, value in graph.outputs.items():
        shape = np.array(graph.specs[value].shape)
        made = nir.Output(output_type=shape, metadata=pack({"name": name}))
        outputs[name] = builder.add(
            f"output_{name}" if len(graph.outputs) > 1 else "output", made, builder.values[value]
        )
    return NirGraph(
        nir.NIRGraph(nodes=builder.nodes, edges=builder.edges, metadata=_graph_info(graph, profile)),
        builder.spikes,
        outputs,
        tuple(notes),
    )


def _graph_info(graph: Graph, profile: Profile) -> dict[str, str]:
    from sparsecirc import __version__

    return pack({"version": __version__, "dt": graph.dt, "file_dt": NIR_DT, "profile": profile.value})


def _write(
    nir: ModuleType,
    made: NirGraph,
    path: str | os.PathLike[str],
    form: str,
    graph: Graph,
    result: Check,
    *notes: str,
) -> Export:
    plain, packed = (_encode(nir, made.graph, compression) for compression in (None, "gzip"))
    data = min(packed, plain, key=len)  # gzip costs 2 kB per array in HDF5, more than it saves on small ones
    paths = write_files({as_path(path, ".nir"): data})
    dt = "unknown" if graph.dt is None else f"{graph.dt:g} s"
    hints = [
        *notes,
        result.words(),
        *made.notes,
        f"{density_note(graph)}; NIR has no sparse arrays: gzip in large files hides the zeros, readers see them",
        f"a step of the network ({dt}) is {NIR_DT:g} s in the file",
    ]
    if any(isinstance(node, Flatten) for node in graph.nodes):
        hints.append(
            "flatten starts at axis 0, NIR has no batch axis: snntorch takes that for the batch, so give it one sample"
        )
    if form == Profile.SUBTRACT.value:
        hints.append(
            "neurons are cycles of LI or LIF, Threshold, Scale and Linear nodes: few readers run such cycles, ours does"
        )
    return Export("nir", paths, len(data), len(plain), gzip_bytes(data), form, tuple(hints))


def _encode(nir: ModuleType, graph: Any, compression: str | None) -> bytes:
    # In memory: a file that exists is never half-written, and no handle stays open on Windows.
    buffer = io.BytesIO()
    nir.write(buffer, graph, compression=compression)
    return buffer.getvalue()
