"""Layers of torch.nn, each recorded as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from sparsecirc._torch_layers import cell_of, layer_suffixes, node_name
from sparsecirc.frontends import _functions as functions
from sparsecirc.frontends import _pooling as pooling
from sparsecirc.frontends._recorder import Handler, Recorder
from sparsecirc.frontends._shapes import reshaped
from sparsecirc.frontends._values import Refusal, Stack, Value, describe
from sparsecirc.ir import Conv, Embedding, Linear, Node, Recurrent

Tensor = torch.Tensor
Forward = Callable[..., Any]


def unknown(rec: Recorder, path: str, module: nn.Module, forward: Forward, *args: Any, **kwargs: Any) -> Any:
    """A layer of torch or snntorch that has no counterpart."""
    cure = _CURES.get(type(module).__name__)
    if cure is None and type(module).__module__.startswith("snntorch"):
        cure = "use snn.Leaky, Synaptic, RLeaky or RSynaptic"
    raise Refusal("this layer cannot be converted", cure or "replace it, or convert the part of the model beside it")


_CURES = {
    "LayerNorm": "normalise the data outside the model, or use nn.BatchNorm1d",
    "GroupNorm": "use batch normalisation",
    "InstanceNorm1d": "use batch normalisation",
    "MultiheadAttention": "attention has no counterpart here: replace it by a recurrent layer",
    "GELU": "use nn.ReLU, nn.Tanh or nn.Sigmoid",
    "SiLU": "use nn.ReLU, nn.Tanh or nn.Sigmoid",
    "ELU": "use nn.ReLU, nn.Tanh or nn.Sigmoid",
    "LeakyReLU": "use nn.ReLU, nn.Tanh or nn.Sigmoid",
    "Lapicque": "its decay is not beta; train with snn.Leaky",
    "Alpha": "use snn.Synaptic, which has a synaptic current too",
}


def params_of(rec: Recorder, module: nn.Module, **names: str) -> dict[str, Any]:
    """Arrays by role, of those attributes of a layer that it has."""
    held = {role: getattr(module, name, None) for role, name in names.items()}
    return {role: rec.array(t) for role, t in held.items() if isinstance(t, Tensor)}


def _emit(rec: Recorder, path: str, module: nn.Module, make: Callable[[str, Any], Node], value: Value) -> Value:
    return rec.draft.emit(node_name(path, module), ("module", path), make, [value])


def _linear(rec: Recorder, path: str, module: nn.Linear, forward: Forward, x: Tensor) -> Tensor:
    params = params_of(rec, module, weight="weight", bias="bias")
    return rec.track(forward(x), _emit(rec, path, module, lambda n, i: Linear(n, i, params), rec.value(x)))


def _conv(rec: Recorder, path: str, module: nn.Conv1d | nn.Conv2d, forward: Forward, x: Tensor) -> Tensor:
    value = rec.value(x)
    rank = len(module.kernel_size)
    dilation: tuple[int, ...] = tuple(module.dilation)
    padding = _padding(module, dilation)
    over_time = rank == 1 and value.axes == ("B", 0, "T")
    if not over_time and value.axes != ("B", *range(rank + 1)):
        raise Refusal(
            f"gets an input with axes {describe(value.axes)}",
            "give it (batch, channels, ...) of one time step, or transpose a sequence to (batch, channels, time)",
        )
    params = params_of(rec, module, weight="weight", bias="bias")
    stride = tuple(module.stride)

    def make(name: str, inputs: tuple[str, ...]) -> Node:
        return Conv(name, inputs, params, stride=stride, padding=padding, dilation=dilation, groups=module.groups,
                    over_time=over_time)  # fmt: skip

    made = rec.draft.emit(node_name(path, module), ("module", path), make, [value], value.axes if over_time else None)
    return rec.track(forward(x), made)


def _padding(module: nn.Conv1d | nn.Conv2d, dilation: tuple[int, ...]) -> tuple[int, ...]:
    extents = [d * (k - 1) for d, k in zip(dilation, module.kernel_size, strict=True)]
    if module.padding_mode != "zeros":
        raise Refusal(f"pads with padding_mode='{module.padding_mode}'", "use padding_mode='zeros'")
    if module.padding == "same":
        if any(e % 2 for e in extents):
            raise Refusal("pads one side more than the other (padding='same', even kernel)", "use an odd kernel size")
        return tuple(e // 2 for e in extents)
    return (0,) * len(extents) if module.padding == "valid" else tuple(int(p) for p in module.padding)


def _max_pool(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor) -> Tensor:
    pooling.plain_pooling(module.padding, module.dilation, module.ceil_mode, None, module.return_indices)
    return _pooled(rec, path, module, forward, x, "max")


def _avg_pool(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor) -> Tensor:
    pooling.plain_pooling(module.padding, 1, module.ceil_mode, getattr(module, "divisor_override", None))
    return _pooled(rec, path, module, forward, x, "avg")


def _pooled(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor, how: str) -> Tensor:
    hint, key, rank = node_name(path, module), ("module", path), int(type(module).__name__[-2])
    made = pooling.pool(rec, hint, key, how, rec.value(x), module.kernel_size, module.stride, rank)
    return rec.track(forward(x), made)


def _adaptive_pool(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor) -> Tensor:
    how = "avg" if "Avg" in type(module).__name__ else "max"
    hint, key, rank = node_name(path, module), ("module", path), int(type(module).__name__[-2])
    return rec.track(forward(x), pooling.adaptive_pool(rec, hint, key, how, rec.value(x), module.output_size, rank))


def _embedding(rec: Recorder, path: str, module: nn.Embedding, forward: Forward, x: Tensor) -> Tensor:
    if module.max_norm is not None:
        raise Refusal("rescales its rows while it runs (max_norm)", "use max_norm=None")
    value = rec.value(x)
    params = params_of(rec, module, weight="weight")
    return rec.track(forward(x), _emit(rec, path, module, lambda n, i: Embedding(n, i, params), value))


def _batch_norm(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor) -> Tensor:
    value = rec.value(x)
    if module.running_mean is None or module.running_var is None:
        raise Refusal("normalises by the batch at hand (track_running_stats=False)", "track running statistics")
    if len(value.axes) < 2 or value.axes[1] != 0:
        raise Refusal(
            f"normalises axis 1 of a value with axes {describe(value.axes)}", "put the features on axis 1 before it"
        )
    scale = 1 / torch.sqrt(module.running_var + module.eps)
    if module.affine:
        scale = scale * module.weight
    shift = -module.running_mean * scale
    if module.affine:
        shift = shift + module.bias
    shape = (-1, *(1,) * (len(value.features) - 1))
    arrays = scale.detach().numpy().reshape(shape), shift.detach().numpy().reshape(shape)  # float64: they are derived
    made = functions.affine(rec, node_name(path, module), ("module", path), value, *arrays)
    return rec.track(forward(x), made)


def _identity(rec: Recorder, path: str, module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    what = rec.find(x)
    out: Tensor = forward(x)
    return out if what is None else rec.track(out, what)


def _flatten(rec: Recorder, path: str, module: nn.Flatten, forward: Forward, x: Tensor) -> Tensor:
    out: Tensor = forward(x)
    return rec.track(out, reshaped(rec, x, out))


def _activation(fn: str) -> Handler:
    def handler(rec: Recorder, path: str, module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
        value = functions.pointwise(rec, node_name(path, module), ("module", path), fn, rec.value(x))
        return rec.track(forward(x), value)

    return handler


def _softmax(fn: str) -> Handler:
    def handler(rec: Recorder, path: str, module: Any, forward: Forward, x: Tensor) -> Tensor:
        value = functions.softmax(rec, node_name(path, module), ("module", path), fn, rec.value(x), module.dim)
        return rec.track(forward(x), value)

    return handler


# ---- recurrent ------------------------------------------------------------------------------------------------------
def state_value(rec: Recorder, state: Any) -> Value | None:
    """What a state handed to a layer is: ``None`` for zero, else a value.

    Raises:
        Refusal: it starts at other values than zero.
    """
    if state is None or (rec.find(state) is None and rec.is_zero(state)):
        return None
    if rec.find(state) is not None:
        return rec.value(state)
    name = rec.parameter_name(state)
    raise Refusal(
        f"starts from a learned state '{name}'" if name else "starts from a state that is not zero",
        "start at zero; when the graph runs, pass the state with state=",
    )


def _rnn(rec: Recorder, path: str, module: nn.RNNBase, forward: Forward, x: Tensor, hx: Any = None) -> Any:
    if not isinstance(x, Tensor):
        raise Refusal("gets a packed sequence", "call it on the padded tensor, and pass lengths= when the graph runs")
    value = rec.value(x)
    layout = ("B", "T", 0) if module.batch_first else ("T", "B", 0)
    if value.axes != layout:
        raise Refusal(
            f"gets an input with axes {describe(value.axes)} where it takes {describe(layout)}",
            "call it once on the whole sequence (for single steps use nn.LSTMCell and its like), "
            "and check batch_first against the layout of the input",
        )
    for state in hx if isinstance(hx, tuple) else (hx,):
        if state_value(rec, state) is not None:
            raise Refusal("starts from a state that depends on the input", "start at zero")
    cell = cell_of(module)
    ends: dict[str, list[Value]] = {s: [] for s in cell.states}
    made: list[str] = []
    source = value.name
    for layer, suffix in layer_suffixes(module):
        if not suffix.endswith("_reverse") and layer:
            source = _joined(rec, f"{node_name(path, module)}.l{layer - 1}_both", value, made)
            made = []
        name = _rnn_layer(rec, path, module, suffix, source)
        made.append(name)
        for s, parts in ends.items():
            parts.append(rec.draft.reduce(rec.draft.port(name, s), "first" if suffix.endswith("_reverse") else "last"))
    joined = _joined(rec, f"{node_name(path, module)}.l{module.num_layers - 1}_both", value, made)
    out, after = forward(x, hx)
    rec.track(out, replace(value, name=joined))
    for state, s in zip(after if isinstance(after, tuple) else (after,), cell.states, strict=True):
        rec.track(state, Stack(tuple(ends[s]), 0))
    return out, after


def _rnn_layer(rec: Recorder, path: str, module: nn.RNNBase, suffix: str, source: str) -> str:
    names = {role: f"weight_{role}_{suffix}" for role in ("ih", "hh", "hr")}
    names |= {role: f"{role}_{suffix}" for role in ("bias_ih", "bias_hh")}
    params = params_of(rec, module, **names)
    cell, units, reverse = cell_of(module), module.hidden_size, suffix.endswith("_reverse")

    def make(name: str, inputs: tuple[str, ...]) -> Node:
        return Recurrent(name, inputs, params, cell=cell, units=units, reverse=reverse)

    return rec.draft.layer(f"{node_name(path, module)}.{suffix}", ("module", path, suffix), make, source)


def _joined(rec: Recorder, hint: str, like: Value, names: list[str]) -> str:
    return functions.concat(rec, hint, [replace(like, name=n) for n in names]).name


def _cell(rec: Recorder, path: str, module: nn.RNNCellBase, forward: Forward, x: Tensor, hx: Any = None) -> Any:
    cell = cell_of(module)
    given = hx if isinstance(hx, tuple) else (hx,) * len(cell.states) if hx is None else (hx,)
    states = {s: state_value(rec, t) for s, t in zip(cell.states, given, strict=True)}
    params = params_of(rec, module, ih="weight_ih", hh="weight_hh", bias_ih="bias_ih", bias_hh="bias_hh")
    units = module.hidden_size

    def make(name: str, inputs: tuple[str, ...]) -> Node:
        return Recurrent(name, inputs, params, cell=cell, units=units)

    name, step = rec.draft.advance(node_name(path, module), ("module", path), make, rec.value(x), states)
    out = forward(x, hx)
    for s, t in zip(cell.states, out if isinstance(out, tuple) else (out,), strict=True):
        rec.track(t, Value(rec.draft.port(name, s), ("B", 0), step))
    return out


LAYERS: dict[type[nn.Module], Handler] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool1d: _avg_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool1d: _adaptive_pool,
    nn.AdaptiveAvgPool2d: _adaptive_pool,
    nn.AdaptiveMaxPool1d: _adaptive_pool,
    nn.AdaptiveMaxPool2d: _adaptive_pool,
    nn.Embedding: _embedding,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Dropout: _identity,
    nn.Dropout1d: _identity,
    nn.Dropout2d: _identity,
    nn.AlphaDropout: _identity,
    nn.Identity: _identity,
    nn.Flatten: _flatten,
    nn.ReLU: _activation("relu"),
    nn.Tanh: _activation("tanh"),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Softmax: _softmax("softmax"),
    nn.LogSoftmax: _softmax("log_softmax"),
    nn.RNN: _rnn,
    nn.GRU: _rnn,
    nn.LSTM: _rnn,
    nn.RNNCell: _cell,
    nn.GRUCell: _cell,
    nn.LSTMCell: _cell,
}
"""Handlers by class; a subclass with a ``forward`` of its own is followed into instead."""
