"""The program itself, and scipy's CSR products in a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsecirc._bench._job import SPARSE_UP_TO, Array, Job, Run, fold_bias, used_ports
from sparsecirc._bench._loop import Loop, Ops
from sparsecirc.ir import Graph, Node, Recurrent
from sparsecirc.ir._node import Context


def prepare_program(job: Job) -> Run:
    """The compiled program, called as a user calls it."""
    return lambda: list(job.program.run(job.inputs).outputs.values())


def prepare_scipy(job: Job) -> Run:
    """The graph in numpy with scipy's CSR products in a loop over time."""
    import scipy.sparse  # noqa: F401 - its absence is found here, outside the timed region

    graph, ctx = job.graph, Context(np.float32, None)
    plan: list[tuple[Node, Callable[..., dict[str, Array]]]] = []
    for node in graph.nodes:
        if isinstance(node, Recurrent):
            plan.append((node, _layer(graph, node, job.batch)))
        elif node.kind == "linear":
            multiply, bias = _product(node, "weight"), node.cast("bias", ctx)
            plan.append((node, _linear(multiply, bias)))
        elif node.kind != "input":
            plan.append((node, _plain(node, ctx)))

    def run() -> list[Array]:
        values: dict[str, Array] = dict(job.bound)
        for node, compute in plan:
            out = compute(*[values[i] for i in node.inputs])
            for port, value in out.items():
                values[f"{node.name}.{port}" if port else node.name] = value
            values.setdefault(node.name, next(iter(out.values())))
        swap = graph.batch_first
        return [
            np.swapaxes(values[v], 0, 1) if swap and graph.specs[v].time else values[v] for v in graph.outputs.values()
        ]

    return run


def _linear(multiply: Callable[[Array], Array], bias: Array | None) -> Callable[..., dict[str, Array]]:
    return lambda x: {"": multiply(x) if bias is None else multiply(x) + bias}


def _plain(node: Node, ctx: Context) -> Callable[..., dict[str, Array]]:
    return lambda *xs: node.compute(xs, {}, ctx)[0]


def _matrix(node: Node, role: str) -> Any:
    """CSR where it is sparse, else dense."""
    import scipy.sparse

    pattern, weight = node.patterns.get(role), node.weight(role).astype(np.float32)
    if pattern is None or pattern.density > SPARSE_UP_TO:
        return weight
    return scipy.sparse.csr_array((pattern.values(weight), pattern.indices, pattern.indptr), shape=pattern.shape)


def _product(node: Node, role: str) -> Callable[[Array], Array]:
    matrix = _matrix(node, role)
    if isinstance(matrix, np.ndarray):
        return lambda x: np.asarray(x @ matrix.T)
    return lambda x: np.asarray((matrix @ x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], -1))


def _layer(graph: Graph, node: Recurrent, batch: int) -> Callable[..., dict[str, Array]]:
    bias, late = fold_bias(node)
    drive_bias = None if bias is None else bias.astype(np.float32)
    project_input = _product(node, "ih") if "ih" in node.params else None
    vector = batch == 1 and not node.feature_shape  # scipy's matrix-vector product is its fastest

    def shaped(values: Array) -> Array:
        shape = node.feature_shape or ((-1,) if vector else (-1, 1))
        return np.ascontiguousarray(values, dtype=np.float32).reshape(shape)

    recur: Callable[[Array], Array] | None = None
    if "hh" in node.params:
        recur = _columns(node, "hh")
    elif "hh_diag" in node.params:
        diagonal = shaped(node.weight("hh_diag"))
        recur = lambda h: h * diagonal  # noqa: E731
    half = np.float32(0.5)
    ops = Ops(
        np.tanh,
        lambda x: half * (np.tanh(half * x) + np.float32(1)),
        lambda x: np.maximum(x, 0),
        lambda mask: mask.astype(np.float32),
    )
    vectors = {k: shaped(node.params[k]) for k in node.cell.vectors}
    project = _columns(node, "hr") if "hr" in node.params else None
    loop = Loop(node, ops, recur, None if late is None else shaped(late), vectors, project)
    ports = used_ports(graph, node) or (node.ports()[0],)
    start = {
        s: np.zeros((batch, *shape) if node.feature_shape else shape if vector else (shape[0], batch), np.float32)
        for s, shape in node.states().items()
    }

    def run(x: Array) -> dict[str, Array]:
        drive = x if project_input is None else project_input(x)
        if drive_bias is not None:
            drive = drive + drive_bias
        if node.feature_shape:
            return {p: np.stack(v) for p, v in loop.run(list(drive), start, ports).items()}
        if vector:
            return {p: np.stack(v)[:, None] for p, v in loop.run(list(drive[:, 0]), start, ports).items()}
        out = loop.run(list(np.ascontiguousarray(np.swapaxes(drive, 1, 2))), start, ports)
        return {p: np.swapaxes(np.stack(v), 1, 2) for p, v in out.items()}

    return run


def _columns(node: Node, role: str) -> Callable[[Array], Array]:
    matrix = _matrix(node, role)
    return lambda h: np.asarray(matrix @ h)
