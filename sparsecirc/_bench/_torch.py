"""torch as a peer: its own recurrent layers, loops over dense or CSR products, and snntorch's layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecirc._bench._job import SPARSE_BELOW, CannotRun, Job, Run, fold_bias, used_ports
from sparsecirc._bench._loop import Loop, Ops
from sparsecirc.cells import Reset
from sparsecirc.ir import Graph, Node, Recurrent

if TYPE_CHECKING:
    import torch

Tensor = Any
Layer = Callable[[Tensor], dict[str, Tensor]]
Maker = Callable[[Graph, Recurrent, int], Layer]


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
        return _call_model(job)
    return _run_graph(job, _dense_layer, _dense_product)


def prepare_csr(job: Job) -> Run:
    """The graph with torch's CSR products in a loop over time."""
    return _run_graph(job, _csr_layer, _csr_product)


def prepare_snntorch(job: Job) -> Run:
    """The user's snntorch model if it is given, else the graph with snntorch's neurons in a loop over time."""
    if not job.graph.spiking:
        raise CannotRun("the network has no spiking layer")
    if job.model is not None:
        return _call_model(job)
    return _run_graph(job, _snntorch_layer, _dense_product)


def _call_model(job: Job) -> Run:
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


def _run_graph(job: Job, layer: Maker, product: Callable[[Any, Any], Callable[[Tensor], Tensor]]) -> Run:
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


