"""The graph file: a versioned container whose header describes the nodes.

Of a weight with a pattern only the live values are stored, in the order of the pattern.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc._files import pack_bits, read_container, unpack_bits, write_container
from sparsecirc.cells import CELLS, Options, Reset
from sparsecirc.errors import FileFormatError, SparsecircError
from sparsecirc.ir._graph import Graph
from sparsecirc.ir._kinds import KINDS
from sparsecirc.ir._node import Node
from sparsecirc.ir._recurrent import Recurrent


def graph_to_parts(graph: Graph) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """JSON header and arrays of a graph."""
    arrays: dict[str, NDArray[Any]] = {}
    nodes = []
    for node in graph.nodes:
        for role, value in node.params.items():
            pattern = node.patterns.get(role)
            arrays[f"{node.name}|{role}"] = value if pattern is None else pattern.values(value)
        for role, pattern in node.patterns.items():
            arrays[f"{node.name}|{role}|bits"] = pack_bits(pattern)
        patterns = {
            r: {
                "shape": list(p.shape),
                "full_shape": list(node.params[r].shape),
                "origin": p.origin,
                "digest": p.digest,
            }
            for r, p in node.patterns.items()
        }
        nodes.append(
            {"kind": node.kind, "name": node.name, "inputs": list(node.inputs), "params": sorted(node.params)}
            | {"patterns": patterns, "attrs": node.attrs()}
        )
    header = {"nodes": nodes, "outputs": dict(graph.outputs), "batch_first": graph.batch_first, "dt": graph.dt}
    return {**header, "meta": dict(graph.meta)}, arrays


def graph_from_parts(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], where: str) -> Graph:
    """Inverse of :func:`graph_to_parts`.

    Raises:
        FileFormatError: an unknown node kind, a missing array, a pattern that does not match its digest, or anything
            else that is no graph; names the file.
    """
    try:
        nodes = tuple(_node(d, arrays) for d in header["nodes"])
        return Graph(nodes, dict(header["outputs"]), bool(header["batch_first"]), header["dt"], dict(header["meta"]))
    except SparsecircError as error:  # shapes, names and values that no graph may have
        raise FileFormatError(f"{where} is not a valid graph: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(f"{where} is not a valid graph: {error!r} is missing or unknown") from error


def _node(data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Node:
    name = data["name"]
    params = {role: arrays[f"{name}|{role}"] for role in data["params"]}
    patterns = {}
    for role, info in data["patterns"].items():
        rows, cols = info["shape"]
        pattern = unpack_bits(arrays[f"{name}|{role}|bits"], (int(rows), int(cols)), info["origin"])
        if pattern.digest != info["digest"]:
            raise FileFormatError(f"the pattern of '{name}.{role}' does not match its digest: the file is damaged")
        patterns[role] = pattern
        live = params[role]
        if live.shape != (pattern.nnz,):
            raise FileFormatError(
                f"'{name}.{role}' holds {live.size} values for {pattern.nnz} connections: damaged file"
            )
        dense = np.zeros(pattern.shape, live.dtype)
        dense[pattern.rows, pattern.indices] = live
        params[role] = dense.reshape(info["full_shape"])
    attrs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data["attrs"].items()}
    cls = KINDS[data["kind"]]
    if cls is Recurrent:
        attrs["cell"] = CELLS[attrs["cell"]]
        reset, delay = Reset(attrs.pop("reset")), bool(attrs.pop("delay"))
        attrs["options"] = Options(reset, delay, bool(attrs.pop("adapted", False)))
    return cls(name, tuple(data["inputs"]), params, patterns, **attrs)


def save_graph(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write ``graph`` to one file, atomically."""
    header, arrays = graph_to_parts(graph)
    write_container(Path(path), "graph", {"graph": header}, arrays)


def load_graph(path: str | os.PathLike[str]) -> Graph:
    """Read a graph written by :func:`save_graph`.

    Raises:
        FileFormatError: see :func:`read_container`.
    """
    header, arrays = read_container(Path(path), "graph")
    return graph_from_parts(header.get("graph", {}), arrays, str(path))
