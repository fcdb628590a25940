"""torch as a peer: its own recurrent layers, and loops over dense or compressed products."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecirc._bench._job import SPARSE_UP_TO, CannotRun, Job, Run, fold_bias, used_ports
from sparsecirc._bench._loop import Loop, Ops
from sparsecirc.ir import Graph, Node, Recurrent

if TYPE_CHECKING:
    import torch

Tensor = Any
Layer = Callable[[Tensor], dict[str, Tensor]]
Maker = Callable[[Graph, Recurrent, int], Layer]
Product = Callable[[Tensor], Tensor]
Compress = Callable[[Node, str], Product | None]
"""A weight as a product with (features, vectors) columns in a compressed form, or ``None`` if it is not sparse."""


def _pointwise(fn: str, x: Tensor) -> Tensor:
    import torch

    if fn == "identity":
        return x
    if fn in ("softmax", "log_softmax"):
        return torch.softmax(x, -1) if fn == "softmax" else torch.log_softmax(x, -1)
    return {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[fn](x)


def prepare_dense(job: Job) -> Run:
    """The user's torch model if it is given and does not spike, else the graph with torch.nn's recurrent layers."""
    if job.model is not None and not job.graph.spiking:
        return call_model(job)
    return run_graph(job, dense_layer, dense_product)


def prepare_csr(job: Job) -> Run:
    """The graph with torch's CSR products in a loop over time."""
    return _run_compressed(job, _csr)


def prepare_torch_sparse(job: Job) -> Run:
    """The graph with the products of torch-sparse's `SparseTensor` in a loop over time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import: it uses parts of torch that are deprecated by now
        import torch_sparse

    def compress(node: Node, role: str) -> Product | None:
        pattern = node.patterns.get(role)
        if pattern is None or pattern.density > SPARSE_UP_TO:
            return None
        matrix = torch_sparse.SparseTensor(
            rowptr=to_index(pattern.indptr),
            col=to_index(pattern.indices),
            value=to_tensor(pattern.values(node.weight(role))),
            sparse_sizes=pattern.shape,
            is_sorted=True,
            trust_data=True,
        )
        return lambda x: torch_sparse.matmul(matrix, x)

    return _run_compressed(job, compress)


def _run_compressed(job: Job, compress: Compress) -> Run:
    def product(node: Node, role: str) -> Product:
        return _on_rows(compress(node, role)) or dense_product(node, role)

    def layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
        return _loop_layer(graph, node, batch, product, lambda n, role: compress(n, role) or _dense_columns(n, role))

    return run_graph(job, layer, product)


def call_model(job: Job) -> Run:
    """The user's own model as it is, in evaluation mode."""
    import torch

    assert job.model is not None
    model = job.model.eval()
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in job.inputs.values()]

    def run() -> list[Any]:
        with torch.inference_mode():
            return [t.numpy() for t in _tensors(model(*tensors))]

    return run


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _tensors(item)]
    return [value]


def run_graph(job: Job, layer: Maker, product: Callable[[Node, str], Product]) -> Run:
    """The graph node by node, its recurrent layers as ``layer`` makes them and its linear ones with ``product``."""
    import torch

    graph = job.graph
    with torch.inference_mode():  # tensors made outside could not be shared with the timed region without a copy
        inputs = {name: torch.from_numpy(array) for name, array in job.bound.items()}
        plan = [
            (node, layer(graph, node, job.batch) if isinstance(node, Recurrent) else _glue(node, product))
            for node in graph.nodes
            if node.kind != "input"
        ]

    def run() -> list[Any]:
        values: dict[str, Tensor] = dict(inputs)
        with torch.inference_mode():
            for node, compute in plan:
                out = compute(*[values[i] for i in node.inputs])
                for port, value in out.items():
                    values[f"{node.name}.{port}" if port else node.name] = value
                values.setdefault(node.name, next(iter(out.values())))
            return [
                (values[v].swapaxes(0, 1) if graph.batch_first and graph.specs[v].time else values[v]).numpy()
                for v in graph.outputs.values()
            ]

    with warnings.catch_warnings():  # torch says so once, at the first call
        warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
        run()
    return run