def _glue(node: Node, product: Callable[[Any, Any], Callable[[Tensor], Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Everything that is not recurrent."""
    import torch
    from torch.nn import functional

    attrs: dict[str, Any] = node.attrs()
    params = {role: _tensor(node.weight(role)) for role in node.params}
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


def _tensor(array: Any) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _dense_product(node: Node, role: str) -> Callable[[Tensor], Tensor]:
    from torch.nn import functional

    weight = _tensor(node.weight(role))
    return lambda x: functional.linear(x, weight)


def _csr(node: Node, role: str) -> Tensor | None:
    """The weight in torch's CSR form with 32-bit indices (what MKL takes as it is), or ``None`` if it is not sparse."""
    import torch

    pattern = node.patterns.get(role)
    if pattern is None or pattern.density >= SPARSE_BELOW:
        return None
    values = _tensor(pattern.values(node.weight(role)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(pattern.indptr.copy()),
            torch.from_numpy(pattern.indices.copy()),
            values,
            pattern.shape,
            check_invariants=True,
        )


def _csr_product(node: Node, role: str) -> Callable[[Tensor], Tensor]:
    weight = _csr(node, role)
    if weight is None:
        return _dense_product(node, role)

    def multiply(x: Tensor) -> Tensor:
        return (weight @ x.reshape(-1, x.shape[-1]).T).T.reshape(*x.shape[:-1], -1)

    return multiply


def _dense_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    """torch.nn's layer where it computes the same, else a loop over dense products."""
    import torch

    roles = set(node.params)
    default_only = used_ports(graph, node) in ((), (node.ports()[0],))
    if node.cell.vectors or not default_only or "hh_diag" in roles or not {"ih", "hh"} <= roles:
        return _loop_layer(graph, node, batch, columns=False)
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
            getattr(layer, f"weight_{role}_l0").copy_(_tensor(node.weight(role)))
        if role != "hr" and kwargs["bias"]:
            value = node.params.get(f"bias_{role}", np.zeros(node.cell.n_gates * units))
            getattr(layer, f"bias_{role}_l0").copy_(_tensor(value))
    port = node.ports()[0]
    if node.reverse:
        return lambda x: {port: layer(x.flip(0))[0].flip(0)}
    return lambda x: {port: layer(x)[0]}


def _csr_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    return _loop_layer(graph, node, batch, columns=True)


def _loop_layer(graph: Graph, node: Recurrent, batch: int, *, columns: bool) -> Layer:
    """A loop over time; with ``columns`` the weights are CSR and values are (units, batch), as CSR products want."""
    import torch

    bias, late = fold_bias(node)
    drive_bias = None if bias is None else _tensor(bias)
    project_input = (_csr_product if columns else _dense_product)(node, "ih") if "ih" in node.params else None
    ops = Ops(torch.tanh, torch.sigmoid, torch.relu, lambda mask: mask.to(torch.float32))

    def shaped(vector: Any) -> Tensor:
        # States are (units, batch): one value a row. Neurons after a convolution keep (batch, *feature_shape).
        return _tensor(vector).reshape(node.feature_shape or (-1, 1))

    recur: Callable[[Tensor], Tensor] | None = None
    if "hh" in node.params:
        recur = _column_product(node, "hh", sparse=columns)
    elif "hh_diag" in node.params:
        diagonal = shaped(node.weight("hh_diag"))
        recur = lambda h: h * diagonal  # noqa: E731
    vectors = {k: shaped(node.params[k]) for k in node.cell.vectors}
    project = _column_product(node, "hr", sparse=columns) if "hr" in node.params else None
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


def _column_product(node: Node, role: str, *, sparse: bool) -> Callable[[Tensor], Tensor]:
    weight = _csr(node, role) if sparse else None
    dense = _tensor(node.weight(role)) if weight is None else weight
    return lambda h: dense @ h


_SNN_RESETS = {Reset.SUBTRACT: "subtract", Reset.ZERO: "zero", Reset.ZERO_UPDATE: "zero", Reset.NONE: "none"}


def _snntorch_layer(graph: Graph, node: Recurrent, batch: int) -> Layer:
    """A neuron of snntorch stepped over time, as its tutorials do; drives of all steps are computed at once."""
    import snntorch as snn
    import torch

    if not node.cell.spiking:
        return _dense_layer(graph, node, batch)
    if node.cell.name not in ("lif", "synaptic"):
        raise CannotRun(f"layer '{node.name}' is a '{node.cell.name}', which snntorch does not have")
    if "hh_diag" in node.params:
        raise CannotRun(f"layer '{node.name}' has one-to-one feedback: give the snntorch model itself")
    bias, _ = fold_bias(node)
    drive_bias = None if bias is None else _tensor(bias)
    project = _dense_product(node, "ih") if "ih" in node.params else None

    def vector(role: str) -> Tensor:
        return _tensor(node.params[role]).reshape(node.feature_shape or (-1,))

    kwargs: dict[str, Any] = {
        "beta": vector("beta"),
        "threshold": vector("threshold"),
        "reset_mechanism": _SNN_RESETS[node.options.reset],
        "reset_delay": node.options.delay,
    }
    if node.cell.name == "synaptic":
        kwargs["alpha"] = vector("alpha")
    recurrent = "hh" in node.params
    if recurrent:
        kwargs.update(linear_features=node.units, all_to_all=True)
    kinds = {("lif", False): "Leaky", ("lif", True): "RLeaky"}
    kinds |= {("synaptic", False): "Synaptic", ("synaptic", True): "RSynaptic"}
    neuron: Any = getattr(snn, kinds[node.cell.name, recurrent])(**kwargs)
    if recurrent:
        neuron.recurrent.weight.copy_(_tensor(node.weight("hh")))
        neuron.recurrent.bias.zero_()  # folded into the drive
    names = (["spk"] if recurrent else []) + (["syn"] if node.cell.name == "synaptic" else []) + ["mem"]
    shape = (batch, *(node.feature_shape or (node.units,)))
    ports = used_ports(graph, node) or ("spk",)

    def run(x: Tensor) -> dict[str, Tensor]:
        drive = x if project is None else project(x)
        if drive_bias is not None:
            drive = drive + drive_bias
        state = [torch.zeros(shape) for _ in names]
        kept: dict[str, list[Tensor]] = {p: [] for p in ports}
        for current in drive.unbind(0):
            out = neuron(current, *state)
            spk, state = out[0], list(out[0 if recurrent else 1 :])
            now = {"spk": spk, **dict(zip(names, state, strict=True))}
            for port, values in kept.items():
                values.append(now[port])
        return {p: torch.stack(v) for p, v in kept.items()}

    return run