def _glue(node: Node, product: Callable[[Node, str], Product]) -> Callable[..., dict[str, Tensor]]:
    """Everything that is not recurrent."""
    import torch
    from torch.nn import functional

    attrs: dict[str, Any] = node.attrs()
    params = {role: to_tensor(node.weight(role)) for role in node.params}
    bias = params.get("bias")

    def linear() -> Callable[..., Tensor]:
        multiply = product(node, "weight")
        return multiply if bias is None else lambda x: multiply(x) + bias

    def conv(x: Tensor) -> Tensor:
        function = functional.conv1d if len(attrs["stride"]) == 1 else functional.conv2d
        stride, pad, dilation, groups = (attrs[k] for k in ("stride", "padding", "dilation", "groups"))
        if attrs["over_time"]:
            y = function(x.permute(1, 2, 0), params["weight"], bias, stride, pad, dilation, groups)
            return y.permute(2, 0, 1)
        lead = x.shape[: x.ndim - len(stride) - 1]
        y = function(x.flatten(0, len(lead) - 1), params["weight"], bias, stride, pad, dilation, groups)
        return y.reshape(*lead, *y.shape[1:])

    def pool(x: Tensor) -> Tensor:
        name = f"{'max' if attrs['how'] == 'max' else 'avg'}_pool{len(attrs['kernel'])}d"
        lead = x.shape[: x.ndim - len(attrs["kernel"]) - 1]
        y = getattr(functional, name)(x.flatten(0, len(lead) - 1), attrs["kernel"], attrs["stride"])
        return y.reshape(*lead, *y.shape[1:])

    def affine(x: Tensor) -> Tensor:
        y = x * params["scale"] if "scale" in params else x
        return y + params["shift"] if "shift" in params else y

    def reduce(x: Tensor) -> Tensor:
        how = attrs["how"]
        if how in ("last", "first"):
            return x[-1 if how == "last" else 0]
        return x.amax(0) if how == "max" else getattr(x, how)(0)

    functions: dict[str, Callable[..., Tensor]] = {
        "conv": conv,
        "pool": pool,
        "affine": affine,
        "time_reduce": reduce,
        "embedding": lambda x: functional.embedding(x, params["weight"]),
        "elementwise": lambda x: _pointwise(attrs["fn"], x),
        "add": lambda *xs: _sum(xs),
        "multiply": lambda *xs: _multiply(xs),
        "concat": lambda *xs: torch.cat(xs, -1),
        "flatten": lambda x: x.flatten(x.ndim - attrs["axes"]),
        "repeat": lambda x: x.expand(attrs["steps"], *x.shape),
    }
    if node.kind == "linear":
        compute = linear()
    elif node.kind in functions:
        compute = functions[node.kind]
    else:
        raise CannotRun(f"node '{node.name}' of kind '{node.kind}' has no torch form here")
    return lambda *xs: {"": compute(*xs)}


def _sum(xs: Sequence[Tensor]) -> Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def _multiply(xs: Sequence[Tensor]) -> Tensor:
    total = xs[0]
    for x in xs[1:]:
        total = total * x
    return total


def to_tensor(array: Any) -> torch.Tensor:
    """float32, sharing memory where it can."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def to_index(array: Any) -> torch.Tensor:
    """64-bit indices, without a warning about memory that is not writable."""
    import torch

    return torch.from_numpy(np.array(array, np.int64))


def dense_product(node: Node, role: str) -> Product:
    """Vectors in the last axis times a dense weight."""
    from torch.nn import functional

    weight = to_tensor(node.weight(role))
    return lambda x: functional.linear(x, weight)


def _dense_columns(node: Node, role: str) -> Product:
    weight = to_tensor(node.weight(role))
    return lambda x: weight @ x


def _csr(node: Node, role: str) -> Product | None:
    """Torch's CSR form with 32-bit indices (what MKL takes as it is)."""
    import torch

    pattern = node.patterns.get(role)
    if pattern is None or pattern.density > SPARSE_UP_TO:
        return None
    values = to_tensor(pattern.values(node.weight(role)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        weight = torch.sparse_csr_tensor(
            torch.from_numpy(pattern.indptr.copy()),
            torch.from_numpy(pattern.indices.copy()),
            values,
            pattern.shape,
            check_invariants=True,
        )
    return lambda x: weight @ x


def _on_rows(columns: Product | None) -> Product | None:
    """The same product with vectors in the last axis."""
    if columns is None:
        return None
    return lambda x: columns(x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], -1)


def dense_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    """torch.nn's layer where it computes the same, else a loop over dense products."""
    import torch

    roles = set(node.params)
    default_only = used_ports(graph, node) in ((), (node.ports()[0],))
    if node.cell.vectors or not default_only or "hh_diag" in roles or not {"ih", "hh"} <= roles:
        return _loop_layer(graph, node, batch, dense_product, _dense_columns)
    width, units = node.params["ih"].shape[1], node.units
    kwargs: dict[str, Any] = {"bias": bool(roles & {"bias_ih", "bias_hh"})}
    if "hr" in roles:
        kwargs["proj_size"] = node.width
    if node.cell.name == "gru":
        layer: Any = torch.nn.GRU(width, units, **kwargs)
    elif node.cell.name == "lstm":
        layer = torch.nn.LSTM(width, units, **kwargs)
    else:
        layer = torch.nn.RNN(width, units, nonlinearity=node.cell.name.removeprefix("rnn_"), **kwargs)
    layer.eval()
    for role in ("ih", "hh", "hr"):
        if role in roles:
            getattr(layer, f"weight_{role}_l0").copy_(to_tensor(node.weight(role)))
        if role != "hr" and kwargs["bias"]:
            value = node.params.get(f"bias_{role}", np.zeros(node.cell.n_gates * units))
            getattr(layer, f"bias_{role}_l0").copy_(to_tensor(value))
    port = node.ports()[0]
    if node.reverse:
        return lambda x: {port: layer(x.flip(0))[0].flip(0)}
    return lambda x: {port: layer(x)[0]}


def _loop_layer(
    graph: Graph,
    node: Recurrent,
    batch: int,
    product: Callable[[Node, str], Product],
    columns: Callable[[Node, str], Product],
) -> Layer:
    """A loop over time with values as (units, batch), which is what compressed products want."""
    import torch

    bias, late = fold_bias(node)
    drive_bias = None if bias is None else to_tensor(bias)
    project_input = product(node, "ih") if "ih" in node.params else None
    ops = Ops(torch.tanh, torch.sigmoid, torch.relu, lambda mask: mask.to(torch.float32))

    def shaped(vector: Any) -> Tensor:
        # States are (units, batch): one value a row. Neurons after a convolution keep (batch, *feature_shape).
        return to_tensor(vector).reshape(node.feature_shape or (-1, 1))

    recur: Callable[[Tensor], Tensor] | None = None
    if "hh" in node.params:
        recur = columns(node, "hh")
    elif "hh_diag" in node.params:
        diagonal = shaped(node.weight("hh_diag"))
        recur = lambda h: h * diagonal  # noqa: E731
    vectors = {k: shaped(node.params[k]) for k in node.cell.vectors}
    project = columns(node, "hr") if "hr" in node.params else None
    loop = Loop(node, ops, recur, None if late is None else shaped(late), vectors, project)
    ports = used_ports(graph, node) or (node.ports()[0],)
    start = {
        s: torch.zeros((batch, *shape) if node.feature_shape else (shape[0], batch))
        for s, shape in node.states().items()
    }

    def run(x: Tensor) -> dict[str, Tensor]:
        drive = x if project_input is None else project_input(x)
        if drive_bias is not None:
            drive = drive + drive_bias
        if node.feature_shape:
            return {p: torch.stack(v) for p, v in loop.run(drive.unbind(0), start, ports).items()}
        out = loop.run(drive.transpose(1, 2).contiguous().unbind(0), start, ports)
        return {p: torch.stack(v).transpose(1, 2) for p, v in out.items()}

    return run
